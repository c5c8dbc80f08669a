"""Run a Graph event by event and count what was done and what closed gates spared."""

from __future__ import annotations

import logging
import os
from typing import NamedTuple

import numpy as np

from suspike._validate import fail
from suspike.graph import LI, Graph, Layer
from suspike_kernels import reference
from suspike_kernels.counting import Counts, count_layer
from suspike_kernels.cpu import li, lif
from suspike_kernels.cpu.rows import largest_count
from suspike_kernels.layout import (
    RESETS,
    DenseArrays,
    Events,
    FloatArray,
    GateArrays,
    LIFArrays,
    check_events,
)

log = logging.getLogger(__name__)


class Result(NamedTuple):
    """What a run returns.

    Attributes
    ----------
    output : float [T, B, N] or None
        Membrane of the readout; None when the last layer fires.
    spikes : tuple of Events
        One for each layer that fires, in order.
    counts : tuple of Counts
        One for each layer, in order.
    """

    output: FloatArray | None
    spikes: tuple[Events, ...]
    counts: tuple[Counts, ...]


def simulate(graph: Graph, events: Events, *, target: str = "cpu", n_threads: int | None = None) -> Result:
    """Run a network over recordings from rest.

    Parameters
    ----------
    graph : Graph
    events : Events [B, T], units 0 to ``graph.n_in - 1``
    target : "cpu" or "reference"
        Compiled kernels, or plain loops (slow): the same result, bit for bit, where sums are exact (see `convert`).
    n_threads : int, optional
        Threads that share the samples; as many as there are processors by default. It changes no bit of the result.

    Raises
    ------
    ValueError
        For events that break the rules of `Events` or do not fit the graph.
    """
    if target not in ("cpu", "reference"):
        fail("target", "cpu or reference", repr(target))
    if events.n_units != graph.n_in:
        fail("events", f"of the graph's {graph.n_in} input units", f"{events.n_units}")
    n_threads = _n_processors() if n_threads is None else n_threads
    if n_threads < 1:
        fail("n_threads", "at least 1", repr(n_threads))
    now, output = check_events(events), None
    if graph.max_count and (found := largest_count(events.ptr, events.idx, events.n_units)) > graph.max_count:
        log.warning(
            "`events` have %d events of one unit in one step, the graph's sums are exact up to %d: spikes at the "
            "threshold may depend on the order of sums. Convert with max_count=%d.",
            found, graph.max_count, found,
        )  # fmt: skip
    spikes: list[Events] = []
    counts: list[Counts] = []
    for layer in graph.layers:
        dense = _dense(layer)
        zero = np.zeros((now.n_samples, layer.n_units), dense.weight.dtype)
        if isinstance(layer.neuron, LI):
            if target == "cpu":
                output = li.li_forward(now, dense, layer.neuron.beta, zero, n_threads=n_threads)
            else:
                output = reference.li_forward(now, dense, layer.neuron.beta, zero)
            counts.append(count_layer(layer.name, now, layer.n_units))
            continue
        neuron = layer.neuron
        table = None if neuron.gate is None else neuron.gate.table(now.n_steps)
        gate = GateArrays(_none(layer) if table is None else table, _none(layer))
        arrays = LIFArrays(neuron.beta, neuron.threshold, RESETS.index(neuron.reset))
        if target == "cpu":
            run = lif.lif_forward(now, dense, arrays, gate, zero, zero, n_threads=n_threads)
        else:
            run = reference.lif_forward(now, dense, arrays, gate, zero, zero)
        counts.append(
            count_layer(
                layer.name, now, layer.n_units, spikes=run.spikes, gate=table, recurrent=layer.recurrent is not None
            )
        )
        spikes.append(run.spikes)
        now = run.spikes
    return Result(output, tuple(spikes), tuple(counts))


def _n_processors() -> int:
    """Return the number of processors this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _dense(layer: Layer) -> DenseArrays:
    none = np.zeros((0, layer.n_units), layer.weight.dtype)
    return DenseArrays(layer.weight, none if layer.recurrent is None else layer.recurrent, layer.bias)


def _none(layer: Layer) -> np.ndarray:
    """Return the table that says nothing: always open, no gradient wanted."""
    return np.zeros((0, layer.n_units), np.uint8)
