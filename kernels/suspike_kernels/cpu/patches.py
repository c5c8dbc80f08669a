"""Sums and products of a convolution's weights over the patch of outputs that an event reaches.

As `rows` for a fully connected layer: `geometry` is that of `suspike_kernels.geometry.Geometry.array`, whose order of
weights makes an event's part of a row of outputs one unbroken stretch. Outputs whose gate is closed take part: what is
added to their current is never integrated, and the gradient by it is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from suspike_kernels.compiling import kernel, rule
from suspike_kernels.cpu.vectors import add_run, dot_run
from suspike_kernels.layout import Events


@rule
def _span(place: int, size: int, stride: int, n_out: int) -> Any:
    """Return how the kernel lies over one coordinate of an event, `place` with the padding added.

    Its taps are ``d = rest + stride * j``, which reach the output ``top - j``: the remainder `rest`, `top`, the number
    of taps with this remainder, and j from `low` to `high` - 1 inside of the outputs.
    """
    if stride == 1:  # divisions would take as long as the sums
        return 0, place, size, max(0, place - n_out + 1), min(size, place + 1)
    rest, top = place % stride, place // stride
    n_taps = (size - rest + stride - 1) // stride
    return rest, top, n_taps, max(0, top - n_out + 1), min(n_taps, top + 1)


@rule
def _start(rest: int, size: int, stride: int) -> int:
    """Return where the taps of remainder `rest` begin in `Geometry.column_order`."""
    start = 0
    for r in range(rest):
        start += (size - r + stride - 1) // stride
    return start


@rule
def _stretch(geometry: Any, unit: int) -> Any:
    """Return an event's patch: (row, step, low, high, column, length, out, out_step).

    In row ``row + j * step`` of the weights, j from `low` to `high` - 1, `length` numbers from `column` on belong
    to as many outputs from ``out - j * out_step`` on.
    """
    c_in, c_out, out_width = geometry[2], geometry[5], geometry[4]
    pixel = unit // c_in
    y = pixel // geometry[1]
    channel, x = unit - pixel * c_in, pixel - y * geometry[1]
    rest, left, n_taps, first, end = _span(x + geometry[11], geometry[7], geometry[9], out_width)
    column = (_start(rest, geometry[7], geometry[9]) + n_taps - end) * c_out
    rest, top, _, low, high = _span(y + geometry[10], geometry[6], geometry[8], geometry[3])
    row, step = rest * c_in + channel, geometry[8] * c_in
    out = (top * out_width + left - end + 1) * c_out
    if end <= first:
        return row, step, 0, 0, column, 0, out, 0
    return row, step, low, high, column, (end - first) * c_out, out, out_width * c_out


@kernel(reassociate=True, allocates=False, inline=True)
def add_patches(acc: Any, weight: Any, geometry: Any, idx: Any, first: int, last: int) -> None:
    """Add to `acc` [N] the weights of the events ``idx[first:last]``."""
    for e in range(first, last):
        row, step, low, high, column, length, out, out_step = _stretch(geometry, idx[e])
        for j in range(low, high):
            add_run(acc, out - j * out_step, weight, row + j * step, column, length)


@kernel(reassociate=True, allocates=False, inline=True)
def add_patch_gradients(grad: Any, by_cur: Any, t: int, geometry: Any, idx: Any, first: int, last: int) -> None:
    """Add to `grad`, as the weights lie, row t of `by_cur` [T, N] at the patches of the events ``idx[first:last]``."""
    for e in range(first, last):
        row, step, low, high, column, length, out, out_step = _stretch(geometry, idx[e])
        for j in range(low, high):
            add_run(grad[row + j * step], column, by_cur, t, out - j * out_step, length)


@kernel(reassociate=True, allocates=False, inline=True)
def add_patch_dots(
    weight: Any, geometry: Any, idx: Any, first: int, last: int, by_cur: Any, sums: Any, at: int
) -> None:
    """Add to ``sums[at + e - first]`` the product of event e's weights and `by_cur` [N] at its patch."""
    for e in range(first, last):
        row, step, low, high, column, length, out, out_step = _stretch(geometry, idx[e])
        total = sums.dtype.type(0)
        for j in range(low, high):
            total += dot_run(weight, row + j * step, column, by_cur, out - j * out_step, length)
        sums[at + e - first] += total


@kernel(allocates=False)
def _count(ptr: Any, idx: Any, geometry: Any, is_open: Any) -> Any:
    reached, opened = 0, 0
    for b in range(ptr.shape[0]):
        for t in range(ptr.shape[1] - 1):
            for e in range(ptr[b, t], ptr[b, t + 1]):
                _, _, low, high, _, length, out, out_step = _stretch(geometry, idx[e])
                reached += max(high - low, 0) * length
                own = b if is_open.shape[0] > 1 else 0
                for j in range(low, high if is_open.shape[0] else low):
                    for k in range(out - j * out_step, out - j * out_step + length):
                        opened += is_open[own, t, k]
    return reached, opened if is_open.shape[0] else reached


def count_synops(events: Events, geometry: Any, is_open: Any = None) -> tuple[int, int]:
    """Count the synaptic operations of a convolution: at all outputs that events reach, and at the open ones.

    Parameters
    ----------
    events : Events [B, T]
    geometry : int64 [12]
    is_open : uint8 [T, N] or [B, T, N], optional
        Always open without one.
    """
    table = np.zeros((0, 0, 0), np.uint8) if is_open is None else is_open
    table = table if table.ndim == 3 else table[None]
    reached, opened = _count(events.ptr, events.idx, geometry, table)
    return int(reached), int(opened)
