"""Event files run through a network, as one batch or in stretches, and what they gave written to files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from suspike._files import write_atomic
from suspike._scale import add_counts, simulate_on
from suspike._validate import fail
from suspike.export import read_aedat, read_sonata, stream_sonata, write_sonata
from suspike.export._trains import input_of
from suspike.graph import Graph
from suspike.simulate import Result, simulate, stream
from suspike_kernels.counts import Counts
from suspike_kernels.layout import Events, FloatArray, offsets

Report = Callable[[int, int], None]
"""Called with what is done and what there is to do."""


class Input(NamedTuple):
    """A recording's steps T, and its events in one stretch or several."""

    n_steps: int
    stretches: Iterable[Events]


class Piece(NamedTuple):
    """What a stretch of one recording gave: spikes of each layer that fires, and the readout [T, N] if there is one."""

    n_steps: int
    spikes: Sequence[Events]
    output: FloatArray | None


class Run(NamedTuple):
    """What is shown of one recording.

    Attributes
    ----------
    n_steps : int
        Its steps T.
    n_spikes : tuple of int
        Of each layer that fires.
    mean, last : float [N] or None
        The readout's membrane over all steps, and after the last one; None without a readout or a step.
    """

    n_steps: int
    n_spikes: tuple[int, ...]
    mean: FloatArray | None
    last: FloatArray | None


def read(path: Path, graph: Graph, chunk: int | None) -> Input:
    """Return a recording, read whole unless it is a .h5 that comes in stretches; refuse one that does not fit."""
    if path.suffix not in (".aedat", ".h5", ".hdf5"):
        fail("recordings", ".h5 (SONATA) or .aedat (AEDAT 2.0) files", str(path))
    if chunk is not None and path.suffix != ".aedat":
        n_units, n_steps, dt_ms, stretches = stream_sonata(path, chunk)
        found = Input(n_steps, stretches)
    else:
        recording = read_aedat(path) if path.suffix == ".aedat" else read_sonata(path)
        events, dt_ms = recording.trains[input_of(recording.trains, path.name)], recording.dt_ms
        n_units, n_steps = events.n_units, events.n_steps
        found = Input(n_steps, [events] if chunk is None else _stretches(events, chunk))
    if n_units != graph.n_in:
        fail(path.name, f"of the network's {graph.n_in} input units", str(n_units))
    if dt_ms != graph.dt_ms:
        fail(path.name, f"of the network's steps of {graph.dt_ms} ms", f"{dt_ms} ms")
    return found


def _stretches(events: Events, chunk: int) -> Iterator[Events]:
    """Return a recording that is in memory in stretches."""
    if chunk < 1:
        fail("chunk", "at least 1", repr(chunk))
    return (_cut(events, low, min(low + chunk, events.n_steps)) for low in range(0, events.n_steps, chunk))


def _cut(events: Events, low: int, high: int) -> Events:
    """Return the steps low .. high - 1 of a single recording."""
    ptr = events.ptr[:, low : high + 1]
    return events._replace(ptr=ptr - ptr[0, 0], idx=events.idx[ptr[0, 0] : ptr[0, -1]])


def at_once(
    graph: Graph, given: Sequence[Input], threads: int | None, client: Any, report: Report
) -> tuple[Sequence[Counts], list[Piece]]:
    """Run all recordings as one batch, padded to the longest."""
    lengths = np.array([each.n_steps for each in given], np.int64)
    recordings = [events for each in given for events in each.stretches]
    n_events = np.zeros((len(given), lengths.max()), np.int64)
    for row, events in zip(n_events, recordings, strict=True):
        row[: events.n_steps] = events.per_step()[0]
    batch = Events(offsets(n_events), np.concatenate([events.idx for events in recordings]), graph.n_in)
    if client is None:
        result = simulate(graph, batch, n_steps=lengths, n_threads=threads)
    else:
        result = simulate_on(client, graph, batch, n_steps=lengths, n_threads=threads, progress=report)
    return result.counts, [_piece(result, b, n) for b, n in enumerate(lengths.tolist())]


def one_by_one(
    graph: Graph, given: Sequence[Input], places: Sequence[Path | None], threads: int | None, report: Report
) -> tuple[Sequence[Counts], list[Run]]:
    """Run each recording in its stretches, and write what it gave before the next one."""
    done, total = 0, sum(each.n_steps for each in given)
    counts: list[Counts] = []
    # a recording without a step has a result too
    nothing = Events(np.zeros((1, 1), np.int64), np.zeros(0, np.int32), graph.n_in)

    def pieces(each: Input) -> Iterator[Piece]:
        nonlocal counts, done
        before = 0
        for result in stream(graph, chain([nothing], each.stretches), n_threads=threads):
            layers = zip(counts, result.counts, strict=True)
            counts = [add_counts(pair) for pair in layers] if counts else list(result.counts)
            n = result.state.t - before
            before, done = result.state.t, done + n
            report(done, total)
            yield _piece(result, 0, n)

    runs = [finish(pieces(each), place, graph) for each, place in zip(given, places, strict=True)]
    return counts, runs


def _piece(result: Result, b: int, n: int) -> Piece:
    """Return the first n steps of one sample of a result."""
    output = None if result.output is None else result.output[:n, b]
    return Piece(n, [_cut(train.take([b]), 0, n) for train in result.spikes], output)


def finish(pieces: Iterable[Piece], place: Path | None, graph: Graph) -> Run:
    """Return what is shown of a recording that comes piece by piece; where `place` is given, write its files."""
    n_steps, n_spikes, last = 0, [0 for layer in graph.neurons if layer.neuron.fires], None
    sums: Any = 0.0
    kept: list[Piece] = []
    for piece in pieces:
        n_steps += piece.n_steps
        n_spikes = [n + len(train.idx) for n, train in zip(n_spikes, piece.spikes, strict=True)]
        if piece.output is not None and piece.n_steps:
            sums, last = sums + piece.output.sum(0, dtype=np.float64), piece.output[-1]
        if place is not None:
            kept.append(piece)
    if place is not None:
        _write(place, kept, graph)
    return Run(n_steps, tuple(n_spikes), None if last is None else sums / n_steps, last)


def _write(place: Path, pieces: Sequence[Piece], graph: Graph) -> None:
    """Write spikes and readout of a recording beside `place`; each file whole or not at all."""
    trains = {}
    firing = [layer.name for layer in graph.neurons if layer.neuron.fires]
    for i, name in enumerate(firing):
        parts = [piece.spikes[i] for piece in pieces]
        per_step = np.concatenate([part.per_step() for part in parts], axis=1)
        trains[name] = Events(offsets(per_step), np.concatenate([part.idx for part in parts]), parts[0].n_units)
    if trains:
        write_sonata(place.with_name(f"{place.name}.spikes.h5"), trains, dt_ms=graph.dt_ms)
    outputs = [piece.output for piece in pieces if piece.output is not None]
    if outputs:
        file = io.BytesIO()
        np.save(file, np.concatenate(outputs), allow_pickle=False)
        write_atomic(place.with_name(f"{place.name}.readout.npy"), file.getvalue())
