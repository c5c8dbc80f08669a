"""exp, the logistic function and tanh against float64, over all of float32: units in the last place, NaN, infinity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from suspike_kernels.compiling import kernel
from suspike_kernels.cpu import activations
from suspike_kernels.cpu.loops import columns

SMALLEST = float(np.finfo(np.float32).tiny)


@kernel()
def each_exp(x: Any) -> None:
    for k in columns(0, x.shape[0]):
        x[k] = activations.exp(x[k])


@kernel()
def each_logistic(x: Any) -> None:
    activations.each_logistic(x)


@kernel()
def each_tanh(x: Any) -> None:
    activations.each_tanh(x)


@kernel()
def logistic_of(x: Any, first: int, n: int, out: Any) -> None:
    activations.logistic_of(x, first, n, out)


@kernel()
def tanh_of(x: Any, first: int, n: int, out: Any) -> None:
    activations.tanh_of(x, first, n, out)


def logistic(x: Any) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-x)))


CASES: list[tuple[Any, Callable[[Any], Any], float, float]] = [
    (each_exp, np.exp, -87.0, 88.0),
    (each_logistic, logistic, -87.0, np.inf),
    (each_tanh, np.tanh, -np.inf, np.inf),
]
"""A function, the same of float64, and between which bounds float32 holds what it gives."""


def floats() -> NDArray[np.float32]:
    """Every 2039th float32, from the smallest to infinity, of both signs, and many where most happens."""
    x = np.arange(0, 0x7F800000, 2039, dtype=np.uint32).view(np.float32)
    edges = [np.nextafter(np.float32(0.625), np.float32(side)) for side in (0, 1)]
    x = np.concatenate([x, np.linspace(0, 100, 400_001, dtype=np.float32), np.array([*edges, np.inf], np.float32)])
    return np.concatenate([x, -x])


def in_last_places(found: NDArray[np.float32], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.abs(found - wanted) / np.spacing(np.abs(wanted).astype(np.float32)))


@pytest.mark.parametrize(("function", "wanted", "low", "high"), CASES)
def test_float32_is_within_three_units_in_the_last_place(function: Any, wanted: Any, low: float, high: float) -> None:
    x = floats()
    x = x[(low <= x) & (x <= high)]
    found = x.copy()
    function(found)
    error = in_last_places(found, wanted(x.astype(np.float64)))
    assert len(x) > 1_000_000
    assert error.max() <= 3, f"{error.max()} at {x[error.argmax()]}"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ends(dtype: str) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 200, -200], dtype)
    found = [x.copy() for _ in range(3)]
    for function, array in zip((each_exp, each_logistic, each_tanh), found, strict=True):
        function(array)
        assert np.isnan(array[2])
        assert array.dtype == dtype
    exp, squashed, tanh = found
    assert exp[3:5].tolist() == [1, 1]
    assert ((exp[[1, 6]] >= 0) & (exp[[1, 6]] <= 1.01 * np.exp(-87.0))).all()
    assert (exp[[0, 5]] > 1e38).all()
    assert squashed[[0, 3, 4, 5]].tolist() == [1, 0.5, 0.5, 1]
    assert ((squashed[[1, 6]] >= 0) & (squashed[[1, 6]] <= SMALLEST)).all()
    assert tanh[[0, 1, 5, 6]].tolist() == [1, -1, 1, -1]
    assert np.signbit(tanh[3:5]).tolist() == [False, True]
    assert (tanh[3:5] == 0).all()


def test_below_what_float32_holds_a_logistic_function_is_smaller_than_its_normal_numbers() -> None:
    x = floats()
    x = x[x < -87]
    found = x.copy()
    each_logistic(found)
    assert ((found >= 0) & (found <= 1.01 * np.exp(-87.0))).all()


def test_curves_are_odd_and_in_their_range() -> None:
    x = floats()
    tanh, other, squashed = x.copy(), -x, x.copy()
    each_tanh(tanh)
    each_tanh(other)
    each_logistic(squashed)
    np.testing.assert_array_equal(tanh, -other)
    assert (np.abs(tanh) <= 1).all()
    assert ((squashed >= 0) & (squashed <= 1)).all()


@pytest.mark.parametrize(("function", "wanted", "low", "high"), CASES)
def test_float64_is_a_librarys(function: Any, wanted: Any, low: float, high: float) -> None:
    x = np.concatenate([np.linspace(-80, 80, 10_000), 10.0 ** np.arange(-300, 1, 7)])
    found = x.copy()
    function(found)
    assert np.abs(found / wanted(x) - 1).max() < 1e-15


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_stretches(dtype: str) -> None:
    x = np.linspace(-4, 4, 60).astype(dtype)
    for each, of in ((each_logistic, logistic_of), (each_tanh, tanh_of)):
        wanted = x.copy()
        each(wanted)
        for first, n in ((0, 60), (3, 17), (59, 1), (8, 0), (5, 32)):
            out = np.full(60, 7, dtype)
            of(x, first, n, out)
            assert (out[n:] == 7).all()
            np.testing.assert_array_equal(out[:n], wanted[first : first + n])
