"""suspike's simulation of a sparse network, and what reading its synapses alone takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sparse_network import SparseNetwork
from work import Built

from suspike import _layers
from suspike.graph import LIF, Graph, Layer, Sparse
from suspike.simulate import Result, simulate
from suspike_kernels.compiling import kernel
from suspike_kernels.cpu import lazy
from suspike_kernels.cpu.scatter import scatter
from suspike_kernels.layout import Events, FloatArray, IntArray, check_lengths
from suspike_kernels.reference import Run


def graph_of(net: SparseNetwork) -> Graph:
    """Return the network as suspike has it."""
    neurons = LIF(np.full(net.n, net.beta, np.float32), np.full(net.n, net.threshold, np.float32))
    recurrent = lists(net.recurrent_target, net.recurrent_weight, net.n) if len(net.recurrent_target) else None
    weight = lists(net.target, net.weight, net.n)
    return Graph((Layer("neurons", weight, np.zeros(net.n, np.float32), neurons, recurrent),), dt_ms=1.0)


def lists(target: IntArray, weight: FloatArray, n: int) -> Sparse:
    """Return rows of as many targets each."""
    return Sparse(np.arange(len(target) + 1) * target.shape[1], target.ravel(), weight.ravel(), n)


def events_of(net: SparseNetwork) -> Events:
    """Return the events of the sources."""
    return Events(net.ptr[None], net.idx, len(net.target))


def places(spikes: Events) -> Any:
    """Return the places t N + i of all spikes."""
    return spikes.places()[2]


def suspike(net: SparseNetwork, threads: int) -> Built:
    """``simulate``, counts included."""
    graph, events = graph_of(net), events_of(net)

    def step() -> Result:
        return simulate(graph, events, n_threads=threads)

    done = step()
    facts = {"rate": len(done.spikes[0].idx) / net.n_steps / net.n}
    return Built(step, lambda done: [places(done.spikes[0])], facts)


def one_way(net: SparseNetwork, threads: int, *, waits: int) -> Built:
    """The kernel alone, all neurons moved at every step (`waits` 0) or touched ones only (1)."""
    (layer,), events = graph_of(net).neurons, events_of(net)
    state, lengths = _layers.at_rest(layer, 1), check_lengths(np.full(1, net.n_steps), events)
    given = _layers.arguments(layer, events, state, 0, lengths, lambda layer, *, trace: lazy.forward(layer))

    def step() -> Run:
        return lazy.forward(given, n_threads=threads, waits=waits)

    return Built(step, lambda done: [places(done.spikes)], {})


@kernel()
def _gather(ptr: Any, idx: Any, fanout: Any, weight: Any, cur: Any) -> None:
    for t in range(ptr.shape[0] - 1):
        scatter(cur, weight, fanout.ptr, fanout.target, idx, ptr[t], ptr[t + 1])


@kernel(reassociate=True)
def _stream(target: Any, weight: Any, n_synops: int) -> Any:
    total, n = weight.dtype.type(0), weight.shape[1]
    for low in range(0, n_synops, n):
        for e in range(min(n, n_synops - low)):
            total += weight[0, e] * target[e]
    return total


def bound(net: SparseNetwork, threads: int, *, read: bool) -> Built:
    """The additions of a run without its neurons; with `read`, as many synapses of 8 bytes read in a row."""
    del threads
    (layer,), events = graph_of(net).neurons, events_of(net)
    spikes, s, cur = simulate(graph_of(net), events).spikes[0], layer.synapses, np.zeros(net.n, np.float32)
    n_synops = (len(spikes.idx) + len(net.idx)) * net.target.shape[1]

    def step() -> Any:
        if read:
            return _stream(s.own_fanout.target, s.recurrent, n_synops)
        _gather(events.ptr[0], events.idx, s.fanout, s.weight, cur)
        _gather(spikes.ptr[0], spikes.idx, s.own_fanout, s.recurrent, cur)
        return cur

    return Built(step, lambda done: [places(spikes)], {})
