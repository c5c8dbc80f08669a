"""What a cell tells of its gradient: the norms that `suspike.probe_gradients` collects while a loss goes backward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from suspike.nn.updates import States

_watched: ContextVar[tuple[tuple[nn.Module, list[Tensor]], ...]] = ContextVar("watched", default=())


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


@contextmanager
def watch(cell: nn.Module, calls: list[Tensor]) -> Iterator[None]:
    """Let each call of `cell` add its norms [states, num_layers, T, B] to `calls`."""
    token = _watched.set((*_watched.get(), (cell, calls)))
    try:
        yield
    finally:
        _watched.reset(token)


def begin(cell: nn.Module, n_states: int, n_layers: int, n_time: int, batch: int) -> Tensor | None:
    """Return the norms of a call that begins, all 0, if it is watched and may get a gradient."""
    lists = [calls for watched, calls in _watched.get() if watched is cell]
    if not lists or not torch.is_grad_enabled():
        return None
    norms = torch.zeros(n_states, n_layers, n_time, batch, dtype=torch.float64)
    for calls in lists:
        calls.append(norms)
    return norms
