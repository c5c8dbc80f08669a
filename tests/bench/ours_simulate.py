"""suspike's simulation, dense loops over time, and what adding rows alone takes, in the project's own environment."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numba
import numpy as np
from network import Network
from work import Built

from suspike.graph import LIF, Graph, Layer, Rhythm, as_float, to_int8
from suspike.simulate import Result, simulate
from suspike_kernels.layout import Events

BLOCK = 16
"""Neurons of a cache line of float32: what a kernel can leave out at once."""


def graph_of(net: Network) -> Graph:
    """Return the network as suspike has it."""
    n, n_out = net.readout.shape
    gate = None
    if len(net.is_open):
        k = net.rhythm.shape[1] // 2
        gate = Rhythm(net.rhythm[1:, -1], net.rhythm[1:, :k], net.rhythm[1:, k : 2 * k], net.rhythm[0, :k])

    def lif(size: int, gate: Rhythm | None) -> LIF:
        return LIF(np.full(size, net.beta, np.float32), np.full(size, net.threshold, np.float32), gate=gate)

    hidden = Layer(
        "hidden", net.weight, np.zeros(n, np.float32), lif(n, gate), net.recurrent if len(net.recurrent) else None
    )
    out = Layer("out", net.readout, np.zeros(n_out, np.float32), lif(n_out, None))
    return Graph((hidden, out), dt_ms=1.0)


def in_bytes(net: Network) -> Network:
    """Return the network with weights that int8 holds."""
    hidden, out = as_float(to_int8(graph_of(net))[0]).neurons
    return net._replace(weight=hidden.weight, recurrent=hidden.recurrent, readout=out.weight)


def suspike(net: Network, threads: int, *, batch: int, int8: bool = False) -> Built:
    """``simulate`` over `batch` samples a call, one kernel a layer, of float32 or int8 weights; counts come with it."""
    graph, events = graph_of(net), Events(net.ptr, net.idx, len(net.weight))
    graph = to_int8(graph)[0] if int8 else graph
    parts = [events.take(range(b, b + batch)) for b in range(0, net.n_samples, batch)]

    def step() -> list[Result]:
        return [simulate(graph, part, n_threads=threads) for part in parts]

    def as_ours(done: list[Result]) -> list[Any]:
        return [np.concatenate([run.spikes[i].dense(np.uint8) for run in done], 1) for i in (0, 1)]

    done = step()
    synops = sum(count.synops_done for run in done for count in run.counts)
    facts: dict[str, Any] = {"synops": synops / net.n_samples}
    if len(net.is_open):
        blocks = net.is_open.reshape(net.n_steps, -1, BLOCK).any(2)
        facts |= {"open": float(net.is_open.mean()), "touched": float(blocks.mean())}
        facts["table_ms"] = _table_ms(graph, net.n_steps) * len(parts) / net.n_samples
    return Built(step, as_ours, facts)


def numpy_loop(net: Network, threads: int) -> Built:
    """A dense loop in float32, one sample at a time, the input product of all steps at once."""
    del threads
    inputs = [net.dense(b) for b in range(net.n_samples)]
    beta, threshold = np.float32(net.beta), np.float32(net.threshold)

    def run(x: Any) -> list[Any]:
        v, spk, hidden = np.zeros(net.recurrent.shape[1], np.float32), np.zeros(net.recurrent.shape[1], np.float32), []
        for cur in x @ net.weight:
            v = beta * v + (cur + spk @ net.recurrent)
            spk = (v > threshold).astype(np.float32)
            v[spk > 0] = 0
            hidden.append(spk)
        v_out, out = np.zeros(net.readout.shape[1], np.float32), []
        for cur in np.stack(hidden) @ net.readout:
            v_out = beta * v_out + cur
            out.append(v_out > threshold)
            v_out[out[-1]] = 0
        return [np.stack(hidden), np.stack(out)]

    return Built(lambda: [run(x) for x in inputs], _by_sample, {})


def gather(net: Network, threads: int, *, dtype: str) -> Built:
    """Add the weight rows of all events of the hidden layer, and nothing else: float32 by eight, int8 by four."""
    given = Events(net.ptr, net.idx, len(net.weight))
    result = simulate(graph_of(net), given, n_threads=threads)
    own = result.spikes[0].idx + np.int32(len(net.weight))
    rows = np.concatenate([given.idx, own])
    weight = np.concatenate([net.weight, net.recurrent])
    if dtype == "int8":
        weight = np.clip(weight * 127 / np.abs(weight).max(), -127, 127).astype(np.int8)
    add, total = (_add8, np.float32) if dtype == "float32" else (_add4, np.int16)
    acc = np.zeros(weight.shape[1], total)

    def step() -> Any:
        acc[:] = 0
        add(weight, rows, acc)
        return acc

    return Built(step, list, {"synops": len(rows) * weight.shape[1] / net.n_samples})


def _table_ms(graph: Graph, n_steps: int) -> float:
    """Return the CPU time, in ms, of evaluating the hidden layer's rhythm: a part of every call."""
    neuron, times = graph.layers[0].neuron, []
    assert isinstance(neuron, LIF), "built with a gate"
    assert neuron.gate is not None, "built with a gate"
    for _ in range(5):
        began = time.process_time()
        neuron.gate.table(n_steps)
        times.append(1000 * (time.process_time() - began))
    return statistics.median(times)


def _by_sample(done: list[list[Any]]) -> list[Any]:
    return [np.stack(part, 1) for part in zip(*done, strict=True)]


@numba.njit(fastmath=True, boundscheck=False)
def _add8(w: Any, rows: Any, acc: Any) -> None:
    for e in range(0, len(rows) // 8 * 8, 8):
        r = rows[e : e + 8]
        a, b, c, d, f, g, h, i = w[r[0]], w[r[1]], w[r[2]], w[r[3]], w[r[4]], w[r[5]], w[r[6]], w[r[7]]
        for k in range(len(acc)):
            acc[k] += ((a[k] + b[k]) + (c[k] + d[k])) + ((f[k] + g[k]) + (h[k] + i[k]))


@numba.njit(boundscheck=False)
def _add4(w: Any, rows: Any, acc: Any) -> None:
    for e in range(0, len(rows) // 4 * 4, 4):
        r = rows[e : e + 4]
        a, b, c, d = w[r[0]], w[r[1]], w[r[2]], w[r[3]]
        for k in range(len(acc)):
            acc[k] += numba.int16(a[k]) + numba.int16(b[k]) + numba.int16(c[k]) + numba.int16(d[k])
