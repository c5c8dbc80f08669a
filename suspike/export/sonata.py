r"""Spikes and gates of one recording as a SONATA spike file (HDF5), the way into NEST, Brian2, PyNN and BMTK.

.. math:: t_\text{ms} = (k + 1)\,dt_\text{ms}

One population a layer, sorted by time. A gated layer has a second one, ``<layer>_gate``, in which id n says that
neuron n opens, at its first open step, and id n + N that it closes, at the first step it is shut again. Whatever
happens in step k, spike or edge, is stamped at that step's end (NEST refuses time 0). ``/suspike/schedule/<layer>``
repeats the gate in whole steps: ``node_ids``, ``start``, ``stop``, open from start and shut again from stop.
Source: https://github.com/AllenInstitute/sonata/blob/master/docs/SONATA_DEVELOPER_GUIDE.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suspike._files import PathLike, hdf5_bytes, hdf5_file, read_bytes, reading, write_atomic
from suspike._validate import fail, import_extra, require_shape
from suspike.export._trains import (
    Recording,
    from_places,
    places,
    require_dt,
    require_names,
    require_trains,
    steps_of,
)
from suspike.export.schedule import open_intervals, table_of_intervals
from suspike_kernels.layout import Events

FORMAT = 1
_MAGIC = 0x0A7A
RULE = "a SONATA spike file of suspike"
_SORTING = {"none": 0, "by_id": 1, "by_time": 2}


def write_sonata(
    path: PathLike,
    trains: Mapping[str, Events],
    *,
    dt_ms: float,
    gates: Mapping[str, NDArray[np.uint8]] | None = None,
) -> None:
    """Write the spikes of one recording, and the gates, as a SONATA spike file.

    Parameters
    ----------
    path : path of a file
        Replaced where it exists.
    trains : mapping of str to Events [1 sample, T steps]
        Populations by name.
    dt_ms : float
        Length of a step in ms.
    gates : mapping of str to uint8 [T, N], optional
        The open steps of populations in `trains`, not zero where open.

    Raises
    ------
    ValueError
        For events that are unsorted or out of range, a unit twice in a step, several samples, a gate of another shape
        or population, or names that clash.
    OSError
        If the file cannot be written; nothing is left then.
    """
    n_steps, gates = require_trains(trains), gates or {}
    require_names([*trains, *map(_gate, gates)], "population name")
    for name, table in gates.items():
        if name not in trains:
            fail("gates", f"of populations in `trains` ({', '.join(trains)})", repr(name))
        require_shape(f"gates[{name!r}]", table, (n_steps, trains[name].n_units))
    ends = stamps(0, n_steps, require_dt(dt_ms))

    def fill(file: Any) -> None:
        file.attrs["magic"] = np.uint32(_MAGIC)
        file.attrs["version"] = np.array([0, 1], np.uint32)
        own = file.create_group("suspike")
        own.attrs.update({"format": FORMAT, "dt_ms": float(dt_ms), "n_steps": n_steps, "populations": list(trains)})
        own.attrs["n_units"] = np.array([events.n_units for events in trains.values()], np.int64)
        for name, events in trains.items():
            step, unit = places(name, events)
            _write_population(file, name, ends[step], unit)
        for name, table in gates.items():
            intervals = open_intervals(table)
            _write_population(file, _gate(name), *_edges(intervals, stamps(0, n_steps + 1, dt_ms), table.shape[1]))
            schedule = own.create_group(f"schedule/{name}")
            schedule.attrs.update({"dt_ms": float(dt_ms), "n_steps": n_steps, "n_units": table.shape[1]})
            for column, key in zip(intervals.T, ("node_ids", "start", "stop"), strict=True):
                schedule.create_dataset(key, data=column.astype(np.uint64 if key == "node_ids" else np.int64))

    write_atomic(path, hdf5_bytes(fill))


def read_sonata(path: PathLike) -> Recording:
    """Read what `write_sonata` wrote.

    Raises
    ------
    ValueError
        If it is no such file, unsorted, with an id or a time outside, or with gate edges that differ from the schedule.
    OSError
        If it cannot be read.
    """
    data = read_bytes(path)
    import_extra("h5py", extra="export")  # a missing package is no fault of the file
    with reading(path, RULE), hdf5_file(data) as file:
        own, (sizes, gated, n_steps, dt_ms) = file["suspike"], head(file)
        trains, gates = {}, {}
        for name, n_units in sizes.items():
            times, unit = _read_population(file, name)
            step = steps_of(times, stamps(0, n_steps, dt_ms))
            trains[name] = from_places(step, unit, n_steps=n_steps, n_units=n_units)
        for name in gated:
            n_units = trains[name].n_units
            columns = [own["schedule"][name][key][()].astype(np.int64) for key in ("node_ids", "start", "stop")]
            intervals = np.stack(columns, axis=1)
            gates[name] = table_of_intervals(intervals, n_steps=n_steps, n_units=n_units)
            edges = _edges(intervals, stamps(0, n_steps + 1, dt_ms), n_units)
            if not all(map(np.array_equal, edges, _read_population(file, _gate(name)))):
                fail(f"population {_gate(name)}", "the edges of the schedule", "others")
        return Recording(trains, dt_ms, gates)


def head(file: Any) -> tuple[dict[str, int], list[str], int, float]:
    """Return the size of each population, those that are gated, the number of steps, and the length of one in ms."""
    if file.attrs["magic"] != _MAGIC:
        fail("magic", hex(_MAGIC), str(file.attrs["magic"]))
    own = file["suspike"]
    if own.attrs["format"] != FORMAT:
        fail("format", str(FORMAT), str(own.attrs["format"]))
    names = [str(name) for name in own.attrs["populations"]]
    gated = sorted(own.get("schedule", ()), key=names.index)
    require_names([*names, *map(_gate, gated)], "population name")
    if set(file["spikes"]) != {*names, *map(_gate, gated)}:
        fail("spikes", f"of the populations {', '.join([*names, *map(_gate, gated)])}", ", ".join(file["spikes"]))
    sizes = dict(zip(names, own.attrs["n_units"].tolist(), strict=True))
    return sizes, gated, int(own.attrs["n_steps"]), require_dt(float(own.attrs["dt_ms"]))


def _gate(name: str) -> str:
    return f"{name}_gate"


def stamps(low: int, high: int, dt_ms: float) -> NDArray[np.float64]:
    """Return the times in ms of the steps low .. high - 1: their ends."""
    return np.arange(low + 1, high + 1) * np.float64(dt_ms)


def _edges(
    intervals: NDArray[np.int64], ends: NDArray[np.float64], n_units: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return time [E] and id [E] of the gate's edges, by time and then by id; `ends` [T + 1] has one step more."""
    step = np.concatenate([intervals[:, 1], intervals[:, 2]])
    edge = np.concatenate([intervals[:, 0], intervals[:, 0] + n_units])
    order = np.lexsort((edge, step))
    return ends[step[order]], edge[order]


def _write_population(file: Any, name: str, times: NDArray[np.float64], ids: NDArray[np.int64]) -> None:
    h5py = import_extra("h5py", extra="export")
    group = file.create_group(f"spikes/{name}")
    group.attrs.create("sorting", _SORTING["by_time"], dtype=h5py.enum_dtype(_SORTING, basetype="u1"))
    group.create_dataset("timestamps", data=times.astype(np.float64)).attrs["units"] = "ms"
    group.create_dataset("node_ids", data=ids.astype(np.uint64))


def _read_population(file: Any, name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    times, ids = datasets(file, name)
    return times[()], ids[()].astype(np.int64)


def datasets(file: Any, name: str) -> tuple[Any, Any]:
    """Return times [E] and ids [E] of a population as they stand in the file."""
    group = file["spikes"][name]
    if group.attrs["sorting"] != _SORTING["by_time"] or group["timestamps"].attrs["units"] != "ms":
        fail(f"population {name}", "sorted by time, in ms", "another")
    times, ids = group["timestamps"], group["node_ids"]
    if times.ndim != 1 or times.shape != ids.shape:
        fail(f"population {name}", "of one id a time", f"{ids.shape} ids and {times.shape} times")
    return times, ids
