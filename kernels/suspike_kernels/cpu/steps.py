"""One step of the neurons low .. high - 1 of a sample, and the lists that it leaves; vectorised, plain IEEE arithmetic.

The functions of an inner loop take arrays, not the structures that hold them: a call that hands over a structure copies
all of its arrays' descriptions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from suspike_kernels import rules
from suspike_kernels.compiling import kernel
from suspike_kernels.cpu.compress import COMPRESSES, keep_above, keep_within, lowest_bit, word_above, word_within
from suspike_kernels.cpu.loops import columns
from suspike_kernels.cpu.patches import add_patches
from suspike_kernels.cpu.rows import add_rows
from suspike_kernels.cpu.scatter import scatter


@kernel(allocates=False, inline=True)
def n_steps_of(layer: Any, b: int) -> Any:
    """Return how many steps sample b lasts."""
    return layer.n_steps[b] if layer.n_steps.shape[0] else layer.events.ptr.shape[1] - 1


@kernel(allocates=False, inline=True)
def advance(kind: int, beta: Any, decay: Any, v: Any, x: Any, cur: Any, is_open: Any, low: int, high: int) -> None:
    """Move `v` [N] to the membrane before reset, and the synaptic current `x` [N] where there is one."""
    if kind == 0:
        for k in columns(low, high):
            v[k] = rules.select(is_open[k] != 0, rules.leak(v[k], cur[k], beta[k]), v[k])
    elif kind == 1:
        for k in columns(low, high):
            i = rules.leak(x[k], cur[k], decay[k])
            x[k] = rules.select(is_open[k] != 0, i, x[k])
            v[k] = rules.select(is_open[k] != 0, rules.leak(v[k], i, beta[k]), v[k])
    else:
        for k in columns(low, high):
            v[k] = rules.select(is_open[k] != 0, rules.leak_adapted(v[k], cur[k], x[k], beta[k]), v[k])


@kernel(allocates=False, inline=True)
def advance_all(beta: Any, threshold: Any, reset: int, v: Any, cur: Any, distance: Any, low: int, high: int) -> None:
    """Do `advance`, `compare` and `settle` at once, for LIF neurons without a gate: no mask, and `v` is read once."""
    zero = v.dtype.type(0)
    if reset == 0:  # one loop for each way: only a loop without a choice is vectorised
        for k in columns(low, high):
            u = rules.leak(v[k], cur[k], beta[k])
            distance[k] = u - threshold[k]
            v[k] = rules.select(rules.fires(distance[k], zero), rules.reset(u, threshold[k], 0), u)
    elif reset == 1:
        for k in columns(low, high):
            u = rules.leak(v[k], cur[k], beta[k])
            distance[k] = u - threshold[k]
            v[k] = rules.select(rules.fires(distance[k], zero), rules.reset(u, threshold[k], 1), u)
    else:
        for k in columns(low, high):
            u = rules.leak(v[k], cur[k], beta[k])
            v[k], distance[k] = u, u - threshold[k]


@kernel(allocates=False, inline=True)
def compare(v: Any, threshold: Any, is_open: Any, gated: bool, distance: Any, low: int, high: int) -> None:
    """Set `distance` [N] of the membrane from the threshold; -inf where closed: no spike there, and no gradient.

    The difference of two unequal floats is never 0, so it is above 0 exactly where the membrane is above its threshold.
    """
    nowhere = v.dtype.type(-np.inf)
    for k in columns(low, high):
        distance[k] = v[k] - threshold[k]
    if gated:
        for k in columns(low, high):
            distance[k] = distance[k] if is_open[k] != 0 else nowhere


@kernel(allocates=False, inline=True)
def append_above(x: Any, idx: Any, used: int, low: int, high: int) -> int:
    """Append to `idx`, behind its `used` entries, where `x` [N] is above 0, and return how many there are then.

    `compress.AHEAD` entries behind them are scratch.
    """
    zero = x.dtype.type(0)
    k = low
    while k + 64 <= high:
        if COMPRESSES:
            used = keep_above(x, k, idx, used)
        else:
            word = word_above(x, k)
            while word:
                idx[used] = k + lowest_bit(word)
                used += 1
                word &= word - np.uint64(1)
        k += 64
    while k < high:  # no branch: the entry is written, and kept by moving on
        idx[used] = k
        used += int(rules.fires(x[k], zero))
        k += 1
    return used


@kernel(allocates=False, inline=True)
def append_within(x: Any, width: Any, idx: Any, out: Any, used: int, low: int, high: int) -> int:
    """Append as `append_above` does where `x` [N] is within `width` of 0, and what stands there to `out`."""
    k = low
    while k + 64 <= high:
        if COMPRESSES:
            used = keep_within(x, width, k, idx, out, used)
        else:
            word = word_within(x, width, k)
            while word:
                idx[used] = k + lowest_bit(word)
                out[used] = x[idx[used]]
                used += 1
                word &= word - np.uint64(1)
        k += 64
    while k < high:
        idx[used], out[used] = k, x[k]
        used += int(abs(x[k]) < width)
        k += 1
    return used


@kernel(allocates=False)
def spikes_at(distance: Any, value: Any, first: int, last: int) -> None:
    """Set `value` of the active places first .. last - 1 to their spike, by how far they are above the threshold."""
    one, zero = value.dtype.type(1), value.dtype.type(0)
    for e in columns(first, last):
        value[e] = one if rules.fires(distance[e], zero) else zero


@kernel(allocates=False)
def settle(threshold: Any, reset: int, v: Any, idx: Any, first: int, last: int) -> None:
    """Reset the neurons ``idx[first:last]``, which fired."""
    for e in range(first, last):
        k = idx[e]
        v[k] = rules.reset(v[k], threshold[k], reset)


@kernel(allocates=False)
def adapt(rho: Any, a: Any, b: Any, v: Any, w: Any, fired: Any, is_open: Any, low: int, high: int) -> None:
    """Move the adaptation `w` [N] of adaptive neurons, after the reset."""
    for k in columns(low, high):
        spk = v.dtype.type(fired[k])
        w[k] = rules.select(is_open[k] != 0, rules.adapt(w[k], v[k], spk, rho[k], a[k], b[k]), w[k])


@kernel(allocates=False, inline=True)
def sum_current(
    synapses: Any, given: Any, events: Any, b: int, t: int, last: Any, first: int, end: int, cur: Any, seg_low: Any,
    seg_high: Any, first_seg: int, last_seg: int,
) -> None:  # fmt: skip
    """Set `cur` [N], within the step's segments, to all that arrives.

    That is the bias, the given current [T, B, N] if there is one, the rows of step t's events, and the rows of the
    layer's own spikes of the step before, ``last[first:end]``; with a scale, that of the rows' sum.
    """
    weight, recurrent, bias, geometry, fanout, own_fanout, scale = synapses
    in_patches, in_lists, own_lists = geometry.shape[0] > 0, fanout.ptr.shape[0] > 0, own_fanout.ptr.shape[0] > 0
    scaled = scale.shape[0] > 0
    for s in range(first_seg, last_seg):
        low, high = seg_low[s], seg_high[s]
        if scaled or in_patches or in_lists:
            for k in columns(low, high):
                cur[k] = cur.dtype.type(0) if scaled else bias[k]
        if in_patches or in_lists:
            pass  # below
        elif scaled:
            add_rows(cur, cur, weight, events.idx, events.ptr[b, t], events.ptr[b, t + 1], low, high)
        else:
            add_rows(cur, bias, weight, events.idx, events.ptr[b, t], events.ptr[b, t + 1], low, high)
        if given.shape[0] and not scaled:
            for k in columns(low, high):
                cur[k] += given[t, b, k]
        if recurrent.shape[0] and not own_lists and first < end:
            add_rows(cur, cur, recurrent, last, first, end, low, high)
    if in_patches and first_seg < last_seg:
        add_patches(cur, weight, geometry, events.idx, events.ptr[b, t], events.ptr[b, t + 1])
    if in_lists and first_seg < last_seg:
        scatter(cur, weight, fanout.ptr, fanout.target, events.idx, events.ptr[b, t], events.ptr[b, t + 1])
    if own_lists and first_seg < last_seg:
        scatter(cur, recurrent, own_fanout.ptr, own_fanout.target, last, first, end)
    if scaled:
        for s in range(first_seg, last_seg):
            for k in columns(seg_low[s], seg_high[s]):
                cur[k] = rules.scaled(cur[k], scale[0], bias[k])
            if given.shape[0]:
                for k in columns(seg_low[s], seg_high[s]):
                    cur[k] += given[t, b, k]
