"""Sums and products of weight rows: where the work is. The order of a sum is free here.

Columns low .. high - 1 are the part of a layer that is touched: all of it, or a segment of open gates.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from suspike_kernels.compiling import kernel
from suspike_kernels.cpu.loops import columns, unsigned
from suspike_kernels.cpu.memory import LINE
from suspike_kernels.cpu.vectors import add_16, add_64, address, dot_1, dot_2, dot_4, dot_8
from suspike_kernels.layout import in_lines, is_scaled, is_sparse
from suspike_kernels.reference import Layer


@kernel()
def scratch(n_rows: int, n_columns: int, like: Any) -> Any:
    """Return an uninitialised matrix whose rows begin at cache lines if their length allows; a split load costs two."""
    size = like.itemsize
    raw = np.empty(n_rows * n_columns + LINE // size, like.dtype)
    skip = (-address(raw) % LINE) // size
    return raw[skip : skip + n_rows * n_columns].reshape(n_rows, n_columns)


def spread_width(n: int, itemsize: int) -> int:
    """Return a row length from `n` on that is an odd number of cache lines.

    A block of columns then spreads over all sets of the first-level cache: rows of a power of two share a few of them.
    """
    lines = -(-n * itemsize // LINE)
    return (lines + 1 - lines % 2) * LINE // itemsize


def weights_in_lines(layer: Layer) -> Layer:
    """Return a layer whose weight rows begin at cache lines if their length allows, copied where they do not.

    Rows that begin elsewhere were measured to be gathered a third slower. torch's tensors begin at lines, numpy's large
    arrays do not. A row is copied in less than the time of a step, so few steps are not worth it.
    """
    synapses = layer.synapses
    if is_sparse(synapses):
        return layer
    n_steps = layer.events.n_samples * layer.events.n_steps
    weight, recurrent = synapses.weight, synapses.recurrent
    if 4 * (len(weight) + len(recurrent)) > n_steps:  # cheaper to ask than where they begin
        return layer
    copies = in_lines(weight), in_lines(recurrent)
    if copies[0] is weight and copies[1] is recurrent:
        return layer
    return layer._replace(synapses=synapses._replace(weight=copies[0], recurrent=copies[1]))


def scaled(layer: Layer, *, widened: bool) -> Layer:
    """Return a layer whose scale is of its own float type, and whose int8 weights are floats if `widened`."""
    synapses, dtype = layer.synapses, layer.state.dtype
    if not is_scaled(synapses):
        return layer
    # a bias of -0.0 beside a sum of 0 adds up to 0.0, and is one where a silent step leaves the sum out
    synapses = synapses._replace(scale=synapses.scale.astype(dtype), bias=synapses.bias + dtype.type(0))
    if widened:
        weights = {name: getattr(synapses, name).astype(dtype) for name in ("weight", "recurrent")}
        synapses = synapses._replace(**weights)
    return layer._replace(synapses=synapses)


@kernel(reassociate=True, allocates=False, inline=True)
def add_rows(acc: Any, start: Any, matrix: Any, idx: Any, first: int, last: int, low: int, high: int) -> None:
    """Set ``acc[low:high]`` to `start` plus ``matrix[idx[e], low:high]`` for e in first .. last - 1."""
    k = low
    while k + 64 <= high:
        add_64(acc, start, matrix, idx, first, last, k)
        k += 64
    while k + 16 <= high:
        add_16(acc, start, matrix, idx, first, last, k)
        k += 16
    if k < high:
        rest = acc[k:high]  # from 0: see `loops`
        for j in range(rest.shape[0]):
            rest[j] = start[k + j]
        for e in range(first, last):
            row = matrix[idx[e], k:high]
            for j in range(rest.shape[0]):
                rest[j] += row[j]


@kernel(reassociate=True, allocates=False, inline=True)
def dot(x: Any, y: Any) -> Any:
    """Return the inner product of two vectors."""
    total = x.dtype.type(0)
    for k in range(x.shape[0]):
        total += x[k] * y[k]
    return total


@kernel(reassociate=True, allocates=False, inline=True)
def add_dots(matrix: Any, idx: Any, first: int, last: int, x: Any, low: int, high: int, out: Any, at: int) -> None:
    """Add to ``out[at + e - first]`` the product of ``matrix[idx[e]]`` and `x`, in the columns low .. high - 1."""
    middle = low + (high - low) // 16 * 16
    e = first
    while e + 8 <= last:
        dot_8(matrix, idx, e, x, low, middle, out, at + e - first)
        e += 8
    if (last - first) & 4:
        dot_4(matrix, idx, e, x, low, middle, out, at + e - first)
        e += 4
    if (last - first) & 2:
        dot_2(matrix, idx, e, x, low, middle, out, at + e - first)
        e += 2
    if (last - first) & 1:
        dot_1(matrix, idx, e, x, low, middle, out, at + e - first)
    if middle < high:
        for f in range(first, last):
            out[at + f - first] += dot(matrix[idx[f], middle:high], x[middle:high])


@kernel()
def largest_count(ptr: Any, idx: Any, n_units: int) -> int:
    """Return how often one unit stands in one step of one sample, at most; `ptr` [B, T + 1] as in `layout.Events`."""
    count, seen_at = np.zeros(n_units, np.int64), np.full(n_units, -1, np.int64)
    largest = 0
    n_samples, n_steps = ptr.shape[0], ptr.shape[1] - 1
    for b in range(n_samples):
        for t in range(n_steps):
            for e in range(ptr[b, t], ptr[b, t + 1]):
                i = idx[e]
                count[i] = count[i] + 1 if seen_at[i] == b * n_steps + t else 1
                seen_at[i] = b * n_steps + t
                largest = max(largest, count[i])
    return largest


@kernel(allocates=False)
def by_source(ptr: Any, idx: Any, n_sources: int, shift: int, steps: Any, start: Any) -> None:
    """Sort one sample's events by source: source i's steps (plus `shift`) are ``steps[start[i] : start[i + 1]]``.

    Parameters
    ----------
    ptr : int64 [T + 1]
        Offsets into `idx`.
    steps : int32, at least as long as the events of the sample
        Written.
    start : int64, longer than `n_sources`
        Written.
    """
    n_steps = ptr.shape[0] - 1
    start[: n_sources + 1] = 0
    for e in columns(ptr[0], ptr[n_steps]):
        start[unsigned(idx[e])] += 1
    total = 0
    for i in range(n_sources):
        count = start[i]
        start[i] = total
        total += count
    for t in range(n_steps):
        for e in columns(ptr[t], ptr[t + 1]):
            i = unsigned(idx[e])
            steps[unsigned(start[i])] = t + shift
            start[i] += 1
    for i in range(n_sources, 0, -1):  # each start has moved on to its source's end: the next one's start
        start[i] = start[i - 1]
    start[0] = 0


@kernel(allocates=False)
def add_by_source(grad: Any, later: Any, steps: Any, start: Any, touched: Any, kept: Any) -> None:
    """Add to each row i of `grad` the rows of `later` [T, N] at the steps of source i's events.

    Gathering by source reads and writes each row of `grad` once a sample instead of once an event; BLOCK columns of
    all sources go before the next ones, as those of some 200 steps fit into the first-level cache (measured: 41 G
    additions/s against 32, at 25 events a source). Where gates were closed, `later` is 0: a block is gathered from the
    steps alone that touched it.

    Parameters
    ----------
    steps, start
        From `by_source`.
    touched : uint8 [T + 1, blocks], or [0, 0] where every step touched everything
    kept : int32, as long as `steps`
        Scratch.
    """
    n_sources, n = grad.shape
    gated = touched.shape[0] > 0
    for low in range(0, n, BLOCK):
        for i in range(n_sources):
            chosen, first, last = steps, start[i], start[i + 1]
            if gated:
                n_kept = 0
                for e in range(first, last):
                    kept[n_kept] = steps[e]  # no branch: written, and kept by moving on
                    n_kept += int(touched[steps[e], low // BLOCK])
                chosen, first, last = kept, 0, n_kept
            if first == last:
                continue
            row = grad[i]
            if low + BLOCK <= n:
                add_64(row, row, later, chosen, first, last, low)
            else:
                add_rows(row, row, later, chosen, first, last, low, n)


BLOCK = 64
"""Columns that are skipped together in a gather of gradients: the widest sum that stays in registers."""
