"""Fan-out lists in a Graph: checked, rounded, simulated and counted as the matrices that they stand for."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from suspike_testing.cases import random_events, take_steps
from suspike_testing.comparing import assert_same_bits, assert_same_events

from suspike.convert import to_nn
from suspike.export import write_nir
from suspike.graph import LI, LIF, DriveGate, Graph, InputGate, Layer, Periodic, Sparse
from suspike.graph.rounding import rounded
from suspike.simulate import Result, simulate, stream

N_IN, N = 12, 30


def lists(rng: np.random.Generator, n_in: int, n: int, *, most: int = 6, scale: float = 0.4) -> Sparse:
    ptr = np.append(0, rng.integers(0, most + 1, n_in).cumsum())
    weight = np.round(rng.normal(0.1, scale, ptr[-1]) * 256) / 256
    return Sparse(ptr, rng.integers(0, n, ptr[-1], dtype=np.int32), weight.astype(np.float32), n)


def gate_of(kind: str, rng: np.random.Generator, n: int = N) -> Any:
    if kind == "none":
        return None
    if kind == "periodic":
        return Periodic(rng.integers(0, 5, n), 5, 2)
    if kind == "drive":
        return DriveGate(rng.uniform(0.05, 0.3, n).astype(np.float32))
    weight, recurrent = (np.round(rng.normal(0.1, 0.3, (size, n // 3)) * 256) / 256 for size in (N_IN, n))
    bias = np.full(n // 3, -0.0625, np.float32)
    return InputGate(weight.astype(np.float32), bias, n, recurrent.astype(np.float32))


def make(gate: str = "none", *, seed: int = 0, own: str = "lists", given: str = "lists") -> Graph:
    rng = np.random.default_rng(seed)

    def wired(n_in: int, n: int, how: str) -> Any:
        made = lists(rng, n_in, n)
        return None if how == "none" else made if how == "lists" else made.dense()

    def uniform(low: float, high: float, size: int = N) -> Any:
        return rng.uniform(low, high, size).astype(np.float32)

    neuron = LIF(uniform(0.6, 1), uniform(0.3, 0.8), gate=gate_of(gate, rng))
    zero = np.zeros(N, np.float32)
    first = Layer("a", wired(N_IN, N, given), zero, neuron, wired(N, N, own))
    second = Layer("b", wired(N, 5, given), zero[:5], LI(uniform(0.6, 1, 5)))
    return Graph((first, second), 1.0)


def in_matrices(graph: Graph) -> Graph:
    layers = []
    for layer in graph.neurons:
        parts = {name: getattr(layer, name) for name in ("weight", "recurrent")}
        layers.append(replace(layer, **{k: x.dense() if isinstance(x, Sparse) else x for k, x in parts.items()}))
    return Graph(tuple(layers), graph.dt_ms, graph.max_count)


def events_for(*, n_steps: int = 50, density: float = 0.1) -> Any:
    return random_events(np.random.default_rng(1), n_steps, 3, N_IN, density)


def same(found: Result, wanted: Result) -> None:
    for a, b in zip(found.spikes, wanted.spikes, strict=True):
        assert_same_events(a, b)
    assert_same_bits(found.output, wanted.output)
    for name, layer in wanted.state.layers.items():
        for a, b in zip(found.state.layers[name], layer, strict=True):
            assert_same_bits(a, b)


@pytest.mark.parametrize("gate", ["none", "periodic", "input", "drive"])
def test_lists_run_as_matrices_do(gate: str) -> None:
    for i, (own, given_) in enumerate(
        [("lists", "lists"), ("matrix", "lists"), ("lists", "matrix"), ("none", "lists")]
    ):
        graph, events = make(gate, own=own, given=given_, seed=i), events_for(density=0.25)
        found, wanted = simulate(graph, events, n_threads=2), simulate(in_matrices(graph), events)
        same(found, wanted)
        same(simulate(graph, events, target="reference"), wanted)
        assert len(found.spikes[0].idx) > 40
        parts = [x.spikes[0].dense() for x in stream(graph, [take_steps(events, *c) for c in pairwise([0, 1, 20, 50])])]
        np.testing.assert_array_equal(np.concatenate(parts), found.spikes[0].dense())


@pytest.mark.parametrize("gate", ["none", "periodic", "input", "drive"])
@pytest.mark.parametrize(("own", "given_"), [("lists", "lists"), ("lists", "matrix"), ("matrix", "lists")])
def test_counts_are_those_of_a_walk_over_every_entry(gate: str, own: str, given_: str) -> None:
    graph, events = make(gate, own=own, given=given_), events_for()
    lengths = np.array([50, 17, 0])
    counts = events.dense(np.int64)
    for b, length in enumerate(lengths):
        counts[length:, b] = 0
    state = simulate(graph, events).state
    given_counts = counts.swapaxes(0, 1)
    cut = take_steps(events, 0, 50)
    cut = type(cut)(*_cut(given_counts), N_IN)
    run = simulate(graph, cut, state=state, n_steps=lengths, probe={"a": range(N)})
    layer, found, probe = graph.neurons[0], run.counts[0], run.probes["a"]
    reached = done = rows = 0
    for b, t in np.ndindex(3, 50):
        if t >= lengths[b]:
            continue
        is_open = probe.is_open[t, b] if gate != "drive" else np.ones(N, int)
        last = probe.spk[t - 1, b] if t else state.layers["a"].spk[b]
        for times, weight in ((counts[t, b], layer.weight), (last.astype(int), layer.recurrent)):
            for i in np.flatnonzero(times):
                to = weight.target[weight.ptr[i] : weight.ptr[i + 1]] if isinstance(weight, Sparse) else np.arange(N)
                reached += times[i] * len(to)
                done += times[i] * is_open[to].sum()
                rows += times[i] * int(is_open[to].sum() > 0)
    assert found.synops_done - found.gate_synops == done
    assert found.synops_skipped == reached - done
    assert found.rows_fetched == rows
    assert found.synapses == layer.n_synapses == layer.weight.size + layer.recurrent.size
    assert (found.synops_skipped > 50) == (gate in ("periodic", "input"))
    assert done > 100
    assert all(type(x) is int for x in found[1:])


def _cut(counts: Any) -> tuple[Any, Any]:
    """Lists of the counts [B, T, N]."""
    n_samples, n_steps, n = counts.shape
    ptr = np.zeros((n_samples, n_steps + 1), np.int64)
    ptr[:, 1:] = counts.sum(2).cumsum().reshape(n_samples, n_steps)
    ptr[1:, 0] = ptr[:-1, -1]
    return ptr, np.repeat(np.tile(np.arange(n, dtype=np.int32), n_samples * n_steps), counts.ravel())


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 2**16), st.sampled_from([0, 1, 7]), st.sampled_from([1, 5]), st.sampled_from([0, 3, 20]))
def test_matrices_become_lists_and_back(seed: int, n_in: int, n: int, most: int) -> None:
    made = lists(np.random.default_rng(seed), n_in, n, most=most)
    matrix = made.dense()
    assert matrix.shape == made.shape == (n_in, n)
    for again in (
        Sparse.of(matrix),
        Sparse.of(scipy.sparse.csr_matrix(matrix)),
        Sparse.of(scipy.sparse.coo_array(matrix)),
    ):
        assert_same_bits(again.dense(), matrix)
        assert again.size == (matrix != 0).sum()
        assert all((np.diff(again.target[a:b]) > 0).all() for a, b in pairwise(again.ptr))
    stored = scipy.sparse.csr_array((made.weight, made.target, made.ptr), shape=made.shape)
    assert_same_bits(Sparse.of(stored).dense(), matrix)


def test_lists_are_rounded_as_matrices_are() -> None:
    graph = make(own="lists")
    rng = np.random.default_rng(3)
    layers = []
    for layer in graph.neurons:
        parts: dict[str, Any] = {}
        for name in ("weight", "recurrent"):
            if getattr(layer, name) is not None:
                old = Sparse.of(getattr(layer, name).dense())
                parts[name] = replace(old, weight=(old.weight * rng.uniform(0.9, 1.1, old.size)).astype(np.float32))
        layers.append(replace(layer, **parts))
    graph = Graph(tuple(layers), 1.0)
    found, lines = rounded(graph, max_count=3)
    wanted, wanted_lines = rounded(in_matrices(graph), max_count=3)
    assert lines == wanted_lines
    assert all(line.change > 0 for line in lines)
    for a, b in zip(in_matrices(found).neurons, wanted.neurons, strict=True):
        assert_same_bits(a.weight, b.weight)
        if b.recurrent is not None:
            assert_same_bits(a.recurrent, b.recurrent)


GOOD = {
    "ptr": np.array([0, 2, 3]), "target": np.array([0, 2, 1], np.int32), "weight": np.ones(3, np.float32),
    "n_targets": 3,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"ptr": np.array([0, 2, 3], np.int32)},
            "`Sparse.ptr` must be int64 in one contiguous list, got int32 of shape [3].",
        ),
        (
            {"target": np.array([0, 2, 1])},
            "`Sparse.target` must be int32 in one contiguous list, got int64 of shape [3].",
        ),
        (
            {"target": np.array([0, 2, 1] * 2, np.int32)[::2]},
            "`Sparse.target` must be int32 in one contiguous list, got int32 of shape [3].",
        ),
        ({"weight": np.ones(2, np.float32)}, "`Sparse.weight` must be of shape [3], got shape [2]."),
        ({"ptr": np.array([0, 2])}, "`Sparse.ptr` must be from 0 to the number of targets, 3, got [0 2]."),
        ({"ptr": np.array([1, 2, 3])}, "`Sparse.ptr` must be from 0 to the number of targets, 3, got [1 3]."),
        ({"ptr": np.zeros(0, np.int64)}, "`Sparse.ptr` must be from 0 to the number of targets, 3, got []."),
        ({"ptr": np.array([0, 3, 2, 3])}, "`Sparse.ptr` must be never decreasing, got a fall behind source 1."),
        ({"n_targets": 2}, "`Sparse.target` must be from 0 to n_targets - 1 = 1, got 0 to 2."),
        (
            {"target": np.array([0, -1, 1], np.int32)},
            "`Sparse.target` must be from 0 to n_targets - 1 = 2, got -1 to 1.",
        ),
    ],
)  # fmt: skip
def test_lists_that_do_not_fit_are_named(changed: dict[str, Any], message: str) -> None:
    Sparse(**GOOD)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Sparse(**(GOOD | changed))


EYE = Sparse.of(np.eye(3, dtype=np.float32))


def layer(weight: Any, recurrent: Any = None) -> Layer:
    ones = np.ones(3, np.float32)
    return Layer("a", weight, 0 * ones, LIF(ones / 2, ones), recurrent)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda good: layer(replace(good, n_targets=4)),
            "`weight of layer 'a'` must be of shape [2, 3], got shape [2, 4].",
        ),
        (
            lambda good: layer(replace(good, weight=np.array([1, np.nan, 1], np.float32))),
            "`weight of layer 'a'` must be finite, got nan at [1] (1 such values).",
        ),
        (
            lambda good: layer(replace(good, weight=np.ones(3))),
            "`arrays of layer 'a'` must be all float32 or all float64, got float32, float64.",
        ),
        (lambda good: layer(good, good), "`recurrent of layer 'a'` must be of shape [3, 3], got shape [2, 3]."),
        (
            lambda good: to_nn(Graph((layer(good),), 1.0)),
            "`weight of layer 'a'` must be a matrix in a module, got fan-out lists. "
            "Replace it by its `dense()`, if that is small: (2, 3).",
        ),
        (
            lambda good: write_nir("unwritten", Graph((layer(good.dense(), EYE),), 1.0)),
            "`layer 'a'` must be one of a chain of fully connected layers, LIF with or without a Rhythm, or LI, to be "
            "written to a file, got a layer of LIF neurons with fan-out lists.",
        ),
        (lambda good: Sparse.of(np.ones(3)), "`matrix` must be of shape [n_in, N], got shape [3]."),
    ],
)  # fmt: skip
def test_what_does_not_fit_or_has_no_lists_is_named(call: Any, message: str, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call(Sparse(**GOOD))
    assert not list(tmp_path.iterdir())
