"""From modules to a Graph and back: the same spikes everywhere, on a grid where sums are exact."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from suspike_testing.comparing import assert_same_bits, assert_same_events
from suspike_testing.nets import KINDS, dense_of, input_for, make_input, make_net, on_path, run_layers

import suspike as su
from suspike.convert import keep_floats, to_graph, to_nn
from suspike.graph import LI, LIF, Graph, Layer
from suspike.graph.rounding import rounded
from suspike.simulate import simulate


def off_grid(net: su.nn.Stack) -> su.nn.Stack:
    """Give the weights all their bits."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in net:
            for parameter in (layer.weight, layer.recurrent, layer.bias):
                if parameter is not None:
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.003)
    return net


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 999),
    n_in=st.sampled_from([1, 30, 300]),
    n=st.sampled_from([1, 4]),
    scale=st.sampled_from([1e-3, 1.0, 77.0, 3e6, 0.0]),
    max_count=st.sampled_from([1, 5]),
    recurrent=st.booleans(),
)
def test_every_order_of_a_sum_is_exact(
    seed: int, n_in: int, n: int, scale: float, max_count: int, recurrent: bool
) -> None:
    rng = np.random.default_rng(seed)
    draw = lambda *shape: (rng.standard_normal(shape) ** 3 * scale).astype(np.float32)  # noqa: E731
    neuron = LIF(np.full(n, 0.5, np.float32), np.ones(n, np.float32))
    before = Layer("x", draw(n_in, n), draw(n), neuron, draw(n, n) if recurrent else None)
    graph, (rounding,) = rounded(Graph((before,), 1.0), max_count=max_count)
    after = graph.neurons[0]
    pairs = [(before.weight, after.weight), (before.bias, after.bias)]
    if recurrent:
        assert before.recurrent is not None
        assert after.recurrent is not None
        pairs.append((before.recurrent, after.recurrent))
    grid = 2.0**-rounding.exponent
    for old, new in pairs:
        assert new.dtype == np.float32
        wide = new.astype(np.float64)
        np.testing.assert_array_equal(wide / grid, np.round(wide / grid))  # on the grid
        assert np.abs(wide - old).max(initial=0) <= min(grid / 2, rounding.change)
    rows = np.concatenate(
        [after.weight.repeat(max_count, 0), after.bias[None], *([after.recurrent] if recurrent else [])]
    )
    assert np.abs(rows.astype(np.float64)).sum(0).max() < 2.0**24 * grid
    wanted = rows.astype(np.float64).sum(0)
    for signs in (np.sign(rows), np.ones_like(rows)):  # all of one sign is the worst case
        wanted = (signs * rows).astype(np.float64).sum(0)
        for _ in range(3):
            total = np.zeros(n, np.float32)
            for row in rng.permutation(signs * rows):
                total += row
            np.testing.assert_array_equal(total, wanted)
            np.testing.assert_array_equal(np.sum(signs * rows, axis=0, dtype=np.float32), wanted)
    # and a grid of half the size would break the rule: the chosen one is the finest
    if scale and rounding.exponent < 149:
        halves = [np.round(x.astype(np.float64) / (grid / 2)) * (grid / 2) for x, _ in pairs]
        halves[0] = halves[0] * max_count
        assert sum(np.abs(x).sum(0) if x.ndim == 2 else np.abs(x) for x in halves).max() >= 2.0**24 * grid / 2


def test_rounding_up_over_the_bound_takes_a_coarser_grid() -> None:
    """256 weights of 65535.6 units are less than 2^24 of them, but as many of 65536 are not."""
    weight = np.full((256, 1), 65535.6, np.float32)
    one = np.ones(1, np.float32)
    graph, (rounding,) = rounded(Graph((Layer("x", weight, 0 * one, LIF(one / 2, one)),), 1.0), max_count=1)
    after = graph.neurons[0]
    assert rounding.exponent == -1
    assert after.weight.sum(dtype=np.float64) < 2.0**25
    assert weight.sum(dtype=np.float64) < 2.0**24 <= np.round(weight).sum(dtype=np.float64)


@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("learn_periods", [True, False])
def test_one_graph_spikes_the_same_everywhere(reset: str, gate: bool, learn_periods: bool) -> None:
    events = make_input(40, 5, density=0.3)
    net = off_grid(make_net(reset=reset, gate=gate, learn_periods=learn_periods))
    graph, roundings = to_graph(net, dt_ms=1.0, max_count=events.max_count())
    assert [r.layer for r in roundings] == ["dense0", "dense1", "dense2"]
    assert all(0 < r.change < 1e-5 for r in roundings)
    back = to_nn(graph)
    again, unmoved = to_graph(back, dt_ms=1.0, max_count=events.max_count())
    assert all(r.change == 0 for r in unmoved)
    for a, b in zip(again.layers, graph.layers, strict=True):
        for name in ("weight", "bias"):
            assert_same_bits(getattr(a, name), getattr(b, name))
        assert_same_bits(a.neuron.beta, b.neuron.beta)
        if isinstance(a.neuron, LIF):
            assert isinstance(b.neuron, LIF)
            assert_same_bits(a.neuron.threshold, b.neuron.threshold)
            assert_same_bits(a.recurrent, b.recurrent)
            assert a.neuron.reset == b.neuron.reset == reset
            assert (a.neuron.gate is None) == (b.neuron.gate is None) == (not gate)
            if gate:
                np.testing.assert_array_equal(a.neuron.gate.table(500), b.neuron.gate.table(500))

    wanted = simulate(graph, events, target="reference")
    assert min(len(s.idx) for s in wanted.spikes) > 100
    for n_threads in (1, 2, 3):
        found = simulate(graph, events, n_threads=n_threads)
        for a, b in zip(found.spikes, wanted.spikes, strict=True):
            assert_same_events(a, b)
        assert_same_bits(found.output, wanted.output)
        assert found.counts == wanted.counts
    for kind in KINDS:
        with on_path(kind):
            outs, _ = run_layers(back, input_for(kind, torch.from_numpy(events.dense())), (None,) * 3)
        for out, spikes in zip(outs[:2], wanted.spikes, strict=True):
            np.testing.assert_array_equal(dense_of(out), spikes.dense())
        assert_same_bits(dense_of(outs[2]), wanted.output)


def test_keep_floats_keeps_them() -> None:
    net = off_grid(make_net())
    for layer, module in zip(keep_floats(net, dt_ms=2.0).layers, net, strict=True):
        assert_same_bits(layer.weight, module.weight.detach().numpy())
        assert not np.shares_memory(layer.weight, module.weight.detach().numpy())
    graph, _ = to_graph(net, dt_ms=2.0)
    assert graph.dt_ms == 2.0
    assert (graph.layers[0].weight != net[0].weight.detach().numpy()).any()


def test_to_nn_keeps_what_a_graph_holds_and_its_memory_apart() -> None:
    graph, _ = to_graph(make_net(), dt_ms=1.0)
    net = to_nn(graph)
    old = graph.layers[0].weight.copy()
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            tensor.add_(1)
    assert_same_bits(graph.layers[0].weight, old)
    assert isinstance(graph.layers[2].neuron, LI)
    assert isinstance(net[2].neuron, su.nn.LI)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda net: net[1].weight[2, 3].fill_(torch.nan),
            "`weight of layer 'dense1'` must be finite, got nan at [2, 3]",
        ),
        (lambda net: net[0].recurrent[0, 0].fill_(torch.inf), "`recurrent of layer 'dense0'` must be finite, got inf"),
        (lambda net: net[2].bias[1].fill_(torch.nan), "`bias of layer 'dense2'` must be finite, got nan at [1]"),
        (lambda net: net[0].neuron.gate.phase[0, 0].fill_(torch.nan), "`Rhythm.phase` must be finite, got nan"),
    ],
)
def test_values_that_are_not_finite_are_refused(spoil: Any, message: str) -> None:
    net = make_net()
    with torch.no_grad():
        spoil(net)
    with pytest.raises(ValueError, match=re.escape(message)):
        to_graph(net, dt_ms=1.0)


def test_what_cannot_be_converted_is_named() -> None:
    with pytest.raises(
        ValueError,
        match=re.escape(
            "`net` must be a Stack of Dense, Conv2d, Pool2d, ChannelsLast, Skip and their like, got a Dropout."
        ),
    ):
        to_graph(su.nn.Stack(torch.nn.Dropout()), dt_ms=1.0)
    with pytest.raises(ValueError, match=re.escape("`max_count` must be at least 1, got 0.")):
        to_graph(make_net(), dt_ms=1.0, max_count=0)
