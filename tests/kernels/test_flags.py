"""Lists of flagged units, as processors with and without lane compression write them, against numpy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suspike_testing.poison import STAND_INS

from suspike_kernels.cpu import flags, steps

DTYPES = ("float32", "float64")
DENSITIES = [0.0, 0.02, 0.5, 1.0]
UNTOUCHED = -5


@numba.njit
def word_of(marks: Any, k: int) -> Any:
    return flags.flag_word(marks, k)


@numba.njit
def bit_of(word: Any) -> Any:
    return flags.lowest_bit(word)


def check(dtype: str, density: float, n: int, low: int, high: int, used: int, skew: int, seed: int) -> None:
    """Append what is flagged in low .. high - 1 of n units; nothing else may be touched but the room ahead."""
    rng = np.random.default_rng(seed)
    marks = (rng.random(n + skew) < density).astype(np.uint8)[skew:]
    x = rng.standard_normal(n + skew).astype(dtype)[skew:]
    found = np.flatnonzero(marks[low:high]) + low
    size = used + len(found) + flags.AHEAD + 1
    for with_entries in (False, True):
        idx, out = np.full(size, UNTOUCHED, np.int32), np.full(size, UNTOUCHED, dtype)
        if with_entries:
            end = steps.append_with(marks, x, idx, out, used, low, high)
            np.testing.assert_array_equal(out[used:end], x[found])
        else:
            end = steps.append(marks, idx, used, low, high)
        assert end == used + len(found)
        np.testing.assert_array_equal(idx[used:end], found)
        for kept in (idx, out):
            assert (kept[:used] == UNTOUCHED).all()
            assert kept[-1] == UNTOUCHED


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_append(data: Any) -> None:
    n = data.draw(st.sampled_from([1, 7, 63, 64, 65, 127, 133, 200, 300]))
    low = data.draw(st.sampled_from([0, 0, *range(n)]))
    high = data.draw(st.sampled_from([n, n, *range(low, n)]))
    dtype, density = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from(DENSITIES))
    check(dtype, density, n, low, high, data.draw(st.integers(0, 30)), data.draw(st.integers(0, 3)), n + low)


@pytest.mark.parametrize("kind", ["generic", "this processor"])
def test_append_on_other_processors(kind: str, tmp_path: Path) -> None:
    """A fresh process compiles for a processor without AVX-512; for this one, so that the other proves something."""
    env = (
        os.environ
        | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
        | ({"NUMBA_CPU_NAME": "generic"} if kind == "generic" else {})
    )
    found = subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == str(flags.COMPRESSES and kind != "generic")


def test_append_stops_at_its_end() -> None:
    """Whatever the length, words of 64 flags and the rest begin and end where they should, amid flags that are set."""
    marks, idx = np.ones(220, np.uint8), np.empty(220 + flags.AHEAD, np.int32)
    for low in (0, 5):
        for length in range(200):
            assert steps.append(marks, idx, 0, low, low + length) == length
            np.testing.assert_array_equal(idx[:length], np.arange(low, low + length))


def test_words_and_bits() -> None:
    rng = np.random.default_rng(0)
    for density in DENSITIES:
        marks = (rng.random(70) < density).astype(np.uint8)
        for k in (0, 1, 6):
            wanted = sum(int(flag) << j for j, flag in enumerate(marks[k : k + 64]))
            assert word_of(marks, k) == wanted
            assert STAND_INS[flags.flag_word](marks, k) == wanted
    for bit in range(64):
        word = np.uint64((int(rng.integers(2**62)) << (bit + 1)) % 2**64 | 1 << bit)
        assert bit_of(word) == STAND_INS[flags.lowest_bit](word) == bit


@numba.njit
def through_keep(marks: Any, x: Any, idx: Any, out: Any, places: Any) -> Any:
    used = flags.keep(marks, x, 3, idx, out, 2)
    return used, flags.keep(marks, marks, 3, places, places, 2)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_stand_in_does_the_same(dtype: str, density: float) -> None:
    """`keep` is right on every processor, though slow on those that do not compress."""
    rng = np.random.default_rng(0)
    marks, x = (rng.random(70) < density).astype(np.uint8), rng.standard_normal(70).astype(dtype)
    idx, places = np.full(100, UNTOUCHED, np.int32), np.full(100, UNTOUCHED, np.int32)
    out = np.full(100, UNTOUCHED, dtype)
    wanted, values = idx.copy(), out.copy()
    end = STAND_INS[flags.keep](marks, x, 3, wanted, values, 2)
    assert through_keep(marks, x, idx, out, places) == (end, end)
    np.testing.assert_array_equal(idx[:end], wanted[:end])
    np.testing.assert_array_equal(places[:end], wanted[:end])
    np.testing.assert_array_equal(out[:end], values[:end])
    assert (out[end + flags.AHEAD :] == UNTOUCHED).all()


if __name__ == "__main__":
    for dtype in DTYPES:
        for density in DENSITIES:
            check(dtype, density, 300, 5, 290, 4, 1, 0)
    sys.stdout.write(str(flags.COMPRESSES))
