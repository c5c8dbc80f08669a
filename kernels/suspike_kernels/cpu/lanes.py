"""Four steps, or one, of the lanes of a scan: a lane is one unit of one sample, its state stays in registers meanwhile.

Numbers that a loop must be compiled for come as the length of a tuple (`told`), and arrays that are not wanted as None:
both belong to the type, so each combination that is used is compiled once, without a branch inside.

A vectorised loop first checks that none of its arrays overlap, and is given up where that takes too many checks. So
what is read and written lies in rows of two flat arrays (`work`, `made`) at distances that the compiler knows; the
results are copied from there, which costs little: they are in the nearest cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from suspike_kernels.compiling import kernel, rule
from suspike_kernels.cpu.loops import columns
from suspike_kernels.layout import NeuronArrays
from suspike_kernels.places import place, place_back
from suspike_kernels.reference import Surrogate
from suspike_kernels.scanning import STEPS

PART = 512
"""Lanes that are done together: a group of their steps stays in the first-level cache."""

STRIDE = PART + 16
"""Entries from one row of a part to the next: at a power of two, all rows would compete for the same cache lines."""

BETA, THRESHOLD, DECAY, A, B, KAPPA, WIDTH, SCALE, V, X, SUMS = range(11)
"""Rows of `work`: each lane's parameters and its drive gate's, its state or the gradient by it, and from `SUMS` on the
gradients by beta, threshold, decay, a, b and kappa."""

ROWS = SUMS + 6

plain_place = kernel(allocates=False)(place)
"""`place` in plain IEEE arithmetic, also where it is inlined into a kernel whose sums may run in any order."""


def told(number: int) -> tuple[int, ...]:
    """Return `number` as the length of a tuple, which a kernel is compiled for."""
    return (0,) * number


class Model(NamedTuple):
    """What the loops are compiled for, each `told`: a branch inside would be done by masks for every lane.

    Attributes
    ----------
    kind, reset, attached
        As in `layout.NeuronArrays`.
    shape
        As in `reference.Surrogate`.
    first, second
        One where the first and second results are wanted. Forward: spikes and trace. Backward, beside the gradient by
        the current: those by parameters, and by gates.
    """

    kind: tuple[int, ...]
    reset: tuple[int, ...]
    attached: tuple[int, ...]
    shape: tuple[int, ...]
    first: tuple[int, ...]
    second: tuple[int, ...]


def forward_model(neurons: NeuronArrays, *, spikes: bool, trace: bool) -> Model:
    """Return what a forward pass is compiled for."""
    return Model(told(neurons.kind), told(neurons.reset), (), (), told(spikes), told(trace))


def backward_model(neurons: NeuronArrays, surrogate: Surrogate, *, params: bool, gates: bool) -> Model:
    """Return what a backward pass is compiled for; without a reset there is none to attach."""
    attached = told(neurons.attached if neurons.reset < 2 else 0)
    return Model(told(neurons.kind), told(neurons.reset), attached, told(surrogate.shape), told(params), told(gates))


@rule
def place_of(at: int, row: int, g: Any) -> Any:
    """Return where entry g of a row stands in a flat array whose rows begin at `at`, `STRIDE` apart."""
    return np.uint64(at + row * STRIDE) + g


@rule
def _flag(flags: Any, s: int, g: Any) -> Any:
    if flags is None:
        return True
    return flags[place_of(0, s, g)] != 0


@rule
def _entry(array: Any, t: int, k: Any, otherwise: Any) -> Any:
    if array is None:
        return otherwise
    return array[t, k]


@rule
def _run(model: Any, is_open: bool, v: Any, x: Any, cur: Any, work: Any, at: int, g: Any) -> Any:
    """Do one step of a lane: see `place`."""
    return plain_place(
        len(model.kind), len(model.reset), is_open, v, x, cur, work[place_of(at, BETA, g)],
        work[place_of(at, THRESHOLD, g)], work[place_of(at, DECAY, g)], work[place_of(at, A, g)],
        work[place_of(at, B, g)],
    )  # fmt: skip


@kernel(allocates=False)
def run_lanes(
    count: Any, model: Any, cur: Any, flags: Any, work: Any, at: int, made: Any, t: int, low: int, high: int
) -> None:
    """Run ``len(count)`` steps of the lanes low .. high - 1, a part or less of it, from step t on.

    Parameters
    ----------
    cur : float [T, L]
    flags : uint8 [STEPS * STRIDE], or None
        1 where a gate is open.
    work : float
        The part's rows begin at `at`; V and X are moved on.
    made : float [2 * STEPS * STRIDE]
        Takes the spikes of each step, and from row `STEPS` on the trace.
    """
    one, zero = work.dtype.type(1), work.dtype.type(0)
    for k in columns(low, high):
        g = k - np.uint64(low)
        v, x = work[place_of(at, V, g)], work[place_of(at, X, g)]
        for s in range(len(count)):
            _, fired, v, x = _run(model, _flag(flags, s, g), v, x, cur[t + s, k], work, at, g)
            if len(model.first) > 0:
                made[place_of(0, s, g)] = one if fired else zero
            if len(model.second) > 0:
                made[place_of(0, STEPS + s, g)] = v
        work[place_of(at, V, g)] = v
        if len(model.kind) > 0:
            work[place_of(at, X, g)] = x


@rule
def _back(
    model: Any, width: Any, is_open: bool, later: Any, d_spk: Any, d_trace: Any, cur: Any, before: Any, now: Any,
    work: Any, at: int, made: Any, t: int, s: int, k: Any, g: Any,
) -> Any:  # fmt: skip
    """Go back through step t + s of lane k.

    `later` holds the gradients by the state after the step and the sums so far of those by the parameters; the same is
    returned for the state before it. `before` and `now` are what `place` returned for the step before and for this one.
    """
    zero = cur.dtype.type(0)
    by = place_back(
        len(model.kind), len(model.reset), len(model.attached), len(model.shape), width, is_open,
        later[0] + _entry(d_trace, t + s, k, zero), later[1], _entry(d_spk, t + s, k, zero), before[2], before[3],
        cur[t + s, k], now[0], now[1], now[2], work[place_of(at, BETA, g)], work[place_of(at, THRESHOLD, g)],
        work[place_of(at, DECAY, g)], work[place_of(at, A, g)], work[place_of(at, B, g)],
    )  # fmt: skip
    made[place_of(0, s, g)] = by[0]
    if len(model.second) > 0:
        made[place_of(0, STEPS + s, g)] = by[8]
    return by[1], by[2], later[2] + by[3], later[3] + by[4], later[4] + by[5], later[5] + by[6], later[6] + by[7]


@rule
def _finish(model: Any, work: Any, at: int, g: Any, by: Any) -> None:
    work[place_of(at, V, g)] = by[0]
    if len(model.kind) > 0:
        work[place_of(at, X, g)] = by[1]
    if len(model.first) > 0:
        work[place_of(at, SUMS, g)] += by[2]
        work[place_of(at, SUMS + 1, g)] += by[3]
        if len(model.kind) > 0:
            work[place_of(at, SUMS + 2, g)] += by[4]
        if len(model.kind) > 1:
            work[place_of(at, SUMS + 3, g)] += by[5]
            work[place_of(at, SUMS + 4, g)] += by[6]


@kernel(reassociate=True, allocates=False, inline=True)
def return_four(
    model: Any, width: Any, cur: Any, flags: Any, work: Any, at: int, kept: Any, group: int, d_spk: Any, d_trace: Any,
    made: Any, t: int, low: int, high: int,
) -> None:  # fmt: skip
    """Go back through the steps t .. t + 3 of the lanes low .. high - 1, a part or less of it.

    Parameters
    ----------
    cur, flags
        As in `run_lanes`.
    work : float
        The part's rows begin at `at`. V and X hold the gradient by the state after the steps, and then by that before
        them; sums are added to.
    kept : float [groups, S, L]
        The state before step t is ``kept[group]``.
    d_spk, d_trace : float [T, L], or None
        Gradients by spikes and trace.
    made : float [2 * STEPS * STRIDE]
        Takes the gradient by the current of each step, and from row `STEPS` on those by gates.
    """
    second, zero = np.uint64(kept.shape[1] - 1), cur.dtype.type(0)
    for k in columns(low, high):
        g = k - np.uint64(low)
        v, x = kept[group, 0, k], kept[group, second, k]
        open0, open1, open2, open3 = _flag(flags, 0, g), _flag(flags, 1, g), _flag(flags, 2, g), _flag(flags, 3, g)
        start = (v, False, v, x)
        run0 = _run(model, open0, v, x, cur[t, k], work, at, g)
        run1 = _run(model, open1, run0[2], run0[3], cur[t + 1, k], work, at, g)
        run2 = _run(model, open2, run1[2], run1[3], cur[t + 2, k], work, at, g)
        run3 = _run(model, open3, run2[2], run2[3], cur[t + 3, k], work, at, g)
        by = (work[place_of(at, V, g)], work[place_of(at, X, g)], zero, zero, zero, zero, zero)
        by = _back(model, width, open3, by, d_spk, d_trace, cur, run2, run3, work, at, made, t, 3, k, g)
        by = _back(model, width, open2, by, d_spk, d_trace, cur, run1, run2, work, at, made, t, 2, k, g)
        by = _back(model, width, open1, by, d_spk, d_trace, cur, run0, run1, work, at, made, t, 1, k, g)
        by = _back(model, width, open0, by, d_spk, d_trace, cur, start, run0, work, at, made, t, 0, k, g)
        _finish(model, work, at, g, by)


@kernel(reassociate=True, allocates=False, inline=True)
def return_one(
    model: Any, width: Any, cur: Any, flags: Any, work: Any, at: int, kept: Any, group: int, d_spk: Any, d_trace: Any,
    made: Any, t: int, low: int, high: int,
) -> None:  # fmt: skip
    """Go back through step t alone: see `return_four`."""
    second, zero = np.uint64(kept.shape[1] - 1), cur.dtype.type(0)
    for k in columns(low, high):
        g = k - np.uint64(low)
        v, x, is_open = kept[group, 0, k], kept[group, second, k], _flag(flags, 0, g)
        now = _run(model, is_open, v, x, cur[t, k], work, at, g)
        by = (work[place_of(at, V, g)], work[place_of(at, X, g)], zero, zero, zero, zero, zero)
        start = (v, False, v, x)
        by = _back(model, width, is_open, by, d_spk, d_trace, cur, start, now, work, at, made, t, 0, k, g)
        _finish(model, work, at, g, by)
