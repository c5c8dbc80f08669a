"""A Graph holds what fits together, and names what does not."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from suspike.graph import (
    LI,
    LIF,
    AdLIF,
    CubaLIF,
    DriveGate,
    Graph,
    InputGate,
    Layer,
    Periodic,
    Rhythm,
    Route,
)
from suspike_kernels.rhythm import rhythm


def ones(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


def lif(n: int = 3, **changed: Any) -> LIF:
    return LIF(**{"beta": ones(n) / 2, "threshold": ones(n), **changed})


def layer(name: str = "a", n_in: int = 2, n: int = 3, neuron: LIF | LI | None = None, **changed: Any) -> Layer:
    neuron = lif(n) if neuron is None else neuron
    return Layer(**{"name": name, "weight": ones(n_in, n), "bias": ones(n), "neuron": neuron, **changed})


def gate(n: int = 3, k: int = 2, **changed: Any) -> Rhythm:
    wide = np.float64
    arrays = {
        "bias": ones(n, dtype=wide),
        "amplitude": ones(n, k, dtype=wide),
        "phase": ones(n, k, dtype=wide),
        "period": 2 + ones(k, dtype=wide),
    }
    return Rhythm(**{**arrays, **changed})


NAN = np.array([1, np.nan, 1], np.float32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gate(amplitude=ones(3, 1)), "`Rhythm.amplitude` must be of shape [3, 2], got shape [3, 1]."),
        (lambda: gate(bias=NAN), "`Rhythm.bias` must be finite, got nan at [1] (1 such values)."),
        (lambda: lif(beta=ones(3) * 2), "`LIF.beta` must be from 0 to 1, got 2.0."),
        (lambda: lif(beta=ones(3, 1)), "`LIF.beta` must be of shape [N], got shape (3, 1)."),
        (lambda: LI(NAN), "`LI.beta` must be finite, got nan at [1] (1 such values)."),
        (lambda: lif(threshold=ones(2)), "`LIF.threshold` must be of shape [3], got shape [2]."),
        (lambda: lif(threshold=NAN), "`LIF.threshold` must be finite, got nan at [1] (1 such values)."),
        (lambda: lif(threshold=ones(3) * 0), "`LIF.threshold` must be above 0, got 0.0."),
        (lambda: lif(reset="soft"), "`reset` must be one of zero, subtract, none, got 'soft'."),
        (lambda: lif(gate=gate(4)), "`LIF.gate` must be of 3 units like its neurons, got 4."),
        (lambda: layer(bias=NAN), "`bias of layer 'a'` must be finite, got nan at [1] (1 such values)."),
        (lambda: layer(weight=ones(2, 4)), "`weight of layer 'a'` must be of shape [2, 3], got shape [2, 4]."),
        (lambda: layer(neuron=lif(4)), "`beta of layer 'a'` must be of shape [3], got shape [4]."),
        (
            lambda: layer(recurrent=ones(3, 2)),
            "`recurrent of layer 'a'` must be of shape [3, 3], got shape [3, 2].",
        ),
        (
            lambda: layer(neuron=LI(ones(3)), recurrent=ones(3, 3)),
            "`recurrent of layer 'a'` must be absent on a readout, which never fires, got an array.",
        ),
        (
            lambda: layer(bias=ones(3, dtype=np.float64)),
            "`arrays of layer 'a'` must be all float32 or all float64, got float32, float64.",
        ),
        (
            lambda: layer(neuron=lif(threshold=ones(3, dtype=np.float64))),
            "`arrays of layer 'a'` must be all float32 or all float64, got float32, float64.",
        ),
        (
            lambda: layer(
                weight=ones(2, 3, dtype=np.int64), bias=ones(3, dtype=np.int64), neuron=LI(ones(3, dtype=np.int64))
            ),
            "`arrays of layer 'a'` must be all float32 or all float64, got int64.",
        ),
        (lambda: Graph((), 1.0), "`layers` must be at least one layer, got none."),
        (lambda: Graph((layer(),), 0.0), "`dt_ms` must be above 0, got 0.0."),
        (lambda: Graph((layer(),), np.nan), "`dt_ms` must be above 0, got nan."),
        (lambda: Graph((layer(), layer(n_in=3)), 1.0), "`layers` must be of different names, got a, a."),
        (
            lambda: Graph((layer("input"),), 1.0),
            "`layers` must be of other names than 'input', which is the graph's input, got input.",
        ),
        (
            lambda: Graph((layer(inputs=("b",)), layer("b", 3)), 1.0),
            "`inputs of layer 'a'` must be among input, which come before, got 'b'.",
        ),
        (
            lambda: Graph((layer(), Route("r", np.zeros(2, int), 1)), 1.0),
            "`units of route 'r'` must be of 3 rows, one a unit of 'a', got 2 rows.",
        ),
        (lambda: Route("r", np.array([0, 3]), 3), "`units of route 'r'` must be below n_units = 3, got 3."),
        (
            lambda: Route("r", ones(2), 3),
            "`units of route 'r'` must be whole numbers [n_in], got float32 of shape [2].",
        ),
        (
            lambda: layer(neuron=lif(gate=InputGate(ones(3, 3), ones(3), 3))),
            "`gate.weight of layer 'a'` must be of shape [2, 3], got shape [3, 3].",
        ),
        (
            lambda: InputGate(ones(3, 2), ones(2), 3),
            "`InputGate.bias` must be of a number of gates that divides n_units = 3, got 2.",
        ),
        (
            lambda: layer(neuron=LI(ones(3), InputGate(ones(2, 3), ones(3), 3, ones(3, 3)))),
            "`gate.recurrent of layer 'a'` must be absent on a readout, which never fires, got an array.",
        ),
        (
            lambda: layer(neuron=lif(gate=DriveGate(ones(3, dtype=np.float64)))),
            "`arrays of layer 'a'` must be all float32 or all float64, got float32, float64.",
        ),
        (
            lambda: Periodic(np.zeros(3, np.int64), 4, 4),
            "`Periodic.n_open` must be from 1 to period - 1 = 3, got 4.",
        ),
        (lambda: CubaLIF(ones(3), 2 * ones(3), ones(3)), "`CubaLIF.alpha` must be from 0 to 1, got 2.0."),
        (lambda: AdLIF(*[ones(3)] * 3, NAN, ones(3)), "`AdLIF.b` must be finite, got nan at [1] (1 such values)."),
        (
            lambda: Graph((layer(), layer("b")), 1.0),
            "`weight of layer 'b'` must be of 3 rows, one a unit of 'a', got 2 rows.",
        ),
        (
            lambda: Graph((layer(neuron=LI(ones(3))), layer("b", 3)), 1.0),
            "`layer 'a'` must be the last one, since a readout never fires, got 'b' behind it.",
        ),
    ],
)
def test_what_does_not_fit_is_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


def test_a_graph_that_fits() -> None:
    graph = Graph(
        (layer(neuron=lif(gate=gate())), layer("b", 3, recurrent=ones(3, 3)), layer("c", 3, neuron=LI(ones(3)))), 0.5
    )
    assert (graph.n_in, graph.dtype) == (2, np.float32)
    assert [(x.n_in, x.n_units) for x in graph.layers] == [(2, 3), (3, 3), (3, 3)]
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.dt_ms = 1.0  # type: ignore[misc]


def test_the_table_of_a_rhythm_is_where_it_is_above_zero() -> None:
    rng = np.random.default_rng(0)
    made = Rhythm(rng.standard_normal(5), rng.standard_normal((5, 2)), rng.uniform(0, 6, (5, 2)), np.array([12.5, 3.0]))
    table = made.table(50)
    a = rhythm(made.bias, made.amplitude, made.phase, 2 * np.pi / made.period, start=0, n_steps=50)
    assert table.dtype == np.uint8
    np.testing.assert_array_equal(table, a > 0)
    assert 0 < table.mean() < 1
    np.testing.assert_array_equal(made.table(20, start=30), table[30:])


def test_a_gate_at_exactly_zero_is_closed() -> None:
    zero = gate(bias=np.zeros(3), amplitude=np.zeros((3, 2)))
    assert not zero.table(4).any()
