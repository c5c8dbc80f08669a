"""The compiled readout against the plain loops, and the loops against numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from suspike_testing.cases import EPSILON, Case, cases, make_case
from suspike_testing.comparing import (
    assert_close,
    assert_close_fields,
    assert_same_bits,
    assert_same_fields,
    numeric_gradient,
)
from suspike_testing.poison import poisoned

from suspike_kernels import reference
from suspike_kernels.cpu import li, rows
from suspike_kernels.layout import DenseArrays


def readout(case: Case) -> tuple[Any, DenseArrays, np.ndarray, np.ndarray]:
    return case.events, case.dense._replace(recurrent=case.dense.recurrent[:0]), case.lif.beta, case.v


def gradient(case: Case) -> np.ndarray:
    shape = (case.events.n_steps, *case.v.shape)
    return np.random.default_rng([case.seed, 2]).standard_normal(shape).astype(case.v.dtype)


def test_compiled_equals_reference() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=100, deadline=None, derandomize=True, database=None)
    @given(cases())
    def check(case: Case) -> None:
        args, grad = readout(case), gradient(case)
        wanted = reference.li_forward(*args)
        by = reference.li_backward(grad, wanted, case.events, case.sources, *args[1:])
        seen["events"] += len(case.events.idx)
        for n_threads in (1, 2, 3):
            found = li.li_forward(*args, n_threads=n_threads)
            assert_same_bits(found, wanted)
            found_by = li.li_backward(grad, found, case.events, case.sources, *args[1:], n_threads=n_threads)
            assert_close_fields(found_by, by, EPSILON[str(case.v.dtype)])

    check()
    assert seen["events"] > 1000


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(cases())
def test_no_uninitialised_memory_is_read(case: Case) -> None:
    args, grad = readout(case), gradient(case)
    wanted = reference.li_forward(*args)
    with poisoned(li, rows):
        found = li.li_forward(*args)
        by = li.li_backward(grad, found, case.events, case.sources, *args[1:])
    assert_same_bits(found, wanted)
    wanted_by = reference.li_backward(grad, wanted, case.events, case.sources, *args[1:])
    assert_close_fields(by, wanted_by, EPSILON[str(case.v.dtype)])


def test_it_is_reproducible_and_leaves_its_arguments() -> None:
    case = make_case(n_steps=20, n_samples=5)
    args, grad = readout(case), gradient(case)
    before = [x.copy() for x in (*args[1], *args[2:], grad)]
    out = li.li_forward(*args, n_threads=3)
    by = li.li_backward(grad, out, case.events, case.sources, *args[1:], n_threads=3)
    for _ in range(3):
        assert_same_bits(li.li_forward(*args, n_threads=3), out)
        assert_same_fields(li.li_backward(grad, out, case.events, case.sources, *args[1:], n_threads=3), by)
    for array, old in zip((*args[1], *args[2:], grad), before, strict=True):
        assert_same_bits(array, old)


@pytest.mark.parametrize("n_steps", [1, 7])
def test_gradients_equal_finite_differences(n_steps: int) -> None:
    case = make_case(n_steps=n_steps, n_samples=2, n_in=3, n_units=2, density=0.6, dtype="float64")
    events, dense, beta, v = readout(case)
    grad = gradient(case)
    by = reference.li_backward(grad, reference.li_forward(events, dense, beta, v), events, case.sources, dense, beta, v)

    def loss(**changed: Any) -> float:
        moved = dense._replace(**{k: x for k, x in changed.items() if k in dense._fields})
        return float((grad * reference.li_forward(events, moved, changed.get("beta", beta), changed.get("v", v))).sum())

    for name, array in {"weight": dense.weight, "bias": dense.bias, "beta": beta, "v": v}.items():
        numeric = numeric_gradient(lambda x, name=name: loss(**{name: x}), array)
        assert np.abs(numeric).max() > 0.01, name
        assert_close(getattr(by, name), numeric, 1e-6, name)
    # a source's value counts how often its row is added, so the gradient is that of the dense counts
    sample, step, _ = case.sources.places()
    counts = events.dense(np.float64)

    def loss_by_counts(x: np.ndarray) -> float:
        state, total = v, 0.0
        for t in range(n_steps):
            state = beta * state + x[t] @ dense.weight + dense.bias
            total += float((grad[t] * state).sum())
        return total

    assert_close(by.source, numeric_gradient(loss_by_counts, counts)[step, sample, case.sources.idx], 1e-6, "source")
