"""Which neurons of a step are open, and the segments of columns that work is done in.

A segment is a run of neighbouring blocks of 16 neurons in which any is touched: rows are added there and nowhere else,
so neurons that open together should be neighbours.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from suspike_kernels import rules
from suspike_kernels.compiling import kernel
from suspike_kernels.cpu.loops import columns
from suspike_kernels.cpu.rows import BLOCK, add_rows
from suspike_kernels.layout import GateArrays


class Segments(NamedTuple):
    """The segments of every step of a table that all samples share; without one, empty arrays.

    Attributes
    ----------
    open, near : uint8 [T, N] or [0, 0]
        The table's bits, one for each neuron.
    ptr : int64 [T + 1] or [0]
        The segments of step t are ``low[ptr[t] : ptr[t + 1]]`` to ``high[...]``.
    low, high : int32
    blocks : uint8 [T + 1, blocks] or [0, 0]
        1 where a block of `rows.BLOCK` columns is touched; all 0 after the last step.
    """

    open: NDArray[np.uint8]
    near: NDArray[np.uint8]
    ptr: NDArray[np.int64]
    low: NDArray[np.int32]
    high: NDArray[np.int32]
    blocks: NDArray[np.uint8]


def segments(gate: GateArrays, n_units: int, *, near: bool) -> Segments:
    """Return the segments of a shared table; a neuron near its gate's threshold is touched too if `near`."""
    none = np.zeros((0, 0), np.uint8)
    if gate.kind != 1 or len(gate.open) != 1:
        edges = np.zeros(0, np.int32)
        return Segments(none, none, np.zeros(0, np.int64), edges, edges, none)
    size = n_units // max(gate.open.shape[2], 1) or 1
    is_open = np.repeat(gate.open[0], size, axis=1)
    is_near = np.repeat(gate.near[0], size, axis=1) if near and gate.near.size else np.zeros_like(is_open)
    n_steps = len(is_open)
    low = np.empty(n_steps * (n_units // 32 + 1), np.int32)
    high, ptr = np.empty_like(low), np.zeros(n_steps + 1, np.int64)
    blocks = np.zeros((n_steps + 1, -(-n_units // BLOCK)), np.uint8)
    _all_segments(is_open, is_near, ptr, low, high, blocks)
    return Segments(is_open, is_near, ptr, low[: ptr[-1]], high[: ptr[-1]], blocks)


@kernel(allocates=False)
def find_segments(is_open: Any, is_near: Any, low: Any, high: Any) -> int:
    """Set the segments of one step, from uint8 [N]: where a neuron is open or near; return how many there are."""
    n, inside, used = is_open.shape[0], False, 0
    for k in range(0, n, 16):
        some = np.uint8(0)
        for j in range(k, min(k + 16, n)):
            some |= is_open[j] | is_near[j]
        if some and not inside:
            low[used] = k
            used += 1
        if some:
            high[used - 1] = min(k + 16, n)
        inside = some != 0
    return used


@kernel(allocates=False)
def touch_blocks(low: Any, high: Any, first: int, last: int, blocks: Any) -> None:
    """Set `blocks` [blocks] to 1 where one of the segments first .. last - 1 touches the block, else 0."""
    blocks[:] = 0
    for s in range(first, last):
        for block in range(low[s] // BLOCK, (high[s] - 1) // BLOCK + 1):
            blocks[block] = 1


@kernel(allocates=False)
def _all_segments(is_open: Any, is_near: Any, ptr: Any, low: Any, high: Any, blocks: Any) -> None:
    for t in range(is_open.shape[0]):
        ptr[t + 1] = ptr[t] + find_segments(is_open[t], is_near[t], low[ptr[t] :], high[ptr[t] :])
        touch_blocks(low, high, ptr[t], ptr[t + 1], blocks[t])


@kernel(allocates=False)
def activate(gate: Any, b: int, t: int, last: Any, first: int, end: int, activation: Any) -> None:
    """Set `activation` [G] of an input gate: what the input adds, and the rows of the spikes ``last[first:end]``."""
    for g in range(activation.shape[0]):
        activation[g] = gate.a[b, t, g]
    if gate.recurrent.shape[0]:
        add_rows(activation, activation, gate.recurrent, last, first, end, 0, activation.shape[0])


@kernel(allocates=False)
def spread_open(gate: Any, b: int, t: int, activation: Any, is_open: Any, is_near: Any, near: bool) -> None:
    """Set who is open, and if `near` who is near its gate's threshold, uint8 [N].

    From a table for each sample, or an input gate's activation.
    """
    n_gates = gate.open.shape[2] if gate.kind == 1 else gate.a.shape[2]
    size = is_open.shape[0] // n_gates
    for g in range(n_gates):
        if gate.kind == 1:
            opened = gate.open[b, t, g]
            close = gate.near[b, t, g] if near and gate.near.shape[0] else np.uint8(0)
        else:
            opened = np.uint8(activation[g] > 0)
            close = np.uint8(near and abs(activation[g]) < gate.width[g])
        for k in range(g * size, (g + 1) * size):
            is_open[k] = opened
            is_near[k] = close


@kernel(allocates=False)
def open_step(
    gate: Any, shared: Any, b: int, t: int, activation: Any, is_open: Any, is_near: Any, near: bool, low: Any, high: Any
) -> Any:
    """Set who is open and near at step t of a table or an input gate; return the range of the step's segments.

    `low` and `high` are the table's of all steps, or take those of this one.
    """
    if shared.ptr.shape[0]:
        for k in columns(0, is_open.shape[0]):
            is_open[k], is_near[k] = shared.open[t, k], shared.near[t, k]
        return shared.ptr[t], shared.ptr[t + 1]
    spread_open(gate, b, t, activation, is_open, is_near, near)
    return 0, find_segments(is_open, is_near, low, high)


@kernel(allocates=False)
def drive_open(gate: Any, cur: Any, activation: Any, is_open: Any, is_near: Any) -> None:
    """Set activation and flags of a drive gate, which opens where the current is large."""
    for k in range(cur.shape[0]):
        activation[k] = abs(cur[k]) - gate.kappa[k]
        is_open[k] = activation[k] > 0
        is_near[k] = abs(activation[k]) < gate.width[k]


@kernel(allocates=False)
def tally(gate: Any, activation: Any, n_open: Any, ramp: Any) -> None:
    """Count one step of open gates [G], and add the ramp that stands for them in a loss."""
    one, half = activation.dtype.type(1), activation.dtype.type(0.5)
    for g in range(activation.shape[0]):
        n_open[g] += activation[g] > 0
        part = (activation[g] / gate.scale[g] + one) * half
        ramp[g] += min(max(part, activation.dtype.type(0)), one)


@kernel(reassociate=True, allocates=False, inline=True)
def add_near(d_gate: Any, is_near: Any, by_gate: Any, low: int, high: int) -> None:
    """Add to `by_gate` [G] the gradients `d_gate` [N] of the neurons low .. high - 1 that are near their threshold."""
    zero, size = d_gate.dtype.type(0), d_gate.shape[0] // by_gate.shape[0]
    if size == 1:
        for k in columns(low, high):
            by_gate[k] += d_gate[k] if is_near[k] else zero
        return
    for g in range(low // size, (high + size - 1) // size):
        total = zero
        for k in columns(max(low, g * size), min(high, (g + 1) * size)):
            total += d_gate[k] if is_near[k] else zero
        by_gate[g] += total


@kernel(reassociate=True, allocates=False, inline=True)
def gate_slopes(d_gate: Any, activation: Any, gate: Any, d_ramp: Any, want: bool, out: Any) -> None:
    """Set `out` [G] to the gradient by the activation, from that by the neurons' gates `d_gate` [N] and by the ramp."""
    n_gates = out.shape[0]
    size = d_gate.shape[0] // n_gates
    for g in range(n_gates):
        a, width, scale = activation[g], gate.width[g], gate.scale[g]
        total = out.dtype.type(0)
        if want and abs(a) < width:
            for k in range(g * size, (g + 1) * size):
                total += d_gate[k]
            total *= rules.surrogate(a, width, 0)
        if abs(a) < scale:
            total += d_ramp[g] / (scale + scale)
        out[g] = total
