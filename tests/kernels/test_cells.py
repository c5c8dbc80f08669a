"""Recurrent cells' kernels against the textbook in numpy: forward, back by finite differences, restored to the bit."""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suspike_testing.cells import KINDS, Array, Problem, make_problem, textbook
from suspike_testing.comparing import assert_close, assert_same_bits, numeric_gradient
from suspike_testing.poison import poisoned

from suspike_kernels.cells import CELLS
from suspike_kernels.cpu import activations, cell_stream, cells, rows

EPSILON = {"float32": 2e-6, "float64": 1e-14}
MODULES = (activations, cell_stream, cells, rows)


@st.composite
def problems(draw: Any, *, most: int = 9) -> Problem:
    """Cells of every kind, small and lopsided, with nobody open, some, or all."""
    sizes = [[5, 1, 0, 9], [2, 1, 0, 17, 5, 16, 33], [3, 9, 1, 20, 16], [7, 2, 1, 16, 33]]
    n_time, batch, n_in, n = (draw(st.sampled_from(each[:most])) for each in sizes)
    return make_problem(
        draw(st.sampled_from(KINDS)), n_time, batch, n_in, n, opened=draw(st.sampled_from([0.4, 0.1, 0.0, 1.0])),
        bias=draw(st.sampled_from([True, False])), ends=draw(st.sampled_from([False, True])),
        dtype=draw(st.sampled_from(["float32", "float64"])), seed=draw(st.integers(0, 99)),
    )  # fmt: skip


class Step(NamedTuple):
    """What is kept of a step, and who was computed there."""

    kept: Array
    moved: Array
    idx: Array
    n_open: int
    chosen: Array


def drawn_units(p: Problem, *, near: bool) -> cells.Units:
    is_near = np.random.default_rng(3).random(p.gate.shape) < 0.4
    return cells.computed(p.is_open, is_near if near else None)


def advanced(p: Problem, units: cells.Units) -> tuple[Array, Array, list[Step]]:
    """h at every step, the last states, and what is kept, by `cells.advance`; what it does not write is NaN."""
    cell, state, out, steps = CELLS[p.kind], p.state.copy(), [], []
    n = p.v.shape[1]
    for t in range(len(p.x)):
        idx, size = units.idx[units.ptr[t] : units.ptr[t + 1]], int((t < p.n_steps).sum())
        chosen = (np.arange(cell.n_chunks)[:, None] * n + idx).ravel()
        products = [np.ascontiguousarray(m[chosen] @ y[:size].T) for m, y in ((p.w, p.x[t]), (p.v, state[0]))]
        n_open = int(units.ends[t] - units.ptr[t])
        shapes = ((cell.n_kept, n_open), (cell.n_states, len(idx) - n_open), (cell.n_kept, 1))
        kept, moved, spare = (np.full((*shape, size), np.nan, p.x.dtype) for shape in shapes)
        cells.advance(cell.kind, *products, cells.Bias(p.b, p.c), idx, state, kept, moved, spare)
        steps.append(Step(kept, moved, idx, n_open, chosen))
        out.append(state[0].copy())
    return np.array(out).reshape(len(p.x), *p.state.shape[1:]), state, steps


def assert_right(p: Problem, out: Array, state: Array) -> None:
    """Close to the textbook in the same float type, and equal to the last bit where and while a unit is shut."""
    exact = p._replace(**{name: getattr(p, name).astype(np.float64) for name in ("x", "state", "w", "v", "b", "c")})
    epsilon = EPSILON[str(p.x.dtype)]
    for found, wanted in zip((out, state), textbook(exact), strict=True):
        np.testing.assert_allclose(
            found, wanted, rtol=epsilon, atol=10 * epsilon * max(1, np.abs(wanted).max(initial=0))
        )
    before = np.concatenate([p.state[:1], out])[:-1]
    shut = ~(p.is_open[:, None] & (np.arange(len(p.x))[:, None] < p.n_steps)[..., None])
    assert_same_bits(out[shut], before[shut])
    never = shut.all(0)
    assert_same_bits(state[:, never], p.state[:, never])
    assert_same_bits(state[0], out[-1] if len(out) else p.state[0])


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(problems(), st.booleans())
def test_advance(p: Problem, near: bool) -> None:
    units = drawn_units(p, near=near)
    out, state, steps = advanced(p, units)
    assert_right(p, out, state)
    assert all(np.isfinite(step.kept).all() and np.isfinite(step.moved).all() for step in steps)


def went_back(p: Problem, units: cells.Units, by_out: Array, by_state: Array) -> tuple[dict[str, Array], list[Array]]:
    """Gradients by everything, by `cells.go_back`, and the states before each step that it restored."""
    cell, (_, now, steps) = CELLS[p.kind], advanced(p, units)
    by = {name: np.zeros_like(getattr(p, name)) for name in ("x", "w", "v", "b", "c", "gate")}
    grads = cells.Gradients(by_state.copy(), cells.Bias(by["b"], by["c"]), by["gate"])
    restored = []
    for t in reversed(range(len(p.x))):
        kept, moved, idx, k, chosen = steps[t]
        size = kept.shape[2]
        work = np.full((2 * cell.n_states, len(idx), size), np.nan, p.x.dtype)
        back = np.full(((cell.n_chunks + 1) * k, size), np.nan, p.x.dtype)
        cells.go_back(cell.kind, t, kept, moved, idx, by_out[t], now, grads, work, back)
        restored.append(now.copy())
        own = back[: cell.n_chunks * k]
        given = np.concatenate([own[: 2 * k], back[3 * k :]]) if p.kind == "gru" else own
        mine = chosen.reshape(cell.n_chunks, len(idx))[:, :k].ravel()
        for name, matrix, y, g, by_y in (
            ("v", p.v, now[0], own, grads.state[0]), ("w", p.w, p.x[t], given, by["x"][t]),
        ):  # fmt: skip
            by_y[:size] += g.T @ matrix[mine]
            cells.add_rows(np.ascontiguousarray(g @ y[:size]), mine, by[name])
    return by | {"state": grads.state}, [p.state, *restored[::-1]]


def states_before(p: Problem, units: cells.Units) -> list[Array]:
    return [p.state, *(advanced(p._replace(x=p.x[:t]), units)[1] for t in range(len(p.x)))]


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(problems(), st.booleans())
def test_the_way_back_restores_every_state_to_the_bit(p: Problem, near: bool) -> None:
    units, rng = drawn_units(p, near=near), np.random.default_rng(5)
    by_out, by_state = (
        rng.standard_normal(s).astype(p.x.dtype) for s in ((*p.x.shape[:2], p.v.shape[1]), p.state.shape)
    )
    by, restored = went_back(p, units, by_out, by_state)
    for found, wanted in zip(restored, states_before(p, units), strict=True):
        assert_same_bits(found, wanted)
    assert all(np.isfinite(g).all() for g in by.values())


@pytest.mark.parametrize(("kind", "bias", "ends"), [*product(KINDS, (True, False), (True, False))])
def test_gradients_are_derivatives(kind: str, bias: bool, ends: bool) -> None:
    """By finite differences of the textbook; by the gates where units are computed."""
    p = make_problem(kind, 6, 3, 2, 4, opened=0.5, bias=bias, ends=ends, seed=1)
    units, rng = drawn_units(p, near=True), np.random.default_rng(5)
    by_out, by_state = rng.standard_normal((6, 3, 4)), rng.standard_normal(p.state.shape)

    def loss(name: str, value: Array) -> float:
        out, state = textbook(p._replace(**{name: value}))
        return float((out * by_out).sum() + (state * by_state).sum())

    for name, found in went_back(p, units, by_out, by_state)[0].items():
        wanted = numeric_gradient(lambda value, name=name: loss(name, value), getattr(p, name))  # type: ignore[misc]
        if name == "gate":
            seen = np.zeros_like(p.is_open)
            for t in range(6):
                seen[t, units.idx[units.ptr[t] : units.ptr[t + 1]]] = True
            assert (found[~seen] == 0).all()
            assert seen.sum() > p.is_open.sum() > 5
            wanted[~seen] = 0
        assert_close(found, wanted, 1e-7, name, floor=1e-30)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(problems())
def test_stream(p: Problem) -> None:
    out, state = streamed(p)
    assert_right(p, out, state)
    nothing, alone = streamed(p, outputs=False)
    assert nothing.shape[0] == 0
    assert_same_bits(alone, state)


def streamed(p: Problem, *, outputs: bool = True, low: int = 0, high: int | None = None) -> tuple[Array, Array]:
    """A cell by `cell_stream`, which shall write no sample but low .. high - 1."""
    n, kind = p.v.shape[1], CELLS[p.kind].kind
    units = cells.computed(p.is_open, None)
    bias, extra = np.zeros(len(p.v), p.x.dtype), np.zeros(n if p.kind == "gru" else 0, p.x.dtype)
    if len(p.b):
        bias = p.b + p.c
        if p.kind == "gru":
            bias[2 * n :], extra = p.c[2 * n :], p.b[2 * n :]
    chosen = cells.rows_of(units.ptr, units.ptr[1:], units.idx, np.array(cell_stream.ORDER[kind]), n).astype(np.int32)
    out = np.full((len(p.x) if outputs else 0, p.x.shape[1], n), np.nan, p.x.dtype)
    state = p.state.copy()
    cell_stream.stream(
        kind, p.x, p.n_steps, state, p.w, p.v, bias, extra, units.ptr, units.idx, chosen, out, low,
        p.x.shape[1] if high is None else high,
    )  # fmt: skip
    return out, state


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(problems(most=3))
def test_no_index_is_out_of_its_array(p: Problem) -> None:
    """The kernels as plain Python, every index checked, all that is not theirs to read full of NaN."""
    units, epsilon = drawn_units(p, near=True), 100 * EPSILON[str(p.x.dtype)]
    by_out, by_state = p.x.sum(2)[..., None] + np.zeros_like(p.gate)[:, None], np.ones_like(p.state)

    def run() -> list[Array]:
        by, restored = went_back(p, units, by_out, by_state)
        return [*advanced(p, units)[:2], *streamed(p), *by.values(), *restored]

    wanted = run()
    with poisoned(*MODULES):
        found = run()
    for a, b in zip(found, wanted, strict=True):
        assert_close(a, b, epsilon, floor=1e-30)


@pytest.mark.parametrize("kind", KINDS)
def test_a_range_of_samples_streams_alone(kind: str) -> None:
    p = make_problem(kind, 7, 5, 3, 9, ends=True)
    wanted, ends = streamed(p)
    out, state = streamed(p, low=1, high=3)
    assert np.isnan(out[:, [0, 3, 4]]).all()
    assert_same_bits(out[:, 1:3], wanted[:, 1:3])
    assert_same_bits(state[:, 1:3], ends[:, 1:3])
    assert_same_bits(state[:, [0, 3, 4]], p.state[:, [0, 3, 4]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_rectifier_keeps_nan_and_stops_infinity(dtype: str) -> None:
    p = make_problem("relu", 1, 3, 1, 2, opened=1.0, bias=False, dtype=dtype)
    x = np.array([[[np.inf], [-np.inf], [np.nan]]], dtype)
    p = p._replace(x=x, w=np.ones_like(p.w), state=np.zeros_like(p.state))
    for out in (advanced(p, drawn_units(p, near=False))[0], streamed(p)[0]):
        assert out[0, :2].tolist() == [[np.inf] * 2, [0, 0]]
        assert not np.signbit(out[0, 1]).any()
        assert np.isnan(out[0, 2]).all()


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 99), st.sampled_from([0, 1, 5]), st.sampled_from([1, 6]), st.sampled_from([0.0, 0.4, 1.0]))
def test_units_and_their_rows(seed: int, n_time: int, n: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    is_open, near = rng.random((n_time, n)) < share, rng.random((n_time, n)) < 0.5
    for beside in (None, near):
        ptr, ends, idx = units = cells.computed(is_open, beside)
        assert [x.dtype for x in units] == [np.int64] * 3
        assert (len(ptr), len(ends), ptr[0], ptr[-1]) == (n_time + 1, n_time, 0, len(idx))
        for t in range(n_time):
            assert idx[ptr[t] : ends[t]].tolist() == np.flatnonzero(is_open[t]).tolist()
            others = np.flatnonzero(near[t] & ~is_open[t]) if beside is not None else []
            assert idx[ends[t] : ptr[t + 1]].tolist() == list(others)
        for last, order in product((ptr[1:], ends), ([0], [0, 1, 3, 2], [0, 1, 2])):
            found = cells.rows_of(ptr, last, idx, np.array(order), n)
            for t in range(n_time):
                wanted = (np.array(order)[:, None] * n + idx[ptr[t] : last[t]]).ravel()
                begin = len(order) * ptr[t]
                assert found[begin : begin + len(wanted)].tolist() == wanted.tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_are_added_where_they_belong(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, out, at = rng.integers(-9, 9, (3, 19)).astype(dtype), np.ones((6, 19), dtype), np.array([4, 0, 5])
    wanted = out.copy()
    wanted[at] += x
    cells.add_rows(x, at, out)
    np.testing.assert_array_equal(out, wanted)
