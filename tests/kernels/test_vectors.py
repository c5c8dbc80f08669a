"""Sums, products and lists written for the vector unit, against numpy: odd sizes and places, nothing else touched."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.errors import TypingError
from suspike_testing.cases import make_case, random_events
from suspike_testing.poison import STAND_INS

from suspike_kernels.cpu import rows, vectors

DTYPES = ("float32", "float64")
N_COLUMNS = [1, 7, 15, 16, 17, 31, 64, 65, 80, 127, 133, 200]


def numbers(rng: np.random.Generator, dtype: str, *shape: int, skew: int = 0) -> np.ndarray:
    """Small whole numbers, whose sums and products are exact, `skew` entries behind wherever memory begins."""
    flat = rng.integers(-9, 10, int(np.prod(shape)) + skew).astype(dtype)
    return flat[skew:].reshape(shape)


@st.composite
def problems(draw: Any) -> tuple[np.random.Generator, str, int, int, int, int, int]:
    """A seed, a float type, columns, a stretch of them, how many rows to add, and a skew."""
    n = draw(st.sampled_from(N_COLUMNS))
    low = draw(st.sampled_from([0, 0, *range(1, n), n]))
    high = draw(st.sampled_from([n, n, *range(low, n)]))
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    n_rows = draw(st.sampled_from([0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 25]))
    return rng, draw(st.sampled_from(DTYPES)), n, low, high, n_rows, draw(st.integers(0, 3))


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(problems())
def test_add_rows(problem: Any) -> None:
    rng, dtype, n, low, high, n_rows, skew = problem
    acc, matrix = numbers(rng, dtype, n, skew=skew), numbers(rng, dtype, 5, n, skew=3 - skew)
    idx, start = rng.integers(0, 5, n_rows + 4).astype(np.int32), numbers(rng, dtype, n)
    for begin in (acc, start):
        wanted = acc.copy()
        wanted[low:high] = begin[low:high] + matrix[idx[2 : 2 + n_rows], low:high].sum(0)
        rows.add_rows(acc, begin, matrix, idx, 2, 2 + n_rows, low, high)
        np.testing.assert_array_equal(acc, wanted)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(problems())
def test_add_dots(problem: Any) -> None:
    rng, dtype, n, low, high, n_rows, skew = problem
    x, matrix = numbers(rng, dtype, n, skew=skew), numbers(rng, dtype, 5, n, skew=3 - skew)
    idx = rng.integers(0, 5, n_rows + 4).astype(np.int32)
    out = numbers(rng, dtype, n_rows + 2 + skew)
    wanted = out.copy()
    wanted[1 : 1 + n_rows] += matrix[idx[2 : 2 + n_rows], low:high] @ x[low:high]
    rows.add_dots(matrix, idx, 2, 2 + n_rows, x, low, high, out, 1)
    np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_row_has_its_own_place_in_a_product(dtype: str) -> None:
    """Products that differ by powers of two: a lane that went astray would show."""
    matrix = np.zeros((8, 48), dtype)
    matrix[np.arange(8), np.arange(8) * 5] = 2.0 ** np.arange(8)
    out = np.zeros(8, dtype)
    rows.add_dots(matrix, np.arange(8, dtype=np.int32)[::-1].copy(), 0, 8, np.ones(48, dtype), 0, 48, out, 0)
    assert out.tolist() == [128, 64, 32, 16, 8, 4, 2, 1]


@numba.njit
def through_intrinsics(acc: Any, wide: Any, matrix: Any, idx: Any, out: Any, x: Any) -> None:
    vectors.add_64(wide, wide, matrix, idx, 0, 7, 3)
    vectors.add_16(acc, x, matrix, idx, 1, 3, 2)
    vectors.dot_8(matrix, idx, 1, x, 3, 51, out, 0)
    vectors.dot_4(matrix, idx, 2, x, 0, 64, out, 9)
    vectors.dot_2(matrix, idx, 7, x, 1, 33, out, 13)
    vectors.dot_1(matrix, idx, 0, x, 5, 21, out, 8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_stand_ins_do_the_same(dtype: str) -> None:
    rng = np.random.default_rng(1)
    idx = rng.integers(0, 7, 9).astype(np.int32)
    matrix, x = numbers(rng, dtype, 7, 67), numbers(rng, dtype, 67)
    found = [numbers(rng, dtype, n) for n in (18, 67, 15)]
    wanted = [array.copy() for array in found]
    through_intrinsics(found[0], found[1], matrix, idx, found[2], x)
    add_64, add_16, dot_8, dot_4, dot_2, dot_1 = (
        STAND_INS[getattr(vectors, name)] for name in ("add_64", "add_16", "dot_8", "dot_4", "dot_2", "dot_1")
    )
    add_64(wanted[1], wanted[1], matrix, idx, 0, 7, 3)
    add_16(wanted[0], x, matrix, idx, 1, 3, 2)
    dot_8(matrix, idx, 1, x, 3, 51, wanted[2], 0)
    dot_4(matrix, idx, 2, x, 0, 64, wanted[2], 9)
    dot_2(matrix, idx, 7, x, 1, 33, wanted[2], 13)
    dot_1(matrix, idx, 0, x, 5, 21, wanted[2], 8)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@numba.njit
def run_sum(acc: Any, to: int, matrix: Any, row: int, column: int, length: int) -> None:
    vectors.add_run(acc, to, matrix, row, column, length)


@numba.njit
def run_product(matrix: Any, row: int, column: int, x: Any, at: int, length: int) -> Any:
    return vectors.dot_run(matrix, row, column, x, at, length)


@pytest.mark.parametrize("dtype", DTYPES)
def test_runs_of_one_row(dtype: str) -> None:
    rng = np.random.default_rng(2)
    for length in range(52):
        acc, matrix = numbers(rng, dtype, 60, skew=1), numbers(rng, dtype, 4, 55)
        wanted, row, column, at = acc.copy(), length % 4, length % 4, length % 7
        stretch = matrix[row, column : column + length]
        product = run_product(matrix, row, column, acc, at, length)
        assert product == stretch @ acc[at : at + length]
        assert product == STAND_INS[vectors.dot_run](matrix, row, column, acc, at, length)
        wanted[at : at + length] += stretch
        stood_in = acc.copy()
        STAND_INS[vectors.add_run](stood_in, at, matrix, row, column, length)
        run_sum(acc, at, matrix, row, column, length)
        np.testing.assert_array_equal(acc, wanted)
        np.testing.assert_array_equal(stood_in, wanted)


def test_what_an_address_does_not_describe_is_refused() -> None:
    acc, matrix, idx = np.zeros(16, np.float32), np.ones((16, 16), np.float32), np.zeros(1, np.int32)
    rows.add_rows(acc, acc, matrix, idx, 0, 1, 0, 16)
    for wrong in (matrix.T, matrix[:, ::2], matrix.astype(np.float64)):
        with pytest.raises(TypingError, match="arrays must be"):
            rows.add_rows(acc, acc, wrong, idx, 0, 1, 0, 16)
        with pytest.raises(TypingError, match="arrays must be"):
            rows.add_dots(wrong, idx, 0, 1, acc, 0, 16, acc.copy(), 0)
    with pytest.raises(TypingError, match="arrays must be"):
        rows.add_rows(acc, acc, matrix, idx.astype(np.int64), 0, 1, 0, 16)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scratch_is_aligned_and_apart(dtype: str) -> None:
    like, kept = np.zeros(1, dtype), []
    for n_rows, n_columns in ((1, 1), (3, 16), (7, 5), (0, 4), (2, 1000)):
        found = rows.scratch(n_rows, n_columns, like)
        assert found.shape == (n_rows, n_columns)
        assert found.dtype == dtype
        assert found.ctypes.data % 64 == 0 or not found.size
        found[:] = len(kept)
        kept.append(found)
    for i, array in enumerate(kept):
        assert (array == i).all()


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 999), n=st.sampled_from([1, 20, 70, 150]), n_steps=st.sampled_from([0, 1, 9]),
    shift=st.sampled_from([0, 1]), density=st.sampled_from([0.0, 0.2, 0.9]), dtype=st.sampled_from(DTYPES),
)  # fmt: skip
def test_rows_by_source(seed: int, n: int, n_steps: int, shift: int, density: float, dtype: str) -> None:
    rng, n_sources = np.random.default_rng(seed), 6
    events = random_events(rng, n_steps, 2, n_sources, density)
    ptr, own = events.ptr[1], int(events.ptr[1, -1] - events.ptr[1, 0])
    at_source, start = np.full(own + 1, -5, np.int32), np.full(n_sources + 3, -5, np.int64)
    rows.by_source(ptr, events.idx, n_sources, shift, at_source, start)
    assert (start[n_sources + 1 :] == -5).all()
    assert at_source[-1] == -5
    counts = events.dense(np.int64)[:, 1]
    for i in range(n_sources):
        wanted = np.repeat(np.arange(n_steps), counts[:, i]) + shift
        np.testing.assert_array_equal(at_source[start[i] : start[i + 1]], wanted)
    later = numbers(rng, dtype, n_steps + 1, n)
    later[-1] = 0
    touched = (rng.random((n_steps + 1, -(-n // rows.BLOCK))) < 0.5).astype(np.uint8)
    masked = later * np.repeat(touched, rows.BLOCK, axis=1)[:, :n]
    moved = np.zeros((n_steps + 1, n_sources), np.int64)
    moved[shift : shift + n_steps] = counts
    for blocks, added in ((touched[:0], later), (touched, masked)):
        grad = numbers(rng, dtype, n_sources, n)
        wanted = grad + moved.T.astype(dtype) @ added
        rows.add_by_source(grad, later, at_source, start, blocks, np.empty(own + 1, np.int32))
        np.testing.assert_array_equal(grad, wanted)


def test_weights_that_begin_beside_a_cache_line_are_copied_to_one() -> None:
    many = make_case(n_units=32, n_steps=200, n_samples=2, density=0.01, gate="none").layer
    raw = np.zeros(many.synapses.weight.size + 64, np.float32)
    beside = raw[(-raw.ctypes.data % 64) // 4 + 3 :][: many.synapses.weight.size].reshape(many.synapses.weight.shape)
    beside[...] = many.synapses.weight
    on_line = rows.in_lines(many.synapses.recurrent)
    layer = many._replace(synapses=many.synapses._replace(weight=beside, recurrent=on_line))
    copied = rows.weights_in_lines(layer)
    assert copied.synapses.recurrent is on_line
    assert copied.synapses.weight.ctypes.data % 64 == 0
    np.testing.assert_array_equal(copied.synapses.weight, beside)
    assert copied._replace(synapses=layer.synapses) == layer
    assert rows.weights_in_lines(copied) is copied
    few = layer._replace(events=layer.events._replace(ptr=layer.events.ptr[:, :3]))
    assert rows.weights_in_lines(few) is few
