"""Between event lists and arrays of counts: plain passes over lists, where `Events.places` would make temporaries."""

from __future__ import annotations

from typing import Any

import numpy as np

from suspike_kernels.compiling import kernel
from suspike_kernels.cpu.compress import AHEAD
from suspike_kernels.cpu.loops import columns, unsigned
from suspike_kernels.cpu.steps import append_above
from suspike_kernels.layout import Events, FloatArray, offsets


@kernel()
def add_counts(ptr: Any, idx: Any, counts: Any, low: int, high: int) -> None:
    """Add to `counts` [B, N] how often each unit stands in the lists of samples low .. high - 1."""
    for b in range(low, high):
        for e in columns(ptr[b, 0], ptr[b, -1]):
            counts[b, unsigned(idx[e])] += 1


@kernel()
def at_counts(ptr: Any, idx: Any, counts: Any, out: Any, low: int, high: int) -> None:
    """Set `out` [E], in samples low .. high - 1, to the entry of `counts` [B, N] that each entry adds to."""
    for b in range(low, high):
        row = counts[b]
        for e in columns(ptr[b, 0], ptr[b, -1]):
            out[e] = row[unsigned(idx[e])]


@kernel()
def add_dense(ptr: Any, idx: Any, dense: Any, low: int, high: int) -> None:
    """Add to `dense` [T, B, N] how often each unit stands in each step's list of samples low .. high - 1."""
    for b in range(low, high):
        for t in range(dense.shape[0]):
            for e in columns(ptr[b, t], ptr[b, t + 1]):
                dense[t, b, unsigned(idx[e])] += 1


@kernel()
def at_dense(ptr: Any, idx: Any, dense: Any, out: Any, low: int, high: int) -> None:
    """Set `out` [E], in samples low .. high - 1, to the entry of `dense` [T, B, N] that each entry adds to."""
    for b in range(low, high):
        for t in range(dense.shape[0]):
            for e in columns(ptr[b, t], ptr[b, t + 1]):
                out[e] = dense[t, b, unsigned(idx[e])]


def from_dense(counts: FloatArray, *, most: float | None = None) -> Events | None:
    """Return the events of whole counts [T, B, N] in two passes, or None where others stand in it.

    None is also returned where their mean is above `most`, before the second pass.
    `layout.events_from_dense` says what is wrong, and takes any type.
    """
    n_steps, n_samples, n = counts.shape
    per_step = np.zeros((n_samples, n_steps), np.int64)
    if not _count(counts, per_step) or (most is not None and per_step.sum() > most * counts.size):
        return None
    ptr = offsets(per_step)
    idx = np.empty(int(per_step.sum()) + AHEAD, np.int32)
    _fill(counts, per_step, ptr, idx)
    return Events(ptr, idx[: len(idx) - AHEAD], n)


@kernel(reassociate=True, allocates=False)  # sums of whole numbers
def _count(dense: Any, per_step: Any) -> bool:
    """Set `per_step` [B, T] to each step's sum; say whether all are whole numbers from 0."""
    whole = True
    for t in range(dense.shape[0]):
        for b in range(dense.shape[1]):
            total, bad = dense.dtype.type(0), False
            for k in columns(0, dense.shape[2]):
                x = dense[t, b, k]
                total += x
                bad |= (x < 0) | (x != np.floor(x)) | (x - x != 0)
            if bad:
                whole = False
            else:
                per_step[b, t] = np.int64(total)
    return whole


@kernel(allocates=False)
def _fill(dense: Any, per_step: Any, ptr: Any, idx: Any) -> None:
    n = dense.shape[2]
    for b in range(dense.shape[1]):
        for t in range(dense.shape[0]):
            if per_step[b, t] == 0:
                continue
            used = append_above(dense[t, b], idx, ptr[b, t], 0, n)
            if used - ptr[b, t] == per_step[b, t]:
                continue
            used = ptr[b, t]
            for k in range(n):  # a unit that counts twice stands twice
                for _ in range(np.int64(dense[t, b, k])):
                    idx[used] = k
                    used += 1


@kernel()
def room(array: Any, used: int, wanted: int, share: float) -> Any:
    """Return `array`, or a longer copy of it, with room for `wanted` entries after the `used` ones.

    `share` of the work is done: the copy is as long as the rest will need if it goes on like this, and a fifth more,
    since copying again costs more than address space that is never touched.
    """
    if used + wanted <= array.shape[0]:
        return array
    longer = np.empty((int(1.2 * used / share) if used else 0) + wanted, array.dtype)
    longer[:used] = array[:used]
    return longer
