"""The rhythm against its formula and against numbers; its bits do not depend on how time is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suspike_testing.comparing import assert_close, assert_same_bits, numeric_gradient

from suspike_kernels.rhythm import rhythm, rhythm_backward, rhythm_near, rhythm_table, spread


def parameters(seed: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    period = rng.uniform(2.1, 60, k)
    return rng.standard_normal(n), rng.standard_normal((n, k)), rng.uniform(-9, 9, (n, k)), 2 * np.pi / period


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 999),
    n=st.sampled_from([1, 5, 16]),
    k=st.sampled_from([1, 4, 0]),
    n_steps=st.sampled_from([0, 1, 33]),
    start=st.sampled_from([0, 7, 100_000]),
)
def test_it_equals_the_formula(seed: int, n: int, k: int, n_steps: int, start: int) -> None:
    bias, amplitude, phase, omega = parameters(seed, n, k)
    found = rhythm(bias, amplitude, phase, omega, start=start, n_steps=n_steps)
    assert found.shape == (n_steps, n)
    assert found.dtype == np.float64
    # t omega is 10^5 rad at most, so that its last bit is 1e-11 and the formula itself is no better than that
    atol = 1e-12 if start < 1000 else 1e-9
    for t in range(n_steps):
        for i in range(n):
            wanted = bias[i] + sum(amplitude[i, j] * np.sin(omega[j] * (start + t) + phase[i, j]) for j in range(k))
            assert abs(found[t, i] - wanted) < atol


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 999), start=st.integers(0, 10_000), cut=st.integers(0, 41))
def test_bits_do_not_depend_on_the_cut(seed: int, start: int, cut: int) -> None:
    args = parameters(seed, 13, 4)
    whole = rhythm(*args, start=start, n_steps=41)
    parts = [rhythm(*args, start=start, n_steps=cut), rhythm(*args, start=start + cut, n_steps=41 - cut)]
    assert_same_bits(np.concatenate(parts), whole)
    assert_same_bits(np.concatenate([rhythm(*args, start=start + t, n_steps=1) for t in range(41)]), whole)
    one = rhythm(*(x[3:4] for x in args[:3]), args[3], start=start, n_steps=41)
    assert_same_bits(one, whole[:, 3:4])


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 999), n=st.sampled_from([1, 5, 130]), k=st.sampled_from([1, 4, 0]),
    n_steps=st.sampled_from([33, 1, 0]), start=st.sampled_from([0, 7, 100_000]),
)  # fmt: skip
def test_the_table_has_the_bits_of_the_rhythm(seed: int, n: int, k: int, n_steps: int, start: int) -> None:
    bias, *swing = parameters(seed, n, k)
    if n_steps:  # a bias that makes the first step's rhythm 0, which another order of the sum, or an FMA, would miss
        bias = -rhythm(np.zeros(n), *swing, start=start, n_steps=1)[0]
    found = rhythm_table(bias, *swing, start=start, n_steps=n_steps)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, rhythm(bias, *swing, start=start, n_steps=n_steps) > 0, strict=False)
    assert found.shape == (n_steps, n)


def test_near_has_the_bits_of_the_rhythm_too() -> None:
    bias, *swing = parameters(5, 130, 4)
    a = rhythm(bias, *swing, start=7, n_steps=60)
    width = np.abs(a).min(0)  # exactly at the width is not near
    width[::2] = np.nextafter(width[::2], np.inf)
    table, near = rhythm_near(bias, *swing, width, start=7, n_steps=60)
    np.testing.assert_array_equal(table, a > 0, strict=False)
    np.testing.assert_array_equal(near, np.abs(a) < width, strict=False)
    np.testing.assert_array_equal(near.sum(0), np.arange(130) % 2 == 0)


@pytest.mark.parametrize("start", [0, 50])
def test_gradients_equal_finite_differences(start: int) -> None:
    n_steps = 9
    args = dict(zip(("bias", "amplitude", "phase", "omega"), parameters(3, 4, 3), strict=True))
    grad = np.random.default_rng(0).standard_normal((n_steps, 4))
    by = rhythm_backward(grad, args["amplitude"], args["phase"], args["omega"], start=start, n_steps=n_steps)
    for name, array in args.items():
        numeric = numeric_gradient(
            lambda x, name=name: float((grad * rhythm(**{**args, name: x}, start=start, n_steps=n_steps)).sum()), array
        )
        assert_close(getattr(by, name), numeric, 1e-6, name)


def test_spread_is_the_root_mean_square_of_the_swing() -> None:
    _, amplitude, phase, _ = parameters(1, 6, 2)
    omega = 2 * np.pi / np.array([4.0, 5.0])  # 20 steps hold whole numbers of both periods
    swing = rhythm(np.zeros(6), amplitude, phase, omega, start=0, n_steps=20)
    assert_close(spread(amplitude), np.sqrt((swing**2).mean(0)), 1e-12)
