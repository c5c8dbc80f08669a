"""Weights of int8 with one scale: against plain loops, against the same weights as floats, and where sums are large."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suspike_testing.cases import GATES, GRID, Case, cases, make_case
from suspike_testing.comparing import assert_same_bits, assert_same_run
from suspike_testing.poison import poisoned

from suspike_kernels import cpu, reference
from suspike_kernels.cpu import fused, simulation
from suspike_kernels.geometry import convolution
from suspike_kernels.layout import NEURONS, RESETS, SynapseArrays, events_from_dense

BOTH = (reference, cpu)


def small(case: Case, scale: float = GRID) -> Case:
    """The case with its weights, multiples of 2^-8, as int8; they count in steps of `scale`."""
    synapses, dtype = case.layer.synapses, case.layer.state.dtype
    whole = {
        name: np.clip(np.round(getattr(synapses, name) / GRID), -128, 127).astype(np.int8)
        for name in ("weight", "recurrent")
    }
    return with_synapses(case, synapses._replace(**whole, scale=np.full(1, scale, dtype)))


def with_synapses(case: Case, synapses: SynapseArrays) -> Case:
    return replace(case, layer=case.layer._replace(synapses=synapses))


def as_floats(case: Case) -> Case:
    """The case with the weights that its int8 stand for."""
    synapses, dtype = case.layer.synapses, case.layer.state.dtype
    weights = {name: getattr(synapses, name).astype(dtype) * synapses.scale[0] for name in ("weight", "recurrent")}
    return with_synapses(case, synapses._replace(**weights, scale=np.zeros(0, np.float32)))


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(cases(), st.sampled_from([GRID, 2.0**-7, 0.0031, 0.017]), st.booleans())
def test_compiled_equals_reference(case: Case, scale: float, simulated: bool) -> None:
    case = small(replace(case, surrogate=case.surrogate._replace(width=0.0)) if simulated else case, scale)
    wanted = case.forward(reference)
    for n_threads in (1, 3):
        assert_same_run(case.forward(cpu, n_threads=n_threads), wanted)
    if np.log2(scale) % 1 == 0:
        assert_same_run(as_floats(case).forward(cpu), wanted)


@pytest.mark.parametrize("gate", ["none", "table"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_in_registers(gate: str, dtype: str) -> None:
    for i, n_units in enumerate((256, 20, 1, 130, 300, 64, 17)):
        for scale in (GRID, 0.0123):
            case = small(make_case(
                gate=gate, opened=0.5, n_units=n_units, n_steps=9, n_samples=3, width=0.0, reset=RESETS[i % 3],
                trace=bool(i % 2), ends=i == 3, dtype=dtype, density=0.1, seed=i,
            ), scale)  # fmt: skip
            assert simulation.serves(case.layer)
            wanted = case.forward(reference)
            assert len(wanted.spikes.idx) > 20 or n_units == 1
            assert_same_run(case.forward(cpu, n_threads=2), wanted)
            with poisoned():
                assert_same_run(case.forward(cpu), wanted)
            if scale == GRID:
                assert_same_run(as_floats(case).forward(reference), wanted)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("neuron", NEURONS)
def test_every_kind_of_layer(neuron: str, gate: str) -> None:
    case = small(make_case(neuron=neuron, gate=gate, current=True, n_steps=40, trace=True, reset="subtract"), 0.004)
    run = case.forward(cpu)
    assert len(run.spikes.idx) > 25
    assert_same_run(run, case.forward(reference))
    with poisoned():
        assert_same_run(case.forward(cpu), run)


@pytest.mark.parametrize("gate", ["none", "table", "drive"])
@pytest.mark.parametrize("n_rows", [1, 255, 256, 257, 700, 30_000])
def test_sums_of_many_rows_are_exact(n_rows: int, gate: str) -> None:
    """A step of one event, many times over, whose weights are the least and the largest: int16 ends at 256 rows."""
    case = make_case(gate=gate, opened=1.0, n_steps=2, n_samples=1, n_in=1, n_units=40, width=0.0, recurrent=False)
    weight = np.full((1, 40), -128, np.int8)
    weight[0, ::3], weight[0, 1::5] = 127, 1
    synapses = case.layer.synapses._replace(
        weight=weight, recurrent=np.zeros((0, 40), np.int8), scale=np.full(1, 1e-4, np.float32)
    )
    counts = np.zeros((2, 1, 1), np.int64)
    counts[0] = n_rows
    case = replace(case, layer=case.layer._replace(synapses=synapses, events=events_from_dense(counts)))
    for module in BOTH:
        run = case.forward(module)
        cur = np.float32(1e-4) * (n_rows * weight[0].astype(np.float32)) + synapses.bias
        u = case.layer.neurons.beta * case.layer.state[0, 0] + cur
        fired = u > case.layer.neurons.threshold
        np.testing.assert_array_equal(run.spikes.idx[: run.spikes.ptr[0, 1]], np.flatnonzero(fired))
        assert fired.any() or n_rows < 100
    assert_same_run(case.forward(cpu), case.forward(reference))


def test_rows_of_both_lists_count_for_the_room() -> None:
    """200 events and 200 own spikes: neither list alone overflows int16."""
    n = 200
    case = make_case(gate="none", n_steps=1, n_samples=1, n_in=1, n_units=n, width=0.0)
    synapses = case.layer.synapses._replace(
        weight=np.full((1, n), 127, np.int8), recurrent=np.full((n, n), 127, np.int8), scale=np.ones(1, np.float32)
    )
    events = events_from_dense(np.full((1, 1, 1), 200))
    layer = case.layer._replace(synapses=synapses, events=events, spk=np.ones((1, n), np.float32))
    layer = layer._replace(neurons=layer.neurons._replace(threshold=np.full(n, np.inf, np.float32)))
    case = replace(case, layer=layer)
    assert fused.MOST_INT16 * 128 == 2**15
    run = case.forward(cpu)
    assert (run.state > 400 * 127 - 1).all()
    assert_same_run(run, case.forward(reference))


def test_a_bias_of_negative_zero() -> None:
    case = small(make_case(gate="none", n_steps=5, n_samples=1, n_units=8, density=0.0, width=0.0, recurrent=False))
    for sign in (0.0, -0.0):
        layer = case.layer._replace(
            state=np.full_like(case.layer.state, -0.0),
            synapses=case.layer.synapses._replace(bias=np.full(8, sign, np.float32)),
        )
        quiet = replace(case, layer=layer)
        run = quiet.forward(cpu)
        assert_same_run(run, quiet.forward(reference))
        assert_same_bits(run.state, np.zeros_like(run.state))


def test_convolutions() -> None:
    geometry = convolution((4, 5), 2, 3, (3, 3), padding=(1, 1))
    case = make_case(n_in=geometry.n_in, n_units=geometry.n_out, recurrent=False, n_steps=20, current=True, gate="none")
    weight = np.random.default_rng(0).integers(-90, 128, geometry.row_shape).astype(np.int8)
    n, dtype = geometry.n_out, np.float32
    synapses = SynapseArrays(
        weight, np.zeros((0, n), np.int8), case.layer.synapses.bias, geometry.array(),
        scale=np.full(1, GRID, dtype),
    )  # fmt: skip
    case = with_synapses(case, synapses)
    run = case.forward(cpu)
    assert len(run.spikes.idx) > 50
    assert_same_run(run, case.forward(reference))
    assert_same_run(run, as_floats(case).forward(cpu))


def test_gradients_and_wrong_scales_are_refused() -> None:
    case = make_case()
    run, synapses = case.forward(cpu), case.layer.synapses
    scaled = small(case)
    bare = with_synapses(scaled, scaled.layer.synapses._replace(scale=synapses.scale))
    floats = with_synapses(case, synapses._replace(scale=scaled.layer.synapses.scale))
    for module in BOTH:
        with pytest.raises(ValueError, match="`weight` must be of floats for gradients"):
            scaled.backward(module, run)
        for wrong in (bare, floats):
            with pytest.raises(ValueError, match="`scale` must be of shape"):
                wrong.forward(module)


def test_a_scale_of_another_float_type_is_rounded_first() -> None:
    case: Any = small(make_case(width=0.0, gate="none", trace=True))
    scale = np.full(1, 0.1, np.float64)
    wide = with_synapses(case, case.layer.synapses._replace(scale=scale))
    same = with_synapses(case, case.layer.synapses._replace(scale=scale.astype(np.float32)))
    for module in BOTH:
        assert_same_run(wide.forward(module), same.forward(cpu))
