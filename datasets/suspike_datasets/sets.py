"""A set of recordings in plain arrays, one behind the other: what readers return, and writers and binning take."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from suspike_datasets.checks import EVENT_DTYPE, EventArray, Limits, check_choice, check_events

log = logging.getLogger(__name__)

T_END_US = 1 << 31
"""Times end before this, 36 minutes: later ones are clock readings, not times since the recording's start."""

UNKNOWN = -1
"""Label or subject of a recording that has none."""

N_UNITS_END = 1 << 24
"""A sensor has fewer units than this."""


class EventSet(NamedTuple):
    """Recordings, labelled.

    Attributes
    ----------
    start : int64 [B + 1]
        Recording b's events are ``start[b]`` to ``start[b + 1] - 1``.
    t : int32 [E], us
        From the recording's start; does not decrease within one.
    unit : int32 [E]
        Which unit sent the event: ``(p * H + y) * W + x``.
    labels, subjects : int64 [B]
        Class, and who spoke, wrote or moved; `UNKNOWN` where that is not known.
    sensor : (int, int, int)
        Channels P (polarities), rows H, columns W of the sensor; a cochlea is one row of one channel.
    classes : tuple of str
        What the labels 0, 1, ... mean.
    """

    start: NDArray[np.int64]
    t: NDArray[np.int32]
    unit: NDArray[np.int32]
    labels: NDArray[np.int64]
    subjects: NDArray[np.int64]
    sensor: tuple[int, int, int]
    classes: tuple[str, ...]

    @property
    def n_recordings(self) -> int:
        """Number B of recordings."""
        return len(self.labels)

    @property
    def n_units(self) -> int:
        """Number of units that could have sent an event."""
        p, h, w = self.sensor
        return p * h * w

    def recording(self, b: int) -> EventArray:
        """Return recording b as tonic has it: a structured array [E] of int64 fields x, y, t, p."""
        b = range(self.n_recordings)[b]
        part = slice(self.start[b], self.start[b + 1])
        _, height, width = self.sensor
        events = np.empty(self.start[b + 1] - self.start[b], EVENT_DTYPE)
        events["t"] = self.t[part]
        rest, events["x"] = np.divmod(self.unit[part].astype(np.int64), width)
        events["p"], events["y"] = np.divmod(rest, height)
        return events

    def take(self, samples: Sequence[int] | NDArray[np.integer]) -> EventSet:
        """Return the recordings named by index, in that order; an index that is none raises an IndexError."""
        index = np.asarray(samples)
        if len(index) and index.dtype.kind not in "iu":
            raise TypeError(f"`samples` must be whole numbers, got {index.dtype}. A mask: pass np.flatnonzero(mask).")
        chosen = np.arange(self.n_recordings)[index.astype(np.int64)]
        start = np.concatenate([[0], np.cumsum(np.diff(self.start)[chosen])])
        parts = [slice(self.start[b], self.start[b + 1]) for b in chosen]
        t, unit = (np.concatenate([x[:0], *(x[part] for part in parts)]) for x in (self.t, self.unit))
        return self._replace(
            start=start, t=t, unit=unit, labels=self.labels[chosen], subjects=self.subjects[chosen]
        )  # fmt: skip


def from_recordings(
    recordings: Sequence[EventArray],
    *,
    sensor: tuple[int, int, int],
    labels: Sequence[int] | NDArray[np.integer] | None = None,
    subjects: Sequence[int] | NDArray[np.integer] | None = None,
    classes: Sequence[str] = (),
    places: Sequence[str] | None = None,
) -> EventSet:
    """Return recordings that stand in arrays of their own as a set.

    Parameters
    ----------
    recordings : sequence of B structured arrays [E]
        Integer fields t (us, from 0, not decreasing) and x; y and p where the sensor has several rows and channels.
    sensor : (int, int, int)
        Channels P, rows H, columns W.
    labels, subjects : int [B], optional
    classes : sequence of str
    places : sequence of B str, optional
        What a message about a recording calls it, by default "sample 0", "sample 1", ...

    Raises
    ------
    TypeError
        If a recording is no such array.
    ValueError
        If a record breaks a rule (it names place, record and rule), or the labels are not those of B recordings.
    """
    if isinstance(recordings, np.ndarray) or not isinstance(recordings, Sequence):
        raise TypeError(f"`recordings` must be a sequence of structured arrays, got {type(recordings).__name__}.")
    sensor = check_sensor(sensor)
    limits = Limits(sensor[2], sensor[1], T_END_US, sensor[0])
    start = np.concatenate([[0], np.cumsum([len(r) for r in recordings])]).astype(np.int64)
    t, unit = np.empty(start[-1], np.int32), np.empty(start[-1], np.int32)
    for b, recording in enumerate(recordings):
        events = check_events(recording, limits, f"sample {b}" if places is None else places[b])
        t[start[b] : start[b + 1]] = events["t"]
        unit[start[b] : start[b + 1]] = units_of(events, sensor)
    named = {"labels": labels, "subjects": subjects}
    numbers = {}
    for name, given in named.items():
        numbers[name] = np.full(len(recordings), UNKNOWN) if given is None else np.array(given, np.int64)
        if numbers[name].shape != (len(recordings),):
            raise ValueError(
                f"`{name}` must be those of {len(recordings)} recordings, got shape {numbers[name].shape}."
            )
    return EventSet(start, t, unit, numbers["labels"], numbers["subjects"], sensor, tuple(classes))


def from_files(
    files: Sequence[Path],
    read: Callable[[Path], EventArray],
    most: int,
    *,
    sensor: tuple[int, int, int],
    labels: Sequence[int],
    subjects: Sequence[int] | None = None,
    classes: Sequence[str],
    damaged: str,
) -> EventSet:
    """Read recordings that stand in a file each; of one that is read only times and units are kept.

    Parameters
    ----------
    files : sequence of B paths
    read : callable (path) -> structured array [E]
        Checks what it returns, or raises a ValueError.
    most : int
        As many events as the files hold, or more: room for them is set aside, and used as far as they reach.
    sensor : (int, int, int)
    labels, subjects : int [B]
    classes : sequence of str
    damaged : {"refuse", "skip"}
        What to do with a recording that is damaged or empty; how many are skipped is logged as a warning.

    Raises
    ------
    ValueError
        Naming the first file that is damaged.
    """
    check_choice("damaged", damaged, ("refuse", "skip"))
    t, unit = np.empty(most, np.int32), np.empty(most, np.int32)
    start, kept, faults = [0], [], []
    for b, path in enumerate(files):
        try:
            events = read(path)
            part = slice(start[-1], start[-1] + len(events))
            if not len(events):
                raise ValueError(f"`root` must hold recordings with events, got the empty file {path}: fetch it again.")
            if part.stop > most:
                raise ValueError(f"`root` must hold files that nobody writes meanwhile, got a longer one at {path}.")
        except ValueError as fault:
            if damaged == "refuse":
                raise
            faults.append(fault)
            continue
        t[part], unit[part] = events["t"], units_of(events, sensor)
        kept.append(b)
        start.append(part.stop)
    if faults:
        log.warning("skipped %d of %d recordings; the first: %s", len(faults), len(files), faults[0])
    end = start[-1]
    whose = np.full(len(files), UNKNOWN) if subjects is None else np.array(subjects, np.int64)
    return EventSet(
        np.array(start, np.int64), t[:end], unit[:end], np.array(labels, np.int64)[kept], whose[kept], sensor,
        tuple(classes),
    )  # fmt: skip


def absent(what: str, name: str, root: str | os.PathLike[str], split: str) -> FileNotFoundError:
    """Return the error that `root` must hold `what`, with the command that fetches it."""
    place = shlex.quote(os.fspath(root))
    cure = f"`suspike data get {name} --root {place} --split {split}` fetches it"
    return FileNotFoundError(f"`root` must hold {what}. {cure}.")


def units_of(events: EventArray, sensor: tuple[int, int, int]) -> NDArray[np.int64]:
    """Return the unit of each event: ``(p * H + y) * W + x``."""
    _, height, width = sensor
    unit = events["x"].astype(np.int64)
    if height > 1:
        unit += events["y"].astype(np.int64) * width
    if sensor[0] > 1:
        unit += events["p"].astype(np.int64) * (height * width)
    return unit


def check_sensor(sensor: Any) -> tuple[int, int, int]:
    """Return (P, H, W) as ints from 1 on, with fewer than `N_UNITS_END` units."""
    if not isinstance(sensor, (tuple, list)) or len(sensor) != 3:
        raise TypeError(f"`sensor` must be a tuple (channels, rows, columns), got {sensor!r}.")
    if any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) for n in sensor):
        raise TypeError(f"`sensor` must hold integers, got {sensor!r}.")
    p, h, w = (int(n) for n in sensor)
    if min(p, h, w) < 1 or p * h * w >= N_UNITS_END:
        raise ValueError(f"`sensor` must hold numbers from 1 on, of fewer than {N_UNITS_END} units, got {sensor!r}.")
    return p, h, w


def check_set(events: EventSet, place: str, names: Sequence[str] | None = None) -> EventSet:
    """Return a set if its arrays obey the rules of `EventSet`.

    Parameters
    ----------
    events : EventSet
    place : str
        Where it comes from; it ends every message.
    names : sequence of B str, optional
        What a message about a recording calls it, by default "recording b".

    Raises
    ------
    ValueError
        Naming place, recording and record of the first fault, and the rule.
    """
    n, end = events.n_recordings, len(events.t)
    start = events.start
    if start.shape != (n + 1,) or start[0] != 0 or start[-1] != end or (np.diff(start) < 0).any():
        raise ValueError(f"`start` must be {n + 1} offsets from 0 to {end} that do not decrease ({place}).")
    if events.unit.shape != (end,) or events.subjects.shape != (n,):
        raise ValueError(f"`unit` must be of {end} events and `subjects` of {n} recordings ({place}).")
    b, e, rule = _first_fault(start, events.t, events.unit, events.n_units)
    if b >= 0:
        record = e - start[b]
        faults = [
            f"`t` must not decrease, got {events.t[e]} after {events.t[e - 1]}",
            f"`t` must be from 0 to {T_END_US - 1}, got {events.t[e]}",
            f"`unit` must be from 0 to {events.n_units - 1}, got {events.unit[e]}",
        ]
        name = f"recording {b}" if names is None else names[b]
        raise ValueError(f"{faults[rule]} (record {record} of {name}, {place}).")
    labels = events.labels
    wrong = np.flatnonzero((labels < UNKNOWN) | (labels >= len(events.classes)))
    if events.classes and len(wrong):
        b = int(wrong[0])
        raise ValueError(
            f"`labels` must be from 0 to {len(events.classes) - 1}, got {labels[b]} "
            f"({f'recording {b}' if names is None else names[b]}, {place})."
        )
    return events


@numba.njit(nogil=True)
def _first_fault(
    start: NDArray[np.int64], t: NDArray[np.int32], unit: NDArray[np.int32], n_units: int
) -> tuple[int, int, int]:
    """Return recording, event and rule (0 order, 1 time, 2 unit) of the first fault, or recording -1."""
    for b in range(len(start) - 1):
        for e in range(start[b], start[b + 1]):
            if e > start[b] and t[e] < t[e - 1]:
                return b, e, 0
            if t[e] < 0:
                return b, e, 1
            if unit[e] < 0 or unit[e] >= n_units:
                return b, e, 2
    return -1, 0, 0
