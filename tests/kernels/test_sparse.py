"""Fan-out lists: the plain loops against matrices of the same weights, the compiled kernels against the plain loops."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suspike_testing.cases import GATES, Case, cases, cut, make_case, on_grid, random_events
from suspike_testing.comparing import assert_same_bits, assert_same_run
from suspike_testing.fanouts import into_lists, into_matrices, random_fanout
from suspike_testing.poison import poisoned

from suspike_kernels import cpu, reference
from suspike_kernels.cpu import lazy
from suspike_kernels.layout import FULL, NEURONS, RESETS, SynapseArrays, events_from_dense, is_sparse


@st.composite
def sparse_cases(draw: Any, **options: Any) -> Case:
    case = draw(cases(**options))
    given, own = draw(st.sampled_from([(True, True), (True, False), (False, True)]))
    return into_lists(case, given=given, own=own, most=draw(st.sampled_from([5, 2, 40, 0])))


def test_lists_mean_what_matrices_mean() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=200, deadline=None, derandomize=True, database=None)
    @given(sparse_cases())
    def check(case: Case) -> None:
        wanted = into_matrices(case).forward(reference)
        assert_same_run(case.forward(reference), wanted)
        for n_threads in (1, 3):
            assert_same_run(case.forward(cpu, n_threads=n_threads), wanted)
        kind = NEURONS[case.layer.neurons.kind]
        seen[f"spikes of {kind}"] += len(wanted.spikes.idx)
        seen[f"spikes under gate {case.layer.gate.kind}"] += len(wanted.spikes.idx)
        for fanout in (case.layer.synapses.fanout, case.layer.synapses.own_fanout):
            sizes = np.diff(fanout.ptr)
            rows = np.split(fanout.target, fanout.ptr[1:-1]) if len(sizes) else []
            seen["empty rows"] += int((sizes == 0).sum())
            seen["repeated targets"] += sum(len(row) > len(set(row.tolist())) for row in rows)

    check()
    assert len(seen) == 3 + 4 + 2
    assert min(seen.values()) > 100, seen


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(sparse_cases())
def test_no_uninitialised_memory_is_read(case: Case) -> None:
    wanted = case.forward(reference)
    with poisoned():
        assert_same_run(case.forward(cpu), wanted)


@pytest.mark.parametrize("gate", GATES)
def test_wide_layers(gate: str) -> None:
    """Where whole vectors, blocks and words of columns are worked on, and segments are skipped."""
    for opened in (0.02, 0.6):
        case = into_lists(make_case(n_units=200, n_in=30, gate=gate, opened=opened), most=50)
        run = case.forward(cpu)
        assert_same_run(run, into_matrices(case).forward(cpu))
        assert len(run.spikes.idx) > 40


def test_no_gradient_runs_through_lists() -> None:
    case = into_lists(make_case())
    assert is_sparse(case.layer.synapses)
    run = case.forward(cpu)
    for module in (reference, cpu):
        with pytest.raises(ValueError, match=r"^`synapses` must be a matrix or a convolution for gradients, got fan-"):
            case.backward(module, run)


@st.composite
def waiting_cases(draw: Any) -> Case:
    """Layers that `lazy` serves: sparse in time, with a burst; some states above thresholds, some leaks of 0 and 1."""
    n_steps, n_units = draw(st.sampled_from([75, 40, 9, 1, 0])), draw(st.sampled_from([18, 7, 1, 150]))
    options: dict[str, Any] = {
        "gate": ("none", "none", "table", "tables"),
        "group": [g for g in (1, 3) if not n_units % g],
        "opened": [0.5, 0.2, 1.0, 0.0],
        "reset": RESETS,
        "readout": [False] * 5 + [True],
        "recurrent": [True, False],
        "ends": [False, False, True],
        "n_samples": [3, 1, 0],
        "n_in": [9, 1],
        "density": [0.03, 0.3, 0.0],
        "dtype": ("float32", "float64"),
    }
    chosen = {name: draw(st.sampled_from(choices)) for name, choices in options.items()}
    seed, most = draw(st.integers(0, 2**16)), draw(st.sampled_from([3, 1, 20]))
    case = make_case(n_steps=n_steps, n_units=n_units, seed=seed, width=0.0, **chosen)
    case = into_lists(case, most=most, quiet=True)
    layer, rng = case.layer, np.random.default_rng([seed, 4])
    counts = layer.events.dense(np.int64)
    burst = random_events(rng, n_steps, len(layer.spk), layer.events.n_units, 0.9).dense(np.int64)
    low = draw(st.sampled_from([0, 5, 40, 75]))
    counts[low : low + 4] = burst[low : low + 4]
    if len(layer.n_steps):
        counts *= np.arange(n_steps)[:, None, None] < layer.n_steps[:, None]
    dtype, beta = layer.state.dtype, layer.neurons.beta * rng.choice([1, 1, 0], n_units)
    beta = np.where(rng.random(n_units) < 0.2, 1, beta).astype(dtype)
    tiny = np.finfo(dtype).smallest_subnormal * 3
    state = layer.state * draw(st.sampled_from([1, 4])) * rng.choice([1, 0, -0.0], layer.state.shape)
    state = np.where(rng.random(state.shape) < 0.1, tiny, state).astype(dtype)
    neurons = layer.neurons._replace(beta=beta)
    if draw(st.booleans()):  # one leak and one threshold for all
        neurons = neurons._replace(beta=np.full_like(beta, beta[-1]), threshold=np.full_like(beta, 0.5))
    return replace(case, layer=layer._replace(events=events_from_dense(counts), state=state, neurons=neurons))


def test_neurons_that_wait_do_what_others_do() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @given(waiting_cases())
    def check(case: Case) -> None:
        assert lazy.serves(case.layer)
        wanted = case.forward(reference)
        for waits in (lazy.ALWAYS, lazy.NEVER, lazy.CHOOSE):
            for n_threads in (1, 2):
                assert_same_run(lazy.forward(case.layer, waits=waits, n_threads=n_threads), wanted)
        assert_same_run(case.forward(cpu), wanted)
        assert_same_run(into_matrices(case).forward(cpu), wanted)
        layer = case.layer
        above = layer.state[0] > layer.neurons.threshold
        seen[f"spikes under reset {layer.neurons.reset}"] += len(wanted.spikes.idx)
        seen[f"spikes under gate {layer.gate.kind}"] += len(wanted.spikes.idx)
        seen["above threshold"] += int(above.sum())
        seen["at rest in the end"] += int((wanted.state == 0).sum())
        seen["not at rest"] += int((wanted.state != 0).sum())
        seen["one leak for all"] += len(wanted.spikes.idx) * (len(set(layer.neurons.beta)) == 1)

    check()
    assert len(seen) == 3 + 2 + 4
    assert min(seen.values()) > 300, seen


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(waiting_cases())
def test_no_uninitialised_memory_is_read_while_waiting(case: Case) -> None:
    """As plain Python, where it is also chosen more often who waits."""
    wanted = case.forward(reference)
    with poisoned(), pytest.MonkeyPatch.context() as patch:
        for waits in (lazy.ALWAYS, lazy.NEVER, lazy.CHOOSE):
            assert_same_run(lazy.forward(case.layer, waits=waits), wanted)
        patch.setattr(lazy, "STRETCH", 5)
        patch.setattr(lazy, "CROSSOVER", 3)
        assert_same_run(lazy.forward(case.layer, waits=lazy.CHOOSE), wanted)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(waiting_cases(), st.integers(0, 75))
def test_two_stretches_equal_one(case: Case, middle: int) -> None:
    n_steps = case.layer.events.n_steps
    middle = min(middle, n_steps)
    whole = lazy.forward(case.layer, waits=lazy.ALWAYS)
    first = lazy.forward(cut(case.layer, 0, middle), waits=lazy.ALWAYS)
    later = cut(case.layer, middle, n_steps)._replace(state=first.state, spk=first.spk)
    second = lazy.forward(later, waits=lazy.ALWAYS)
    assert_same_bits(second.state, whole.state)
    assert_same_bits(second.spk, whole.spk)
    halves = [run.spikes.dense() for run in (first, second)]
    np.testing.assert_array_equal(np.concatenate(halves), whole.spikes.dense())


def test_a_wide_layer_waits_and_wakes() -> None:
    """Several blocks of words, rows that are asked for ahead, more neurons than a tile; both ways are chosen."""
    n, n_steps, rng = 9000, 200, np.random.default_rng(0)
    case = make_case(n_units=n, n_in=300, n_steps=1, n_samples=1, recurrent=False, gate="none", width=0.0)
    counts = (rng.random((n_steps, 1, 300)) < 0.002).astype(np.int64)
    counts[70:120] = rng.random((50, 1, 300)) < 0.1
    fanout, own = (random_fanout(rng, size, n, 200) for size in (300, n))
    weights = [on_grid(rng.standard_normal((1, len(x.target))) * 0.2 + 0.3, np.float32) for x in (fanout, own)]
    synapses = SynapseArrays(*weights, np.zeros(n, np.float32), FULL, fanout, own)
    layer = case.layer._replace(events=events_from_dense(counts), synapses=synapses)
    runs = [lazy.forward(layer, waits=waits) for waits in (lazy.NEVER, lazy.ALWAYS, lazy.CHOOSE)]
    runs.append(cpu.forward(layer, trace=True)._replace(trace=runs[0].trace))
    for run in runs[1:]:
        assert_same_run(run, runs[0])
    assert len(runs[0].spikes.idx) > 10000


@pytest.mark.parametrize(
    "changed",
    [
        {"beta": 1.5}, {"beta": -0.1}, {"threshold": 0.0}, {"threshold": -1.0}, {"bias": 2.0**-8}, {"bias": -0.0},
        {"current": 1}, {"kind": 1}, {"gate": 2}, {"gate": 3}, {"fanout": 0}, {"own": 0},
    ],
)  # fmt: skip
def test_who_may_not_wait(changed: dict[str, float]) -> None:
    case = into_lists(make_case(gate="none"), quiet=True)
    assert lazy.serves(case.layer)
    assert lazy.serves(into_lists(make_case(gate="table", recurrent=False), quiet=True).layer)
    ((name, value),) = changed.items()
    if name in ("beta", "threshold"):
        array = getattr(case.layer.neurons, name).copy()
        array[3] = value
        layer = case.layer._replace(neurons=case.layer.neurons._replace(**{name: array}))
    elif name == "bias":
        bias = case.layer.synapses.bias.copy()
        bias[2] = value
        layer = case.layer._replace(synapses=case.layer.synapses._replace(bias=bias))
    elif name == "current":
        layer = into_lists(make_case(gate="none", current=True), quiet=True).layer
    elif name == "kind":
        layer = into_lists(make_case(gate="none", neuron="cuba"), quiet=True).layer
    elif name == "gate":
        layer = into_lists(make_case(gate=("input", "drive")[int(value) - 2]), quiet=True).layer
    else:
        layer = into_lists(make_case(gate="none"), given=name == "own", own=name == "fanout", quiet=True).layer
    assert not lazy.serves(layer)
