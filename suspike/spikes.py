"""Spikes: a differentiable spike train as lists, the currency between event-driven layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from suspike._validate import fail
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

    def _add(self, onto: Tensor, place: np.ndarray, active_place: np.ndarray) -> Tensor:
        """Add 1 at each `place` of the flat `onto`, and at each active one the gradient of its value."""
        flat = onto.index_add(0, torch.from_numpy(place), torch.ones(len(place), dtype=onto.dtype))
        # adds 0, with gradient 1: the spike itself is among the events
        return flat.index_add(0, torch.from_numpy(active_place), (self.values - self.values.detach()).to(onto.dtype))

    def dense(self) -> Tensor:
        """Return the counts [T, B, N], differentiable."""
        t, b, n = self.shape
        flat = torch.zeros(t * b * n, dtype=self.values.dtype)
        return self._add(flat, self.events.places()[2], self.active.places()[2]).reshape(t, b, n)

    def counts(self) -> Tensor:
        """Return each unit's number of spikes [B, N], differentiable."""
        _, b, n = self.shape
        flat = torch.zeros(b * n, dtype=self.values.dtype)
        here, active = (e.places()[0] * n + e.idx for e in (self.events, self.active))
        return self._add(flat, here, active).reshape(b, n)
