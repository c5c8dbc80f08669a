"""The comparisons that the other tests rest on fail where they should."""

from __future__ import annotations

import numpy as np
import pytest
from suspike_testing.cases import make_case
from suspike_testing.comparing import (
    assert_close,
    assert_close_fields,
    assert_same_bits,
    assert_same_events,
    assert_same_fields,
    assert_same_run,
    numeric_gradient,
)

from suspike_kernels import reference
from suspike_kernels.layout import Events

ONES = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    "wrong",
    [np.nextafter(ONES, np.float32(2)), -ONES, ONES.astype(np.float64), ONES[:1], ONES * np.nan],
    ids=["next", "sign", "dtype", "shape", "nan"],
)
def test_same_bits_fails_on(wrong: np.ndarray) -> None:
    assert_same_bits(ONES, ONES)
    with pytest.raises(AssertionError):
        assert_same_bits(wrong, ONES)


def test_same_bits_tells_the_two_zeros_apart() -> None:
    with pytest.raises(AssertionError):
        assert_same_bits(np.array([-0.0]), np.array([0.0]))


@pytest.mark.parametrize(
    "wrong",
    [ONES + np.float32(1e-4), ONES.astype(np.float64), ONES[:1], ONES * np.nan, ONES * 0],
    ids=["value", "dtype", "shape", "nan", "zero"],
)
def test_close_fails_on(wrong: np.ndarray) -> None:
    assert_close(ONES * np.float32(1 + 1e-7), ONES, 1e-5)
    with pytest.raises(AssertionError):
        assert_close(wrong, ONES, 1e-5)


def test_nothing_but_zero_is_close_to_zero() -> None:
    assert_close(ONES * 0, ONES * 0, 1e-5)
    with pytest.raises(AssertionError):
        assert_close(ONES * np.float32(1e-30), ONES * 0, 1e-5)


def test_same_events_fails_on_each_part() -> None:
    events = Events(np.array([[0, 1, 2]]), np.array([1, 0], np.int32), 2)
    assert_same_events(events, events)
    for wrong in (
        events._replace(ptr=np.array([[0, 2, 2]])),
        events._replace(idx=np.array([0, 1], np.int32)),
        events._replace(idx=events.idx.astype(np.int64)),
        events._replace(n_units=3),
    ):
        with pytest.raises(AssertionError):
            assert_same_events(wrong, events)


def test_same_run_and_close_fields_look_at_every_field() -> None:
    case = make_case(neuron="adlif", gate="input", trace=True, current=True)
    run = case.forward(reference)
    assert_same_run(run, run)
    for name in set(run._fields) - {"spikes", "active"}:
        with pytest.raises(AssertionError, match=name):
            assert_same_run(run._replace(**{name: getattr(run, name) + getattr(run, name).dtype.type(1)}), run)
    for name in ("spikes", "active"):
        with pytest.raises(AssertionError, match=name):
            assert_same_run(run._replace(**{name: case.sources}), run)
    for gate in ("input", "drive"):
        case = make_case(neuron="adlif", gate=gate, trace=True, current=True)
        grads = case.backward(reference, case.forward(reference))
        assert_close_fields(grads, grads, 1e-5)
        assert_same_fields(grads, grads)
        for name in grads._fields:
            wrong = grads._replace(**{name: getattr(grads, name) * np.float32(1 + 1e-3)})
            if not getattr(grads, name).any():
                assert name in ("gate", "gate_recurrent", "kappa")
                continue
            for compare in (lambda a, b: assert_close_fields(a, b, 1e-5), assert_same_fields):
                with pytest.raises(AssertionError, match=name):
                    compare(wrong, grads)


def test_numeric_gradient_of_a_square() -> None:
    at = np.array([[1.0, -2.0]])
    assert_close(numeric_gradient(lambda x: (x**2).sum(), at), 2 * at, 1e-8)
