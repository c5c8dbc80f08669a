"""Spikes: a differentiable spike train as lists, the currency between event-driven layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from suspike._validate import fail
from suspike_kernels.cpu import lists
from suspike_kernels.layout import Events, check_events, events_from_dense


@dataclass(frozen=True, eq=False)
class Spikes:
    """The spikes of a batch, with one float for each place that carries a gradient, never a dense [T, B, N].

    A spike outside of the active places is a constant of the graph; at an active place `values` holds the spike (0 or
    1) and takes the gradient.

    Parameters
    ----------
    events : Events [B, T]
        All spikes, on the CPU.
    active : Events [B, T]
        The active places: gate open and membrane within the surrogate's width of the threshold.
    values : Tensor [A]
        The spike at each of them.
    """

    events: Events
    active: Events
    values: Tensor

    @staticmethod
    def from_events(events: Events) -> Spikes:
        """Wrap input events, which carry no gradient; they are checked once, here."""
        check_events(events)
        nowhere = Events(np.zeros_like(events.ptr), np.zeros(0, np.int32), events.n_units)
        return Spikes(events, nowhere, torch.zeros(0))

    @staticmethod
    def from_dense(spk: Tensor) -> Spikes:
        """Turn whole counts [T, B, N] into lists; the gradient stops here, so a tensor that needs one is refused."""
        if spk.requires_grad:
            fail("spk", "free of gradient", "a tensor that requires one", "Pass it dense, or detach it.")
        return Spikes.from_events(events_from_dense(spk.cpu().numpy()))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, B, N)."""
        return self.events.n_steps, self.events.n_samples, self.events.n_units

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Spikes:
        """Return `self` for the CPU, where lists live; batches pass through here on their way to a model."""
        if torch.device(device).type != "cpu":
            fail("device", "cpu for Spikes", str(device), "Pass spikes.dense().to(device).")
        return self

    def dense(self) -> Tensor:
        """Return the counts [T, B, N], differentiable."""
        return _dense(self.values, self.events, self.active, self.shape, lists.add_dense, lists.at_dense)

    def counts(self) -> Tensor:
        """Return each unit's number of spikes [B, N], differentiable."""
        return _dense(self.values, self.events, self.active, self.shape[1:], lists.add_counts, lists.at_counts)


def _dense(values: Tensor, events: Events, active: Events, shape: tuple[int, ...], add: Any, at: Any) -> Tensor:
    out: Tensor = _ListsToArray.apply(values, events, active, shape, add, at)  # type: ignore[no-untyped-call]
    return out


class _ListsToArray(torch.autograd.Function):
    """The array that the lists add up to; an active place takes the gradient of the entry that it adds to."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, events: Events, active: Events, shape: tuple[int, ...], add: Any, at: Any
    ) -> Tensor:
        ctx.active, ctx.at, ctx.n_values = active, at, len(values)
        out = torch.zeros(shape, dtype=values.dtype)
        add(events.ptr, events.idx, out.numpy())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        by_value = torch.empty(ctx.n_values, dtype=grads[0].dtype)
        ctx.at(ctx.active.ptr, ctx.active.idx, grads[0].contiguous().numpy(), by_value.numpy())
        return by_value, None, None, None, None, None
