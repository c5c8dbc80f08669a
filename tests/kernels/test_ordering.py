"""Orders of neurons by when they open: against a slow walk, and by the blocks that are touched."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suspike_kernels.cpu.ordering import BLOCK, order, renumbered
from suspike_kernels.layout import events_from_dense
from suspike_kernels.rhythm import rhythm


def slow_order(table: np.ndarray) -> list[int]:
    """Which neurons are left, and in which order, is the same as in the kernel: ties go to the first."""
    steps = [set(np.flatnonzero(column).tolist()) for column in table.T]
    left, found, union = list(range(len(steps))), [], set()
    while left:
        added = [len(steps[i] - union) for i in left]
        at = added.index(min(added))
        found.append(left[at])
        union = steps[left[at]] | (union if (len(found) - 1) % BLOCK else set())
        left[at] = left[-1]
        left.pop()
    return found


def touched(table: np.ndarray) -> float:
    """The share of blocks of neighbours in which any is open."""
    return float(table.reshape(len(table), -1, BLOCK).any(2).mean())


def rhythms(n: int, periods: list[float], share: float, seed: int) -> np.ndarray:
    """Neurons with sines of their own, each open at a share of 1000 steps."""
    rng, k = np.random.default_rng(seed), len(periods)
    amplitude, phase = rng.standard_normal((n, k)), rng.uniform(0, 2 * np.pi, (n, k))
    a = rhythm(np.zeros(n), amplitude, phase, 2 * np.pi / np.array(periods), start=0, n_steps=1000)
    return (a > np.quantile(a, 1 - share, axis=0)).astype(np.uint8)


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(
    n_steps=st.sampled_from([9, 64, 65, 130, 1, 0]), n_units=st.sampled_from([40, 16, 17, 1, 0]),
    density=st.sampled_from([0.1, 0.5, 0.0, 1.0]), seed=st.integers(0, 99),
)  # fmt: skip
def test_it_is_the_greedy_order(n_steps: int, n_units: int, density: float, seed: int) -> None:
    table = (np.random.default_rng(seed).random((n_steps, n_units)) < density).astype(np.uint8)
    found = order(table)
    assert found.dtype == np.int64
    assert sorted(found.tolist()) == list(range(n_units))
    assert found.tolist() == slow_order(table)


@pytest.mark.parametrize("n_groups", [256, 16])
def test_one_sine_is_sorted_by_phase(n_groups: int) -> None:
    """Of neurons of one period, only blocks on whose phases the open stretch ends are touched in part."""
    rng, share = np.random.default_rng(n_groups), 0.1
    phase = rng.permutation(np.repeat(rng.uniform(0, 2 * np.pi, n_groups), 256 // n_groups))[:, None]
    a = rhythm(np.zeros(256), np.ones((256, 1)), phase, np.array([2 * np.pi / 50]), start=0, n_steps=1000)
    table = (a > np.cos(np.pi * share)).astype(np.uint8)
    assert touched(table) > 0.7
    assert touched(table[:, order(table)]) < (0.2 if n_groups == 256 else share + 0.01)


def test_several_sines_touch_half_as_many_blocks() -> None:
    for share, before, after in ((0.1, 0.78, 0.42), (0.17, 0.92, 0.57)):
        table = rhythms(1024, [2.53, 5.47, 12.1, 29.3], share, 0)
        assert touched(table) > before
        assert touched(table[:, order(table)]) < after


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(
    n_samples=st.integers(0, 3), n_steps=st.integers(0, 9), n_units=st.sampled_from([70, 5, 1]),
    density=st.sampled_from([0.1, 0.0, 1.0, 1.6]), seed=st.integers(0, 99),
)  # fmt: skip
def test_new_numbers(n_samples: int, n_steps: int, n_units: int, density: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    new = rng.permutation(n_units)
    dense = np.floor(rng.random((n_steps, n_samples, n_units)) + density).astype(np.uint8)
    wanted = np.empty_like(dense)
    wanted[:, :, new] = dense
    found, wanted = renumbered(events_from_dense(dense), new), events_from_dense(wanted)
    for got, expected in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_other_tables_are_refused() -> None:
    for table in (np.zeros((1, 3, 4), np.uint8), np.zeros((3, 4), bool)):
        with pytest.raises(ValueError, match="`table` must be uint8 of shape"):
            order(table)
