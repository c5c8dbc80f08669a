"""The update schedule of a gated network as bits, so that no consumer has to evaluate a sine.

Float32 and float64 evaluations of one rhythm differ in some bits; the file holds those of training and simulation.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suspike._files import PathLike, npz_arrays, npz_bytes, read_bytes, reading, write_atomic
from suspike._validate import fail
from suspike.export._trains import require_dt, require_names
from suspike.graph import Graph, Periodic, Rhythm

FORMAT = 1
CONVENTION = (
    "bits.LAYER is uint8 [n_steps, ceil(n_units / 8)], numpy.packbits of the table [step, unit] along units, most "
    "significant bit first; 1 where the unit updates at that step. Row 0 is step 0, the first step after the initial "
    "state. sha256 is that of the packed bits in C order."
)


def gate_tables(graph: Graph, n_steps: int) -> dict[str, NDArray[np.uint8]]:
    """Return the open steps of each gated layer, by name: uint8 [T, N]."""
    gates = {layer.name: layer.neuron.gate for layer in graph.neurons}
    return {name: gate.table(n_steps) for name, gate in gates.items() if isinstance(gate, (Rhythm, Periodic))}


def open_intervals(table: NDArray[Any]) -> NDArray[np.int64]:
    """Return a gate's open stretches as half-open intervals of steps.

    Parameters
    ----------
    table : [T, N]
        Not zero where the neuron is open.

    Returns
    -------
    int64 [M, 3]
        Neuron, first open step, first closed step after it; sorted by neuron, then by step.
    """
    padded = np.zeros((table.shape[1], table.shape[0] + 2), np.int8)
    padded[:, 1:-1] = (table != 0).T
    edge = np.diff(padded, axis=1)  # [N, T + 1]
    neuron, start = np.nonzero(edge == 1)
    return np.stack([neuron, start, np.nonzero(edge == -1)[1]], axis=1).astype(np.int64)


def table_of_intervals(intervals: NDArray[Any], *, n_steps: int, n_units: int) -> NDArray[np.uint8]:
    """Return the table uint8 [T, N] of `open_intervals`.

    Raises
    ------
    ValueError
        If the intervals are not exactly the open stretches of a table: sorted, apart, not empty, inside.
    """
    neuron, start, stop = intervals.T
    inside = (neuron >= 0) & (neuron < n_units) & (start >= 0) & (start < stop) & (stop <= n_steps)
    if not inside.all():
        found = intervals[np.argmin(inside)].tolist()
        fail("intervals", f"of {n_units} neurons, within {n_steps} steps and not empty", str(found))
    edge = np.zeros((n_steps + 1, n_units), np.int64)
    np.add.at(edge, (start, neuron), 1)
    np.add.at(edge, (stop, neuron), -1)
    table = (np.cumsum(edge, axis=0)[:-1] > 0).astype(np.uint8)
    if not np.array_equal(open_intervals(table), intervals):
        fail("intervals", "sorted by neuron and step, and apart", "others")
    return table


def write_schedule(path: PathLike, graph: Graph, n_steps: int) -> None:
    """Write the gates of every gated layer as an npz of packed bits.

    Parameters
    ----------
    path : path of a file
        Replaced where it exists.
    graph : Graph
        With at least one gated layer.
    n_steps : int
        Number of steps T from the initial state on, from 0.

    Raises
    ------
    ValueError
        If no layer is gated, or `n_steps` is negative.
    OSError
        If the file cannot be written; nothing is left then.
    """
    if n_steps < 0:
        fail("n_steps", "0 or more", str(n_steps))
    tables = gate_tables(graph, n_steps)
    if not tables:
        fail("graph", "of at least one gated layer, to have a schedule", "none")
    require_names(tables)
    bits = {name: np.packbits(table, axis=1) for name, table in tables.items()}
    head = {
        "format": np.int64(FORMAT),
        "n_steps": np.int64(n_steps),
        "dt_ms": np.float64(graph.dt_ms),
        "convention": np.str_(CONVENTION),
        "layers": np.array(list(tables)),
        "n_units": np.array([table.shape[1] for table in tables.values()], np.int64),
        "sha256": np.array([_sha256(b) for b in bits.values()]),
    }
    arrays = {key: np.asarray(value) for key, value in head.items()} | {f"bits.{k}": b for k, b in bits.items()}
    write_atomic(path, npz_bytes(arrays))


def read_schedule(path: PathLike) -> Schedule:
    """Read what `write_schedule` wrote.

    Raises
    ------
    ValueError
        If it is no such file, or its bits do not have their checksum.
    OSError
        If it cannot be read.
    """
    data = read_bytes(path)
    with reading(path, "a gate schedule of suspike"):
        arrays = npz_arrays(data)
        if int(arrays["format"]) != FORMAT:
            fail("format", str(FORMAT), str(arrays["format"]))
        names, n_steps = [str(name) for name in arrays["layers"]], int(arrays["n_steps"])
        require_names(names)
        tables = {}
        for name, n_units, digest in zip(names, arrays["n_units"], arrays["sha256"], strict=True):
            bits = arrays[f"bits.{name}"]
            if bits.dtype != np.uint8 or bits.shape != (n_steps, (int(n_units) + 7) // 8):
                fail(f"bits.{name}", f"uint8 of {n_steps} steps and {n_units} units", f"{bits.dtype} {bits.shape}")
            if _sha256(bits) != str(digest):
                fail(f"bits.{name}", f"of sha256 {digest}", _sha256(bits))
            tables[name] = np.unpackbits(bits, axis=1, count=int(n_units))
        return Schedule(tables, n_steps, require_dt(float(arrays["dt_ms"])))


@dataclass(frozen=True, eq=False)
class Schedule:
    """The open steps of a network's gates, from the initial state on.

    Parameters
    ----------
    tables : dict of str to uint8 [T, N]
        By layer name; 1 where the neuron updates at that step.
    n_steps : int
        Number of steps T.
    dt_ms : float
        Length of a step in ms.
    """

    tables: dict[str, NDArray[np.uint8]]
    n_steps: int
    dt_ms: float


def _sha256(bits: NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(bits).tobytes()).hexdigest()
