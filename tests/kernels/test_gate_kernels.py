"""Gates: what is closed keeps its bits; every kind of gate is a table of bits, however they come about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from suspike_testing.cases import GATES, Case, make_case
from suspike_testing.comparing import assert_close, assert_close_fields, assert_same_bits, assert_same_run, bits

from suspike_kernels import cpu, reference, rules
from suspike_kernels.layout import NEURONS, GateArrays, always_open, events_from_dense, table_gate

BOTH = (reference, cpu)
GATED = GATES[1:]
EXTREMES = np.array([-0.0, 0.0, 1e-45, -1e-40, 3e38, -3e38, 1.5, np.float32(0.1)], np.float32)


def extremes(neuron: str, gate: str) -> Case:
    """Two samples of closed neurons in extreme states, both variables."""
    case = make_case(neuron=neuron, gate=gate, opened=0.0, trace=True, n_steps=5, n_samples=2, n_units=8, density=0.9)
    v = np.stack([EXTREMES, EXTREMES[::-1]])
    both = np.stack([v, np.roll(v, 3, axis=1)])
    return replace(case, layer=case.layer._replace(state=np.ascontiguousarray(both[: len(case.layer.state)])))


@pytest.mark.parametrize("gate", GATED)
@pytest.mark.parametrize("neuron", NEURONS)
def test_a_closed_neuron_keeps_its_bits(neuron: str, gate: str) -> None:
    case = extremes(neuron, gate)
    for module in BOTH:
        with np.errstate(over="ignore"):  # in candidates that nobody takes
            run = case.forward(module)
        assert_same_bits(run.state, case.layer.state)
        assert_same_bits(run.trace, np.repeat(case.layer.state[None, 0], 5, axis=0))
        assert not len(run.spikes.idx), "neurons above threshold fire only when open"
        assert not len(run.active.idx)
        assert not run.spk.any()
        assert not run.n_open.any()


def test_bits_of_extremes_are_what_they_are_called() -> None:
    assert bits(EXTREMES)[0] == 1 << 31
    assert 0 < EXTREMES[2] < np.finfo(np.float32).tiny


@pytest.mark.parametrize("gate", ["table", "tables", "input"])
@pytest.mark.parametrize("neuron", NEURONS)
def test_a_closed_neuron_outlives_an_infinite_current(neuron: str, gate: str) -> None:
    case = extremes(neuron, gate)
    weight = np.full_like(case.layer.synapses.weight, 3e38)
    # one open neuron, so that the current is summed beside closed ones
    case = replace(case, layer=case.layer._replace(synapses=case.layer.synapses._replace(weight=weight)))
    gate_ = case.layer.gate
    opened, a = gate_.open.copy(), gate_.a.copy()
    opened[:, :, :1], a[:, :, :1] = 1, 1000
    case = case.with_gate(gate_._replace(open=opened, a=a))
    run = case.forward(cpu)
    assert_same_bits(run.state[:, :, 1:], case.layer.state[:, :, 1:])
    assert not np.array_equal(run.trace[:, :, 0], np.repeat(case.layer.state[None, 0, :, 0], 5, axis=0))


@pytest.mark.parametrize("gate", GATED)
@pytest.mark.parametrize("neuron", NEURONS)
def test_closed_steps_pass_the_gradient_on_unchanged(neuron: str, gate: str) -> None:
    case = make_case(neuron=neuron, gate=gate, opened=0.0, near=False, current=True)
    for module in BOTH:
        run = case.forward(module)
        by = case.backward(module, run)
        assert_same_bits(by.state, case.grads(run).state)
        for name in set(by._fields) - {"state"}:
            assert not getattr(by, name).any(), name


@pytest.mark.parametrize("neuron", NEURONS)
def test_input_at_closed_steps_is_not_integrated(neuron: str) -> None:
    case = make_case(neuron=neuron, n_steps=40, recurrent=False, density=0.5)
    table = case.layer.gate.open.copy()
    table[:, ::2] = 0
    counts = case.layer.events.dense(np.int64)
    counts[::2] = 0
    whole = case.with_gate(case.layer.gate._replace(open=table))
    spared = replace(whole, layer=whole.layer._replace(events=events_from_dense(counts)))
    for module in BOTH:
        run = whole.forward(module)
        assert len(run.spikes.idx) > 20
        assert_same_run(spared.forward(module), run)


@pytest.mark.parametrize("module", BOTH, ids=["reference", "cpu"])
def test_one_table_is_the_same_table_for_each_sample(module: Any) -> None:
    case = make_case(neuron="cuba", group=2)
    gate = case.layer.gate
    each = table_gate(np.repeat(gate.open, 4, axis=0), np.repeat(gate.near, 4, axis=0), np.float32)
    run, own = case.forward(module), case.with_gate(each).forward(module)
    assert_same_run(own, run)
    by, by_own = case.backward(module, run), case.with_gate(each).backward(module, run)
    assert_close(by_own.gate.sum(0, keepdims=True), by.gate, 1e-5, "gate")
    assert_close_fields(by_own._replace(gate=by.gate), by, 1e-5)


@pytest.mark.parametrize("module", BOTH, ids=["reference", "cpu"])
@pytest.mark.parametrize("kind", ["table", "tables", "input"])
def test_a_shared_gate_is_a_gate_for_each_of_its_neurons(kind: str, module: Any) -> None:
    case = make_case(gate=kind, group=3, n_units=18, dtype="float64")
    gate = case.layer.gate
    wide = {
        name: np.repeat(getattr(gate, name), 3, axis=-1)
        for name in ("open", "near", "a", "recurrent", "width", "scale")
    }
    single = case.with_gate(gate._replace(**wide))
    run, own = case.forward(module), single.forward(module)
    np.testing.assert_array_equal(own.n_open, np.repeat(run.n_open, 3, axis=1))
    assert_close(own.ramp, np.repeat(run.ramp, 3, axis=1), 1e-12, "ramp")
    assert_same_run(own._replace(n_open=run.n_open, ramp=run.ramp), run)
    # a gate's loss by its ramp falls on one of its neurons' gates alone
    grads = case.grads(run)
    ramp = np.zeros(own.ramp.shape)
    ramp[:, ::3] = grads.ramp
    by, by_own = case.backward(module, run, grads), single.backward(module, own, grads._replace(ramp=ramp))
    for name in ("gate", "gate_recurrent"):
        found = getattr(by_own, name)
        assert_close(found.reshape(*getattr(by, name).shape, 3).sum(-1), getattr(by, name), 1e-12, name)
    assert np.abs(by.gate).max() > 0.01
    assert_close_fields(by_own._replace(gate=by.gate, gate_recurrent=by.gate_recurrent), by, 1e-12)


@pytest.mark.parametrize("module", BOTH, ids=["reference", "cpu"])
@pytest.mark.parametrize("neuron", NEURONS)
def test_a_gate_that_data_open_is_the_table_of_its_bits(neuron: str, module: Any) -> None:
    for kind in ("input", "drive"):
        case = make_case(neuron=neuron, gate=kind, talk=False, recurrent=False, current=True, dtype="float64")
        layer, gate = case.layer, case.layer.gate
        cur = layer.events.dense(np.float64) @ layer.synapses.weight + layer.synapses.bias + layer.current
        a = gate.a if kind == "input" else np.ascontiguousarray((np.abs(cur) - gate.kappa).swapaxes(0, 1))
        bits_, near = (a > 0).astype(np.uint8), (np.abs(a) < gate.width).astype(np.uint8)
        assert 0.2 < bits_.mean() < 0.9
        assert near.mean() > 0.1
        table = case.with_gate(table_gate(bits_, near, np.float64))
        run, wanted = case.forward(module), table.forward(module)
        np.testing.assert_array_equal(run.n_open, bits_.sum(1))
        np.testing.assert_array_equal(run.open_at, bits_.sum(2))
        assert_close(run.ramp, np.clip((a / gate.scale + 1) / 2, 0, 1).sum(1), 1e-12, "ramp")
        assert_same_run(run._replace(n_open=wanted.n_open, ramp=wanted.ramp, open_at=wanted.open_at), wanted)
        grads = case.grads(run)
        by_table = table.backward(module, run, grads)
        by = case.backward(module, run, grads._replace(ramp=np.zeros_like(run.ramp)))
        slope = rules.surrogate(a, np.where(gate.width, gate.width, 1), 0)
        through = by_table.gate * slope
        if kind == "input":
            assert_close(by.gate, through, 1e-12, "gate")
            same = by._replace(gate=by_table.gate, gate_recurrent=by_table.gate_recurrent)
            assert_close_fields(same, by_table, 1e-12)
        else:
            assert_close(by.kappa, -through.sum((0, 1)), 1e-12, "kappa")
            push = np.sign(cur) * through.swapaxes(0, 1)
            assert_close(by.current, by_table.current + push, 1e-12, "current")
            assert_close(by.bias, by_table.bias + push.sum((0, 1)), 1e-12, "bias")
            assert_close(by.state, by_table.state, 1e-12, "state")
        ramp = case.backward(module, run, grads)
        inside = (np.abs(a) < gate.scale) * grads.ramp[:, None] / (2 * gate.scale)
        found = ramp.gate - by.gate if kind == "input" else by.kappa - ramp.kappa
        assert_close(found, inside if kind == "input" else inside.sum((0, 1)), 1e-12, "by ramp", floor=1e-12)


def test_an_activation_of_zero_is_closed() -> None:
    one = np.ones(3, np.float32)
    least = np.nextafter(np.float32(0.25), np.float32(1))
    none = always_open(np.float32)._replace(width=one * 0, scale=one)
    a = np.array([[[0.0, -0.0, 1e-45]]], np.float32)
    gates: list[GateArrays] = [
        none._replace(kind=2, a=a, recurrent=np.zeros((0, 3), np.float32)),
        none._replace(kind=3, kappa=np.full(3, 0.25, np.float32)),
    ]
    case = make_case(n_steps=1, n_samples=1, n_in=1, n_units=3, density=0.0, recurrent=False)
    bias = np.array([0.25, -0.25, -least], np.float32)
    layer = case.layer._replace(synapses=case.layer.synapses._replace(bias=bias))
    for gate in gates:
        for module in BOTH:
            run = replace(case, layer=layer).with_gate(gate).forward(module)
            assert run.n_open.tolist() == [[0, 0, 1]]
            assert_same_bits(run.state[0, 0, :2], layer.state[0, 0, :2])
            assert run.state[0, 0, 2] != layer.state[0, 0, 2]


def test_no_gradient_is_wanted_without_places_near() -> None:
    """A table may come with no `near` at all."""
    case = make_case(near=False)
    gate = case.layer.gate
    bare = case.with_gate(table_gate(gate.open, np.zeros((0, 0, 0), np.uint8), np.float32))
    for module in BOTH:
        run = case.forward(module)
        by, by_bare = case.backward(module, run), bare.backward(module, run)
        assert by.gate.shape == gate.open.shape
        assert by_bare.gate.shape == (0, 0, 0)
        assert not by.gate.any()
        assert_close_fields(by_bare._replace(gate=by.gate), by, 1e-7)
