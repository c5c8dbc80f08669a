"""The compiled forward pass against the plain loops: equal to the last bit, for every kind of layer."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from suspike_testing.cases import EPSILON, GATES, Case, cases, cut, make_case, take_samples, take_steps
from suspike_testing.comparing import (
    assert_close_fields,
    assert_same_bits,
    assert_same_fields,
    assert_same_run,
)
from suspike_testing.poison import KERNELS, Poisoned, poisoned

from suspike_kernels import cpu, reference
from suspike_kernels.cpu import rows, vectors
from suspike_kernels.layout import NEURONS, RESETS, Events

BOTH = (reference, cpu)


def test_compiled_equals_reference() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=350, deadline=None, derandomize=True, database=None)
    @given(cases())
    def check(case: Case) -> None:
        wanted = case.forward(reference)
        kind, gate = NEURONS[case.layer.neurons.kind], case.layer.gate.kind
        seen[f"spikes of {kind}"] += len(wanted.spikes.idx)
        seen[f"spikes under gate {gate}"] += len(wanted.spikes.idx)
        seen["active, silent"] += int((wanted.value == 0).sum())
        seen["fired far above"] += len(wanted.spikes.idx) - int(wanted.value.sum())
        seen["traced"] += wanted.trace.size
        seen["open"] += int(wanted.n_open.sum())
        for n_threads in (1, 2, 3):
            assert_same_run(case.forward(cpu, n_threads=n_threads), wanted)

    check()
    assert len(seen) == 3 + 4 + 4
    # a comparison of silence with silence would pass with any kernel
    assert min(seen.values()) > 300, seen


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("gate", GATES)
def test_each_kind_of_layer(neuron: str, gate: str) -> None:
    for i, reset in enumerate(RESETS):
        for recurrent in (False, True):
            case = make_case(
                n_steps=40, neuron=neuron, gate=gate, group=(1, 3, 6)[i], reset=reset, recurrent=recurrent,
                current=recurrent, trace=True, seed=i,
            )  # fmt: skip
            run = case.forward(cpu, n_threads=2)
            assert_same_run(run, case.forward(reference))
            assert len(run.spikes.idx) > 25
            assert len(run.active.idx) > 40
            assert_same_bits(run.trace[-1], run.state[0])
            assert not np.array_equal(run.trace[0], run.trace[-1])
            np.testing.assert_array_equal(run.spikes.dense()[-1], run.spk)


@pytest.mark.parametrize("neuron", NEURONS)
def test_a_readout_never_fires(neuron: str) -> None:
    case = make_case(neuron=neuron, readout=True, trace=True, density=0.8)
    for module in BOTH:
        run = case.forward(module)
        assert not len(run.spikes.idx) + len(run.active.idx)
        assert np.isfinite(run.trace).all()
        assert np.abs(run.trace).max() > 1


@pytest.mark.parametrize("gate", GATES)
def test_empty_batches_and_stretches(gate: str) -> None:
    for sizes in ({"n_steps": 0}, {"n_samples": 0}, {"n_steps": 0, "n_samples": 0}, {"density": 0.0}):
        for neuron in NEURONS:
            case = make_case(neuron=neuron, gate=gate, trace=True, current=True, **sizes)  # type: ignore[arg-type]
            run = case.forward(cpu, n_threads=3)
            assert_same_run(run, case.forward(reference))
            assert run.state.shape == case.layer.state.shape
            assert run.spikes.ptr.shape == case.layer.events.ptr.shape
            grads = case.backward(cpu, run, n_threads=3)
            assert_close_fields(grads, case.backward(reference, run), 1e-5)
            if not case.layer.events.n_steps:  # no step: the state passes, and so does its gradient
                assert_same_bits(run.state, case.layer.state)
                assert_same_bits(run.spk, case.layer.spk)
                assert_same_bits(grads.state, case.grads(run).state)
                assert_same_bits(grads.spk, case.grads(run).spk)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(cases())
def test_no_uninitialised_memory_is_read(case: Case) -> None:
    """The kernels as plain Python, every `np.empty` full of garbage, every index checked."""
    wanted = case.forward(reference)
    by = case.backward(reference, wanted)
    few = by._replace(**{name: np.zeros_like(getattr(by, name)) for name in ("beta", "decay", "a", "b")})
    with poisoned():
        assert_same_run(case.forward(cpu), wanted)
        assert_close_fields(case.backward(cpu, wanted), by, EPSILON[str(case.layer.state.dtype)])
        found = case.backward(cpu, wanted, want_neurons=False)
    assert_close_fields(found, few, EPSILON[str(case.layer.state.dtype)])


@pytest.mark.parametrize("gate", GATES)
def test_no_uninitialised_memory_is_read_in_wide_layers(gate: str) -> None:
    """As above, where whole vectors, blocks and words of columns are worked on."""
    for n_units, opened in ((200, 0.02), (128, 0.6), (90, 1.0)):
        case = make_case(
            n_steps=3, n_samples=2, n_units=n_units, gate=gate, opened=opened, recurrent=n_units < 200, trace=True
        )
        wanted = case.forward(reference)
        with poisoned():
            assert_same_run(case.forward(cpu), wanted)
            assert_close_fields(case.backward(cpu, wanted), case.backward(reference, wanted), 1e-5)


@pytest.mark.parametrize("n_units", [5, 64, 80])
def test_lists_have_room_for_every_place(n_units: int) -> None:
    """All neurons fire, and carry a gradient, at every step."""
    case = make_case(gate="none", width=1000.0, n_units=n_units, n_steps=4, n_samples=3, trace=True)
    synapses = case.layer.synapses._replace(bias=np.full(n_units, 40, np.float32))
    layer = case.layer._replace(synapses=synapses, spk=np.ones_like(case.layer.spk))
    case = replace(case, layer=layer)
    wanted = case.forward(reference)
    assert len(wanted.spikes.idx) == len(wanted.active.idx) == 4 * 3 * n_units
    by = case.backward(reference, wanted)
    assert_same_run(case.forward(cpu), wanted)
    assert_close_fields(case.backward(cpu, wanted), by, 1e-5)
    with poisoned():
        assert_same_run(case.forward(cpu), wanted)
        assert_close_fields(case.backward(cpu, wanted), by, 1e-5)


def test_poison_is_seen() -> None:
    empty = Poisoned().empty
    assert np.isnan(empty((2, 2), np.float32)).all()
    assert (empty(3, np.int32) > 1e9).all()
    assert np.isnan(Poisoned().empty_like(np.ones(2))).all()
    names = [module.__name__.rpartition(".")[2] for module in KERNELS]
    forward, backward = KERNELS[names.index("forward")], KERNELS[names.index("backward")]
    idx = np.array([2], np.int32)
    with poisoned():
        assert all(isinstance(module.np, Poisoned) for module in (forward, backward, rows))
        assert np.isnan(backward.scratch(2, 3, np.ones(1))).all()
        assert not hasattr(rows.add_rows, "py_func")
        for n_columns in (1, 16, 64):
            acc = np.zeros(n_columns)
            with pytest.raises(IndexError):
                rows.add_rows(acc, acc, np.zeros((2, n_columns)), idx, 0, 1, 0, n_columns)
            with pytest.raises(IndexError):
                rows.add_dots(np.ones((3, n_columns)), idx, 0, 1, np.ones(n_columns), 0, n_columns, np.zeros(1), 1)
    assert forward.np is np
    assert hasattr(rows.add_rows, "py_func")
    assert rows.add_64 is vectors.add_64


@pytest.mark.parametrize("reset", ["zero", "none"])
@pytest.mark.parametrize("neuron", ["lif", "cuba"])
def test_an_infinite_membrane_resets_to_zero(neuron: str, reset: str) -> None:
    case = make_case(neuron=neuron, n_steps=1, n_samples=1, n_in=1, n_units=3, gate="none", reset=reset)
    synapses = case.layer.synapses._replace(bias=np.full(3, np.inf, np.float32))
    for module in BOTH:
        run = module.forward(case.layer._replace(synapses=synapses))
        assert len(run.spikes.idx) == 3
        assert_same_bits(run.state[0], np.full((1, 3), 0.0 if reset == "zero" else np.inf, np.float32))


@pytest.mark.parametrize("neuron", ["lif", "cuba"])
def test_a_spike_is_strictly_above_threshold(neuron: str) -> None:
    case = make_case(
        neuron=neuron, n_steps=1, n_samples=1, n_in=1, n_units=3, density=0.0, gate="none", width=0.25
    )  # fmt: skip
    theta = np.float32(0.5)
    bias = np.array([theta, np.nextafter(theta, np.float32(1)), np.nextafter(theta, np.float32(0))])
    layer = case.layer._replace(
        neurons=case.layer.neurons._replace(threshold=np.full(3, theta)),
        synapses=case.layer.synapses._replace(bias=bias),
        state=case.layer.state * 0,
        spk=case.layer.spk * 0,
    )
    for module in BOTH:
        run = replace(case, layer=layer).forward(module)
        assert run.spikes.idx.tolist() == [1]
        assert run.active.idx.tolist() == [0, 1, 2]
        assert run.value.tolist() == [0, 1, 0]
        assert_same_bits(run.distance, bias - theta)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(cases())
def test_order_of_samples_is_free(case: Case) -> None:
    order = np.random.default_rng(case.seed).permutation(case.layer.events.n_samples)
    run = case.forward(cpu)
    moved = replace(case, layer=take_samples(case.layer, order)).forward(cpu)
    for name in ("spikes", "active"):
        wanted = getattr(run, name).take(order)
        np.testing.assert_array_equal(getattr(moved, name).idx, wanted.idx)
        np.testing.assert_array_equal(getattr(moved, name).ptr, wanted.ptr)
    assert_same_bits(moved.state, run.state[:, order])
    assert_same_bits(moved.trace, run.trace[:, order])
    for name in ("spk", "n_open", "ramp", "open_at"):
        np.testing.assert_array_equal(getattr(moved, name), getattr(run, name)[order], name)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(cases())
def test_order_of_events_within_a_step_is_free(case: Case) -> None:
    events = case.layer.events
    ordered = case.layer._replace(events=take_steps(events, 0, events.n_steps))
    assert_same_run(replace(case, layer=ordered).forward(cpu), case.forward(cpu))


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(cases(dtypes=("float64",)))
def test_two_stretches_equal_one(case: Case) -> None:
    n_steps = case.layer.events.n_steps
    middle = case.seed % (n_steps + 1)
    whole = case.forward(cpu)
    first = replace(case, layer=cut(case.layer, 0, middle)).forward(cpu)
    later = cut(case.layer, middle, n_steps)._replace(state=first.state, spk=first.spk)
    second = replace(case, layer=later).forward(cpu)
    assert_same_bits(second.state, whole.state)
    assert_same_bits(second.spk, whole.spk)
    assert_same_bits(np.concatenate([first.trace, second.trace]), whole.trace)
    for name in ("spikes", "active"):
        halves = [getattr(run, name).dense() for run in (first, second)]
        np.testing.assert_array_equal(np.concatenate(halves), getattr(whole, name).dense())
    np.testing.assert_array_equal(first.n_open + second.n_open, whole.n_open)
    np.testing.assert_array_equal(np.concatenate([first.open_at, second.open_at], 1), whole.open_at)
    np.testing.assert_allclose(first.ramp + second.ramp, whole.ramp, rtol=1e-12)


@pytest.mark.parametrize("gate", GATES)
def test_results_are_reproducible_and_own_their_memory(gate: str) -> None:
    case = make_case(neuron="adlif", gate=gate, n_steps=30, n_samples=5, current=True, trace=True)

    def given_() -> list[np.ndarray]:
        layer = case.layer
        parts = (*layer.events[:2], layer.current, *layer.synapses, *layer.neurons, *layer.gate, layer.state, layer.spk)
        return [x for x in parts if isinstance(x, np.ndarray)]

    before = [x.copy() for x in given_()]
    first = case.forward(cpu, n_threads=3)
    grads = case.backward(cpu, first, n_threads=3)
    for _ in range(2):
        again = case.forward(cpu, n_threads=3)
        assert_same_run(again, first)
        assert_same_fields(case.backward(cpu, again, n_threads=3), grads)
    for array, old in zip(given_(), before, strict=True):
        np.testing.assert_array_equal(array, old)
    flat = [x for y in (*first, *grads) for x in (y[:2] if isinstance(y, Events) else (y,))]
    assert not any(np.shares_memory(x, y) for x in flat for y in given_())
