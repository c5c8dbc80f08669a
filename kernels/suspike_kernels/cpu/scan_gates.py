"""Gates of a scan: which lanes of a part are open at a step, and the way back to what opened them.

Flags have a row for each step of a group, as far apart as those of `lanes`, whose `made` holds the gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from suspike_kernels import rules
from suspike_kernels.compiling import kernel
from suspike_kernels.cpu.lanes import KAPPA, SCALE, SUMS, WIDTH, place_of
from suspike_kernels.cpu.loops import columns
from suspike_kernels.scanning import STEPS


@kernel(allocates=False)
def find_open(
    cur: Any, work: Any, at: int, table: Any, drive: bool, n: int, t: int, low: int, high: int, flags: Any, s: int
) -> None:
    """Set row s of `flags` (uint8) to which gates of the lanes low .. high - 1 are open at step t.

    Parameters
    ----------
    cur : float [T, L]
    work : float
        The part's rows begin at `at`; see `lanes`.
    table : uint8 [1 or B, T, G]
        Of neurons in groups of ``n // G``; without it, `drive` gates.
    n : int
        Lanes of a sample.
    """
    if drive:
        for k in columns(low, high):
            g = k - np.uint64(low)
            flags[place_of(0, s, g)] = abs(cur[t, k]) - work[place_of(at, KAPPA, g)] > 0
        return
    n_gates, j = table.shape[2], low
    while j < high:  # sample by sample
        b, k = j // n, j % n
        end = min(high, j - k + n)
        sample = b if table.shape[0] > 1 else 0
        if n_gates == n:
            for c in columns(0, end - j):
                flags[place_of(j - low, s, c)] = table[sample, t, np.uint64(k) + c]
        else:
            for c in range(end - j):
                flags[place_of(j - low, s, c)] = table[sample, t, (k + c) // (n // n_gates)]
        j = end


@kernel(allocates=False)
def tally(cur: Any, work: Any, at: int, t: int, low: int, high: int, n_open: Any, ramp: Any) -> None:
    """Count a step of a drive gate, and add the ramp that stands for it in a loss."""
    one, half, zero = cur.dtype.type(1), cur.dtype.type(0.5), cur.dtype.type(0)
    for k in columns(low, high):
        g = k - np.uint64(low)
        activation = abs(cur[t, k]) - work[place_of(at, KAPPA, g)]
        n_open[k] += activation > zero
        ramp[k] += min(max((activation / work[place_of(at, SCALE, g)] + one) * half, zero), one)


@kernel(allocates=False)
def count_open(cur: Any, kappa: Any, open_at: Any) -> None:
    """Set `open_at` [B, T] to how many drive gates are open; `kappa` [N]."""
    n = kappa.shape[0]
    for b in range(open_at.shape[0]):
        for t in range(open_at.shape[1]):
            count = 0
            for k in columns(0, n):
                count += abs(cur[t, np.uint64(b * n) + k]) - kappa[k] > 0
            open_at[b, t] = count


@kernel(allocates=False)
def drive_back(
    cur: Any, work: Any, at: int, t: int, low: int, high: int, made: Any, s: int, d_ramp: Any
) -> None:  # fmt: skip
    """Go back through a drive gate: to its kappa (the last of the sums) and to the current, in row s of `made`."""
    zero = cur.dtype.type(0)
    for k in columns(low, high):
        g, drive = k - np.uint64(low), cur[t, k]
        width, scale = work[place_of(at, WIDTH, g)], work[place_of(at, SCALE, g)]
        activation = abs(drive) - work[place_of(at, KAPPA, g)]
        slope = made[place_of(0, STEPS + s, g)] * rules.surrogate(activation, width, 0)
        by = slope if abs(activation) < width else zero
        by += d_ramp[k] / (scale + scale) if abs(activation) < scale else zero
        work[place_of(at, SUMS + 5, g)] -= by
        made[place_of(0, s, g)] += by if drive > zero else (-by if drive < zero else zero)


@kernel(allocates=False)
def table_back(near: Any, n: int, t: int, low: int, high: int, made: Any, s: int, by_table: Any) -> None:
    """Add to the gradient by a table's values [1 or B, T, G], where they are `near` their threshold."""
    n_gates, j = near.shape[2], low
    zero = made.dtype.type(0)
    while j < high:
        b, k = j // n, j % n
        end = min(high, j - k + n)
        sample = b if near.shape[0] > 1 else 0
        if n_gates == n:
            for c in columns(0, end - j):
                gate = np.uint64(k) + c
                by_table[sample, t, gate] += made[place_of(j - low, STEPS + s, c)] if near[sample, t, gate] else zero
        else:
            for c in range(end - j):
                gate = (k + c) // (n // n_gates)
                by_table[sample, t, gate] += made[place_of(j - low, STEPS + s, c)] if near[sample, t, gate] else zero
        j = end
