"""The spikes of one recording, population by population: what an event file holds, and the rules it has to keep."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from suspike._validate import fail
from suspike.graph import INPUT as INPUT
from suspike_kernels.layout import Events, check_events

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class Recording(NamedTuple):
    """One recording as an event file holds it.

    Attributes
    ----------
    trains : dict of str to Events [1 sample, T steps]
        The events of each population.
    dt_ms : float
        Length of a step in ms.
    gates : dict of str to uint8 [T, N]
        The open steps of each gated population; empty where the format carries none.
    """

    trains: dict[str, Events]
    dt_ms: float
    gates: dict[str, NDArray[np.uint8]]


def require_names(names: Iterable[str], what: str = "layer name") -> None:
    """Refuse names that cannot stand in every format (HDF5 takes ``/`` for a folder) or that stand twice."""
    seen: set[str] = set()
    for name in names:
        if not _NAME.fullmatch(name):
            fail(what, "of letters, digits, '_', '-' and '.' in a file", repr(name), "Rename the layer.")
        if name in seen:
            fail(what, "unique in a file", f"{name!r} twice", "Rename the layer.")
        seen.add(name)


def require_dt(dt_ms: float) -> float:
    """Refuse a step that is not a number above 0."""
    if not (np.isfinite(dt_ms) and dt_ms > 0):
        fail("dt_ms", "above 0", repr(dt_ms))
    return float(dt_ms)


def require_trains(trains: Mapping[str, Events]) -> int:
    """Check the populations of one recording and return its number of steps T.

    Raises
    ------
    ValueError
        For no population, a bad name, Events that break their own rules (unsorted, a unit out of range), several
        samples, or populations of different T.
    """
    if not trains:
        fail("trains", "at least one population", "none")
    require_names(trains, "population name")
    steps = set()
    for name, events in trains.items():
        check_events(events, f"trains[{name!r}]")
        if events.n_samples != 1:
            cure = "Take one recording with events.take([0])."
            fail(f"trains[{name!r}]", "of one sample", f"{events.n_samples}", cure)
        steps.add(events.n_steps)
    if len(steps) > 1:
        fail("trains", "of one number of steps", ", ".join(map(str, sorted(steps))))
    return int(steps.pop())


def input_of(populations: Iterable[str], file: str) -> str:
    """Return which of a file's populations a network hears: "input", or the only one."""
    names = list(populations)
    if INPUT in names or len(names) == 1:
        return INPUT if INPUT in names else names[0]
    fail(file, f"of a population {INPUT!r}, or of one alone", ", ".join(names))


def in_order(events: Events) -> Events:
    """Return the events with the units of each step in ascending order, so that equal trains are equal arrays."""
    row = np.repeat(np.arange(events.per_step().size), events.per_step().ravel())
    return events._replace(idx=events.idx[np.lexsort((events.idx, row))])


def places(name: str, events: Events) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return step [E] and unit [E] of a single recording's events, by step and then by unit.

    Raises
    ------
    ValueError
        If a unit stands twice in a step, which an event file cannot say.
    """
    ordered = in_order(events)
    step = ordered.places()[1].astype(np.int64)
    unit = ordered.idx.astype(np.int64)
    tied = np.flatnonzero((np.diff(step) == 0) & (np.diff(unit) == 0))
    if len(tied):
        found = f"unit {unit[tied[0]]} twice in step {step[tied[0]]}"
        fail(f"trains[{name!r}]", "at most one event a unit and step in an event file", found)
    return step, unit


def from_places(step: NDArray[Any], unit: NDArray[Any], *, n_steps: int, n_units: int) -> Events:
    """Return the Events of one recording from its steps and units, the inverse of `places`.

    Raises
    ------
    ValueError
        If they are not sorted by step and then by unit, stand twice, or lie outside.
    """
    step, unit = step.astype(np.int64), unit.astype(np.int64)
    if (unit < 0).any() or (unit >= n_units).any():
        fail("units", f"from 0 to {n_units - 1}", f"{unit.min()} to {unit.max()}")
    if (np.diff(step) < 0).any():
        fail("times", "ascending", "a fall")
    if ((np.diff(step) == 0) & (np.diff(unit) <= 0)).any():
        fail("units", "ascending within a step, each once", "others")
    ptr = np.searchsorted(step, np.arange(n_steps + 1)).astype(np.int64)[None]
    return check_events(Events(ptr, unit.astype(np.int32), n_units))


def steps_of(times: NDArray[Any], stamps: NDArray[Any]) -> NDArray[np.int64]:
    """Return the step [E] of each time [E], where ``stamps[k]`` is the time of step k; others are refused."""
    step = np.searchsorted(stamps, times).astype(np.int64)
    wrong = np.flatnonzero(np.append(stamps, np.nan)[step] != times)
    if len(wrong):
        fail("times", f"those of {len(stamps)} steps", f"{times[wrong[0]]}")
    return step
