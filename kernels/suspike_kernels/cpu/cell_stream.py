"""Recurrent cells one sample at a time, without gradient: a step reads the weight rows of its open units alone.

A step's sums lie one behind the other, chunk by chunk, so that one pass reads all rows; what follows is done for whole
vectors, whatever stands behind the last unit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from suspike_kernels import cells
from suspike_kernels.compiling import kernel
from suspike_kernels.cpu.activations import logistic_of, tanh_of
from suspike_kernels.cpu.loops import columns, unsigned
from suspike_kernels.cpu.rows import add_dots

PAD = 8
"""Activations are done for a multiple of so many units."""

NARROW = 8
"""Inputs of fewer units are added column by column."""

ORDER = ((0,), (0,), (0, 1, 2), (0, 1, 3, 2))
"""The order of a cell's chunks here, by kind: those that a logistic function follows are neighbours."""


@kernel()
def stream(
    kind: int, x: Any, n_steps: Any, state: Any, w: Any, v: Any, bias: Any, extra: Any, ptr: Any, idx: Any, rows: Any,
    out: Any, low: int, high: int,
) -> None:  # fmt: skip
    """Run samples low .. high - 1 of a cell.

    Parameters
    ----------
    kind : int
        Index into `cells.CELLS`.
    x : float [T, B, I]
    n_steps : int64 [B]
        True length of each sample.
    state : float [states, B, H]
        Before the first step; becomes that after the last one.
    w, v : float [chunks * H, I], [chunks * H, H]
    bias : float [chunks * H]
        The sums of both biases; of a GRU's last chunk that by the state alone.
    extra : float [H] or [0]
        Of a GRU, the bias of its last chunk by the input.
    ptr : int64 [T + 1]
    idx : int64
        Units ``idx[ptr[t] : ptr[t + 1]]`` are open at step t.
    rows : int32
        Their weight rows, from ``chunks * ptr[t]`` on, chunk by chunk in the order of `ORDER`.
    out : float [T, B, H] or [0, B, H]
        Gets the state h of each step.
    """
    sums = np.zeros(v.shape[0] + PAD, x.dtype)
    panels = np.zeros((4, v.shape[0] + PAD), x.dtype)
    for b in range(low, high):
        _run_sample(kind, b, x, n_steps[b], state, w, v, bias, extra, ptr, idx, rows, out, sums, panels)


@kernel(allocates=False)
def _run_sample(
    kind: int, b: int, x: Any, n_steps: int, state: Any, w: Any, v: Any, bias: Any, extra: Any, ptr: Any, idx: Any,
    rows: Any, out: Any, sums: Any, panels: Any,
) -> None:  # fmt: skip
    h, second, new, size = state[0, b], state[state.shape[0] - 1, b], panels[0], state.shape[2]
    n_chunks, width = v.shape[0] // size, x.shape[2]
    for t in range(x.shape[0]):
        first, row = ptr[t], x[t, b]
        n = ptr[t + 1] - first if t < n_steps else 0
        begin = n_chunks * first
        if n:
            for j in columns(0, n_chunks * n):
                sums[j] = bias[unsigned(rows[begin + j])]
            add_dots(v, rows, begin, begin + n_chunks * n, h, 0, size, sums, 0)
            n_shared = n_chunks - int(kind == 2)  # chunks whose sums of input and state are one
            _add_input(w, rows, begin, n_shared * n, row, width, sums)
            if kind == 2:
                by_x = panels[1]
                for j in columns(0, n):
                    by_x[j] = extra[unsigned(idx[first + j])]
                _add_input(w, rows, begin + 2 * n, n, row, width, by_x)
                _gru(idx, first, n, h, sums, panels)
            elif kind == 3:
                _lstm(idx, first, n, second, sums, panels)
            elif kind == 0:
                tanh_of(sums, 0, _padded(n), new)
            else:
                for j in columns(0, n):
                    new[j] = cells.relu(sums[j])
            for j in columns(0, n):
                h[unsigned(idx[first + j])] = new[j]
        if out.shape[0]:
            to = out[t, b]
            for k in columns(0, size):
                to[k] = h[k]


@kernel(allocates=False, inline=True)
def _padded(n: int) -> int:
    return -(-n // PAD) * PAD


@kernel(allocates=False, inline=True)
def _add_input(w: Any, rows: Any, begin: int, n_rows: int, x: Any, width: int, sums: Any) -> None:
    """Add the products of rows of `w` with the input."""
    if width >= NARROW:
        add_dots(w, rows, begin, begin + n_rows, x, 0, width, sums, 0)
    else:
        for i in range(width):
            for j in columns(0, n_rows):
                sums[j] += w[unsigned(rows[begin + j]), i] * x[i]


@kernel(allocates=False, inline=True)
def _gru(idx: Any, first: int, n: int, h: Any, sums: Any, panels: Any) -> None:
    new, arg, gates = panels[0], panels[1], panels[2]
    logistic_of(sums, 0, _padded(2 * n), gates)
    for j in columns(0, n):
        arg[j] += gates[j] * sums[2 * n + j]
    tanh_of(arg, 0, _padded(n), new)
    for j in columns(0, n):
        new[j] = cells.mix(h[unsigned(idx[first + j])], gates[n + j], new[j])


@kernel(allocates=False, inline=True)
def _lstm(idx: Any, first: int, n: int, c: Any, sums: Any, panels: Any) -> None:
    new, given, gates, now = panels[0], panels[1], panels[2], panels[3]
    logistic_of(sums, 0, _padded(3 * n), gates)
    tanh_of(sums, 3 * n, _padded(n), given)
    for j in columns(0, n):
        k = unsigned(idx[first + j])
        now[j] = cells.remember(c[k], gates[j], gates[n + j], given[j])
        c[k] = now[j]
    tanh_of(now, 0, _padded(n), new)
    for j in columns(0, n):
        new[j] = gates[2 * n + j] * new[j]
