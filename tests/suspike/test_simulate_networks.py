"""Networks of every neuron, gate and layer: simulated, they do what the torch modules do; whole, or in stretches."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from suspike_testing.cases import take_steps
from suspike_testing.comparing import assert_same_bits, assert_same_events
from suspike_testing.networks import events_for, make, make_conv
from suspike_testing.toolkit import run_python
from suspike_testing.zoo import N_IN, PAIRS, N

import suspike as su
from suspike import nn
from suspike.convert import to_graph, to_nn
from suspike.graph import LI, LIF, AdLIF, CubaLI, Graph, Layer, Rhythm, Route
from suspike.graph.ordering import permuted
from suspike.simulate import Result, State, simulate, stream


def same(found: Result, wanted: Result) -> None:
    for a, b in zip(found.spikes, wanted.spikes, strict=True):
        assert_same_events(a, b)
    if wanted.output is not None:
        assert_same_bits(found.output, wanted.output)
    assert found.counts == wanted.counts


def in_torch(net: nn.Stack, events: su.Events) -> tuple[list[su.inspect.Call], Any]:
    """The call of each layer, in order, in plain torch, and the last one's output."""
    with torch.no_grad(), nn.path("torch"), su.record(net) as rec:
        out, _ = net(torch.from_numpy(events.dense()))
    return list(rec.values()), out


def compare(graph: Graph, net: nn.Stack, events: su.Events) -> Result:
    """Simulated, a network does what its modules do; probes see what they record."""
    calls, out = in_torch(net, events)
    everyone = {layer.name: range(layer.n_units) for layer in graph.neurons}
    found = simulate(graph, events, probe=everyone, n_threads=2)
    fired = [call.spikes for call in calls if call.spikes is not None]
    for a, b in zip(found.spikes, fired, strict=True):
        np.testing.assert_array_equal(a.dense(), b)
    if found.output is not None:
        assert_same_bits(found.output, out.numpy())
    for layer, call in zip(graph.neurons, calls, strict=True):
        probe = found.probes[layer.name]
        if call.spikes is not None:
            np.testing.assert_array_equal(probe.spk, call.spikes)
        if call.gate is None:
            assert probe.is_open.all()
        elif isinstance(call.gate, nn.GateTable):
            table = call.gate.open.numpy().repeat(layer.n_units // call.gate.open.shape[1], 1)
            np.testing.assert_array_equal(probe.is_open, np.broadcast_to(table[:, None], probe.is_open.shape))
        else:
            np.testing.assert_array_equal(probe.is_open.sum(2), call.gate.open_at.numpy().T)
        state = found.state.layers[layer.name]
        np.testing.assert_array_equal(probe.v[-1], state.variables[0])
        np.testing.assert_array_equal(probe.spk[-1], state.spk)
    return found


@pytest.mark.parametrize(("neuron", "gate"), PAIRS)
def test_every_neuron_and_gate(neuron: str, gate: str) -> None:
    events = events_for(N_IN)
    graph, _ = to_graph(make(neuron, gate), dt_ms=1.0, max_count=3)
    found = compare(graph, to_nn(graph), events)
    same(simulate(graph, events, target="reference"), found)
    assert all(len(spikes.idx) > 100 for spikes in found.spikes)
    gated = found.counts[0]
    assert gated.updates_done + gated.updates_skipped == 40 * 3 * N
    assert (gated.updates_skipped > 300) == (gate != "none")
    assert gated.state_words == (2 if neuron in ("CubaLIF", "CubaLI", "AdLIF") else 1)
    assert gated.words_written == gated.updates_done * gated.state_words
    assert (gated.gate_synops > 0) == (gate in ("input", "recurrent"))


@pytest.mark.parametrize("gate", ["none", "rhythm", "input", "drive"])
def test_convolutions_pooling_and_skip_connections(gate: str) -> None:
    events, net = events_for(48), make_conv(gate)
    graph, roundings = to_graph(net, dt_ms=1.0, max_count=3)
    assert all(r.change == 0 for r in roundings)
    found = compare(graph, net, events)
    same(simulate(graph, events, target="reference"), found)
    assert all(len(spikes.idx) > 20 for spikes in found.spikes)
    table = found.probes[graph.neurons[0].name].is_open.astype(np.int64)  # [T, B, N]
    reached = np.zeros_like(table)
    geometry = graph.neurons[0].geometry
    assert geometry is not None
    order = graph.layers[0]
    assert isinstance(order, Route)
    for b, t in np.ndindex(3, 40):
        for unit in events.idx[events.ptr[b, t] : events.ptr[b, t + 1]]:
            for _, _, first in geometry.targets(int(order.units[unit])):
                reached[t, b, first : first + 4] += 1
    counts = found.counts[0]
    done = reached.sum() if gate == "drive" else (reached * table).sum()
    assert counts.synops_done - counts.gate_synops == done
    assert counts.synops_skipped == reached.sum() - done
    assert counts.synapses == geometry.n_synapses


@pytest.mark.parametrize(("neuron", "gate"), [p for p in PAIRS if p[1] in ("none", "rhythm", "recurrent", "drive")])
def test_stretches_give_what_the_whole_gives(neuron: str, gate: str) -> None:
    events = events_for(N_IN)
    graph, _ = to_graph(make(neuron, gate), dt_ms=1.0, max_count=3)
    check_stretches(graph, events)


@pytest.mark.parametrize("gate", ["none", "input"])
def test_stretches_of_convolutions(gate: str) -> None:
    check_stretches(to_graph(make_conv(gate), dt_ms=1.0, max_count=3)[0], events_for(48))


def check_stretches(graph: Graph, events: su.Events) -> None:
    whole = simulate(graph, events)
    cuts = [0, 0, 1, 13, 14, 14, 40]
    chunks = [take_steps(events, a, b) for a, b in pairwise(cuts)]
    results = list(stream(graph, chunks))
    for i, spikes in enumerate(whole.spikes):
        parts = [result.spikes[i].dense() for result in results]
        np.testing.assert_array_equal(np.concatenate(parts), spikes.dense())
    if whole.output is not None:
        assert_same_bits(np.concatenate([result.output for result in results]), whole.output)
    for name in ("events", "synops_done", "synops_skipped", "updates_done", "updates_skipped", "spikes", "gate_synops"):
        for i, layer in enumerate(whole.counts):
            assert sum(getattr(result.counts[i], name) for result in results) == getattr(layer, name), name
    end = results[-1].state
    assert end.t == whole.state.t == 40
    for name, state in whole.state.layers.items():
        for a, b in zip(end.layers[name], state, strict=True):
            assert_same_bits(a, b)


def test_behind_an_end_nothing_counts() -> None:
    events, net = events_for(N_IN), make("CubaLIF", "recurrent")
    graph, _ = to_graph(net, dt_ms=1.0, max_count=3)
    lengths = np.array([40, 7, 0])
    counts = events.dense(np.int64)
    for b, length in enumerate(lengths):
        counts[length:, b] = 0
    cut = su.Spikes.from_dense(torch.from_numpy(counts)).events
    everyone = {layer.name: range(layer.n_units) for layer in graph.neurons}
    found = simulate(graph, cut, n_steps=lengths, probe=everyone)
    for b, length in enumerate(lengths):
        its_own = take_steps(cut.take([b]), 0, length)
        alone = simulate(graph, its_own, probe=everyone)
        for name, probe in found.probes.items():
            assert not probe.is_open[length:, b].any()
            for a, c in zip(probe[1:], alone.probes[name][1:], strict=True):
                np.testing.assert_array_equal(a[:length, b], c[:, 0])


GRAPH, _ = to_graph(make("LIF", "rhythm"), dt_ms=1.0, max_count=3)
EVENTS = events_for(N_IN)
STATE = simulate(GRAPH, EVENTS).state


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: simulate(GRAPH, EVENTS, probe={"dense9": [0]}),
            "`probe` must be of layers among dense0, dense1, dense2, got 'dense9'.",
        ),
        (
            lambda: simulate(GRAPH, EVENTS, probe={"dense1": [0, 9]}),
            "`probe['dense1']` must be units from 0 to 8, got 0 to 9.",
        ),
        (
            lambda: simulate(GRAPH, EVENTS, probe={"dense1": [0.5]}),
            "`probe['dense1']` must be a list of whole numbers, got [0.5].",
        ),
        (
            lambda: simulate(GRAPH, EVENTS.take([0]), state=STATE),
            "`state.layers['dense0'].variables` must be float32 of shape [1, 1, 24], got float32 of shape [1, 3, 24]. "
            "Another batch needs a state of its own.",
        ),
        (
            lambda: simulate(GRAPH, EVENTS, state=State(0, {})),
            "`state` must be of layers dense0, dense1, dense2, got none.",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


def test_a_chain_alone_becomes_modules_again() -> None:
    graph, _ = to_graph(make_conv(), dt_ms=1.0)
    with pytest.raises(ValueError, match="`layer 'channelslast0'` must be a layer on 'input', in a chain, got a Route"):
        to_nn(graph)
    net = nn.Stack(nn.Conv2d((3, 3), 1, 2, 2, nn.LIF(8, beta=0.9), stride=1))
    graph, _ = to_graph(net, dt_ms=1.0)
    events = events_for(9)
    compare(graph, to_nn(graph), events)


def dense(n_in: int, neuron: nn.Neuron) -> nn.Dense:
    return nn.Dense(n_in, neuron.n_units, neuron)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (
            [dense(3, nn.LIF(2, beta=0.9, gate=nn.SoftGate(2, open=0.5)))],
            "`gate of layer 'dense0'` must be one that is open or shut: a Graph holds no other, got a SoftGate.",
        ),
        (
            [dense(4, nn.IF(4)), nn.Pool2d((2, 2), 1, 2, mode="avg")],
            "`net` must be with a layer behind its last average, got an average at its end.",
        ),
        (
            [nn.Pool2d((2, 2), 1, 2, mode="avg"), nn.Skip(dense(1, nn.IF(1))), dense(1, nn.LI(1, beta=0.5))],
            "`body of 'skip1'` must be of events that count as much as its input's, 0.25, got 1.",
        ),
    ],
)
def test_what_has_no_graph_is_named(modules: list[torch.nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        to_graph(nn.Stack(*modules), dt_ms=1.0)


def test_a_convolution_that_hears_itself_counts_both() -> None:
    graph, _ = to_graph(nn.Stack(nn.Conv2d((3, 3), 1, 2, 2, nn.LIF(8, beta=0.9, threshold=0.3))), dt_ms=1.0)
    layer = graph.neurons[0]
    geometry, own = layer.geometry, np.full((8, 8), 0.125, np.float32)
    assert geometry is not None
    dense = np.zeros((9, 8), np.float32)
    for unit in range(9):
        for row, column, first in geometry.targets(unit):
            dense[unit, first : first + 2] += layer.synapses.weight[row, column : column + 2]
    events = events_for(9)
    both = simulate(Graph((replace(layer, recurrent=own),), 1.0), events)
    flat = simulate(Graph((replace(layer, weight=dense, geometry=None, recurrent=own),), 1.0), events)
    assert_same_events(both.spikes[0], flat.spikes[0])
    n_back = len(both.spikes[0].idx) - int(both.state.layers[layer.name].spk.sum())
    assert n_back > 50
    reached = sum(sum(2 for _ in geometry.targets(int(unit))) for unit in events.idx)
    assert both.counts[0].synops_done == reached + 8 * n_back
    assert both.counts[0].events == flat.counts[0].events == len(events.idx) + n_back
    assert both.counts[0].synapses == geometry.n_synapses + 64
    assert both.counts[0].synops_skipped == 0


ON_DEVICE = """
import sys
import numpy as np
from suspike.graph import INPUT, LI, LIF, DriveGate, Graph, Layer, Rhythm, Route
from suspike.simulate import simulate
from suspike_kernels.layout import events_from_dense

rng = np.random.default_rng(0)
draw = lambda *shape: (rng.integers(-60, 120, shape) / 256).astype(np.float32)
one = np.ones(9, np.float32)
gate = Rhythm(np.zeros(9), np.ones((9, 1)), np.arange(9.0)[:, None], np.array([5.3]))
graph = Graph((
    Layer("a", draw(5, 9), draw(9) / 4, LIF(one * 0.9, one / 2, gate=gate), draw(9, 9) / 4),
    Route("both", np.arange(9), 9, ("a",)),
    Layer("b", draw(9, 9), draw(9) / 4, LIF(one * 0.8, one / 2, "subtract", DriveGate(one / 4)), inputs=("both", "a")),
    Layer("c", draw(9, 2), draw(2) / 4, LI(one[:2] * 0.9)),
), 1.0)
events = events_from_dense(rng.poisson(0.3, (12, 2, 5)))
first, second = (events_from_dense(events.dense()[cut]) for cut in (np.s_[:5], np.s_[5:]))
for target in ("cpu", "cuda"):
    whole = simulate(graph, events, target=target)
    early = simulate(graph, first, target=target)
    late = simulate(graph, second, state=early.state, target=target)
    wanted = simulate(graph, events, target="reference", probe={"b": range(9)})
    assert all(len(x.idx) > 10 for x in wanted.spikes), [len(x.idx) for x in wanted.spikes]
    for a, b, c, d in zip(whole.spikes, early.spikes, late.spikes, wanted.spikes):
        assert (a.dense() == d.dense()).all() and (np.concatenate([b.dense(), c.dense()]) == d.dense()).all()
    assert (whole.output == wanted.output).all() and whole.counts == wanted.counts
    found = simulate(graph, events, target=target, probe={"b": range(9)}).probes["b"]
    assert all((a == b).all() for a, b in zip(found, wanted.probes["b"]))
print("equal")
"""


def test_on_a_device_it_is_the_same() -> None:
    assert run_python(ON_DEVICE, NUMBA_ENABLE_CUDASIM="1").stdout == "equal\n"


def test_without_a_device_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suspike_kernels.cuda.is_available", lambda: False)
    message = (
        "`target` must be cpu or reference where numba finds no CUDA device, got 'cuda'. pip install 'suspike[cuda]'"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        simulate(GRAPH, EVENTS, target="cuda")


@pytest.mark.parametrize("neuron", ["LIF", "AdLIF", "CubaLI"])
def test_neurons_that_open_together_are_computed_as_neighbours(neuron: str) -> None:
    rng, n = np.random.default_rng(0), 96
    draw = lambda *shape: (rng.integers(-40, 60, shape) / 256).astype(np.float32)  # noqa: E731
    leak, half = rng.uniform(0.5, 0.95, n).astype(np.float32), np.full(n, 0.5, np.float32)
    gate = Rhythm(np.full(n, -0.5), np.ones((n, 1)), rng.uniform(0, 6.28, (n, 1)), np.array([17.3]))
    made: Any = {
        "LIF": LIF(leak, half * rng.uniform(0.5, 1, n).astype(np.float32), "subtract", gate),
        "AdLIF": AdLIF(leak, leak[::-1].copy(), half, half, half / 8, gate=gate),
        "CubaLI": CubaLI(leak, leak[::-1].copy(), gate),
    }[neuron]
    first = Layer("first", draw(7, n), draw(n) / 8, made, draw(n, n) / 8 if made.fires else None)
    layers = [first, Layer("second", draw(n, 3), draw(3), LI(leak[:3]))] if made.fires else [first]
    graph = Graph(tuple(layers), 1.0)
    inner, order = graph.neurons[0].in_gate_order
    assert order is not None
    assert sorted(order) == list(range(n)) != order.tolist()
    table = inner.neuron.gate.table(400).reshape(400, -1, 16).any(2).mean()  # type: ignore[union-attr]
    assert table < 0.7 * gate.table(400).reshape(400, -1, 16).any(2).mean()
    events = events_for(7)
    everyone = {layer.name: range(layer.n_units) for layer in graph.neurons}
    found, wanted = (simulate(graph, events, probe=everyone, target=target) for target in ("cpu", "reference"))
    same(found, wanted)
    assert not made.fires or len(found.spikes[0].idx) > 1000
    for name in everyone:
        for a, b in zip(found.probes[name], wanted.probes[name], strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(found.state.layers[name], wanted.state.layers[name], strict=True):
            assert_same_bits(a, b)
    check_stretches(graph, events)


def test_what_cannot_be_put_in_another_order_is_named() -> None:
    layer = to_graph(make("LIF", "input"), dt_ms=1.0)[0].neurons[0]
    with pytest.raises(ValueError, match=r"`layer` must be of rows, .*, got 'dense0'"):
        permuted(layer, np.arange(N))
