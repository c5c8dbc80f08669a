"""Changes of event lists that keep their order in time: events left out, renumbered, put together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from suspike_kernels.layout import Events, IntArray, offsets


def keep(events: Events, kept: NDArray[np.bool_]) -> Events:
    """Return the events that `kept` [E] marks."""
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
    return Events(before[events.ptr], events.idx[kept], events.n_units)


def renumber(events: Events, units: IntArray, n_units: int) -> tuple[Events, NDArray[np.bool_]]:
    """Give unit i the number ``units[i]`` of `n_units`; a negative one leaves its events out.

    Returns
    -------
    events : Events
    kept : bool [E]
        Which of the events are left.
    """
    idx = units[events.idx].astype(np.int32)
    kept = idx >= 0
    return keep(Events(events.ptr, idx, n_units), kept), kept


def merge(a: Events, b: Events) -> tuple[Events, NDArray[np.int64]]:
    """Return the events of both, those of `a` first in each step.

    Returns
    -------
    events : Events
    order : int64 [E]
        Where each stood in ``concatenate([a.idx, b.idx])``.
    """
    n_a, n_b = a.per_step(), b.per_step()
    ptr = offsets(n_a + n_b)
    starts, order = ptr[:, :-1], np.empty(len(a.idx) + len(b.idx), np.int64)
    first = 0
    for each, counts, to in ((a, n_a, starts), (b, n_b, starts + n_a)):
        moved = np.repeat((to - each.ptr[:, :-1]).ravel(), counts.ravel())
        order[np.arange(len(each.idx)) + moved] = np.arange(first, first + len(each.idx))
        first = len(each.idx)
    return Events(ptr, np.concatenate([a.idx, b.idx])[order], a.n_units), order


def chances(place: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Draw a number from 0 to 1 for each place, always the same one for a place and a seed (SplitMix64).

    Lists that speak of the same places, events and active places say, so agree without a table of all places.

    Parameters
    ----------
    place : int64 [E]
    seed : int
        From 0 to 2^64 - 1.
    """
    x = (place.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53
