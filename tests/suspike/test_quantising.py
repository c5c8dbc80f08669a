"""Weights of one byte: they spike as the floats that they stand for, in every target and in stretches."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from suspike_testing.cases import take_steps
from suspike_testing.comparing import assert_same_bits, assert_same_events, assert_same_result
from suspike_testing.networks import events_for, make, make_conv

from suspike.convert import keep_floats, to_graph, to_nn
from suspike.export import to_nir
from suspike.graph import Graph, Sparse, as_float, to_int8
from suspike.graph.rounding import rounded
from suspike.simulate import simulate, stream


@pytest.mark.parametrize("neuron", ["LIF", "CubaLIF", "AdLIF"])
@pytest.mark.parametrize("gate", ["none", "rhythm", "recurrent", "drive"])
def test_it_spikes_as_the_floats_it_stands_for(neuron: str, gate: str) -> None:
    check(keep_floats(make(neuron, gate), dt_ms=1.0), events_for(6))


@pytest.mark.parametrize("gate", ["none", "rhythm", "input", "drive"])
def test_convolutions_too(gate: str) -> None:
    check(keep_floats(make_conv(gate), dt_ms=1.0), events_for(48))


def check(graph: Graph, events: Any) -> None:
    small, roundings = to_int8(rounded(graph, max_count=3)[0])
    assert [r.layer for r in roundings] == [layer.name for layer in graph.neurons]
    for layer, rounding in zip(small.neurons, roundings, strict=True):
        assert layer.is_int8
        used = [x for x in (layer.weight, layer.recurrent) if x is not None]
        largest = max(int(np.abs(x.astype(int)).max()) for x in used)  # type: ignore[union-attr]
        assert 63 < largest <= 127
        assert layer.scale == 2.0**-rounding.exponent
        assert 0 < rounding.change <= layer.scale / 2
    wide = as_float(small)
    assert not any(layer.is_int8 for layer in wide.neurons)
    everyone = {layer.name: range(layer.n_units) for layer in small.neurons}
    found = simulate(small, events, n_threads=2, probe=everyone)
    assert all(len(spikes.idx) > 20 for spikes in found.spikes)
    assert_same_result(found, simulate(wide, events, probe=everyone))
    assert_same_result(found, simulate(small, events, target="reference", probe=everyone))
    bare = simulate(small, events)
    assert bare.counts == found.counts
    for a, b in zip(bare.spikes, found.spikes, strict=True):
        assert_same_events(a, b)
    cuts = (0, 1, 13, 40)
    results = list(stream(small, [take_steps(events, a, b) for a, b in pairwise(cuts)]))
    for i, spikes in enumerate(found.spikes):
        np.testing.assert_array_equal(np.concatenate([r.spikes[i].dense() for r in results]), spikes.dense())
    again, unmoved = to_int8(wide)
    assert all(r.change == 0 for r in unmoved)
    np.testing.assert_array_equal(again.neurons[0].weight, small.neurons[0].weight)


def test_a_layer_without_weights_above_zero() -> None:
    graph = keep_floats(make("LIF", "none"), dt_ms=1.0)
    layer = graph.neurons[0]
    assert not isinstance(layer.weight, Sparse)
    still = replace(layer, weight=layer.weight * 0, recurrent=None)
    small, (rounding,) = to_int8(Graph((still,), 1.0))
    assert (rounding.exponent, small.neurons[0].scale) == (0, 1.0)


def test_modules_get_the_floats_and_files_ask_for_them() -> None:
    graph, _ = to_graph(make("LIF", "rhythm"), dt_ms=1.0, max_count=3)
    small, _ = to_int8(graph)
    back, _ = to_graph(to_nn(small), dt_ms=1.0, max_count=3)
    assert_same_bits(back.neurons[0].weight, as_float(small).neurons[0].weight)
    message = "`weight of layer 'dense0'` must be of floats, to be written to a file, got int8. Write as_float(graph)"
    with pytest.raises(ValueError, match=re.escape(message)):
        to_nir(small)
    with pytest.raises(ValueError, match="must be of floats, to be rounded to int8, got int8"):
        to_int8(small)
    kept, roundings = rounded(small, max_count=1)
    assert not roundings
    assert kept.neurons[0] is small.neurons[0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scale": 0.0}, "`scale of layer 'dense1'` must be above 0, got 0.0."),
        (
            {"weight": np.zeros((24, 9), np.float32)},
            "`scale of layer 'dense1'` must be 1 for weights that are floats, got 0.0",
        ),
        (
            {"recurrent": np.zeros((9, 9), np.float32)},
            "`weights of layer 'dense1'` must be all int8, got float32, int8.",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(changed: dict[str, Any], message: str) -> None:
    small, _ = to_int8(to_graph(make("LIF", "none"), dt_ms=1.0)[0])
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        replace(small.neurons[1], **changed)


def test_fan_out_lists_stay_floats() -> None:
    layer = to_graph(make("LIF", "none"), dt_ms=1.0)[0].neurons[0]
    sparse = replace(layer, weight=Sparse.of(layer.weight))
    with pytest.raises(ValueError, match="must be rows or a convolution's, to be int8, got fan-out lists"):
        to_int8(Graph((sparse,), 1.0))
    small, _ = to_int8(Graph((layer,), 1.0))
    bytes_ = small.neurons[0]
    with pytest.raises(ValueError, match="must be floats where there are fan-out lists, got int8"):
        replace(bytes_, recurrent=Sparse.of(layer.recurrent))
