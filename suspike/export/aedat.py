r"""Spikes of one recording as AEDAT 2.0, the plain address-event file of jAER and its many readers.

.. math:: \text{address} = \text{base}_\text{population} + \text{unit},
   \qquad t = \mathrm{round}(1000 (k + 1)\,dt_\text{ms})

An ASCII header, then eight bytes an event: big-endian uint32 address and uint32 time in us. The header holds the
bases in a comment. An event of step k is stamped at the step's end, since many consumers refuse one at time 0.
Source: https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-2.0.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suspike._files import PathLike, read_bytes, reading, write_atomic
from suspike._validate import fail
from suspike.export._trains import (
    Recording,
    from_places,
    places,
    require_dt,
    require_names,
    require_trains,
    steps_of,
)
from suspike_kernels.layout import Events

FORMAT = 1
_MAX_TIME = 2**31 - 1  # readers in Java take the time for a signed number
_MAX_ADDRESS = 0x23000000  # a first byte of 0x23, "#", would read as one more header line
_MAGIC = b"#!AER-DAT2.0\r\n"
_COMMENTS = (
    b"# This is a raw AE data file\r\n"
    b"# Data format is int32 address, int32 timestamp (8 bytes total), repeated for each event\r\n"
    b"# Timestamps tick is 1 us\r\n"
    b"# address = base + unit; the events of step k are stamped (k + 1) * dt_ms; populations are [name, base, size]\r\n"
)
_MAP = b"# suspike "
_END = b"#End Of ASCII Header\r\n"
_EVENT = np.dtype([("address", ">u4"), ("time", ">u4")])


def write_aedat(path: PathLike, trains: Mapping[str, Events], *, dt_ms: float) -> None:
    """Write the spikes of one recording as AEDAT 2.0.

    Parameters
    ----------
    path : path of a file
        Replaced where it exists.
    trains : mapping of str to Events [1 sample, T steps]
        Populations by name; their addresses follow each other in this order.
    dt_ms : float
        Length of a step in ms, at least 0.001, the format's tick.

    Raises
    ------
    ValueError
        For events that are unsorted or out of range, a unit twice in a step, several samples, T steps that last longer
        than 2**31 - 1 us (35.8 min), or more units than there are addresses.
    OSError
        If the file cannot be written; nothing is left then.
    """
    n_steps = require_trains(trains)
    stamps = _stamps(n_steps, require_dt(dt_ms))
    sizes = [events.n_units for events in trains.values()]
    bases = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    if bases[-1] > _MAX_ADDRESS:
        fail("trains", f"of at most {_MAX_ADDRESS} units", str(bases[-1]))
    parts = [
        (stamps[step], base + unit)
        for base, (step, unit) in zip(bases[:-1], (places(*item) for item in trains.items()), strict=True)
    ]
    time, address = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((address, time))
    events = np.empty(len(time), _EVENT)
    events["address"], events["time"] = address[order], time[order]
    populations = [[name, int(base), size] for (name, base, size) in zip(trains, bases[:-1], sizes, strict=True)]
    head = {"format": FORMAT, "dt_ms": float(dt_ms), "n_steps": n_steps, "populations": populations}
    write_atomic(path, b"".join([_MAGIC, _COMMENTS, _MAP, json.dumps(head).encode(), b"\r\n", _END, events.tobytes()]))


def read_aedat(path: PathLike) -> Recording:
    """Read what `write_aedat` wrote.

    Raises
    ------
    ValueError
        If it is no such file, without the address map, cut off, unsorted, or with an address or a time outside.
    OSError
        If it cannot be read.
    """
    data = read_bytes(path)
    with reading(path, "an AEDAT 2.0 file of suspike"):
        header, end, body = data.partition(_END)
        if not data.startswith(_MAGIC) or not end:
            fail("header", f"from {_MAGIC.decode().strip()} to {_END.decode().strip()}", "another")
        lines = [line for line in header.split(b"\r\n") if line.startswith(_MAP)]
        if len(lines) != 1:
            fail("header", "with one address map", f"{len(lines)}")
        head = json.loads(lines[0].removeprefix(_MAP))
        if head["format"] != FORMAT:
            fail("format", str(FORMAT), repr(head["format"]))
        return _recording(head, np.frombuffer(body, _EVENT))


def _recording(head: Any, events: NDArray[Any]) -> Recording:
    dt_ms, n_steps = require_dt(head["dt_ms"]), int(head["n_steps"])
    names, bases, sizes = zip(*head["populations"], strict=True)
    require_names(names, "population name")
    ends = np.cumsum(sizes)
    if [0, *ends[:-1].tolist()] != list(bases):
        fail("bases", "the sums of the sizes before", str(bases))
    address, time = events["address"].astype(np.int64), events["time"].astype(np.int64)
    if (address >= ends[-1]).any():
        fail("address", f"below {ends[-1]}", str(address.max()))
    if (np.diff(time) < 0).any():
        fail("times", "ascending", "a fall")
    step = steps_of(time, _stamps(n_steps, dt_ms))
    population = np.searchsorted(ends, address, side="right")
    trains = {}
    for i, name in enumerate(names):
        own = population == i
        trains[name] = from_places(step[own], address[own] - bases[i], n_steps=n_steps, n_units=sizes[i])
    return Recording(trains, dt_ms, {})


def _stamps(n_steps: int, dt_ms: float) -> NDArray[np.int64]:
    """Return the time of each step [T] in us."""
    last = n_steps * dt_ms * 1000
    if last > _MAX_TIME:
        fail("n_steps * dt_ms", f"at most {_MAX_TIME} us in an AEDAT 2.0 file", f"{last:.0f} us")
    if dt_ms < 0.001:
        fail("dt_ms", "at least 0.001 in an AEDAT 2.0 file, whose tick is 1 us", repr(dt_ms))
    stamps: NDArray[np.int64] = np.rint(np.arange(1, n_steps + 1) * dt_ms * 1000).astype(np.int64)
    return stamps
