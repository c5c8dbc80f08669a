"""A neuron alone on a dense current: forward and backward in one pass over memory, which is what bounds it.

Time runs outermost within a tile of lanes (units of samples) whose states stay in the second-level cache; a group of
steps is done with the state in registers. Nothing but the state before each group is kept for the backward pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from suspike_kernels.compiling import kernel, rule
from suspike_kernels.cpu import memory, scan_gates, streams
from suspike_kernels.cpu.lanes import (
    KAPPA,
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

TILE = 16 * PART
"""Lanes whose states stay in the second-level cache while time runs."""

STREAM_BYTES = 2**23
"""Results above this size are written past the caches."""

FOUR, ONE = told(STEPS), told(1)

NAMES = ("beta", "threshold", "decay", "a", "b")
"""Parameters of neurons, in the order of their rows."""

N_PARAMETERS = (2, 3, 5)
"""How many of them there are, by kind."""


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
    n_lanes, drive = n_samples * n, gate.kind == 3
    cur, before, after = _rows(current), _rows(state), np.empty((len(state), n_lanes), dtype)
    spk, out = (memory.empty((n_steps if wanted else 0, n_lanes), dtype) for wanted in (spikes, trace))
    kept = memory.empty((n_groups(n_steps) if keep else 0, len(state), n_lanes), dtype)
    parameters, model = _parameters(neurons, gate, n, dtype), forward_model(neurons, spikes=spikes, trace=trace)
    n_open, ramp = np.zeros(n_lanes if drive else 0, np.int64), np.zeros(n_lanes if drive else 0, dtype)
    past = spk.nbytes + out.nbytes > STREAM_BYTES

    def run(first: int, last: int) -> None:
        _forward(
            model, cur, gate.open, drive, n, parameters, before, after, spk, out, kept, n_open, ramp,
            *_scratch(last - first, gate, dtype), past, first * PART, min(last * PART, n_lanes),
        )  # fmt: skip

    over_samples(run, -(-n_lanes // PART), n_threads)
    open_at = np.zeros((n_samples, n_steps if drive else 0), np.int64)
    if drive:
        scan_gates.count_open(cur, gate.kappa, open_at)
    shape = (n_samples, n if drive else 0)
    return ScanRun(
        spk.reshape(len(spk), n_samples, n), out.reshape(len(out), n_samples, n), after.reshape(state.shape), kept,
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
    after = np.zeros((shape[0], n_lanes), dtype) if pull.state is None else _rows(pull.state)
    before, parameters = np.empty((shape[0], n_lanes), dtype), _parameters(neurons, gate, n, dtype)
    sums = np.empty((ROWS - SUMS if want_neurons or drive else 0, n_lanes), dtype)
    near = gate.near if gate.kind == 1 and gate.near.size and gate.near.any() else np.zeros((0, 0, 0), np.uint8)
    model = backward_model(neurons, surrogate, params=want_neurons, gates=near.size > 0 or drive)
    d_ramp = np.zeros(n_lanes if drive else 0, dtype) if pull.ramp is None else np.ascontiguousarray(pull.ramp).ravel()
    d_spk, d_trace = (None if x is None else _rows(x) for x in (pull.spk, pull.trace))
    past = out.nbytes > STREAM_BYTES

    def go_back(first: int, last: int) -> Any:
        table = np.zeros(near.shape, dtype)
        _backward(
            model, dtype.type(surrogate.width), cur, gate.open, near, drive, n, parameters, after, before, sums,
            run.kept, d_spk, d_trace, d_ramp, table, out, *_scratch(last - first, gate, dtype), past, first * PART,
            min(last * PART, n_lanes),
        )  # fmt: skip
        return table

    tables = over_samples(go_back, -(-n_lanes // PART), n_threads)
    by = ScanGrads(out.reshape(current.shape), before.reshape(shape))
    if near.size:
        by = by._replace(gate=sum(tables[1:], tables[0]))
    if drive:
        by = by._replace(kappa=sums[5].reshape(shape[1:]).sum(0))
    if want_neurons:
        names = NAMES[: N_PARAMETERS[neurons.kind]]
        total = sums[: len(names)].reshape(len(names), *shape[1:]).sum(1)
        by = by._replace(**dict(zip(names, total, strict=True)))
    return by


def _rows(current: Any) -> Any:
    """Return [T, B, N] as contiguous [T, B * N]."""
    return np.ascontiguousarray(current).reshape(len(current), current.shape[1] * current.shape[2])


def _parameters(neurons: NeuronArrays, gate: GateArrays, n: int, dtype: Any) -> FloatArray:
    """Return the parameters of neurons and drive gate in the order of their rows, [V, N]; others are left as found."""
    parameters = np.empty((V, n), dtype)
    for row in range(N_PARAMETERS[neurons.kind]):
        parameters[row] = getattr(neurons, NAMES[row])
    if gate.kind == 3:
        parameters[KAPPA:] = gate.kappa, gate.width, gate.scale
    return parameters


def _scratch(n_parts: int, gate: GateArrays, dtype: Any) -> tuple[Any, Any, Any]:
    """Return the rows of a tile's parts, flags where there is a gate, and what a part makes: all as found."""
    rows = memory.empty((min(n_parts, TILE // PART) * ROWS + 2 * STEPS, STRIDE), dtype).ravel()
    flags = np.empty(STEPS * STRIDE, np.uint8) if gate.kind else None
    return rows[2 * STEPS * STRIDE :], flags, rows[: 2 * STEPS * STRIDE]


@rule
def _at(lane: int) -> int:
    """Return where the rows of a lane's part begin in those of its tile."""
    return lane // PART * (ROWS * STRIDE)


@kernel(allocates=False)
def _begin(
    model: Any, drive: bool, n: int, parameters: Any, state: Any, work: Any, at: int, first: int, last: int
) -> None:  # fmt: skip
    """Fill the rows of a part, the lanes first .. last - 1: parameters [V, N], `state` [S, L], the rest as found."""
    n_own = N_PARAMETERS[len(model.kind)]
    for row in range(V):
        if row < n_own or (drive and row >= KAPPA):
            low = first
            while low < last:  # sample by sample
                k, j = low % n, low - first
                for c in columns(0, min(last - low, n - k)):
                    work[place_of(at, row, np.uint64(j) + c)] = parameters[row, np.uint64(k) + c]
                low += n - k
    for row in range(state.shape[0]):
        for k in columns(first, last):
            work[place_of(at, V + row, k - np.uint64(first))] = state[row, k]


@kernel(allocates=False)
def _end(work: Any, at: int, row: int, out: Any, first: int, last: int) -> None:
    """Copy the rows of a part from `row` on to the lanes first .. last - 1 of `out`."""
    for i in range(out.shape[0]):
        for k in columns(first, last):
            out[i, k] = work[place_of(at, row + i, k - np.uint64(first))]


@kernel(allocates=False)
def _forward(
    model: Any, cur: Any, table: Any, drive: bool, n: int, parameters: Any, before: Any, after: Any, spk: Any,
    trace: Any, kept: Any, n_open: Any, ramp: Any, work: Any, flags: Any, made: Any, past: bool, low: int, high: int,
) -> None:  # fmt: skip
    """Run the lanes low .. high - 1."""
    n_steps = cur.shape[0]
    fours = n_steps // STEPS
    for left in range(low, high, TILE):
        right = min(left + TILE, high)
        for first in range(left, right, PART):
            _begin(model, drive, n, parameters, before, work, _at(first - left), first, min(first + PART, high))
        for group in range(fours + n_steps % STEPS):
            count = STEPS if group < fours else 1
            t = min(group, fours) * STEPS + max(group - fours, 0)
            for first in range(left, right, PART):
                last, at = min(first + PART, high), _at(first - left)
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
        for first in range(left, right, PART):
            _end(work, _at(first - left), V, after, first, min(first + PART, high))


@kernel(allocates=False)
def _backward(
    model: Any, width: Any, cur: Any, table: Any, near: Any, drive: bool, n: int, parameters: Any, after: Any,
    before: Any, sums: Any, kept: Any, d_spk: Any, d_trace: Any, d_ramp: Any, by_table: Any, out: Any, work: Any,
    flags: Any, made: Any, past: bool, low: int, high: int,
) -> None:  # fmt: skip
    """Go back through the lanes low .. high - 1."""
    n_steps = cur.shape[0]
    fours = n_steps // STEPS
    for left in range(low, high, TILE):
        right = min(left + TILE, high)
        for first in range(left, right, PART):
            at, last = _at(first - left), min(first + PART, high)
            _begin(model, drive, n, parameters, after, work, at, first, last)
            for row in range(sums.shape[0]):
                for k in columns(0, last - first):
                    work[place_of(at, SUMS + row, k)] = 0
        for group in range(fours + n_steps % STEPS - 1, -1, -1):
            count = STEPS if group < fours else 1
            t = min(group, fours) * STEPS + max(group - fours, 0)
            for first in range(left, right, PART):
                last, at = min(first + PART, high), _at(first - left)
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
        for first in range(left, right, PART):
            at, last = _at(first - left), min(first + PART, high)
            _end(work, at, V, before, first, last)
            _end(work, at, SUMS, sums, first, last)
