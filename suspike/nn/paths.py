"""Which of the ways to compute the same thing a layer takes: forced by a context, or chosen and logged once.

event
    The CPU's event-driven kernels: work follows the events. The input is a spike train, or a tensor of whole counts.
fused
    A dense current (a matrix product of the input), and one fused kernel for all steps of the neurons, on the CPU.
torch
    A plain loop over time in torch: any device, any surrogate, the readable reference.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from suspike._validate import fail

log = logging.getLogger(__name__)

PATHS = ("event", "fused", "torch")

CROSSOVER = 0.3
"""Events per input unit and step above which a dense product is faster than adding rows: see docs/training_speed.md."""

_told: WeakKeyDictionary[nn.Module, set[tuple[str, tuple[int, ...]]]] = WeakKeyDictionary()
_forced: ContextVar[str | None] = ContextVar("path", default=None)


@contextmanager
def path(name: str) -> Iterator[None]:
    """Force the path of all layers and neurons inside of the context; one that cannot take it says why.

    Parameters
    ----------
    name : "event", "fused" or "torch"

    Examples
    --------
    >>> with su.nn.path("torch"):
    ...     out, state = net(x)
    """
    if name not in PATHS:
        fail("name", f"one of {', '.join(PATHS)}", repr(name))
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def forced() -> str | None:
    """Return the path that is forced here, if any."""
    return _forced.get()


def tell(module: nn.Module, chosen: str, shape: tuple[int, ...], reason: str) -> None:
    """Log a choice, once for each module, path and shape but for the batch."""
    if not log.isEnabledFor(logging.INFO):
        return
    told = _told.setdefault(module, set())
    key = (chosen, (shape[0], *shape[2:]))
    if key not in told:
        told.add(key)
        log.info("%s takes the %s path: %s.", type(module).__name__, chosen, reason)


def on_cpu(x: Tensor) -> str:
    """Return why kernels cannot take tensors like `x`, or an empty string."""
    if x.device.type != "cpu":
        return f"it is on {x.device}"
    if x.dtype not in (torch.float32, torch.float64):
        return f"it is {x.dtype}"
    return ""
