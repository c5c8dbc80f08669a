"""A batch cut into shards of samples that a Dask cluster runs; its results merged to those of one process, every bit.

A shard is an ordinary `simulate` of its samples. The scheduler hands on the shards of workers that die, as often as
its setting ``allowed-failures`` says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suspike._layers import LayerState
from suspike._validate import fail, import_extra, message
from suspike.graph import Graph, Periodic, Rhythm
from suspike.simulate import Probe, Result, State, simulate
from suspike_kernels.counts import Counts
from suspike_kernels.layout import Events, offsets

log = logging.getLogger(__name__)

PER_THREAD = 4
"""Shards for each thread of the cluster: what a dead or a slow worker costs is a part of a part."""

LARGEST = 2**22
"""Events and steps that one shard may hold, where it is not a single sample."""

PATIENCE = 30
"""Seconds to wait for a first worker."""


def simulate_on(
    client: Any,
    graph: Graph,
    events: Events,
    *,
    state: State | None = None,
    n_steps: NDArray[np.int64] | None = None,
    probe: Mapping[str, Sequence[int]] | None = None,
    target: str = "cpu",
    n_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Run a network over recordings on a cluster, as `simulate` does in one process: the same result, bit for bit.

    Parameters
    ----------
    client : distributed.Client
        Not an asynchronous one.
    graph, events, state, n_steps, probe, target
        As of `simulate`.
    n_threads : int, optional
        Threads of a shard; 1 by default, since a worker runs as many shards at once as it has threads.
    progress : callable, optional
        Called with the shards done and the number of shards.

    Raises
    ------
    ValueError
        As of `simulate`; at once, without another try.
    distributed.KilledWorker
        If worker after worker dies of the same shard.
    OSError
        If no worker is there, or the scheduler is gone.
    concurrent.futures.CancelledError
        If somebody else cancels a shard or restarts the cluster.
    """
    distributed = import_extra("distributed", extra="scale")
    dask = import_extra("dask", extra="scale")
    if client.asynchronous:
        fail("client", "one that waits for its results", "an asynchronous one", "Make it with asynchronous=False.")
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError as error:
        cure = "Start `dask worker` with the scheduler's address."
        got = f"one without for {PATIENCE} seconds"
        raise ConnectionError(message("client", "of a cluster with a worker", got, cure)) from error
    n_running = max(sum(client.nthreads().values()), 1)
    threads = 1 if n_threads is None else n_threads
    bounds = cut(events, n_steps, n_shards=PER_THREAD * n_running)
    n_shards = len(bounds) - 1
    waiting, running, results = list(range(n_shards))[::-1], dict[Any, int](), dict[int, Result]()
    finished = distributed.as_completed()

    def submit(run: Callable[..., Any], *given: Any) -> Any:
        # the warning is about data that could be elsewhere; ours is at the client
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
            return client.submit(run, *given, pure=False)

    # A task and no scattered data: those are lost with the worker that has them, this is run again elsewhere.
    # The layers are made anew: arrays that a run here has kept for its kernels stay here.
    network = submit(_settled, replace(graph, layers=tuple(replace(layer) for layer in graph.layers)))
    try:
        client.replicate(network)  # shards go first to workers that have it
        while len(results) < n_shards:
            # not all at once: the scheduler holds what is to be done, the client what is done
            while waiting and len(running) < 2 * n_running:
                shard = waiting.pop()
                part = _part(bounds[shard], bounds[shard + 1], events, state, n_steps)
                future = submit(_run, network, part, probe, target, threads)
                running[future] = shard
                finished.add(future)
            future = next(finished)
            shard = running[future]
            results[shard] = future.result()
            del running[future]
            log.info("%d of %d shards are done", len(results), n_shards)
            if progress is not None:
                progress(len(results), n_shards)
    finally:
        # by name: an error's traceback holds on to futures, and the cluster with them to what they stand for
        if client.status == "running":
            client.cancel([network, *running])
    return merge([results[shard] for shard in range(n_shards)], graph)


def cut(events: Events, n_steps: NDArray[np.int64] | None, *, n_shards: int) -> list[int]:
    """Return the first sample of each shard, and the number of samples: shards of about as many events and steps.

    Parameters
    ----------
    events : Events [B, T]
    n_steps : int64 [B], optional
        True lengths; what a silent step costs is counted as an event.
    n_shards : int
        More where a shard would have more than `LARGEST`, fewer where samples are few.
    """
    lengths = np.full(events.n_samples, events.n_steps) if n_steps is None else n_steps
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(events.per_step().sum(1) + lengths)])
    n_shards = max(n_shards, int(-(-total[-1] // LARGEST)))
    inner = np.searchsorted(total, total[-1] * np.arange(1, n_shards) / n_shards)
    first = np.unique(np.concatenate([[0], inner]))
    return [*first[first < max(events.n_samples, 1)].tolist(), events.n_samples]


def merge(results: Sequence[Result], graph: Graph) -> Result:
    """Return the result of a batch from those of its samples, part by part, in their order.

    Parameters
    ----------
    results : sequence of Result
        Of one graph and equally many steps, with the same probes; at least one.
    graph : Graph
        It says which gates are shared by the batch.

    Raises
    ------
    ValueError
        Without a result.
    """
    if not results:
        fail("results", "at least one", "none")
    first = results[0]
    shared = {layer.name for layer in graph.neurons if isinstance(layer.neuron.gate, (Rhythm, Periodic))}
    output = None
    if first.output is not None:
        output = np.concatenate([result.output for result in results if result.output is not None], axis=1)
    return Result(
        output,
        tuple(_merged_events(trains) for trains in zip(*(result.spikes for result in results), strict=True)),
        tuple(add_counts(each, shared) for each in zip(*(result.counts for result in results), strict=True)),
        State(
            first.state.t, {key: _merged_state([r.state.layers[key] for r in results]) for key in first.state.layers}
        ),
        {name: _merged_probe([result.probes[name] for result in results]) for name in first.probes},
    )


def _merged_events(parts: Sequence[Events]) -> Events:
    counts = np.concatenate([part.per_step() for part in parts])
    return Events(offsets(counts), np.concatenate([part.idx for part in parts]), parts[0].n_units)


def add_counts(parts: Sequence[Counts], shared: Collection[str] = ()) -> Counts:
    """Return the counts of a layer over all parts of a run; of layers in `shared` gates were evaluated once for all."""
    added = ("samples", "steps", "events", "rows_fetched", "synops_done", "synops_skipped", "updates_done",
             "updates_skipped", "gate_evaluations", "spikes", "gate_synops")  # fmt: skip
    sums = {name: sum(getattr(part, name) for part in parts) for name in added}
    if parts[0].name in shared:  # it follows the longest sample of all
        sums["gate_evaluations"] = max(part.gate_evaluations for part in parts)
    return parts[0]._replace(**sums)


def _merged_state(parts: Sequence[LayerState]) -> LayerState:
    return LayerState(
        np.concatenate([part.variables for part in parts], axis=1), np.concatenate([part.spk for part in parts])
    )


def _merged_probe(parts: Sequence[Probe]) -> Probe:
    v, is_open, spk = (np.concatenate(arrays, axis=1) for arrays in list(zip(*parts, strict=True))[1:])
    return Probe(parts[0].units.copy(), v, is_open, spk)


def _part(
    low: int, high: int, events: Events, state: State | None, n_steps: NDArray[np.int64] | None
) -> tuple[Events, State | None, NDArray[np.int64] | None]:
    """Return the samples low .. high - 1 of what a run is given."""
    if state is not None:
        layers = {
            name: LayerState(np.ascontiguousarray(each.variables[:, low:high]), each.spk[low:high])
            for name, each in state.layers.items()
        }
        state = State(state.t, layers)
    return events.take(range(low, high)), state, None if n_steps is None else n_steps[low:high]


def _run(graph: Graph, part: Any, probe: Mapping[str, Sequence[int]] | None, target: str, n_threads: int) -> Result:
    """Run a shard; on a worker."""
    events, state, n_steps = _settled(part)
    return simulate(
        _settled(graph), events, state=state, n_steps=n_steps, probe=probe, target=target, n_threads=n_threads
    )


def _settled(given: Any) -> Any:
    """Return it with aligned arrays: those that come out of a message may not be, and kernels would compile anew."""
    if isinstance(given, np.ndarray):
        return np.require(given, requirements=("A", "W"))
    if is_dataclass(given) and not isinstance(given, type):
        return replace(given, **{field.name: _settled(getattr(given, field.name)) for field in fields(given)})
    if isinstance(given, tuple):
        items = [_settled(item) for item in given]
        return type(given)(*items) if hasattr(given, "_fields") else tuple(items)
    if isinstance(given, Mapping):
        return {key: _settled(value) for key, value in given.items()}
    return given
