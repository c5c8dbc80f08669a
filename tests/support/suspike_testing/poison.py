"""Compiled kernels as plain Python, in which uninitialised memory is full of garbage and every index is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from suspike_kernels import rules
from suspike_kernels.cpu import compress, fused, fused_runs, memory, scatter, vectors

# by name: `suspike_kernels.cpu.forward` is the function
KERNELS = tuple(
    import_module(f"suspike_kernels.cpu.{name}")
    for name in (
        "forward backward decay fused fused_runs gating gradients lazy lists patches rows scatter simulation steps"
    ).split()
)
"""The modules of a layer's passes."""


class Poisoned:
    """numpy, but `empty` is full of NaN or of large indices."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def empty(shape: Any, dtype: Any = np.float64) -> np.ndarray:
        dtype = np.dtype(dtype)
        return np.full(shape, np.nan if dtype.kind == "f" else np.iinfo(dtype).max // 2, dtype)

    @classmethod
    def empty_like(cls, array: np.ndarray) -> np.ndarray:
        return cls.empty(array.shape, array.dtype)


def _check(fits: Any, what: str) -> None:
    if not fits:
        raise IndexError(what)


def _rows(matrix: np.ndarray, idx: np.ndarray, first: int, last: int, low: int, high: int) -> np.ndarray:
    """The rows of `matrix` that entries first .. last - 1 name, in columns low .. high - 1; nothing may lie outside."""
    _check(0 <= first <= last <= len(idx), f"entries {first}:{last} of {len(idx)}")
    _check(0 <= low <= high <= matrix.shape[1], f"columns {low}:{high} of {matrix.shape[1]}")
    chosen = idx[first:last]
    _check(((0 <= chosen) & (chosen < len(matrix))).all(), f"rows {chosen} of {len(matrix)}")
    return matrix[chosen, low:high]


def _adder(width: int) -> Callable[..., None]:
    def add(acc: Any, start: Any, matrix: Any, idx: Any, low: int, high: int, column: int) -> None:
        end = column + width
        _check(end <= min(len(acc), len(start)), f"columns {column}:{end} of {len(acc)} and {len(start)}")
        acc[column:end] = start[column:end] + _rows(matrix, idx, low, high, column, end).sum(0)

    return add


def _dotter(n_rows: int) -> Callable[..., None]:
    def dot(matrix: Any, idx: Any, e: int, x: Any, low: int, high: int, out: Any, at: int) -> None:
        _check((high - low) % 16 == 0, f"columns {low}:{high} are no whole vectors")
        _check(high <= len(x), f"columns {low}:{high} of {len(x)}")
        _check(0 <= at and at + n_rows <= len(out), f"sums {at}:{at + n_rows} of {len(out)}")
        out[at : at + n_rows] += _rows(matrix, idx, e, e + n_rows, low, high) @ x[low:high]

    return dot


def _add_run(acc: Any, to: int, matrix: Any, row: int, column: int, length: int) -> None:
    _check(0 <= to and to + length <= len(acc), f"columns {to}:{to + length} of {len(acc)}")
    acc[to : to + length] += _run(matrix, row, column, length)


def _dot_run(matrix: Any, row: int, column: int, x: Any, at: int, length: int) -> Any:
    _check(0 <= at and at + length <= len(x), f"columns {at}:{at + length} of {len(x)}")
    return _run(matrix, row, column, length) @ x[at : at + length]


def _run(matrix: Any, row: int, column: int, length: int) -> Any:
    return _rows(matrix, np.array([row]), 0, 1, column, column + length)[0]


def _keep(is_kept: Any, x: Any, k: int, idx: Any, used: int, out: Any = None) -> int:
    """Append to `idx` which of 64 entries of `x` from `k` on are kept, to `out` what stands there; then room ahead."""
    found = k + np.flatnonzero(is_kept)
    end = used + len(found)
    for entries, kept in ((found, idx), *([] if out is None else [(x[found], out)])):
        _check(0 <= used and end + compress.AHEAD <= len(kept), f"entries {used}:{end} and more of {len(kept)}")
        kept[used:end] = entries
        kept[end : end + compress.AHEAD] = Poisoned.empty(compress.AHEAD, kept.dtype)
    return end


def _above(x: Any, k: int) -> Any:
    _check(0 <= k and k + 64 <= len(x), f"entries {k}:{k + 64} of {len(x)}")
    return x[k : k + 64] > 0


def _within(x: Any, width: Any, k: int) -> Any:
    _check(0 <= k and k + 64 <= len(x), f"entries {k}:{k + 64} of {len(x)}")
    return abs(x[k : k + 64]) < width


def _word(bits: Any) -> np.uint64:
    return np.uint64(sum(1 << j for j in range(64) if bits[j]))


def _lowest_bit(word: Any) -> int:
    assert word, "the place of no bit is undefined"
    return (int(word) & -int(word)).bit_length() - 1


def _step(here: slice, v: Any, neurons: Any, reset: int, sources: Any, is_open: Any, places: Any, used: int) -> int:
    """Do a step of neighbours; `is_open` is None where all are, else of all neurons."""
    beta, threshold, bias, _, scale = neurons
    small = sources[0][0].dtype == np.int8
    cur = np.zeros(here.stop - here.start, np.int64) if small else bias[here].copy()
    for matrix, idx, low, high in sources:
        if low < high:
            cur += _rows(matrix, idx, low, high, here.start, here.stop).sum(0)
    if small:
        cur = rules.scaled(cur.astype(v.dtype), scale[0], bias[here])
    for j, k in enumerate(range(here.start, here.stop)):
        opened = is_open is None or bool(is_open[k])
        u = rules.select(opened, rules.leak(v[k], cur[j], beta[k]), v[k])
        fired = opened and rules.fires(u, threshold[k])
        v[k] = rules.reset(u, threshold[k], reset) if fired else u
        if fired:
            places[used] = k
            used += 1
    return used


def _scratch_behind(places: Any, used: int) -> None:
    _check(used + compress.AHEAD <= len(places), f"{used} entries and more of {len(places)}")
    places[used : used + compress.AHEAD] = Poisoned.empty(compress.AHEAD, places.dtype)


def _stepper(n_vectors: int) -> Callable[..., int]:
    def step(
        v: Any, neurons: Any, reset: int, arriving: Any, own: Any, where: Any, places: Any, used: int
    ) -> int:  # fmt: skip
        lines, first, rest = where
        _check(0 <= first and first + n_vectors <= len(lines), f"lines from {first} of {len(lines)}")
        _check(rest <= n_vectors, f"{rest} lines in {n_vectors} vectors")
        lanes = 64 // v.itemsize
        firsts = lines[first : first + (rest or n_vectors)]
        _check(rest or firsts[-1] + lanes <= len(v), "lanes outside of a whole block")
        for low in firsts.tolist():
            here = _columns(v, 1, low, min(lanes, len(v) - low))
            used = _step(here, v, neurons, reset, (arriving, own), neurons[3], places, used)
        _scratch_behind(places, used)
        return used

    return step


def _runner(n_vectors: int) -> Callable[..., int]:
    def run(
        v: Any, neurons: Any, reset: int, arriving: Any, own: Any, where: Any, span: Any, places: Any, used: int
    ) -> int:  # fmt: skip
        (weight, idx, begins), (start, until, early, ends) = arriving, span
        here = _columns(v, n_vectors, *where)
        for t in range(start, until):
            ahead = min(t + fused_runs.SILENCE, until)
            if early and t > start and own[2] == own[3] and begins[t] == begins[ahead]:
                return t
            sources, before = ((weight, idx, begins[t], begins[t + 1]), own), used
            ends[t + 1] = used = _step(here, v, neurons, reset, sources, None, places, used)
            own = (own[0], places, before if len(own[0]) else used, used)
            _scratch_behind(places, used)
        return until

    return run


def _waiter(n_vectors: int) -> Callable[..., None]:
    def wait(v: Any, beta: Any, bias: Any, n_steps: int, column: int, rest: int) -> None:
        here = _columns(v, n_vectors, column, rest)
        for _ in range(n_steps):
            v[here] = rules.leak(v[here], bias[here], beta[here])

    return wait


def _columns(v: Any, n_vectors: int, column: int, rest: int) -> slice:
    """The columns of a block, which has `rest` of them, or all if that is 0."""
    lanes = n_vectors * 64 // v.itemsize
    n = rest or lanes
    _check(n <= lanes, f"{n} columns in {n_vectors} vectors")
    _check(0 <= column and column + n <= len(v), f"columns {column}:{column + n} of {len(v)}")
    return slice(column, column + n)


_WIDE = fused.WIDE // 64
_SIZES = (1, 2, 4, 8, 16)
STAND_INS = {
    vectors.add_64: _adder(64),
    vectors.add_16: _adder(16),
    vectors.dot_8: _dotter(8),
    vectors.dot_4: _dotter(4),
    vectors.dot_2: _dotter(2),
    vectors.dot_1: _dotter(1),
    vectors.add_run: _add_run,
    vectors.dot_run: _dot_run,
    compress.keep_above: lambda x, k, idx, used: _keep(_above(x, k), x, k, idx, used),
    compress.keep_within: lambda x, width, k, idx, out, used: _keep(_within(x, width, k), x, k, idx, used, out),
    compress.word_above: lambda x, k: _word(_above(x, k)),
    compress.word_within: lambda x, width, k: _word(_within(x, width, k)),
    compress.lowest_bit: _lowest_bit,
    scatter.prefetch: lambda array, i: None,
    vectors.address: lambda array: array.ctypes.data,
    **{getattr(fused, f"open_{n}"): _stepper(min(n, _WIDE)) for n in (*_SIZES, 12)},
    **{getattr(fused_runs, f"run_{n}"): _runner(min(n, _WIDE)) for n in _SIZES},
    **{getattr(fused_runs, f"wait_{n}"): _waiter(min(n, _WIDE)) for n in _SIZES},
    fused.open_wide: _stepper(_WIDE),
    fused_runs.run_wide: _runner(_WIDE),
    fused_runs.wait_wide: _waiter(_WIDE),
}
"""Plain functions for what is written in the compiler's own language; `tests/kernels/test_vectors.py` compares them."""


@contextmanager
def poisoned(*modules: ModuleType) -> Iterator[None]:
    """Swap the kernels that `modules` name for their Python functions, and their `np` for a `Poisoned`."""
    with pytest.MonkeyPatch.context() as patch:
        for module in modules or KERNELS:
            for name, value in vars(module).copy().items():
                if hasattr(value, "py_func"):
                    patch.setattr(module, name, value.py_func)
                elif value is np:
                    patch.setattr(module, name, Poisoned())
                elif any(value is intrinsic for intrinsic in STAND_INS):
                    patch.setattr(module, name, STAND_INS[value])
        patch.setattr(memory, "empty", Poisoned.empty)
        yield
