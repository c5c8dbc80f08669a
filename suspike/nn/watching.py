"""What a cell tells those who watch it: `suspike.probe_gradients` its gradient's norms, `suspike.record` its calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from suspike.nn.updates import States

_watched: ContextVar[tuple[_Watch, ...]] = ContextVar("watched", default=())


class LayerNorms(NamedTuple):
    """Where a layer puts norms.

    Attributes
    ----------
    norms : float64 Tensor [states, T, B], on the CPU
    samples : int64 Tensor [B] or None
        Where each sample stands in `norms`; None where they stand in order.
    """

    norms: Tensor
    samples: Tensor | None = None

    def put(self, t: int, variable: int, grad: Tensor) -> None:
        """Note the gradient [B, H] by a state variable after step t."""
        # squares of a small float32 gradient would be 0
        norm = torch.linalg.vector_norm(grad.detach(), dim=1, dtype=torch.float64).cpu()
        self.norms[variable, t].index_copy_(0, torch.arange(len(norm)) if self.samples is None else self.samples, norm)

    def hooked(self, t: int, states: States) -> States:
        """Return the states after step t as tensors of their own, whose gradients will be noted."""
        # a view: h of an open LSTM is made of c, and a state that nothing opened is the very tensor of the step before
        own = tuple(s.view_as(s) for s in states)
        for variable, s in enumerate(own):
            if s.requires_grad:
                s.register_hook(partial(self.put, t, variable))  # type: ignore[no-untyped-call]
        return own


class CellRun(NamedTuple):
    """A call of a cell, time first: x [T, B, I], states, h [T, B, H] or None of `final`, lengths [B]."""

    x: Tensor
    before: Any
    h: Tensor | None
    after: Any
    n_steps: Tensor | None


class _Watch(NamedTuple):
    cell: nn.Module
    norms: list[Tensor] | None
    hear: Callable[[CellRun], None] | None


@contextmanager
def watch(
    cell: nn.Module, *, norms: list[Tensor] | None = None, hear: Callable[[CellRun], None] | None = None
) -> Iterator[None]:
    """Let each call of `cell` add its norms [states, num_layers, T, B] to `norms`, and tell `hear` when it is done."""
    token = _watched.set((*_watched.get(), _Watch(cell, norms, hear)))
    try:
        yield
    finally:
        _watched.reset(token)


def begin(cell: nn.Module, n_states: int, n_layers: int, n_time: int, batch: int) -> Tensor | None:
    """Return the norms of a call that begins, all 0, if they are wanted and there may be a gradient."""
    lists = [each.norms for each in _watched.get() if each.cell is cell and each.norms is not None]
    if not lists or not torch.is_grad_enabled():
        return None
    norms = torch.zeros(n_states, n_layers, n_time, batch, dtype=torch.float64)
    for calls in lists:
        calls.append(norms)
    return norms


def tell(cell: nn.Module, run: CellRun) -> None:
    """Tell of a call that is done."""
    for each in _watched.get():
        if each.cell is cell and each.hear is not None:
            each.hear(run)
