"""The compiled LIF layer against the plain loops: forward equal to the last bit, gradients close."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from suspike_testing.cases import EPSILON, Case, cases, make_case
from suspike_testing.comparing import (
    assert_close,
    assert_close_fields,
    assert_same_bits,
    assert_same_fields,
    assert_same_run,
    bits,
    numeric_gradient,
)
from suspike_testing.poison import Poisoned, poisoned

from suspike_kernels import reference
from suspike_kernels.cpu import lif, rows
from suspike_kernels.layout import Events, GateArrays, events_from_dense

EXTREMES = np.array([-0.0, 0.0, 1e-45, -1e-40, 3e38, -3e38, 1.5, np.float32(0.1)], np.float32)


def test_compiled_equals_reference() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @given(cases())
    def check(case: Case) -> None:
        wanted = reference.lif_forward(*case.forward, width=case.width)
        event(f"spikes: {len(wanted.spikes.idx) > 0}")
        seen["spikes"] += len(wanted.spikes.idx)
        seen["active"] += len(wanted.active.idx)
        seen["active, silent"] += int((wanted.value == 0).sum())
        seen["fired far above"] += len(wanted.spikes.idx) - int(wanted.value.sum())
        seen["near"] += int(case.gate.near.sum())
        grads = reference.lif_backward(*case.backward(wanted))
        for n_threads in (1, 2, 3):
            found = lif.lif_forward(*case.forward, width=case.width, n_threads=n_threads)
            assert_same_run(found, wanted)
            by = lif.lif_backward(*case.backward(found), n_threads=n_threads)
            assert_close_fields(by, grads, EPSILON[str(case.v.dtype)])

    check()
    # a comparison of silence with silence would pass with any kernel
    assert min(seen[name] for name in ("spikes", "active", "active, silent", "fired far above", "near")) > 1000, seen


@pytest.mark.parametrize("reset", [0, 1, 2])
@pytest.mark.parametrize("gate", ["none", "random", "open"])
@pytest.mark.parametrize("recurrent", [False, True])
def test_each_kind_of_layer(reset: int, gate: str, recurrent: bool) -> None:
    case = make_case(n_steps=40, n_samples=6, reset=reset, gate=gate, recurrent=recurrent, seed=reset)
    run = lif.lif_forward(*case.forward, width=0.5, n_threads=2)
    assert len(run.spikes.idx) > 50
    assert len(run.active.idx) > 100
    assert_same_run(run, reference.lif_forward(*case.forward, width=0.5))
    by = lif.lif_backward(*case.backward(run), n_threads=2)
    wanted = reference.lif_backward(*case.backward(run))
    assert_close_fields(by, wanted, 1e-5)
    for name in ("source", "weight", "bias", "beta", "threshold", "v"):
        assert np.abs(getattr(wanted, name)).max() > 0, name
    assert (np.abs(wanted.recurrent).max(initial=0) > 0) == recurrent
    assert (np.abs(wanted.spk).max() > 0) == recurrent
    assert (np.abs(wanted.gate).max(initial=0) > 0) == (gate != "none")


def test_empty_batches_and_stretches() -> None:
    for sizes in ({"n_steps": 0}, {"n_samples": 0}, {"n_steps": 0, "n_samples": 0}, {"density": 0.0}):
        for recurrent in (False, True):
            case = make_case(recurrent=recurrent, **sizes)  # type: ignore[arg-type]
            run = lif.lif_forward(*case.forward, width=0.5, n_threads=3)
            assert_same_run(run, reference.lif_forward(*case.forward, width=0.5))
            assert run.v.shape == case.v.shape
            assert run.spikes.ptr.shape == case.events.ptr.shape
            grads = lif.lif_backward(*case.backward(run), n_threads=3)
            assert_close_fields(grads, reference.lif_backward(*case.backward(run)), 1e-5)
            if not case.events.n_steps:  # no step: the state passes, and so does its gradient
                assert_same_bits(run.v, case.v)
                assert_same_bits(run.spk, case.spk)
                _, grad_v, grad_spk = case.grads(0)
                assert_same_bits(grads.v, grad_v)
                assert_same_bits(grads.spk, grad_spk)


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(cases())
def test_no_uninitialised_memory_is_read(case: Case) -> None:
    """The kernels as plain Python, every `np.empty` full of garbage, every index checked."""
    with poisoned(lif, rows):
        found = lif.lif_forward(*case.forward, width=case.width)
        by = lif.lif_backward(*case.backward(found))
    wanted = reference.lif_forward(*case.forward, width=case.width)
    assert_same_run(found, wanted)
    assert_close_fields(by, reference.lif_backward(*case.backward(wanted)), EPSILON[str(case.v.dtype)])


def test_poison_is_seen() -> None:
    empty = Poisoned().empty
    assert np.isnan(empty((2, 2), np.float32)).all()
    assert (empty(3, np.int32) > 1e9).all()
    with poisoned(lif, rows):
        assert isinstance(lif.np, Poisoned)
        assert not hasattr(rows.add_rows, "py_func")
        with pytest.raises(IndexError):
            rows.add_rows(np.zeros(1), np.zeros((2, 1)), np.array([2]), 0, 1)
    assert lif.np is np
    assert hasattr(rows.add_rows, "py_func")


@pytest.mark.parametrize("run_forward", [reference.lif_forward, lif.lif_forward], ids=["reference", "cpu"])
def test_a_closed_neuron_keeps_its_bits(run_forward: Any) -> None:
    case = make_case(n_steps=5, n_samples=2, n_units=len(EXTREMES), gate="shut", density=0.9)
    v = np.stack([EXTREMES, EXTREMES[::-1]])
    events, dense, lif_arrays, gate, _, spk = case.forward
    run = run_forward(events, dense, lif_arrays, gate, v, spk, width=0.5)
    assert_same_bits(run.v, v)
    assert not len(run.spikes.idx), "neurons above threshold fire only when open"
    assert not len(run.active.idx)
    assert not run.spk.any()


def test_a_closed_neuron_outlives_an_infinite_current() -> None:
    case = make_case(n_steps=3, n_samples=2, n_units=len(EXTREMES), gate="shut", density=0.9)
    dense = case.dense._replace(weight=np.full_like(case.dense.weight, 3e38))
    run = lif.lif_forward(case.events, dense, case.lif, case.gate, np.stack([EXTREMES] * 2), case.spk, width=0.5)
    assert_same_bits(run.v, np.stack([EXTREMES] * 2))


@pytest.mark.parametrize("reset", [0, 2])
def test_an_infinite_membrane_resets_to_zero(reset: int) -> None:
    case = make_case(n_steps=1, n_samples=1, n_in=1, n_units=3, gate="none", recurrent=False, reset=reset)
    dense = case.dense._replace(bias=np.full(3, np.inf, np.float32))
    for module in (reference, lif):
        run = module.lif_forward(case.events, dense, case.lif, case.gate, case.v, case.spk)
        assert len(run.spikes.idx) == 3
        assert_same_bits(run.v, np.full((1, 3), 0.0 if reset == 0 else np.inf, np.float32))


def test_closed_steps_pass_the_gradient_on_unchanged() -> None:
    case = make_case(n_steps=6, gate="shut", near=False)
    for module in (reference, lif):
        run = module.lif_forward(*case.forward, width=0.5)
        _, grad_v, _ = case.grads(0)
        by = module.lif_backward(*case.backward(run))
        assert_same_bits(by.v, grad_v)
        for name in ("source", "weight", "recurrent", "bias", "beta", "threshold", "spk"):
            assert not getattr(by, name).any(), name


def test_input_at_closed_steps_is_not_integrated() -> None:
    case = make_case(n_steps=20, recurrent=False, density=0.5)
    table = case.gate.open.copy()
    table[::2] = 0
    gate = GateArrays(table, case.gate.near)
    counts = case.events.dense(np.int64)
    counts[::2] = 0
    for module in (reference, lif):
        whole = module.lif_forward(case.events, case.dense, case.lif, gate, case.v, case.spk, width=0.5)
        spared = module.lif_forward(events_from_dense(counts), case.dense, case.lif, gate, case.v, case.spk, width=0.5)
        assert len(whole.spikes.idx) > 20
        assert_same_run(whole, spared)


def test_a_spike_is_strictly_above_threshold() -> None:
    case = make_case(n_steps=1, n_samples=1, n_in=1, n_units=3, density=0.0, gate="none", recurrent=False)
    theta = np.float32(0.5)
    bias = np.array([theta, np.nextafter(theta, np.float32(1)), np.nextafter(theta, np.float32(0))])
    lif_arrays = case.lif._replace(threshold=np.full(3, theta))
    for module in (reference, lif):
        run = module.lif_forward(
            case.events, case.dense._replace(bias=bias), lif_arrays, case.gate, case.v * 0, case.spk * 0, width=0.25
        )
        assert run.spikes.idx.tolist() == [1]
        assert run.active.idx.tolist() == [0, 1, 2]
        assert run.value.tolist() == [0, 1, 0]
        assert run.slope[0] == 4, "the triangle of width 1/4 is 4 high"


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(cases())
def test_order_of_samples_is_free(case: Case) -> None:
    order = np.random.default_rng(case.seed).permutation(case.events.n_samples)
    run = lif.lif_forward(*case.forward, width=case.width)
    moved = lif.lif_forward(
        case.events.take(order), *case.forward[1:4], case.v[order], case.spk[order], width=case.width
    )
    for name in ("v", "spk"):
        assert_same_bits(getattr(moved, name), getattr(run, name)[order], name)
    for name in ("spikes", "active"):
        wanted = getattr(run, name).take(order)
        np.testing.assert_array_equal(getattr(moved, name).idx, wanted.idx)
        np.testing.assert_array_equal(getattr(moved, name).ptr, wanted.ptr)


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(cases(dtypes=("float64",)))
def test_two_stretches_equal_one(case: Case) -> None:
    cut = case.seed % (case.events.n_steps + 1)
    whole = lif.lif_forward(*case.forward, width=case.width)
    counts, gate = case.events.dense(np.int64), case.gate
    halves = [slice(0, cut), slice(cut, None)]
    events = [events_from_dense(counts[h]) for h in halves]
    gates = [GateArrays(gate.open[h], gate.near[h]) for h in halves]
    first = lif.lif_forward(events[0], case.dense, case.lif, gates[0], case.v, case.spk, width=case.width)
    second = lif.lif_forward(events[1], case.dense, case.lif, gates[1], first.v, first.spk, width=case.width)
    assert_same_bits(second.v, whole.v)
    assert_same_bits(second.spk, whole.spk)
    np.testing.assert_array_equal(np.concatenate([first.spikes.dense(), second.spikes.dense()]), whole.spikes.dense())

    # the gradient by a spike is looked up by place, since the halves list their places in another order
    g_value, g_v, g_spk = case.grads(whole.active.n_steps * whole.active.n_samples * whole.active.n_units)
    g_value = g_value.reshape(case.events.n_steps, *case.v.shape)
    by_whole = _backward_dense(
        g_value, g_v, g_spk, whole, events_from_dense(counts), case.dense, case.lif, gate, case.v, case.spk
    )
    later = _backward_dense(
        g_value[cut:], g_v, g_spk, second, events[1], case.dense, case.lif, gates[1], first.v, first.spk
    )
    earlier = _backward_dense(
        g_value[:cut], later.v, later.spk, first, events[0], case.dense, case.lif, gates[0], case.v, case.spk
    )
    for name in ("weight", "recurrent", "bias", "beta", "threshold"):
        assert_close(getattr(earlier, name) + getattr(later, name), getattr(by_whole, name), 1e-12, name)
    assert_close(np.concatenate([earlier.gate, later.gate]), by_whole.gate, 1e-12, "gate")
    for name in ("v", "spk"):
        assert_close(getattr(earlier, name), getattr(by_whole, name), 1e-12, name)


def test_results_are_reproducible_and_own_their_memory() -> None:
    case = make_case(n_steps=30, n_samples=5)
    before = [a.copy() for a in (case.v, case.spk, *case.dense, *case.gate)]
    first = lif.lif_forward(*case.forward, width=0.5, n_threads=3)
    grads = lif.lif_backward(*case.backward(first), n_threads=3)
    for _ in range(3):
        again = lif.lif_forward(*case.forward, width=0.5, n_threads=3)
        assert_same_run(again, first)
        assert_same_fields(lif.lif_backward(*case.backward(again), n_threads=3), grads)
    given_ = (case.v, case.spk, *case.dense, *case.gate)
    for array, old in zip(given_, before, strict=True):
        np.testing.assert_array_equal(array, old)
    for result in (first.v, first.spk, first.value, first.slope, grads.v, grads.spk, grads.source):
        assert not any(np.shares_memory(result, array) for array in given_)


def test_without_beta_nothing_else_changes() -> None:
    for gate in ("none", "random"):
        case = make_case(gate=gate, near=False)
        run = lif.lif_forward(*case.forward, width=0.5)
        with_beta = lif.lif_backward(*case.backward(run))
        without = lif.lif_backward(*case.backward(run), want_beta=False)
        assert with_beta.beta.any()
        assert not without.beta.any()
        assert_same_fields(without._replace(beta=with_beta.beta), with_beta)


def test_backward_replays_the_very_states_of_the_forward_pass() -> None:
    """Off the grid, where a fused multiply-add in the replay would move v in the last bit."""
    case = make_case(n_steps=30, n_samples=1, gate="none", density=0.4)
    rng = np.random.default_rng(0)
    dense = case.dense._replace(
        weight=rng.standard_normal(case.dense.weight.shape).astype(np.float32) * np.float32(0.4)
    )
    run = lif.lif_forward(case.events, dense, case.lif, case.gate, case.v, case.spk)
    before, candidate = np.zeros((2, 30, 7), np.float32)
    state = case.v[0].copy()
    lif._replay(case.events, dense, case.lif, case.gate, run.spikes, 0, state, case.spk[0], before, candidate)
    assert len(run.spikes.idx) > 20
    assert_same_bits(state, run.v[0])


# What the gradients mean, by numbers: with no place inside the surrogate's window the spikes are constants and the
# membrane is a smooth function of everything else, so central differences must agree.


@pytest.mark.parametrize("reset", [0, 1, 2])
@pytest.mark.parametrize("gate", ["none", "random"])
def test_gradients_equal_finite_differences(reset: int, gate: str) -> None:
    case = make_case(
        n_steps=8, n_samples=2, n_in=3, n_units=3, dtype="float64", reset=reset, gate=gate, near=False, seed=2
    )
    run = reference.lif_forward(*case.forward)
    assert len(run.spikes.idx) >= 4
    by = reference.lif_backward(*case.backward(run))
    _, grad_v, _ = case.grads(0)

    def loss(**changed: Any) -> float:
        dense = case.dense._replace(**{k: x for k, x in changed.items() if k in case.dense._fields})
        neuron = case.lif._replace(**{k: x for k, x in changed.items() if k in case.lif._fields})
        moved = reference.lif_forward(case.events, dense, neuron, case.gate, changed.get("v", case.v), case.spk)
        np.testing.assert_array_equal(moved.spikes.idx, run.spikes.idx)  # no place sat at its threshold
        return float((grad_v * moved.v).sum())

    at = {**case.dense._asdict(), "beta": case.lif.beta, "threshold": case.lif.threshold, "v": case.v}
    for name, array in at.items():
        numeric = numeric_gradient(lambda x, name=name: loss(**{name: x}), array)
        assert_close(getattr(by, name), numeric, 1e-6, name)
        if name != "threshold" or reset == 1:
            assert np.abs(numeric).max() > 0.01, name


def test_gradient_by_the_gate_is_that_of_a_graded_gate() -> None:
    r"""With :math:`\tilde v = v + g (u - v)` for real g, differentiated at the gate's own 0 or 1."""
    case = make_case(n_steps=6, n_samples=2, n_units=3, recurrent=False, dtype="float64", reset=2)
    gate = case.gate._replace(near=np.ones_like(case.gate.open))
    run = reference.lif_forward(*case.forward[:3], gate, case.v, case.spk)
    _, grad_v, grad_spk = case.grads(0)
    by = reference.lif_backward(
        np.zeros(0), grad_v, grad_spk, run, case.events, case.sources, case.dense, case.lif, gate, case.v, case.spk
    )
    cur = case.events.dense(np.float64) @ case.dense.weight + case.dense.bias

    def loss(g: np.ndarray) -> float:
        v = case.v
        for t in range(6):
            v = v + g[t] * (case.lif.beta * v + cur[t] - v)
        return float((grad_v * v).sum())

    assert 0 < gate.open.mean() < 1
    assert_close(by.gate, numeric_gradient(loss, gate.open.astype(np.float64)), 1e-7)


def _backward_dense(
    g_value: np.ndarray, g_v: np.ndarray, g_spk: np.ndarray, run: Any, events: Events, *rest: Any
) -> Any:
    """`lif_backward` with the gradient by spikes as a dense [T, B, N], and no gradient by the input."""
    nowhere = Events(np.zeros_like(events.ptr), np.zeros(0, np.int32), events.n_units)
    at_active = g_value.reshape(-1)[run.active.places()[2]]
    return lif.lif_backward(at_active, g_v, g_spk, run, events, nowhere, *rest)


def test_bits_of_extremes_are_what_they_are_called() -> None:
    assert bits(EXTREMES)[0] == 1 << 31
    assert 0 < EXTREMES[2] < np.finfo(np.float32).tiny
