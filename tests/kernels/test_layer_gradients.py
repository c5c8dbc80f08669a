"""The compiled gradients against the plain loops, for every kind of layer, and the loops against numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from suspike_testing.cases import EPSILON, GATES, SHAPES, Case, cases, cut, make_case, take_samples, take_steps
from suspike_testing.comparing import (
    assert_close,
    assert_close_fields,
    assert_same_bits,
    assert_same_fields,
    numeric_gradient,
)
from suspike_testing.poison import KERNELS, poisoned

from suspike_kernels import cpu, reference
from suspike_kernels.cpu import rows
from suspike_kernels.layout import NEURONS, RESETS
from suspike_kernels.reference import NO_SURROGATE, LayerGrads

SUMMED = tuple(x for x in LayerGrads._fields if x not in ("source", "current", "gate", "state", "spk"))


def test_compiled_equals_reference() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=200, deadline=None, derandomize=True, database=None)
    @given(cases())
    def check(case: Case) -> None:
        run = case.forward(reference)
        wanted = case.backward(reference, run)
        for name, array in wanted._asdict().items():
            seen[name] += np.count_nonzero(array)
        for n_threads in (1, 2, 3):
            by = case.backward(cpu, run, n_threads=n_threads)
            assert_close_fields(by, wanted, EPSILON[str(case.layer.state.dtype)])

    check()
    # few draws let spikes reach an input gate; test_each_kind_of_layer has them all
    assert min(seen[name] for name in LayerGrads._fields if name != "gate_recurrent") > 100, seen


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("gate", GATES)
def test_each_kind_of_layer(neuron: str, gate: str) -> None:
    for i, shape in enumerate(SHAPES):
        for attached in (False, True):
            for reset in RESETS:
                case = make_case(
                    n_steps=25, neuron=neuron, gate=gate, group=(1, 3)[attached], reset=reset, attached=attached,
                    recurrent=shape == "boxcar", current=attached, trace=reset == "zero", shape=shape, width=0.3,
                    dtype=("float32", "float64")[i], seed=i,
                )  # fmt: skip
                run = case.forward(reference)
                by = case.backward(reference, run)
                assert_close_fields(case.backward(cpu, run, n_threads=2), by, EPSILON[str(by.bias.dtype)])
                absent = {"recurrent"} if shape != "boxcar" else set()
                absent |= {"current"} if not attached else set()
                absent |= {"decay"} if neuron == "lif" else set()
                absent |= {"a", "b"} if neuron != "adlif" else set()
                absent |= {"gate"} if gate in ("none", "drive") else set()
                absent |= {"gate_recurrent"} if gate != "input" else set()
                absent |= {"kappa"} if gate != "drive" else set()
                absent |= {"spk"} if {"recurrent", "gate_recurrent"} <= absent else set()  # nobody hears it
                assert {name for name, array in by._asdict().items() if not array.any()} == absent


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("gate", GATES)
def test_long_samples_go_piece_by_piece(neuron: str, gate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One, two or some steps wait for their gradients by the weights; lengths that are no multiple, and length 0."""
    backward = next(x for x in KERNELS if x.__name__.endswith(".backward"))
    for n_kept in (1, 2, 7):
        monkeypatch.setattr(backward, "LATER_BYTES", n_kept * rows.spread_width(6, 4) * 4)
        for recurrent in (False, True):
            case = make_case(n_steps=20, n_samples=5, neuron=neuron, gate=gate, recurrent=recurrent, seed=n_kept)
            lengths = np.array([20, 0, 1, 7, 13])
            case = replace(case, layer=case.layer._replace(n_steps=lengths))
            run = case.forward(reference)
            by = case.backward(reference, run)
            assert by.weight.any()
            assert_close_fields(case.backward(cpu, run, n_threads=2), by, EPSILON["float32"])
            with poisoned():
                assert_close_fields(case.backward(cpu, run), by, EPSILON["float32"])


def test_readouts_of_each_kind() -> None:
    for neuron in NEURONS:
        for gate in GATES:
            case = make_case(neuron=neuron, gate=gate, readout=True, recurrent=False, trace=True, current=True)
            run = case.forward(reference)
            by = case.backward(reference, run)
            assert_close_fields(case.backward(cpu, run, n_threads=3), by, 1e-5)
            assert not by.threshold.any()
            for name in ("source", "weight", "bias", "beta", "state", "current"):
                assert np.abs(getattr(by, name)).max() > 0.01, name


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(cases(dtypes=("float64",)))
def test_samples_are_independent(case: Case) -> None:
    """A sample alone has the gradients that it has in a batch, and sums over samples are sums over batches of one."""
    run, whole = case.forward(cpu), case.dense_grads()
    by = case.backward(cpu, run)
    alone = []
    for b in range(case.layer.events.n_samples):
        one = np.array([b])
        single = replace(case, layer=take_samples(case.layer, one), sources=case.sources.take(one))
        part = single.forward(cpu)
        np.testing.assert_array_equal(part.spikes.idx, run.spikes.take(one).idx)
        value = np.ascontiguousarray(whole.value[:, one]).reshape(-1)[part.active.places()[2]]
        state, trace = (np.ascontiguousarray(x[:, one]) for x in (whole.state, whole.trace))
        grads = whole._replace(value=value, state=state, trace=trace, spk=whole.spk[one], ramp=whole.ramp[one])
        alone.append(single.backward(cpu, part, grads))
        for name, axis in {"state": 1, "spk": 0, "current": 1}.items():
            assert_close(getattr(alone[-1], name), np.take(getattr(by, name), one, axis), 1e-12, name)
        if case.layer.gate.kind == 2:
            assert_close(alone[-1].gate, by.gate[one], 1e-12, "gate")
    if alone:
        assert_close(np.concatenate([x.source for x in alone]), by.source, 1e-12, "source", floor=1e-14)
        for name in SUMMED:
            assert_close(sum(getattr(x, name) for x in alone), getattr(by, name), 1e-12, name, floor=1e-13)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(cases(dtypes=("float64",)))
def test_two_stretches_equal_one(case: Case) -> None:
    n_steps = case.layer.events.n_steps
    middle = case.seed % (n_steps + 1)
    whole, grads = case.forward(cpu), case.dense_grads()
    by_whole = case.backward(cpu, whole)
    bounds, layers, runs = [(0, middle), (middle, n_steps)], [], []
    for low, high in bounds:
        layer = cut(case.layer, low, high)
        layers.append(layer._replace(state=runs[-1].state, spk=runs[-1].spk) if runs else layer)
        runs.append(replace(case, layer=layers[-1]).forward(cpu))
    parts: list[LayerGrads] = []
    state, spk = grads.state, grads.spk
    for (low, high), layer, run in reversed(list(zip(bounds, layers, runs, strict=True))):
        # the gradient by a spike is looked up by place, since the halves list their places in another order
        value = grads.value[low:high].reshape(-1)[run.active.places()[2]]
        half = replace(case, layer=layer, sources=take_steps(case.sources, low, high))
        trace = grads.trace[low:high]
        part = half.backward(cpu, run, grads._replace(value=value, state=state, spk=spk, trace=trace))
        state, spk = part.state, part.spk
        parts.insert(0, part)
    for name in SUMMED:
        assert_close(sum(getattr(x, name) for x in parts), getattr(by_whole, name), 1e-12, name, floor=1e-13)
    for name, axis in {"gate": 1, "current": 0}.items():
        joined = np.concatenate([getattr(x, name) for x in parts], axis)
        assert_close(joined, getattr(by_whole, name), 1e-12, name, floor=1e-14)
    assert_close(state, by_whole.state, 1e-12, "state")
    assert_close(spk, by_whole.spk, 1e-12, "spk", floor=1e-14)


@pytest.mark.parametrize("gate", GATES)
def test_what_is_not_wanted_changes_nothing_else(gate: str) -> None:
    for neuron in NEURONS:
        case = make_case(neuron=neuron, gate=gate, near=neuron == "lif", trace=True)
        run = case.forward(cpu)
        by = case.backward(cpu, run, n_threads=2)
        unwanted = {
            "want_weights": ("weight", "recurrent"),
            "want_neurons": ("beta", "decay", "a", "b"),
            "want_threshold": ("threshold",),
            "want_bias": ("bias",),
            "want_spk": ("spk",),
        }
        for option, names in unwanted.items():
            found = case.backward(cpu, run, n_threads=2, **{option: False})
            assert by._asdict()[names[0]].any()
            assert not any(getattr(found, name).any() for name in names)
            assert_same_fields(found._replace(**{name: getattr(by, name) for name in names}), by)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("neuron", NEURONS)
def test_backward_replays_the_very_states_of_the_forward_pass(neuron: str, gate: str) -> None:
    """Off the grid, where a fused multiply-add in the replay would move v in the last bit."""
    backward = next(x for x in KERNELS if x.__name__.endswith(".backward"))
    case = make_case(n_steps=30, n_samples=1, neuron=neuron, gate=gate, density=0.4, trace=True, recurrent=False)
    rng = np.random.default_rng(0)
    weight = case.layer.synapses.weight * rng.uniform(0.8, 1.2, case.layer.synapses.weight.shape).astype(np.float32)
    layer = case.layer._replace(synapses=case.layer.synapses._replace(weight=weight))
    run = cpu.forward(layer, trace=True)
    assert len(run.spikes.idx) > 20
    shared = backward.segments(layer.gate, 6, near=True)
    room = backward._room(layer, run, shared, 0, 1, True)
    room.states[:] = np.nan
    v, x = np.zeros((2, 6), np.float32)
    flags, (low, high) = room.flags, room.edges
    backward._replay(
        layer, shared, run.spikes, 0, v, x, room.states, room.currents, room.activations, True, flags[2], room.before,
        flags[0], flags[1], low, high,
    )  # fmt: skip
    for found, wanted in zip((v, x), run.state[:, 0], strict=neuron != "lif"):
        assert_same_bits(found, wanted)
    before = np.concatenate([layer.state[:1, 0], run.trace[:-1, 0]])
    kept = room.states[0, :30]
    seen = ~np.isnan(kept)  # a step keeps what it touched
    assert seen.mean() > 0.5
    assert_same_bits(kept[seen], before[seen])


# What the gradients mean, by numbers: with no place inside the surrogate's window (its width is 0) the spikes are
# constants and the membrane is a smooth function of everything else, so central differences must agree.


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("neuron", [*NEURONS, "readouts"])
def test_gradients_equal_finite_differences(neuron: str, gate: str) -> None:
    kinds = NEURONS if neuron == "readouts" else (neuron,) * 3
    for kind, reset in zip(kinds, RESETS, strict=True):
        case = make_case(
            neuron=kind, gate=gate, reset=reset, readout=neuron == "readouts", near=False, width=0.0, current=True,
            trace=True, n_steps=6, n_samples=2, n_in=3, n_units=2, density=0.6, dtype="float64", seed=5,
        )  # fmt: skip
        # off the grid: an activation of exactly 0 would open at the slightest touch
        gate = case.layer.gate._replace(a=case.layer.gate.a + 1e-3)
        check_by_differences(case.with_gate(gate))


@pytest.mark.parametrize("neuron", NEURONS)
def test_surrogates_far_from_the_membrane_change_nothing(neuron: str) -> None:
    """Nothing fires and nothing is near: gradients are those of a smooth system, by numbers."""
    for reset in RESETS:
        case = make_case(
            neuron=neuron, gate="none", reset=reset, attached=True, current=True, trace=True, width=0.5, n_steps=7,
            n_samples=2, n_in=3, n_units=2, dtype="float64",
        )  # fmt: skip
        neurons = case.layer.neurons._replace(threshold=np.full(2, 1000.0))
        check_by_differences(replace(case, layer=case.layer._replace(neurons=neurons)))


def check_by_differences(case: Case) -> None:
    layer = case.layer
    run = case.forward(reference)
    by, grads = case.backward(reference, run), case.grads(run)
    fires = bool((layer.neurons.threshold < 10).all())
    assert (len(run.spikes.idx) > 0) == fires
    assert not len(run.active.idx)

    def loss(name: str, array: np.ndarray) -> float:
        moved = layer
        for part in ("synapses", "neurons"):
            if name in getattr(layer, part)._fields:
                moved = layer._replace(**{part: getattr(layer, part)._replace(**{name: array})})
        if name in ("gate", "gate_recurrent", "kappa"):
            field = {"gate": "a", "gate_recurrent": "recurrent"}.get(name, name)
            moved = layer._replace(gate=layer.gate._replace(**{field: array}))
        elif name in ("state", "current"):
            moved = layer._replace(**{name: array})
        after = reference.forward(moved, NO_SURROGATE, trace=True)
        np.testing.assert_array_equal(after.spikes.idx, run.spikes.idx)  # no place sat at its threshold
        np.testing.assert_array_equal(after.n_open, run.n_open)
        pairs = ((grads.trace, after.trace), (grads.state, after.state), (grads.ramp, after.ramp))
        return sum(float((g * x).sum()) for g, x in pairs)

    at: dict[str, Any] = {name: getattr(layer.synapses, name) for name in ("weight", "recurrent", "bias")}
    at |= {"state": layer.state, "current": layer.current}
    at |= {name: getattr(layer.neurons, name) for name in ("beta", "decay", "a", "b")}
    if fires:
        at["threshold"] = layer.neurons.threshold
    if layer.gate.kind > 1:
        at |= {"gate": layer.gate.a, "gate_recurrent": layer.gate.recurrent, "kappa": layer.gate.kappa}
    for name, array in at.items():
        numeric = numeric_gradient(lambda x, name=name: loss(name, x), array)
        assert_close(getattr(by, name), numeric, 1e-6, name, floor=1e-8)
        silent = name in ("b", "recurrent", "gate_recurrent") and not fires
        if array.size and not silent and (name != "threshold" or layer.neurons.reset == 1):
            assert np.abs(numeric).max() > 0.01, name
    # a source's value counts how often its row is added: its gradient is that of a given current, through the weights
    sample, step, _ = case.sources.places()
    wanted = (layer.synapses.weight[case.sources.idx] * by.current[step, sample]).sum(1)
    assert_close(by.source, wanted, 1e-12, "source")
