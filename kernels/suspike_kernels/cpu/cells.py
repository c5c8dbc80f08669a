"""Recurrent cells, the computed units alone: what lies between the products of a step, forward and backward.

The products are a matrix library's, with the weight rows of those K units that are computed at a step. They come as
[chunks * K, B], for each unit a row over the samples, so that every loop along the batch is a vector loop.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from suspike_kernels import cells
from suspike_kernels.compiling import kernel
from suspike_kernels.cpu.activations import each_logistic, each_tanh
from suspike_kernels.cpu.loops import columns, unsigned
from suspike_kernels.cpu.rows import dot
from suspike_kernels.layout import FloatArray
from suspike_kernels.rules import ONE, ZERO

BLOCK = 16
"""Samples that are gathered together: so many rows of the state fit into the first-level cache."""


class Units(NamedTuple):
    """The units that are computed at each step.

    Attributes
    ----------
    ptr : int64 [T + 1]
        Those of step t are ``idx[ptr[t] : ptr[t + 1]]``.
    ends : int64 [T]
        Where those that are open end; the others are near their threshold, and wanted for the gradient of their gate.
    idx : int64
    """

    ptr: NDArray[np.int64]
    ends: NDArray[np.int64]
    idx: NDArray[np.int64]


def computed(is_open: NDArray[np.bool_], near: NDArray[np.bool_] | None) -> Units:
    """Return the units to compute, given who is open, and who is near the threshold of a gate that learns: [T, H]."""
    none = np.zeros((0, 0), np.bool_)
    n_all = int(np.count_nonzero(is_open if near is None else is_open | near))
    return Units(*_computed(is_open, none if near is None else near, n_all))


@kernel()
def _computed(is_open: Any, near: Any, n_all: int) -> Any:
    n_steps, n = is_open.shape
    ptr, ends, idx = np.zeros(n_steps + 1, np.int64), np.zeros(n_steps, np.int64), np.empty(n_all + 1, np.int64)
    used = np.uint64(0)
    for t in range(n_steps):
        for k in range(n):
            idx[used] = k  # stays if it counts: a branch would be taken at random
            used += np.uint64(is_open[t, k])
        ends[t] = used
        for k in range(n if near.shape[0] else 0):
            idx[used] = k
            used += np.uint64(near[t, k] and not is_open[t, k])
        ptr[t + 1] = used
    return ptr, ends, idx[:n_all]


class Bias(NamedTuple):
    """The biases [chunks * H] of a cell's two products; both of length 0 where there are none."""

    given: FloatArray
    own: FloatArray


@kernel()
def rows_of(ptr: Any, ends: Any, idx: Any, chunks: Any, size: int) -> Any:
    """Return the weight rows of the units ``idx[ptr[t] : ends[t]]``, from ``len(chunks) * ptr[t]`` on.

    They stand chunk by chunk, in the order of `chunks`.
    """
    rows = np.zeros(len(chunks) * idx.shape[0], np.int32)
    for t in range(ends.shape[0]):
        at = len(chunks) * ptr[t]
        for c in chunks:
            n = ends[t] - ptr[t]
            for j in columns(0, n):
                rows[unsigned(at) + j] = c * size + idx[unsigned(ptr[t]) + j]
            at += n
    return rows


@kernel(allocates=False)
def advance(
    kind: int, given: Any, own: Any, bias: Any, idx: Any, state: Any, kept: Any, moved: Any, spare: Any
) -> None:
    """Do a step of a cell.

    Parameters
    ----------
    kind : int
        Index into `cells.CELLS`.
    given, own : float [chunks * K, B]
        Products of the weight rows of the K units with the input and with the state; overwritten.
    bias : Bias
    idx : int64 [K]
        The units, those first that are open.
    state : float [states, B', H]
        Of at least B samples; becomes that after the step.
    kept : float [values, n_open, B]
        Gets what `go_back` wants of open units, the old states first.
    moved : float [states, K - n_open, B]
        Gets how far the others would have moved, which is all that it wants of them.
    spare : float [values, 1, B]
        Scratch.
    """
    n_units, n_states, batch, size = idx.shape[0], state.shape[0], given.shape[1], state.shape[2]
    n_open = kept.shape[1]
    for s in range(n_states):
        take(state[s], idx, 0, n_open, kept[s], batch)
        take(state[s], idx, n_open, n_units, moved[s], batch)
    for j in range(n_units):
        k, into, at = idx[j], kept, j
        if j >= n_open:
            into, at = spare, 0
            for s in range(n_states):
                for b in columns(0, batch):
                    spare[s, 0, b] = moved[s, j - n_open, b]
        if kind <= 1:
            _rnn(kind, j, k, given, own, bias, into, at)
        elif kind == 2:
            _gru(j, k, n_units, size, given, own, bias, into, at)
        else:
            _lstm(j, k, n_units, size, given, own, bias, into, at)
        for s in range(n_states if j >= n_open else 0):
            new = given[j] if s == 0 else own[j]
            for b in columns(0, batch):
                moved[s, j - n_open, b] = new[b] - moved[s, j - n_open, b]
    for s in range(n_states):
        put(state[s], idx, n_open, given if s == 0 else own, batch)


@kernel(allocates=False)
def take(x: Any, idx: Any, first: int, last: int, out: Any, batch: int) -> None:
    """Set ``out[j - first, b]`` to ``x[b, idx[j]]`` for j from `first` to ``last - 1``, and the first `batch`."""
    for low in range(0, batch, BLOCK):
        for j in range(first, last):
            k = unsigned(idx[j])
            for b in columns(low, min(low + BLOCK, batch)):
                out[j - first, b] = x[b, k]


@kernel(allocates=False)
def put(x: Any, idx: Any, n_units: int, new: Any, batch: int) -> None:
    """Set ``x[b, idx[j]]`` to ``new[j, b]`` for the first `n_units` and `batch`."""
    for low in range(0, batch, BLOCK):
        for j in range(n_units):
            k = unsigned(idx[j])
            for b in columns(low, min(low + BLOCK, batch)):
                x[b, k] = new[j, b]


@kernel(allocates=False, inline=True)
def _sum(given: Any, own: Any, row: int, bias: Any, at: int, out: Any) -> None:
    """Set `out` [B] to a row of both products with its biases."""
    both = given.dtype.type(0)
    if bias.given.shape[0]:
        both = bias.given[at] + bias.own[at]
    x, y = given[row], own[row]
    for b in columns(0, out.shape[0]):
        out[b] = x[b] + y[b] + both


@kernel(allocates=False)
def _rnn(kind: int, j: int, k: int, given: Any, own: Any, bias: Any, kept: Any, at: int) -> None:
    """Compute unit k, whose rows of the products are row j of each chunk; keep its values in row `at`."""
    new, out = kept[1, at], given[j]
    _sum(given, own, j, bias, k, new)
    if kind == 0:
        each_tanh(new)
    else:
        for b in columns(0, new.shape[0]):
            new[b] = cells.relu(new[b])
    for b in columns(0, new.shape[0]):
        out[b] = new[b]


@kernel(allocates=False)
def _gru(j: int, k: int, n_units: int, size: int, given: Any, own: Any, bias: Any, kept: Any, at: int) -> None:
    h, r, z, n, back, out = kept[0, at], kept[1, at], kept[2, at], kept[3, at], kept[4, at], given[j]
    _sum(given, own, j, bias, k, r)
    _sum(given, own, n_units + j, bias, size + k, z)
    x, y, zero = given[2 * n_units + j], own[2 * n_units + j], given.dtype.type(0)
    by_x, by_h = zero, zero
    if bias.given.shape[0]:
        by_x, by_h = bias.given[2 * size + k], bias.own[2 * size + k]
    each_logistic(r)
    each_logistic(z)
    for b in columns(0, h.shape[0]):
        back[b] = y[b] + by_h
        n[b] = x[b] + by_x + r[b] * back[b]
    each_tanh(n)
    for b in columns(0, h.shape[0]):
        out[b] = cells.mix(h[b], z[b], n[b])


@kernel(allocates=False)
def _lstm(j: int, k: int, n_units: int, size: int, given: Any, own: Any, bias: Any, kept: Any, at: int) -> None:
    c, i, f, g, o = kept[1, at], kept[2, at], kept[3, at], kept[4, at], kept[5, at]
    _sum(given, own, j, bias, k, i)
    _sum(given, own, n_units + j, bias, size + k, f)
    _sum(given, own, 2 * n_units + j, bias, 2 * size + k, g)
    _sum(given, own, 3 * n_units + j, bias, 3 * size + k, o)
    each_logistic(i)
    each_logistic(f)
    each_tanh(g)
    each_logistic(o)
    new_h, new_c = given[j], own[j]
    for b in columns(0, c.shape[0]):
        new_c[b] = cells.remember(c[b], i[b], f[b], g[b])
        new_h[b] = new_c[b]
    each_tanh(new_h)
    for b in columns(0, c.shape[0]):
        new_h[b] = o[b] * new_h[b]


class Gradients(NamedTuple):
    """What the backward pass adds up, in the shapes of what it is the gradient by.

    Attributes
    ----------
    state : float [states, B, H]
        By the state after the step that is next to go through, then by that before it.
    bias : Bias
        By the biases; both of length 0 where they are not wanted.
    gate : float [T, H] or [0, 0]
        By the gate's value at computed units.
    """

    state: FloatArray
    bias: Bias
    gate: FloatArray


@kernel(allocates=False)
def go_back(
    kind: int, t: int, kept: Any, moved: Any, idx: Any, by_out: Any, state: Any, grads: Any, work: Any, by: Any
) -> None:
    """Go back through a step: all but the products.

    Parameters
    ----------
    kind : int
        Index into `cells.CELLS`.
    t : int
    kept, moved, idx
        As `advance` left them.
    by_out : float [B', H] or [0, 0]
        Gradient by the state that the step put out.
    state : float [states, B', H]
        That after the step; becomes that before it.
    grads : Gradients
        Its `state` becomes that by the state before the step, but for its way through the weights.
    work : float [2 * states, K, B]
        Scratch.
    by : float [(chunks + 1) * n_open, B]
        Gets the gradient by the product with the state, and behind it what a GRU has instead of its last chunk in the
        gradient by the product with the input.
    """
    n_units, n_open, n_states, size = idx.shape[0], kept.shape[1], state.shape[0], state.shape[2]
    batch, wanted = kept.shape[2], grads.gate.shape[0] > 0
    for b in range(by_out.shape[0]):
        for k in columns(0, size):
            grads.state[0, b, k] += by_out[b, k]
    for s in range(n_states):
        put(state[s], idx, n_open, kept[s], batch)
        take(grads.state[s], idx, 0, n_units, work[s], batch)
    for j in range(n_units):
        k, total = idx[j], kept.dtype.type(0)
        if j >= n_open:
            for s in range(n_states):
                total += dot(work[s, j], moved[s, j - n_open])
        elif kind <= 1:
            total = _rnn_back(kind, j, k, wanted, kept, work, grads, by)
        elif kind == 2:
            total = _gru_back(j, k, n_open, size, wanted, kept, work, grads, by)
        else:
            total = _lstm_back(j, k, n_open, size, wanted, kept, work, grads, by)
        if wanted:
            grads.gate[t, k] = total
    for s in range(n_states):
        put(grads.state[s], idx, n_open, work[s], batch)


@kernel(reassociate=True, allocates=False, inline=True)
def _total(x: Any) -> Any:
    total = x.dtype.type(0)
    for b in range(x.shape[0]):
        total += x[b]
    return total


@kernel(reassociate=True, allocates=False, inline=True)
def _moved(grad: Any, new: Any, old: Any) -> Any:
    """Return the gradient by the gate of an open unit whose state was `old`."""
    total = grad.dtype.type(0)
    for b in range(grad.shape[0]):
        total += grad[b] * (new[b] - old[b])
    return total


@kernel(allocates=False, inline=True)
def _add_bias(grads: Any, at: int, given: Any, own: Any) -> None:
    if grads.bias.given.shape[0]:
        grads.bias.given[at] += _total(given)
        grads.bias.own[at] += _total(own)


@kernel(allocates=False)
def _rnn_back(kind: int, j: int, k: int, wanted: bool, kept: Any, work: Any, grads: Any, by: Any) -> Any:
    """Set the gradients of an open unit; return that by its gate, if it is wanted."""
    grad, h, y, out = work[0, j], kept[0, j], kept[1, j], by[j]
    total = _moved(grad, y, h) if wanted else grad.dtype.type(0)
    if kind == 0:
        for b in columns(0, y.shape[0]):
            out[b] = cells.tanh_back(grad[b], y[b])
    else:
        for b in columns(0, y.shape[0]):
            out[b] = cells.relu_back(grad[b], y[b])
    for b in columns(0, y.shape[0]):
        grad[b] = ZERO
    _add_bias(grads, k, out, out)
    return total


@kernel(allocates=False)
def _gru_back(j: int, k: int, n_open: int, size: int, wanted: bool, kept: Any, work: Any, grads: Any, by: Any) -> Any:
    grad, h, r, z, n, back = work[0, j], kept[0, j], kept[1, j], kept[2, j], kept[3, j], kept[4, j]
    by_r, by_z, by_back, by_n = by[j], by[n_open + j], by[2 * n_open + j], by[3 * n_open + j]
    total = _toward(grad, h, z, n) if wanted else grad.dtype.type(0)
    for b in columns(0, h.shape[0]):
        by_n[b] = cells.tanh_back(grad[b] * (ONE - z[b]), n[b])
    for b in columns(0, h.shape[0]):
        by_z[b] = cells.logistic_back(grad[b] * (h[b] - n[b]), z[b])
    for b in columns(0, h.shape[0]):
        by_r[b] = cells.logistic_back(by_n[b] * back[b], r[b])
    for b in columns(0, h.shape[0]):
        by_back[b] = by_n[b] * r[b]
        grad[b] = grad[b] * z[b]
    _add_bias(grads, k, by_r, by_r)
    _add_bias(grads, size + k, by_z, by_z)
    _add_bias(grads, 2 * size + k, by_n, by_back)
    return total


@kernel(reassociate=True, allocates=False, inline=True)
def _toward(grad: Any, h: Any, z: Any, n: Any) -> Any:
    """Return the gradient by the gate of a GRU's unit."""
    total = grad.dtype.type(0)
    for b in range(grad.shape[0]):
        total += grad[b] * (ONE - z[b]) * (n[b] - h[b])
    return total


@kernel(allocates=False)
def _lstm_back(j: int, k: int, n_open: int, size: int, wanted: bool, kept: Any, work: Any, grads: Any, by: Any) -> Any:
    by_h, by_c, h, c = work[0, j], work[1, j], kept[0, j], kept[1, j]
    i, f, g, o = kept[2, j], kept[3, j], kept[4, j], kept[5, j]
    by_i, by_f, by_g, by_o = by[j], by[n_open + j], by[2 * n_open + j], by[3 * n_open + j]
    total, squashed, new = by_h.dtype.type(0), work[2, j], work[3, j]
    for b in columns(0, c.shape[0]):
        new[b] = cells.remember(c[b], i[b], f[b], g[b])
        squashed[b] = new[b]
    each_tanh(squashed)
    if wanted:
        total = _moved(by_c, new, c)
        for b in columns(0, c.shape[0]):
            new[b] = o[b] * squashed[b]
        total += _moved(by_h, new, h)
    for b in columns(0, c.shape[0]):
        by_c[b] += cells.tanh_back(by_h[b] * o[b], squashed[b])
    for b in columns(0, c.shape[0]):
        by_o[b] = cells.logistic_back(by_h[b] * squashed[b], o[b])
    for b in columns(0, c.shape[0]):
        by_i[b] = cells.logistic_back(by_c[b] * g[b], i[b])
    for b in columns(0, c.shape[0]):
        by_f[b] = cells.logistic_back(by_c[b] * c[b], f[b])
    for b in columns(0, c.shape[0]):
        by_g[b] = cells.tanh_back(by_c[b] * i[b], g[b])
    for b in columns(0, c.shape[0]):
        by_c[b] *= f[b]
        by_h[b] = ZERO
    _add_bias(grads, k, by_i, by_i)
    _add_bias(grads, size + k, by_f, by_f)
    _add_bias(grads, 2 * size + k, by_g, by_g)
    _add_bias(grads, 3 * size + k, by_o, by_o)
    return total


@kernel(allocates=False)
def add_rows(x: Any, rows: Any, out: Any) -> None:
    """Add the rows of x to those of `out` that are named."""
    for j in range(rows.shape[0]):
        row, to = x[j], out[rows[j]]
        for i in columns(0, row.shape[0]):
            to[i] += row[i]
