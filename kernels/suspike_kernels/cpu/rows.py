"""Sums and products of weight rows: where the work is, so the order of a sum is left to the compiler here."""

from __future__ import annotations

from typing import Any

import numpy as np

from suspike_kernels.compiling import kernel


@kernel(reassociate=True)
def add_rows(acc: Any, matrix: Any, idx: Any, low: int, high: int) -> None:
    """Add ``matrix[idx[e]]`` for e in low .. high - 1 to `acc`, four rows a pass: a quarter of the traffic on `acc`."""
    n = acc.shape[0]
    e = low
    while e + 4 <= high:
        a, b, c, d = matrix[idx[e]], matrix[idx[e + 1]], matrix[idx[e + 2]], matrix[idx[e + 3]]
        for k in range(n):
            acc[k] += (a[k] + b[k]) + (c[k] + d[k])
        e += 4
    while e < high:
        a = matrix[idx[e]]
        for k in range(n):
            acc[k] += a[k]
        e += 1


@kernel(reassociate=True)
def dot(x: Any, y: Any) -> Any:
    """Return the inner product of two vectors."""
    total = x.dtype.type(0)
    for k in range(x.shape[0]):
        total += x[k] * y[k]
    return total


@kernel(reassociate=True)
def dot_rows(matrix: Any, idx: Any, low: int, high: int, x: Any, out: Any) -> None:
    """Set ``out[e - low]`` to the inner product of ``matrix[idx[e]]`` and `x`, four rows a pass: `x` is read once."""
    n = x.shape[0]
    e = low
    while e + 4 <= high:
        p, q, r, s = matrix[idx[e]], matrix[idx[e + 1]], matrix[idx[e + 2]], matrix[idx[e + 3]]
        a = b = c = d = x.dtype.type(0)
        for k in range(n):
            a += p[k] * x[k]
            b += q[k] * x[k]
            c += r[k] * x[k]
            d += s[k] * x[k]
        out[e - low], out[e - low + 1], out[e - low + 2], out[e - low + 3] = a, b, c, d
        e += 4
    while e < high:
        out[e - low] = dot(matrix[idx[e]], x)
        e += 1


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


@kernel()
def by_source(ptr: Any, idx: Any, n_sources: int, shift: int, steps: Any, start: Any) -> None:
    """Sort one sample's events by source: source i's steps (plus `shift`) are ``steps[start[i] : start[i + 1]]``.

    Parameters
    ----------
    ptr : int64 [T + 1]
        Offsets into `idx`.
    steps : int32, at least as long as the events of the sample
        Written.
    start : int64 [n_sources + 1]
        Written.
    """
    low, n_steps = ptr[0], ptr.shape[0] - 1
    start[:] = 0
    for e in range(low, ptr[n_steps]):
        start[idx[e] + 1] += 1
    for i in range(n_sources):
        start[i + 1] += start[i]
    for t in range(n_steps):
        for e in range(ptr[t], ptr[t + 1]):
            steps[start[idx[e]]] = t + shift
            start[idx[e]] += 1
    for i in range(n_sources, 0, -1):  # each start has moved on to its source's end: the next one's start
        start[i] = start[i - 1]
    start[0] = 0


@kernel(reassociate=True)
def add_by_source(grad: Any, later: Any, ptr: Any, idx: Any, shift: int, steps: Any, start: Any) -> None:
    """Add to each row i of `grad` the rows of `later` [T, N] at the steps (plus `shift`) of source i's events.

    Gathering by source reads and writes each row of `grad` once a sample instead of once an event.
    """
    by_source(ptr, idx, grad.shape[0], shift, steps, start)
    for i in range(grad.shape[0]):
        if start[i] < start[i + 1]:
            add_rows(grad[i], later, steps, start[i], start[i + 1])
