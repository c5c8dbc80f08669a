"""The rules that several files share, and the words in which their violation is told."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

EVENT_DTYPE = np.dtype([("x", np.int64), ("y", np.int64), ("t", np.int64), ("p", np.int64)])
"""One event: column x, row y, time t in microseconds, polarity p (1 brighter, 0 darker); as tonic's N-MNIST."""

EventArray = NDArray[np.void]


class Limits(NamedTuple):
    """What an event may hold: x to ``width - 1``, y to ``height - 1``, t to ``t_end_us - 1``, p to ``channels - 1``.

    All from 0. A sensor of one row needs no y, one of one channel no p.
    """

    width: int
    height: int
    t_end_us: int
    channels: int = 2


def check_int(name: str, value: Any, low: int, high: int) -> int:
    """Return `value` as an int from `low` to `high`.

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"`{name}` must be an integer, got {value!r}.")
    if not low <= value <= high:
        raise ValueError(f"`{name}` must be from {low} to {high}, got {value}.")
    return int(value)


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Return `value` if it is one of `choices`.

    Raises
    ------
    ValueError
        If it is not.
    """
    if value not in choices:
        raise ValueError(f"`{name}` must be {' or '.join(map(repr, choices))}, got {value!r}.")
    return str(value)


def check_number(name: str, value: Any, low: float, high: float) -> float:
    """Return `value` as a finite float from `low` to `high`.

    Raises
    ------
    TypeError
        If it is no number.
    ValueError
        If it is out of range or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"`{name}` must be a number, got {value!r}.")
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"`{name}` must be from {low:g} to {high:g}, got {value}.")
    return float(value)


def check_events(events: Any, limits: Limits, place: str) -> EventArray:
    """Return `events` if it is a sorted structured array with integer fields x, t, and y, p if needed, in `limits`.

    Parameters
    ----------
    events : structured array [E]
    limits : Limits
    place : str
        Where the events come from; it ends every message.

    Raises
    ------
    TypeError
        If `events` is no structured array with those fields as integers.
    ValueError
        Naming the first record that breaks a rule, and the rule.
    """
    if not isinstance(events, np.ndarray):
        raise TypeError(f"`events` must be a structured array, got {type(events).__name__} ({place}).")
    fields = events.dtype.fields or {}
    ends = {"x": limits.width, "t": limits.t_end_us}
    ends |= {"y": limits.height} if limits.height > 1 else {}
    ends |= {"p": limits.channels} if limits.channels > 1 else {}
    if events.ndim != 1 or any(k not in fields or fields[k][0].kind not in "iub" for k in ends):
        raise TypeError(
            f"`events` must be of shape [E] with integer fields {', '.join(sorted(ends))}, "
            f"got {events.dtype} of shape {events.shape} ({place})."
        )
    found: list[tuple[int, str]] = []
    for name, end in ends.items():
        value = events[name]
        # An empty minimum has no value; the two extremes are cheaper than a mask of the good case.
        if len(value) and (value.min() < 0 or value.max() >= end):
            i = int(np.flatnonzero((value < 0) | (value >= end))[0])
            found.append((i, f"`{name}` must be from 0 to {end - 1}, got {int(value[i])}"))
    t = events["t"]
    falls = np.flatnonzero(t[1:] < t[:-1])
    if len(falls):
        i = int(falls[0]) + 1
        found.append((i, f"`t` must not decrease, got {int(t[i])} after {int(t[i - 1])}"))
    if found:
        i, fault = min(found)
        raise ValueError(f"{fault} (record {i} of {place}).")
    return events


@contextmanager
def storage(name: str, path: Path) -> Iterator[None]:
    """Tell every failure of the file system inside the block as one OSError about the argument `name`.

    Raises
    ------
    OSError
        Naming `path` and the system's reason.
    """
    try:
        yield
    except OSError as err:
        raise OSError(
            f"`{name}` must be a place that can be written and has room, got {path}: {err.strerror or err}."
        ) from err
