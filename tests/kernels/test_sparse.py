"""Fan-out lists: the plain loops against matrices of the same weights, the compiled kernels against the plain loops."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suspike_testing.cases import GATES, Case, cases, make_case
from suspike_testing.comparing import assert_same_run
from suspike_testing.fanouts import into_lists, into_matrices
from suspike_testing.poison import poisoned

from suspike_kernels import cpu, reference
from suspike_kernels.layout import NEURONS, is_sparse


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
