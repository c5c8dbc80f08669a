"""A neuron alone on a dense current: forward and backward in one pass over memory, which is what bounds it.

Time runs outermost within a tile of lanes (units of samples) whose states stay in the second-level cache; a group of
steps is done with the state in registers. Nothing but the state before each group is kept for the backward pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from suspike_kernels.compiling import kernel
from suspike_kernels.cpu import memory, scan_gates, streams
from suspike_kernels.cpu import rows as matrices
from suspike_kernels.cpu.lanes import (
    BETA,
    PART,
    ROWS,
    STRIDE,
    SUMS,
    V,
    X,
    backward_model,
    forward_model,
    place_of,
    return_four,
    return_one,
    run_lanes,
    told,
)
from suspike_kernels.cpu.loops import columns
from suspike_kernels.layout import FloatArray, GateArrays, NeuronArrays
from suspike_kernels.pool import over_samples
from suspike_kernels.reference import Surrogate
from suspike_kernels.scanning import STEPS, ScanGrads, ScanPull, ScanRun, n_groups

TILE = 8 * PART
"""Lanes whose states stay in the second-level cache while time runs."""

STREAM_BYTES = 2**23
"""Results above this size are written past the caches."""

FOUR, ONE = told(STEPS), told(1)


def scan_forward(
    current: FloatArray,
    neurons: NeuronArrays,
    gate: GateArrays,
    state: FloatArray,
    *,
    spikes: bool = True,
    trace: bool = False,
    keep: bool = True,
    n_threads: int = 1,
) -> ScanRun:
    """Run neurons on a current: `reference.forward` without events, dense.

    Parameters
    ----------
    current : float [T, B, N]
    neurons : NeuronArrays
    gate : GateArrays
        None, a table or a drive gate.
    state : float [S, B, N]
        Before the first step; stays as it is.
    spikes, trace : bool
        Whether to return them.
    keep : bool
        Whether to keep what `scan_backward` needs.
    n_threads : int
        They share the lanes, and change no bit of the result.
    """
    (n_steps, n_samples, n), dtype = current.shape, current.dtype
    n_lanes, drive, cur = n_samples * n, gate.kind == 3, _rows(current)
    spk, out = (memory.empty((n_steps if wanted else 0, n_lanes), dtype) for wanted in (spikes, trace))
    kept = memory.empty((n_groups(n_steps) if keep else 0, len(state), n_lanes), dtype)
    work = _work(neurons, gate, state)
    n_open, ramp = np.zeros(n_lanes if drive else 0, np.int64), np.zeros(n_lanes if drive else 0, dtype)
    past = spk.nbytes + out.nbytes > STREAM_BYTES

    def run(first: int, last: int) -> None:
        _forward(
            forward_model(neurons, spikes=spikes, trace=trace), cur, gate.open, drive, n, work.ravel(), spk, out, kept,
            n_open, ramp, np.empty(STEPS * STRIDE, np.uint8) if gate.kind else None, _buffer(dtype), past, first * PART,
            min(last * PART, n_lanes),
        )  # fmt: skip

    over_samples(run, len(work), n_threads)
    open_at = np.zeros((n_samples, n_steps if drive else 0), np.int64)
    if drive:
        scan_gates.count_open(cur, gate.kappa, open_at)
    shape = (n_samples, n if drive else 0)
    return ScanRun(
        spk.reshape(len(spk), n_samples, n), out.reshape(len(out), n_samples, n), _take(work, V, state.shape), kept,
        n_open.reshape(shape), ramp.reshape(shape), open_at,
    )  # fmt: skip


def scan_backward(
    pull: ScanPull,
    run: ScanRun,
    current: FloatArray,
    neurons: NeuronArrays,
    gate: GateArrays,
    surrogate: Surrogate,
    *,
    want_neurons: bool = True,
    n_threads: int = 1,
) -> ScanGrads:
    """Return the gradients of a scan: `reference.backward` without events, any surrogate.

    Parameters
    ----------
    pull : ScanPull
        Gradients by what `scan_forward` returned.
    run : ScanRun
        What it returned, with ``keep=True``.
    current, neurons, gate
        What it was given.
    want_neurons : bool
        Whether the gradients by the neurons' parameters are wanted; otherwise they are None. Those by a gate are
        wanted where it has places near its threshold, or a width.

    Notes
    -----
    Sums over time are a lane's own, those over samples follow, in order. The gradient by a table that samples share is
    summed by each thread first, so it is reproducible for a given `n_threads`.
    """
    (n_steps, n_samples, n), dtype = current.shape, current.dtype
    n_lanes, drive, cur = n_samples * n, gate.kind == 3, _rows(current)
    out, shape = memory.empty((n_steps, n_lanes), dtype), (run.kept.shape[1], n_samples, n)
    work = _work(neurons, gate, np.zeros(shape, dtype) if pull.state is None else pull.state)
    if want_neurons or drive:
        work[:, SUMS:] = 0
    near = gate.near if gate.kind == 1 and gate.near.size and gate.near.any() else np.zeros((0, 0, 0), np.uint8)
    d_ramp = np.zeros(n_lanes if drive else 0, dtype) if pull.ramp is None else np.ascontiguousarray(pull.ramp).ravel()
    d_spk, d_trace = (None if x is None else _rows(x) for x in (pull.spk, pull.trace))
    past = out.nbytes > STREAM_BYTES

    def go_back(first: int, last: int) -> Any:
        table = np.zeros(near.shape, dtype)
        _backward(
            backward_model(neurons, surrogate, params=want_neurons, gates=near.size > 0 or drive),
            dtype.type(surrogate.width), cur, gate.open, near, drive, n, work.ravel(), run.kept, d_spk, d_trace, d_ramp,
            table, out, np.empty(STEPS * STRIDE, np.uint8) if gate.kind else None, _buffer(dtype), past, first * PART,
            min(last * PART, n_lanes),
        )  # fmt: skip
        return table

    tables = over_samples(go_back, len(work), n_threads)
    by = ScanGrads(out.reshape(current.shape), _take(work, V, shape))
    if near.size:
        by = by._replace(gate=sum(tables[1:], tables[0]))
    if drive:
        by = by._replace(kappa=_take(work, SUMS + 5, shape[1:]).sum(0))
    if want_neurons:
        names = ("beta", "threshold", "decay", "a", "b")[: (2, 3, 5)[neurons.kind]]
        total = _take(work, SUMS, (len(names), n_samples, n)).sum(1)
        by = by._replace(**dict(zip(names, total, strict=True)))
    return by


def _rows(current: Any) -> Any:
    """Return [T, B, N] as contiguous [T, B * N]."""
    return np.ascontiguousarray(current).reshape(len(current), current.shape[1] * current.shape[2])


def _work(neurons: NeuronArrays, gate: GateArrays, state: FloatArray) -> FloatArray:
    """Return the rows of all parts, [parts, ROWS, STRIDE]: each lane's parameters and `state`, the others as found."""
    n_samples, n = state.shape[1:]
    work: FloatArray = matrices.scratch(-(-n_samples * n // PART) * ROWS, STRIDE, state).reshape(-1, ROWS, STRIDE)
    drive = (gate.kappa, gate.width, gate.scale) if gate.kind == 3 else ()
    values = (neurons.beta, neurons.threshold, neurons.decay, neurons.a, neurons.b, *drive)
    for row, value in enumerate(values, BETA):
        if len(value):
            _put(work, row, np.broadcast_to(value, (n_samples, n)))
    for row, value in enumerate(state, V):
        _put(work, row, value)
    return work


def _put(work: FloatArray, row: int, lanes: FloatArray) -> None:
    whole, rest = divmod(lanes.size, PART)
    flat = np.ascontiguousarray(lanes).ravel()
    work[:whole, row, :PART] = flat[: whole * PART].reshape(whole, PART)
    if rest:
        work[whole, row, :rest] = flat[whole * PART :]


def _take(work: FloatArray, row: int, shape: tuple[int, ...]) -> FloatArray:
    """Return rows as an array of `shape`, [rows, B, N] or [B, N] for a single one."""
    n_rows = shape[0] if len(shape) == 3 else 1
    rows = work[:, row : row + n_rows, :PART].swapaxes(0, 1).reshape(n_rows, len(work) * PART)
    return rows[:, : shape[-2] * shape[-1]].reshape(shape)


def _buffer(dtype: Any) -> Any:
    return matrices.scratch(2 * STEPS, STRIDE, np.empty(0, dtype)).ravel()


@kernel(allocates=False)
def _forward(
    model: Any, cur: Any, table: Any, drive: bool, n: int, work: Any, spk: Any, trace: Any, kept: Any, n_open: Any,
    ramp: Any, flags: Any, made: Any, past: bool, low: int, high: int,
) -> None:  # fmt: skip
    """Run the lanes low .. high - 1."""
    n_steps = cur.shape[0]
    fours = n_steps // STEPS
    for left in range(low, high, TILE):
        for group in range(fours + n_steps % STEPS):
            count = STEPS if group < fours else 1
            t = min(group, fours) * STEPS + max(group - fours, 0)
            for first in range(left, min(left + TILE, high), PART):
                last, at = min(first + PART, high), first // PART * (ROWS * STRIDE)
                if kept.shape[0]:
                    for k in columns(first, last):
                        kept[group, 0, k] = work[place_of(at, V, k - np.uint64(first))]
                    if kept.shape[1] > 1:
                        for k in columns(first, last):
                            kept[group, 1, k] = work[place_of(at, X, k - np.uint64(first))]
                if flags is not None:
                    for s in range(count):
                        scan_gates.find_open(cur, work, at, table, drive, n, t + s, first, last, flags, s)
                        if drive:
                            scan_gates.tally(cur, work, at, t + s, first, last, n_open, ramp)
                if count == STEPS:
                    run_lanes(FOUR, model, cur, flags, work, at, made, t, first, last)
                else:
                    run_lanes(ONE, model, cur, flags, work, at, made, t, first, last)
                for s in range(count):
                    if len(model.first) > 0:
                        streams.copy_row(made, s * STRIDE, spk, t + s, first, last - first, past)
                    if len(model.second) > 0:
                        streams.copy_row(made, (STEPS + s) * STRIDE, trace, t + s, first, last - first, past)


@kernel(allocates=False)
def _backward(
    model: Any, width: Any, cur: Any, table: Any, near: Any, drive: bool, n: int, work: Any, kept: Any, d_spk: Any,
    d_trace: Any, d_ramp: Any, by_table: Any, out: Any, flags: Any, made: Any, past: bool, low: int, high: int,
) -> None:  # fmt: skip
    """Go back through the lanes low .. high - 1."""
    n_steps = cur.shape[0]
    fours = n_steps // STEPS
    for left in range(low, high, TILE):
        for group in range(fours + n_steps % STEPS - 1, -1, -1):
            count = STEPS if group < fours else 1
            t = min(group, fours) * STEPS + max(group - fours, 0)
            for first in range(left, min(left + TILE, high), PART):
                last, at = min(first + PART, high), first // PART * (ROWS * STRIDE)
                if flags is not None:
                    for s in range(count):
                        scan_gates.find_open(cur, work, at, table, drive, n, t + s, first, last, flags, s)
                if count == STEPS:
                    return_four(model, width, cur, flags, work, at, kept, group, d_spk, d_trace, made, t, first, last)
                else:
                    return_one(model, width, cur, flags, work, at, kept, group, d_spk, d_trace, made, t, first, last)
                for s in range(count):
                    if len(model.second) > 0 and drive:
                        scan_gates.drive_back(cur, work, at, t + s, first, last, made, s, d_ramp)
                    elif len(model.second) > 0:
                        scan_gates.table_back(near, n, t + s, first, last, made, s, by_table)
                    streams.copy_row(made, s * STRIDE, out, t + s, first, last - first, past)
