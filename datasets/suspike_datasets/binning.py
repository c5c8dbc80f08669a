"""Recordings of an event camera, counted into time steps.

The list form that a spiking network consumes: the events of sample b at step s are ``idx[ptr[b, s] : ptr[b, s + 1]]``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from suspike_datasets.checks import EventArray, Limits, check_events, check_int

log = logging.getLogger(__name__)

T_END_US = 1 << 40
"""Times end before this, 13 days: later ones are clock readings, not times since the recording's start."""

MAX_SIDE = 1 << 11
"""Of a sensor, in pixels."""


class BinnedEvents(NamedTuple):
    """Events of a batch as compressed lists, sample after sample.

    Attributes
    ----------
    ptr : int64 [B, T + 1]
        Offsets into `idx`; ``ptr[0, 0] == 0``, ``ptr[b, T] == ptr[b + 1, 0]``.
    idx : int32 [E]
        The unit of each event, ascending within a step; a repeat is an event more.
    n_units : int
        Number of units that could have sent an event.
    """

    ptr: NDArray[np.int64]
    idx: NDArray[np.int32]
    n_units: int


def bin_events(
    recordings: Sequence[EventArray],
    *,
    dt_us: int,
    n_steps: int | None = None,
    sensor: tuple[int, int] = (34, 34),
    merge: bool = False,
) -> BinnedEvents:
    """Count recordings into time steps: ``step = t // dt_us``, ``unit = (p * H + y) * W + x``.

    Parameters
    ----------
    recordings : sequence of B structured arrays [E]
        Integer fields x, y, t (us, from 0, not decreasing), p (0 or 1).
    dt_us : int, us
        Length of a step.
    n_steps : int, optional
        T. By default what the longest recording needs, so that no event is lost. A given T drops the events from
        ``T * dt_us`` on; how many is logged as a warning.
    sensor : (int, int), pixels
        Height H and width W, up to 2048 each.
    merge : bool
        Keep one event of a unit in a step. By default all of them, as repeats.

    Returns
    -------
    BinnedEvents
        With ``n_units = 2 * H * W``.

    Raises
    ------
    TypeError
        If a recording has other fields, or an argument is no integer.
    ValueError
        If a record breaks a rule (it names sample, record and rule), or an argument is out of range.
    """
    dt_us = check_int("dt_us", dt_us, 1, T_END_US)
    if n_steps is not None:
        n_steps = check_int("n_steps", n_steps, 1, T_END_US)
    if not isinstance(sensor, tuple) or len(sensor) != 2:
        raise TypeError(f"`sensor` must be a tuple (height, width), got {sensor!r}.")
    height, width = (check_int("sensor", side, 1, MAX_SIDE) for side in sensor)
    if isinstance(recordings, np.ndarray) or not isinstance(recordings, Sequence):
        raise TypeError(f"`recordings` must be a sequence of structured arrays, got {type(recordings).__name__}.")
    n_units = 2 * height * width
    limits = Limits(width, height, T_END_US)

    samples = []
    for b, recording in enumerate(recordings):
        events = check_events(recording, limits, f"sample {b}")
        x, y, t, p = (events[k].astype(np.int64) for k in "xytp")
        # One key sorts by step, then unit; it stays below 2^40 * 2^23.
        key = t // dt_us * n_units + (p * height + y) * width + x
        samples.append(np.sort(key))
    longest = max((int(key[-1]) // n_units + 1 for key in samples if len(key)), default=0)
    if n_steps is None:
        n_steps = longest
    n_cropped = 0
    for b, key in enumerate(samples):
        end = int(np.searchsorted(key, n_steps * n_units))
        n_cropped += len(key) - end
        if merge and end:
            keep = np.concatenate([[True], key[1:end] != key[: end - 1]])
            samples[b] = key[:end][keep]
        else:
            samples[b] = key[:end]
    if n_cropped:
        log.warning(
            "dropped %d events from %d us on (n_steps = %d); the longest recording needs %d steps",
            n_cropped,
            n_steps * dt_us,
            n_steps,
            longest,
        )

    ptr = np.zeros((len(samples), n_steps + 1), np.int64)
    edges = np.arange(n_steps + 1) * n_units
    n_before = 0
    for b, key in enumerate(samples):
        ptr[b] = n_before + np.searchsorted(key, edges)
        n_before += len(key)
    idx = np.concatenate([key % n_units for key in samples]) if samples else np.empty(0, np.int64)
    return BinnedEvents(ptr, idx.astype(np.int32), n_units)
