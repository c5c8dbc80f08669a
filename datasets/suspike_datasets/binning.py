"""Recordings counted into time steps, and a sensor's units into fewer.

The list form that a spiking network consumes: the events of sample b at step s are ``idx[ptr[b, s] : ptr[b, s + 1]]``.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from suspike_datasets.checks import check_int
from suspike_datasets.sets import N_UNITS_END, T_END_US, EventSet

log = logging.getLogger(__name__)

N_STEPS_END = 1 << 31
"""There are fewer steps than this."""

Window = tuple[tuple[int, int], tuple[int, int]]


class BinnedEvents(NamedTuple):
    """Events of a batch as compressed lists, sample after sample.

    Attributes
    ----------
    ptr : int64 [B, T + 1]
        Offsets into `idx`; ``ptr[0, 0] == 0``, ``ptr[b, T] == ptr[b + 1, 0]``.
    idx : int32 [E]
        The unit of each event, ascending within a step; a repeat is an event more.
    sensor : (int, int, int)
        Channels P, rows H, columns W of the units, ``(p * H + y) * W + x``.
    n_steps : int64 [B]
        True length of each recording: the step of its last event and one more, 0 for one without events.
    """

    ptr: NDArray[np.int64]
    idx: NDArray[np.int32]
    sensor: tuple[int, int, int]
    n_steps: NDArray[np.int64]

    @property
    def n_units(self) -> int:
        """Number of units that could have sent an event."""
        p, h, w = self.sensor
        return p * h * w


def bin_events(
    events: EventSet,
    *,
    dt_us: int | None = None,
    n_steps: int | None = None,
    window: Window | None = None,
    pool: tuple[int, int, int] = (1, 1, 1),
    merge: bool = False,
) -> BinnedEvents:
    r"""Count recordings into time steps.

    .. math::
        s = \lfloor t / \Delta t \rfloor \quad\text{or, without a } \Delta t,\quad
        s = \lfloor t\, T / (t_{\text{last}} + 1) \rfloor,\qquad
        (p, y, x) = \lfloor (p, y - \text{top}, x - \text{left}) / \text{pool} \rfloor

    Parameters
    ----------
    events : EventSet of B recordings
    dt_us : int, us, optional
        Length of a step. Without it each recording is stretched over `n_steps` steps, however long it lasted.
    n_steps : int, optional
        T. By default what the longest recording needs, so that no event is lost. With a `dt_us` it drops the events
        from ``T * dt_us`` on; how many is logged as a warning.
    window : ((int, int), (int, int)), pixels, optional
        Rows from top up to bottom, columns from left up to right. Where it cuts into the sensor, events are dropped,
        and a warning says how many; where it reaches beyond it, there are units that never send.
    pool : (int, int, int)
        How many channels, rows and columns of the window become one. ``(2, 1, 1)`` ignores polarity.
    merge : bool
        Keep one event of a unit in a step. By default all of them, as repeats.

    Returns
    -------
    BinnedEvents

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type, or out of range.
    """
    if dt_us is None and n_steps is None:
        raise ValueError("`dt_us` or `n_steps` must be given, got neither.")
    dt_us = 0 if dt_us is None else check_int("dt_us", dt_us, 1, T_END_US)
    if n_steps is not None:
        n_steps = check_int("n_steps", n_steps, 1, N_STEPS_END - 1)
    sensor, place = _places(events.sensor, window, pool)
    last = np.where(np.diff(events.start) > 0, events.t[events.start[1:] - 1] if len(events.t) else 0, -1)
    last = last.astype(np.int64)
    longest = int(last.max(initial=-1)) // dt_us + 1 if dt_us else n_steps
    n_steps = longest if n_steps is None else n_steps
    assert n_steps is not None, "given, or the longest"
    ptr = np.zeros((events.n_recordings, n_steps + 1), np.int64)
    late, outside = _count(events.start, events.t, events.unit, place, dt_us, ptr)
    ends = np.cumsum(ptr[:, 1:])
    ptr[:, 1:] = ends.reshape(ptr[:, 1:].shape)
    ptr[1:, 0] = ptr[:-1, -1]
    idx = np.empty(ends[-1] if len(ends) else 0, np.int32)
    _fill(events.start, events.t, events.unit, place, dt_us, ptr, idx)
    if merge:
        idx = idx[: _merge(ptr, idx)].copy()
    if late:
        log.warning(
            "dropped %d events from %d us on (n_steps = %d); the longest recording needs %d steps",
            late, n_steps * dt_us, n_steps, longest,
        )  # fmt: skip
    if outside:
        log.warning("dropped %d events outside of the window %s", outside, window)
    lengths = np.minimum(last // dt_us + 1, n_steps) if dt_us else np.where(last < 0, 0, n_steps)
    return BinnedEvents(ptr, idx, sensor, lengths.astype(np.int64))


def _places(
    sensor: tuple[int, int, int], window: Window | None, pool: tuple[int, int, int]
) -> tuple[tuple[int, int, int], NDArray[np.int32]]:
    """Return the sensor that is left, and the unit of it that each unit becomes, or -1."""
    n_channels, height, width = sensor
    (top, bottom), (left, right) = ((0, height), (0, width)) if window is None else _checked_window(window)
    if not isinstance(pool, (tuple, list)) or len(pool) != 3:
        raise TypeError(f"`pool` must be a tuple (channels, rows, columns), got {pool!r}.")
    sizes = (n_channels, bottom - top, right - left)
    by = [check_int("pool", n, 1, size) for n, size in zip(pool, sizes, strict=True)]
    left_over = tuple(-(-size // n) for size, n in zip(sizes, by, strict=True))
    if int(np.prod(left_over)) >= N_UNITS_END:
        raise ValueError(f"`window` must leave fewer than {N_UNITS_END} units, got {left_over}.")
    p = np.arange(n_channels)[:, None, None] // by[0]
    y, x = np.arange(height)[:, None] - top, np.arange(width) - left
    inside = (y >= 0) & (y < sizes[1]) & (x >= 0) & (x < sizes[2])
    unit = (p * left_over[1] + y // by[1]) * left_over[2] + x // by[2]
    found: tuple[int, int, int] = left_over  # type: ignore[assignment]
    return found, np.where(inside, unit, -1).ravel().astype(np.int32)


def _checked_window(window: Window) -> Window:
    """Return a window of whole numbers with at least one row and column."""
    try:
        (top, bottom), (left, right) = window
    except (TypeError, ValueError):
        raise TypeError(f"`window` must be ((top, bottom), (left, right)), got {window!r}.") from None
    top, bottom, left, right = (check_int("window", n, -N_UNITS_END, N_UNITS_END) for n in (top, bottom, left, right))
    if top >= bottom or left >= right:
        raise ValueError(f"`window` must hold at least a row and a column, got {window!r}.")
    return (top, bottom), (left, right)


@numba.njit(nogil=True)
def _step(t: int, last: int, dt_us: int, n_steps: int) -> int:
    """Return the step of time `t`; without a `dt_us`, of `n_steps` over a recording whose last event is at `last`."""
    return t // dt_us if dt_us else t * n_steps // (last + 1)


@numba.njit(nogil=True)
def _count(
    start: NDArray[np.int64], t: NDArray[np.int32], unit: NDArray[np.int32], place: NDArray[np.int32], dt_us: int,
    counts: NDArray[np.int64],
) -> tuple[int, int]:  # fmt: skip
    """Set ``counts[b, s + 1]`` [B, T + 1] to the events of step s; return how many come late, and lie outside."""
    n_steps = counts.shape[1] - 1
    late = outside = 0
    for b in range(len(start) - 1):
        for e in range(start[b], start[b + 1]):
            s = _step(np.int64(t[e]), np.int64(t[start[b + 1] - 1]), dt_us, n_steps)
            if place[unit[e]] < 0:
                outside += 1
            elif s >= n_steps:
                late += 1
            else:
                counts[b, s + 1] += 1
    return late, outside


@numba.njit(nogil=True)
def _fill(
    start: NDArray[np.int64], t: NDArray[np.int32], unit: NDArray[np.int32], place: NDArray[np.int32], dt_us: int,
    ptr: NDArray[np.int64], idx: NDArray[np.int32],
) -> None:  # fmt: skip
    """Write the units, in order of time, and sort them within each step."""
    n_steps = ptr.shape[1] - 1
    for b in range(len(start) - 1):
        used = ptr[b, 0]
        for e in range(start[b], start[b + 1]):
            s = _step(np.int64(t[e]), np.int64(t[start[b + 1] - 1]), dt_us, n_steps)
            if place[unit[e]] >= 0 and s < n_steps:
                idx[used] = place[unit[e]]
                used += 1
        for s in range(n_steps):
            low, high = ptr[b, s], ptr[b, s + 1]
            if high - low > INSERTION:
                idx[low:high].sort()
                continue
            for e in range(low + 1, high):
                value, k = idx[e], e
                while k > low and idx[k - 1] > value:
                    idx[k] = idx[k - 1]
                    k -= 1
                idx[k] = value


INSERTION = 32
"""Up to so many units are sorted by insertion."""


@numba.njit(nogil=True)
def _merge(ptr: NDArray[np.int64], idx: NDArray[np.int32]) -> int:
    """Move the first event of each unit and step to the front, set `ptr` to that, and return how many they are."""
    used = 0
    for b in range(ptr.shape[0]):
        low = ptr[b, 0]
        ptr[b, 0] = used
        for s in range(1, ptr.shape[1]):
            high = ptr[b, s]
            for e in range(low, high):
                if e == low or idx[e] != idx[e - 1]:
                    idx[used] = idx[e]
                    used += 1
            low = high
            ptr[b, s] = used
    return used
