"""Simulation against the plain loops, layer by layer, and its counts against a walk over every event."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suspike_testing.comparing import assert_same_bits, assert_same_events
from suspike_testing.nets import make_input, make_net

import suspike as su
from suspike.convert import to_graph
from suspike.graph import LIF, CubaLIF, Graph, Layer
from suspike.simulate import simulate
from suspike_kernels.layout import PAGE, Events

GRAPH, _ = to_graph(make_net(), dt_ms=1.0, max_count=3)
EVENTS = make_input()


def walk(graph: Graph, counts: np.ndarray) -> tuple[list[np.ndarray], np.ndarray | None, list[dict[str, int]]]:
    """The definition over dense arrays, in float32: each layer's spikes [T, B, N], the readout, the counts."""
    all_spikes, output, all_counts = [], None, []
    x = counts.astype(np.float32)
    for layer in graph.layers:
        (n_steps, n_samples, _), n = x.shape, layer.n_units
        v, spk = np.zeros((2, n_samples, n), np.float32)
        out = np.zeros((n_steps, n_samples, n), np.float32)
        rhythm = layer.neuron.gate if isinstance(layer.neuron, LIF) else None
        table = np.ones((n_steps, n), bool) if rhythm is None else rhythm.table(n_steps) > 0
        seen = dict.fromkeys(
            ("events", "synops_done", "synops_skipped", "updates_done", "updates_skipped", "spikes"), 0
        )
        for t in range(n_steps):
            cur = x[t] @ layer.weight + layer.bias
            arriving = x[t].sum()
            if layer.recurrent is not None:
                cur = cur + spk @ layer.recurrent
                arriving += spk.sum()
            v = np.where(table[t], layer.neuron.beta * v + cur, v)
            if isinstance(layer.neuron, LIF):
                fired = table[t] & (v > layer.neuron.threshold)
                left = {"zero": 0 * v, "subtract": v - layer.neuron.threshold, "none": v}[layer.neuron.reset]
                v, spk = np.where(fired, left, v), fired.astype(np.float32)
            out[t] = spk if isinstance(layer.neuron, LIF) else v
            seen["events"] += int(arriving)
            seen["synops_done"] += int(arriving * table[t].sum())
            seen["synops_skipped"] += int(arriving * (~table[t]).sum())
            seen["updates_done"] += int(n_samples * table[t].sum())
            seen["updates_skipped"] += int(n_samples * (~table[t]).sum())
        all_counts.append(seen)
        if isinstance(layer.neuron, LIF):
            seen["spikes"] = int(out.sum())
            all_spikes.append(out)
            x = out
        else:
            output = out
    return all_spikes, output, all_counts


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(
    n_steps=st.sampled_from([30, 4, 1, 0]),
    n_samples=st.sampled_from([5, 2, 1, 0]),
    density=st.sampled_from([0.2, 0.6, 0.0]),
    reset=st.sampled_from(["zero", "subtract", "none"]),
    gate=st.booleans(),
    recurrent=st.booleans(),
    target=st.sampled_from(["cpu", "reference"]),
    n_threads=st.sampled_from([1, 3, None]),
    seed=st.integers(0, 99),
)
def test_it_equals_the_definition(
    n_steps: int, n_samples: int, density: float, seed: int, target: str, n_threads: int | None, **kind: Any
) -> None:
    events = make_input(n_steps, n_samples, density=density, seed=seed)
    graph, _ = to_graph(make_net(seed=seed, **kind), dt_ms=1.0, max_count=3)
    found = simulate(graph, events, target=target, n_threads=n_threads)
    spikes, output, counts = walk(graph, events.dense())
    for a, b in zip(found.spikes, spikes, strict=True):
        np.testing.assert_array_equal(a.dense(), b)
    assert_same_bits(found.output, output)
    for layer, a, b in zip(graph.layers, found.counts, counts, strict=True):
        assert a.name == layer.name
        assert {name: getattr(a, name) for name in b} == b


def test_enough_happens_in_what_is_compared() -> None:
    found = simulate(GRAPH, make_input(30, 5))
    for counts in found.counts[:2]:
        assert counts.spikes > 50
        assert counts.synops_skipped > 100
        assert counts.updates_skipped > 100


def test_weights_begin_at_a_page() -> None:
    for layer in GRAPH.neurons:
        synapses = layer.synapses
        assert synapses.weight.ctypes.data % PAGE == 0
        np.testing.assert_array_equal(synapses.weight, layer.weight)


def test_the_total_is_that_of_all_layers() -> None:
    n = EVENTS.n_units
    hidden = CubaLIF(*np.full((3, 16), 0.5, np.float32))
    weight = np.random.default_rng(0).uniform(0, 1, (n, 16)).astype(np.float32)
    layer = Layer("hidden", weight, np.zeros(16, np.float32), hidden)
    out = Layer("out", weight[:1].repeat(16, 0)[:, :3], np.zeros(3, np.float32), LIF(*np.full((2, 3), 0.5, np.float32)))
    found = simulate(Graph((layer, out), dt_ms=1.0), EVENTS)
    first, second = found.counts
    assert (first.state_words, second.state_words) == (2, 1)
    updates = 2 * first.updates_done + second.updates_done
    assert found.total.words_read == first.synops_done + second.synops_done + updates
    for name, n in zip(found.total._fields, found.total, strict=True):
        assert n == getattr(first, name) + getattr(second, name), name
    assert found.total.spikes > 0


def test_a_graph_without_readout_has_no_output() -> None:
    found = simulate(replace(GRAPH, layers=GRAPH.layers[:1]), EVENTS)
    assert found.output is None
    assert len(found.spikes) == len(found.counts) == 1
    assert_same_events(found.spikes[0], simulate(GRAPH, EVENTS).spikes[0])


def test_samples_do_not_touch_each_other() -> None:
    whole = simulate(GRAPH, EVENTS)
    for b in range(EVENTS.n_samples):
        alone = simulate(GRAPH, EVENTS.take([b]))
        assert_same_events(alone.spikes[1], whole.spikes[1].take([b]))
        assert whole.output is not None
        assert alone.output is not None
        assert_same_bits(alone.output[:, 0], whole.output[:, b])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate(GRAPH, EVENTS, target="gpu"), "`target` must be cpu, cuda or reference, got 'gpu'."),
        (lambda: simulate(GRAPH, EVENTS, n_threads=0), "`n_threads` must be at least 1, got 0."),
        (
            lambda: simulate(GRAPH, EVENTS._replace(n_units=12)),
            "`events` must be of the graph's 11 input units, got 12.",
        ),
        (
            lambda: simulate(GRAPH, Events(np.array([[0, 1]]), np.array([11], np.int32), 11)),
            "`events.idx` must be units from 0 to n_units - 1 = 10, got 11 at sample 0, step 0.",
        ),
    ],
)
def test_what_does_not_fit_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


def test_training_and_simulation_agree() -> None:
    graph, _ = to_graph(make_net(), dt_ms=1.0, max_count=3)
    net = su.convert.to_nn(graph)
    out, _ = net(su.Spikes.from_events(EVENTS))
    found = simulate(graph, EVENTS)
    assert_same_bits(out.detach().numpy(), found.output)


def test_counts_beyond_what_the_grid_allows_are_said(caplog: pytest.LogCaptureFixture) -> None:
    assert EVENTS.max_count() == 3
    with caplog.at_level("WARNING"):
        simulate(GRAPH, EVENTS)
        simulate(replace(GRAPH, max_count=0), EVENTS)
        assert not caplog.records
        simulate(replace(GRAPH, max_count=2), EVENTS)
    assert "`events` have 3 events of one unit in one step, the graph's sums are exact up to 2" in caplog.text
