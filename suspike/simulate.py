"""Run a Graph event by event, whole or stretch by stretch, and count what was done and what closed gates spared."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from suspike import _layers
from suspike._layers import LayerState, at_rest
from suspike._validate import fail
from suspike.graph import INPUT, Graph, Route
from suspike_kernels import cpu, cuda, editing, reference
from suspike_kernels.counts import Counts, Total, total
from suspike_kernels.cpu.rows import largest_count
from suspike_kernels.layout import Events, FloatArray, check_events, check_lengths

log = logging.getLogger(__name__)

TARGETS = ("cpu", "cuda", "reference")


class State(NamedTuple):
    """A network between two steps: the number of steps done, which rhythms follow, and each layer's state by name."""

    t: int
    layers: Mapping[str, LayerState]


class Probe(NamedTuple):
    """What chosen neurons did at every step.

    Attributes
    ----------
    units : int64 [K]
    v : float [T, B, K]
        Membrane after the step.
    is_open, spk : uint8 [T, B, K]
        1 where the gate was open, and where the neuron fired.
    """

    units: NDArray[np.int64]
    v: FloatArray
    is_open: NDArray[np.uint8]
    spk: NDArray[np.uint8]


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
    state : State
        After the last step.
    probes : mapping of str to Probe
        Of the layers that were asked for.
    """

    output: FloatArray | None
    spikes: tuple[Events, ...]
    counts: tuple[Counts, ...]
    state: State
    probes: Mapping[str, Probe]

    @property
    def total(self) -> Total:
        """The counts of all layers together."""
        return total(self.counts)


def simulate(
    graph: Graph,
    events: Events,
    *,
    state: State | None = None,
    n_steps: NDArray[np.int64] | None = None,
    probe: Mapping[str, Sequence[int]] | None = None,
    target: str = "cpu",
    n_threads: int | None = None,
    client: Any = None,
) -> Result:
    """Run a network over recordings.

    Parameters
    ----------
    graph : Graph
    events : Events [B, T], units 0 to ``graph.n_in - 1``
    state : State, optional
        Of a run over what came before, ``result.state``; at rest without one. Stretches one after the other give the
        same spikes as the whole.
    n_steps : int64 [B], optional
        True length of each recording, 0 to T; T without it. From there on it counts nothing, and the output stays.
    probe : mapping of str to sequence of int, optional
        By a layer's name, the neurons whose membrane, gate and spikes are recorded at every step.
    target : "cpu", "cuda" or "reference"
        Compiled kernels, or plain loops (slow): the same result, bit for bit, where sums are exact (see `convert`). A
        GPU does each layer in one launch, a block of threads a sample; its results come back to the host.
    n_threads : int, optional
        Threads that share the samples; as many as there are processors by default. It changes no bit of the result.
    client : distributed.Client, optional
        Of a Dask cluster whose workers share the samples: each runs as many shards at once as it has threads, with
        `n_threads` each, 1 by default. The same result, bit for bit.

    Raises
    ------
    ValueError
        For events that break the rules of `Events` or do not fit the graph, and a state or a probe of another network.
    ImportError, OSError, distributed.KilledWorker
        Of a client: without the package distributed, without workers, or if they die of one shard again and again.
    """
    if target not in TARGETS:
        fail("target", ", ".join(TARGETS[:-1]) + f" or {TARGETS[-1]}", repr(target))
    if target == "cuda" and not cuda.is_available():
        fail("target", "cpu or reference where numba finds no CUDA device", repr(target), "pip install 'suspike[cuda]'")
    if events.n_units != graph.n_in:
        fail("events", f"of the graph's {graph.n_in} input units", f"{events.n_units}")
    if n_threads is not None and n_threads < 1:
        fail("n_threads", "at least 1", repr(n_threads))
    check_events(events)
    lengths = reference.ALL_STEPS if n_steps is None else check_lengths(np.asarray(n_steps), events)
    wanted = _probed(graph, {} if probe is None else probe)
    given, state = state, _started(graph, state, events.n_samples)
    _warn_of_counts(graph, events)
    if client is not None:
        from suspike._scale import simulate_on

        options: dict[str, Any] = {"state": given, "n_steps": None if n_steps is None else lengths, "probe": wanted}
        return simulate_on(client, graph, events, **options, target=target, n_threads=n_threads)
    run = _Runner(target, n_threads or _n_processors())
    trains, output = {INPUT: events}, None
    spikes: list[Events] = []
    counts: list[Counts] = []
    after: dict[str, LayerState] = {}
    probes: dict[str, Probe] = {}
    for layer, sources in zip(graph.layers, graph.sources, strict=True):
        heard = trains[sources[0]]
        for source in sources[1:]:
            heard = editing.merge(heard, trains[source])[0]
        if isinstance(layer, Route):
            trains[layer.name] = editing.renumber(heard, layer.units, layer.n_units)[0]
            continue
        name, fires = layer.name, layer.neuron.fires
        done, counted, is_open = _layers.run_layer(
            layer, heard, state.layers[name], state.t, lengths, run, probe=name in wanted
        )
        after[name] = LayerState(done.state, done.spk)
        counts.append(counted)
        if is_open is not None:
            probes[name] = _probe(wanted[name], done, is_open, fires)
        if fires:
            spikes.append(done.spikes)
            trains[name] = done.spikes
        else:
            output = done.trace
    return Result(output, tuple(spikes), tuple(counts), State(state.t + events.n_steps, after), probes)


def stream(
    graph: Graph,
    chunks: Iterable[Events],
    *,
    state: State | None = None,
    probe: Mapping[str, Sequence[int]] | None = None,
    n_threads: int | None = None,
) -> Iterator[Result]:
    """Run a network over recordings that come in stretches, as long as they like: one result each, in their order.

    Memory holds one stretch and the state. The spikes are those of one run over all steps.

    Parameters
    ----------
    chunks : iterable of Events [B, T]
        Of any number of steps, all of the same samples B.
    graph, state, probe, n_threads
        As of `simulate`.
    """
    for events in chunks:
        result = simulate(graph, events, state=state, probe=probe, n_threads=n_threads)
        state = result.state
        yield result


class _Runner(NamedTuple):
    target: str
    n_threads: int

    @property
    def sorts(self) -> bool:
        return self.target != "reference"

    def __call__(self, layer: reference.Layer, *, trace: bool) -> reference.Run:
        if self.target == "reference":
            return reference.forward(layer, trace=trace)
        if self.target == "cuda":
            return cuda.forward(layer, trace=trace)
        return cpu.forward(layer, trace=trace, n_threads=self.n_threads)


def _n_processors() -> int:
    """Return the number of processors this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _warn_of_counts(graph: Graph, events: Events) -> None:
    if graph.max_count and (found := largest_count(events.ptr, events.idx, events.n_units)) > graph.max_count:
        log.warning(
            "`events` have %d events of one unit in one step, the graph's sums are exact up to %d: spikes at the "
            "threshold may depend on the order of sums. Convert with max_count=%d.",
            found, graph.max_count, found,
        )  # fmt: skip


def _started(graph: Graph, state: State | None, n_samples: int) -> State:
    """Return the state, at rest if it is None; kernels trust its shapes."""
    if state is None:
        return State(0, {layer.name: at_rest(layer, n_samples) for layer in graph.neurons})
    if set(state.layers) != {layer.name for layer in graph.neurons}:
        fail("state", f"of layers {', '.join(x.name for x in graph.neurons)}", ", ".join(state.layers) or "none")
    for layer in graph.neurons:
        given, resting = state.layers[layer.name], at_rest(layer, n_samples)
        for name, found, rest in zip(LayerState._fields, given, resting, strict=True):
            if (found.shape, found.dtype) != (rest.shape, rest.dtype):
                what = f"state.layers[{layer.name!r}].{name}"
                got = f"{found.dtype} of shape {list(found.shape)}"
                fail(what, f"{rest.dtype} of shape {list(rest.shape)}", got, "Another batch needs a state of its own.")
    return state


def _probed(graph: Graph, probe: Mapping[str, Sequence[int]]) -> dict[str, NDArray[np.int64]]:
    wanted: dict[str, NDArray[np.int64]] = {}
    if not probe:
        return wanted
    sizes = {layer.name: layer.n_units for layer in graph.neurons}
    for name, units in probe.items():
        if name not in sizes:
            fail("probe", f"of layers among {', '.join(sizes)}", repr(name))
        index = np.asarray(units)
        if index.ndim != 1 or (len(index) and index.dtype.kind not in "iu"):
            fail(f"probe[{name!r}]", "a list of whole numbers", repr(units))
        wanted[name] = index.astype(np.int64)
        if len(index) and not 0 <= index.min() <= index.max() < sizes[name]:
            fail(f"probe[{name!r}]", f"units from 0 to {sizes[name] - 1}", f"{index.min()} to {index.max()}")
    return wanted


def _probe(units: NDArray[np.int64], done: reference.Run, is_open: NDArray[np.uint8], fires: bool) -> Probe:
    spk = np.zeros((*done.trace.shape[:2], len(units)), np.uint8)
    if fires:
        spk = done.spikes.dense(np.uint8)[:, :, units]
    return Probe(units, done.trace[:, :, units], np.ascontiguousarray(is_open[..., units].swapaxes(0, 1)), spk)
