"""Lists of the entries above 0 or within a width, with and without lane compression, against numpy."""

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

from suspike_kernels.cpu import compress, steps

DTYPES = ("float32", "float64")
DENSITIES = [0.0, 0.02, 0.5, 1.0]
UNTOUCHED = -5
WIDTH = 0.25


def numbers(rng: np.random.Generator, n: int, density: float, dtype: str) -> np.ndarray:
    """Return `n` numbers of which about a share `density` is above 0 and another within the width; odd ones too."""
    kept = rng.choice([0.1, 0.2, 0.5, 3.0, np.inf, 1e-45], n)
    left = rng.choice([0.0, -0.0, -0.1, -0.25, -0.3, -2.0, -np.inf, np.nan], n)
    return np.where(rng.random(n) < density, kept, left).astype(dtype)


@numba.njit
def words_of(x: Any, width: Any, k: int) -> Any:
    return compress.word_above(x, k), compress.word_within(x, width, k)


@numba.njit
def bit_of(word: Any) -> Any:
    return compress.lowest_bit(word)


def check(dtype: str, density: float, n: int, low: int, high: int, used: int, skew: int, seed: int) -> None:
    """Append what is kept in low .. high - 1 of n entries; nothing else may be touched but the room ahead."""
    x = numbers(np.random.default_rng(seed), n + skew, density, dtype)[skew:]
    width = x.dtype.type(WIDTH)
    for within in (False, True):
        found = np.flatnonzero((abs(x) < width if within else x > 0)[low:high]) + low
        size = used + len(found) + compress.AHEAD + 1
        idx, out = np.full(size, UNTOUCHED, np.int32), np.full(size, UNTOUCHED, dtype)
        if within:
            end = steps.append_within(x, width, idx, out, used, low, high)
            np.testing.assert_array_equal(out[used:end], x[found])
        else:
            end = steps.append_above(x, idx, used, low, high)
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
    assert found.stdout.strip() == str(compress.COMPRESSES and kind != "generic")


def test_append_stops_at_its_end() -> None:
    """Whatever the length, words of 64 and the rest begin and end where they should, amid entries that are kept."""
    x, idx = np.full(220, 0.1, np.float32), np.empty(220 + compress.AHEAD, np.int32)
    out = np.empty(220 + compress.AHEAD, np.float32)
    for low in (0, 5):
        for length in range(200):
            assert steps.append_above(x, idx, 0, low, low + length) == length
            np.testing.assert_array_equal(idx[:length], np.arange(low, low + length))
            idx[:] = UNTOUCHED
            assert steps.append_within(x, x.dtype.type(WIDTH), idx, out, 0, low, low + length) == length
            np.testing.assert_array_equal(idx[:length], np.arange(low, low + length))


@pytest.mark.parametrize("dtype", DTYPES)
def test_words_and_bits(dtype: str) -> None:
    rng, width = np.random.default_rng(0), np.dtype(dtype).type(WIDTH)
    for density in DENSITIES:
        x = numbers(rng, 70, density, dtype)
        for k in (0, 1, 6):
            part = x[k : k + 64]
            wanted = tuple(sum(int(bit) << j for j, bit in enumerate(bits)) for bits in (part > 0, abs(part) < width))
            assert words_of(x, width, k) == wanted
            assert STAND_INS[compress.word_above](x, k) == wanted[0]
            assert STAND_INS[compress.word_within](x, width, k) == wanted[1]
    for bit in range(64):
        word = np.uint64((int(rng.integers(2**62)) << (bit + 1)) % 2**64 | 1 << bit)
        assert bit_of(word) == STAND_INS[compress.lowest_bit](word) == bit


@numba.njit
def through_keep(x: Any, width: Any, idx: Any, out: Any, places: Any) -> Any:
    return compress.keep_within(x, width, 3, idx, out, 2), compress.keep_above(x, 3, places, 2)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_stand_ins_do_the_same(dtype: str, density: float) -> None:
    """`keep_above` and `keep_within` are right on every processor, though slow on those that do not compress."""
    x, width = numbers(np.random.default_rng(0), 70, density, dtype), np.dtype(dtype).type(WIDTH)
    idx, places = np.full(100, UNTOUCHED, np.int32), np.full(100, UNTOUCHED, np.int32)
    out = np.full(100, UNTOUCHED, dtype)
    wanted, above, values = idx.copy(), places.copy(), out.copy()
    ends = (
        STAND_INS[compress.keep_within](x, width, 3, wanted, values, 2),
        STAND_INS[compress.keep_above](x, 3, above, 2),
    )
    assert through_keep(x, width, idx, out, places) == ends
    for end, got, want in zip((ends[0], ends[0], ends[1]), (idx, out, places), (wanted, values, above), strict=True):
        np.testing.assert_array_equal(got[:end], want[:end])
        assert (got[end + compress.AHEAD :] == UNTOUCHED).all()


if __name__ == "__main__":
    for dtype in DTYPES:
        for density in DENSITIES:
            check(dtype, density, 300, 5, 290, 4, 1, 0)
    sys.stdout.write(str(compress.COMPRESSES))
