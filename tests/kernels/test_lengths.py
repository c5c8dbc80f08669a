"""Samples that end before their batch: each has what it would have alone, and what lies behind its end does nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suspike_testing.cases import GATES, Case, cases, cut, make_case, take_samples, take_steps
from suspike_testing.comparing import assert_close, assert_same_bits

from suspike_kernels import cpu, reference
from suspike_kernels.layout import NEURONS, Events
from suspike_kernels.reference import LayerGrads, Run, steps_of

BOTH = (reference, cpu)
PER_BATCH = ("weight", "recurrent", "bias", "beta", "threshold", "decay", "a", "b", "gate_recurrent", "kappa")


def alone(case: Case, b: int) -> Case:
    """Sample b of a case, cut to its length."""
    layer, n_steps = take_samples(case.layer, np.array([b])), steps_of(case.layer, b)
    layer = cut(layer, 0, n_steps)._replace(n_steps=np.zeros(0, np.int64))
    return replace(case, layer=layer, sources=take_steps(case.sources.take([b]), 0, n_steps))


def place_of(events: Events, n_time: int) -> np.ndarray:
    """Each event's step and unit in one sample, comparable between lists of different lengths."""
    _, step, _ = events.places()
    return np.sort(step * events.n_units + events.idx) if n_time else events.idx


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(cases(dtypes=("float64",)), st.integers(0, 9))
def test_a_sample_has_what_it_would_have_alone(case: Case, seed: int) -> None:
    n_time, n_samples = case.layer.events.n_steps, case.layer.events.n_samples
    lengths = np.random.default_rng(seed).integers(0, n_time + 1, n_samples)
    case = replace(case, layer=case.layer._replace(n_steps=lengths))
    for module in BOTH:
        run = case.forward(module)
        grads = case.dense_grads()
        by = case.backward(module, run)
        parts: list[LayerGrads] = []
        for b in range(n_samples):
            single, length = alone(case, b), lengths[b]
            found: Run = single.forward(module)
            for name in ("spikes", "active"):
                whole = getattr(run, name).take([b])
                np.testing.assert_array_equal(place_of(whole, n_time), place_of(getattr(found, name), n_time))
            assert_same_bits(found.state[:, 0], run.state[:, b], "state")
            assert_same_bits(found.spk[0], run.spk[b], "spk")
            assert (run.n_open[b] == found.n_open[0]).all()
            assert_same_bits(found.ramp[0], run.ramp[b], "ramp")
            if run.open_at.size:
                assert (run.open_at[b, :length] == found.open_at[0]).all()
                assert not run.open_at[b, length:].any()
            if case.trace:
                assert_same_bits(found.trace[:, 0], run.trace[:length, b], "trace")
                assert (run.trace[length:, b] == run.state[0, b]).all(), "from its end on the membrane stays"
            state = np.ascontiguousarray(grads.state[:, [b]])
            state[0, 0] += grads.trace[length:, b].sum(0)
            value = np.ascontiguousarray(grads.value[:length, [b]]).reshape(-1)[found.active.places()[2]]
            own = grads._replace(
                value=value, state=state, spk=grads.spk[[b]], ramp=grads.ramp[[b]],
                trace=np.ascontiguousarray(grads.trace[:length, [b]]),
            )  # fmt: skip
            parts.append(single.backward(module, found, own))
            assert_close(parts[-1].state[:, 0], by.state[:, b], 1e-12, "state")
            assert_close(parts[-1].spk[0], by.spk[b], 1e-12, "spk", floor=1e-14)
            if len(by.current):
                assert_close(parts[-1].current[:, 0], by.current[:length, b], 1e-12, "current", floor=1e-14)
                assert not by.current[length:, b].any()
            sample, step, _ = case.sources.places()
            mine = by.source[sample == b]
            running = step[sample == b] < length
            assert_close(np.sort(parts[-1].source), np.sort(mine[running]), 1e-12, "source", floor=1e-13)
            assert not mine[~running].any()
        if parts:
            for name in PER_BATCH:
                assert_close(sum(getattr(x, name) for x in parts), getattr(by, name), 1e-12, name, floor=1e-13)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("neuron", NEURONS)
def test_all_lengths_alike_is_no_length_at_all(neuron: str, gate: str) -> None:
    case = make_case(neuron=neuron, gate=gate, n_units=70, trace=True, current=True)
    full = np.full(case.layer.events.n_samples, case.layer.events.n_steps)
    given_lengths = replace(case, layer=case.layer._replace(n_steps=full))
    run, same = case.forward(cpu), given_lengths.forward(cpu)
    by, also = case.backward(cpu, run), given_lengths.backward(cpu, same)
    for found, wanted in zip((*same[2:], *also), (*run[2:], *by), strict=True):
        np.testing.assert_array_equal(found, wanted)
