"""Run a Graph event by event and count what was done and what closed gates spared."""

from __future__ import annotations

import logging
import os
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from suspike._validate import fail
from suspike.graph import LIF, Graph, Layer
from suspike_kernels import cpu, reference
from suspike_kernels.counting import Counts, count_layer
from suspike_kernels.cpu.rows import largest_count
from suspike_kernels.layout import (
    RESETS,
    Events,
    FloatArray,
    SynapseArrays,
    always_open,
    check_events,
    check_lengths,
    lif_arrays,
    table_gate,
)
from suspike_kernels.reference import ALL_STEPS

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


def simulate(
    graph: Graph,
    events: Events,
    *,
    n_steps: NDArray[np.int64] | None = None,
    target: str = "cpu",
    n_threads: int | None = None,
) -> Result:
    """Run a network over recordings from rest.

    Parameters
    ----------
    graph : Graph
    events : Events [B, T], units 0 to ``graph.n_in - 1``
    n_steps : int64 [B], optional
        True length of each recording, 0 to T; T without it. From there on it counts nothing, and the output stays.
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
    lengths = None if n_steps is None else check_lengths(np.asarray(n_steps), events)
    if graph.max_count and (found := largest_count(events.ptr, events.idx, events.n_units)) > graph.max_count:
        log.warning(
            "`events` have %d events of one unit in one step, the graph's sums are exact up to %d: spikes at the "
            "threshold may depend on the order of sums. Convert with max_count=%d.",
            found, graph.max_count, found,
        )  # fmt: skip
    spikes: list[Events] = []
    counts: list[Counts] = []
    for layer in graph.layers:
        table = layer.neuron.gate.table(now.n_steps) if isinstance(layer.neuron, LIF) and layer.neuron.gate else None
        given, fires = (
            _given(layer, now, table)._replace(n_steps=ALL_STEPS if lengths is None else lengths),
            isinstance(layer.neuron, LIF),
        )
        if target == "cpu":
            run = cpu.forward(given, trace=not fires, n_threads=n_threads)
        else:
            run = reference.forward(given, trace=not fires)
        fed_back = layer.recurrent is not None
        spikes_of = run.spikes if fires else None
        counts.append(
            count_layer(
                layer.name, now, layer.n_units, spikes=spikes_of, gate=table, recurrent=fed_back, n_steps=lengths
            )
        )
        if not fires:
            output = run.trace
            continue
        spikes.append(run.spikes)
        now = run.spikes
    return Result(output, tuple(spikes), tuple(counts))


def _n_processors() -> int:
    """Return the number of processors this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _given(layer: Layer, events: Events, table: np.ndarray | None) -> reference.Layer:
    """Return the kernel's arguments: the layer at rest, before the events."""
    n, dtype, none = layer.n_units, layer.weight.dtype, np.zeros((0, layer.n_units), layer.weight.dtype)
    neuron = layer.neuron
    if isinstance(neuron, LIF):
        neurons = lif_arrays(neuron.beta, neuron.threshold, RESETS.index(neuron.reset))
    else:
        neurons = lif_arrays(neuron.beta, np.full(n, np.inf, dtype), RESETS.index("none"))
    synapses = SynapseArrays(layer.weight, none if layer.recurrent is None else layer.recurrent, layer.bias)
    gate = always_open(dtype) if table is None else table_gate(table[None], np.zeros((0, 0, 0), np.uint8), dtype)
    at_rest, batch = np.zeros((1, events.n_samples, n), dtype), events.n_samples
    return reference.Layer(events, np.zeros((0, batch, n), dtype), synapses, neurons, gate, at_rest, at_rest[0])
