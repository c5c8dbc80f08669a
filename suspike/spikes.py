"""Spikes: a differentiable spike train as lists, the currency between event-driven layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from suspike._lengths import require_whole
from suspike._validate import fail
from suspike_kernels import editing
from suspike_kernels.cpu import lists
from suspike_kernels.layout import Events, check_events, check_lengths, events_from_dense
from suspike_kernels.pool import over_samples


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
    scale : float
        What one event counts; other than 1 after averages and dropout.
    n_steps : int64 Tensor [B], optional
        True length of each sample; all last T steps without it. A layer's neurons are closed from there on, and what
        it puts out holds the same lengths.
    """

    events: Events
    active: Events
    values: Tensor
    scale: float = 1.0
    n_steps: Tensor | None = None

    @staticmethod
    def from_events(events: Events, n_steps: Tensor | None = None) -> Spikes:
        """Wrap input events, which carry no gradient; they and their lengths `n_steps` are checked once, here."""
        check_events(events)
        nowhere = Events(np.zeros_like(events.ptr), np.zeros(0, np.int32), events.n_units)
        if n_steps is not None:
            require_whole("n_steps", n_steps, events.n_samples, 0, events.n_steps, f"T = {events.n_steps}")
            n_steps = torch.from_numpy(check_lengths(n_steps.cpu().numpy(), events))
        return Spikes(events, nowhere, torch.zeros(0), n_steps=n_steps)

    @staticmethod
    def from_dense(spk: Tensor, n_steps: Tensor | None = None) -> Spikes:
        """Turn whole counts [T, B, N] into lists; the gradient stops here, so a tensor that needs one is refused."""
        if spk.requires_grad:
            fail("spk", "free of gradient", "a tensor that requires one", "Pass it dense, or detach it.")
        counts = np.ascontiguousarray(spk.cpu().numpy())
        floats = counts.ndim == 3 and counts.dtype in (np.float32, np.float64)
        return Spikes.from_events((lists.from_dense(counts) if floats else None) or events_from_dense(counts), n_steps)

    @staticmethod
    def of_counts(spk: Tensor, *, most: float | None = None) -> Spikes | None:
        """Return the lists of a tensor [T, B, N] of floats on the CPU that holds whole counts, else None.

        Parameters
        ----------
        spk : Tensor
        most : float, optional
            None is also returned above this mean count.
        """
        events = lists.from_dense(np.ascontiguousarray(spk.detach().numpy()), most=most)
        return None if events is None else Spikes.from_events(events)

    @staticmethod
    def silence(n_steps: int, n_samples: int, n_units: int) -> Spikes:
        """Return a spike train without a spike."""
        nothing = np.zeros((n_samples, n_steps + 1), np.int64)
        return Spikes.from_events(Events(nothing, np.zeros(0, np.int32), n_units))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, B, N)."""
        return self.events.n_steps, self.events.n_samples, self.events.n_units

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Spikes:
        """Return `self` for the CPU, where lists live; batches pass through here on their way to a model."""
        if torch.device(device).type != "cpu":
            cure = "Pass spikes.dense().to(device), and n_steps=spikes.n_steps."
            fail("device", "cpu for Spikes", str(device), cure)
        return self

    def dense(self) -> Tensor:
        """Return the counts [T, B, N] times `scale`, differentiable."""
        return self._added(self.shape, lists.add_dense, lists.at_dense)

    def counts(self) -> Tensor:
        """Return each unit's number of spikes [B, N] times `scale`, differentiable."""
        return self._added(self.shape[1:], lists.add_counts, lists.at_counts)

    def merge(self, other: Spikes) -> Spikes:
        """Return the spikes of both, what ``self + other`` gives too: where both fired, two events count.

        Raises
        ------
        ValueError
            If the other one is of another shape, scale or length.
        """
        if other.shape != self.shape:
            fail("other", f"of shape {list(self.shape)}", f"shape {list(other.shape)}")
        if other.scale != self.scale:
            cure = "Averages and dropout set it: pool by sums, or merge before them."
            fail("other", f"of scale {self.scale:g}", f"{other.scale:g}", cure)
        mine, theirs = (None if x.n_steps is None else x.n_steps.tolist() for x in (self, other))
        if mine != theirs:
            fail("other", "of the same lengths `n_steps`", "others")
        active, order = editing.merge(self.active, other.active)
        values = torch.cat([self.values, other.values])[torch.from_numpy(order)]
        return Spikes(editing.merge(self.events, other.events)[0], active, values, self.scale, self.n_steps)

    def __add__(self, other: Spikes) -> Spikes:
        return self.merge(other) if isinstance(other, Spikes) else NotImplemented

    def _added(self, shape: tuple[int, ...], add: Any, at: Any) -> Tensor:
        given = self.values, self.events, self.active, shape, add, at
        out: Tensor = _ListsToArray.apply(*given)  # type: ignore[no-untyped-call]
        return out if self.scale == 1 else out * self.scale


class _ListsToArray(torch.autograd.Function):
    """The array that the lists add up to; an active place takes the gradient of the entry that it adds to."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, events: Events, active: Events, shape: tuple[int, ...], add: Any, at: Any
    ) -> Tensor:
        ctx.active, ctx.at, ctx.n_values = active, at, len(values)
        out = torch.zeros(shape, dtype=values.dtype)
        ctx.n_threads, array = torch.get_num_threads(), out.numpy()
        over_samples(
            lambda low, high: add(events.ptr, events.idx, array, low, high), events.n_samples, ctx.n_threads
        )  # fmt: skip
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        by_value = torch.empty(ctx.n_values, dtype=grads[0].dtype)
        ptr, idx, array, out = ctx.active.ptr, ctx.active.idx, grads[0].contiguous().numpy(), by_value.numpy()
        over_samples(lambda low, high: ctx.at(ptr, idx, array, out, low, high), len(ptr), ctx.n_threads)
        return by_value, None, None, None, None, None
