"""Recurrent cells in plain numpy, from the textbook: what their kernels are compared with, without torch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from suspike_kernels.cells import CELLS

Array = NDArray[Any]
KINDS = tuple(CELLS)


class Problem(NamedTuple):
    """What a cell is given: x [T, B, I], states [S, B, H], torch's weights, the gates [T, H], true lengths [B]."""

    kind: str
    x: Array
    state: Array
    w: Array
    v: Array
    b: Array
    c: Array
    gate: Array
    n_steps: NDArray[np.int64]

    @property
    def is_open(self) -> NDArray[np.bool_]:
        return self.gate > 0


def make_problem(
    kind: str, n_time: int, batch: int, n_in: int, n: int, *,
    opened: float = 0.5, bias: bool = True, ends: bool = False, dtype: str = "float64", seed: int = 0,
) -> Problem:  # fmt: skip
    """Draw one; the longest sample comes first where `ends` gives each its own length."""
    rng = np.random.default_rng([seed, n_time, batch, n_in, n])
    cell, scale = CELLS[kind], 0.8 / np.sqrt(n + n_in)
    n_rows = cell.n_chunks * n
    lengths = np.sort(rng.integers(0, n_time + 1, batch))[::-1] if ends else np.full(batch, n_time)
    parts: list[Any] = [
        rng.standard_normal((n_time, batch, n_in)), rng.standard_normal((cell.n_states, batch, n)) * 0.6,
        rng.standard_normal((n_rows, n_in)) * scale, rng.standard_normal((n_rows, n)) * scale,
        rng.standard_normal(n_rows if bias else 0), rng.standard_normal(n_rows if bias else 0),
        rng.random((n_time, n)) < opened,
    ]  # fmt: skip
    return Problem(kind, *(np.asarray(p, dtype) for p in parts), lengths.astype(np.int64))


def update(p: Problem, x: Array, state: Array) -> Array:
    """New states [S, B, H] of all units, from the input [B, I]."""
    n, h = p.v.shape[1], state[0]
    by_x, by_h = x @ p.w.T, h @ p.v.T
    if len(p.b):
        by_x, by_h = by_x + p.b, by_h + p.c

    def chunk(i: int) -> slice:
        return slice(i * n, (i + 1) * n)

    def logistic(x: Array) -> Array:
        return np.asarray(1 / (1 + np.exp(-x)))

    if p.kind in ("tanh", "relu"):
        total = by_x + by_h
        return np.stack([np.tanh(total) if p.kind == "tanh" else np.where(total < 0, 0, total)])
    if p.kind == "gru":
        r, z = (logistic((by_x + by_h)[:, chunk(i)]) for i in (0, 1))
        new = np.tanh(by_x[:, chunk(2)] + r * by_h[:, chunk(2)])
        return np.stack([(1 - z) * new + z * h])
    i, f, o = (logistic((by_x + by_h)[:, chunk(k)]) for k in (0, 1, 3))
    c = f * state[1] + i * np.tanh((by_x + by_h)[:, chunk(2)])
    return np.stack([o * np.tanh(c), c])


def textbook(p: Problem) -> tuple[Array, Array]:
    """Run a cell: h at every step [T, B, H], and the last states [S, B, H]; a gate between 0 and 1 mixes."""
    state, out = p.state.copy(), np.zeros((*p.x.shape[:2], p.v.shape[1]), p.x.dtype)
    for t, x in enumerate(p.x):
        runs = (t < p.n_steps)[:, None]
        state = np.where(runs, state + p.gate[t] * (update(p, x, state) - state), state)
        out[t] = state[0]
    return out, state
