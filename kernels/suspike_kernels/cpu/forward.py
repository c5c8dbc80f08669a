"""A layer's forward pass: one sample at a time, state in the nearest cache, weight rows from the next."""

from __future__ import annotations

from typing import Any

import numpy as np

from suspike_kernels.compiling import kernel
from suspike_kernels.cpu import gating, lazy, memory, rows, simulation, steps
from suspike_kernels.cpu.compress import AHEAD
from suspike_kernels.cpu.gating import segments
from suspike_kernels.cpu.lists import room
from suspike_kernels.cpu.loops import columns
from suspike_kernels.cpu.rows import scratch
from suspike_kernels.layout import Events, n_gates, offsets
from suspike_kernels.pool import over_samples
from suspike_kernels.reference import NO_SURROGATE, Layer, Run, Surrogate


def forward(layer: Layer, surrogate: Surrogate = NO_SURROGATE, *, trace: bool = False, n_threads: int = 1) -> Run:
    """Run a layer: see `reference.forward`. `n_threads` share the samples and change no bit of the result.

    Rows of int8 are added as they are by LIF neurons in simulation (`simulation.serves`); for others they are widened
    to floats first, whose sums are the same.
    """
    events, n = layer.events, len(layer.synapses.bias)
    if not trace and not surrogate.width and lazy.serves(layer):
        return lazy.forward(layer, n_threads=n_threads)
    simulated = not surrogate.width and simulation.serves(layer)
    layer = rows.weights_in_lines(rows.scaled(layer, widened=not simulated))
    if simulated:
        return _simulate(layer, trace, n_threads)
    n_samples, dtype = events.n_samples, layer.state.dtype
    n_spk = np.zeros((n_samples, events.n_steps), np.int64)
    n_act = np.zeros_like(n_spk)
    state, spk = layer.state.copy(), layer.spk.copy()
    out = np.empty((events.n_steps if trace else 0, n_samples, n), dtype)
    n_open = np.zeros((n_samples, n_gates(layer.gate, n)), np.int64)
    ramp = np.zeros(n_open.shape, dtype)
    open_at = np.zeros((n_samples, events.n_steps if layer.gate.kind > 1 else 0), np.int64)
    shared = segments(layer.gate, n, near=False)
    half = dtype.type(surrogate.width)
    parts = over_samples(
        lambda low, high: _forward(
            layer, shared, state, spk, half, low, high, n_spk, n_act, out, n_open, ramp, open_at
        ),
        n_samples,
        n_threads,
        ranges_each=4,
    )
    s_idx, a_idx, value, distance = parts[0] if len(parts) == 1 else _joined(parts, n_threads)
    spikes, active = Events(offsets(n_spk), s_idx, n), Events(offsets(n_act), a_idx, n)
    return Run(spikes, active, value, distance, state, spk, out, n_open, ramp, open_at)


def _simulate(layer: Layer, trace: bool, n_threads: int) -> Run:
    """Do `forward` where spikes and membrane alone are wanted: see `simulation`."""
    shape, state, spk = layer.events.ptr.shape, memory.empty(layer.state.shape, layer.state.dtype), layer.spk.copy()
    state[...] = layer.state
    n_samples, n = spk.shape
    task, ptr = simulation.task_of(layer), memory.empty(shape, np.int64)
    out = np.empty((shape[1] - 1 if trace else 0, n_samples, n), state.dtype)

    def run(low: int, high: int) -> tuple[Any, Any]:
        return ptr[low:high], simulation.run_samples(task, state, spk, low, high, ptr, out)

    parts = over_samples(run, n_samples, n_threads, ranges_each=4)
    idx = parts[0][1]
    if len(parts) > 1:
        before = 0
        for begins, found in parts:
            begins += before
            before += len(found)
        (idx,) = _joined([part[1:] for part in parts], n_threads)
    none, n_gated = np.zeros(0, state.dtype), n_gates(layer.gate, n)
    active = Events(np.zeros(shape, np.int64), np.zeros(0, np.int32), n)
    n_open = np.zeros((n_samples, n_gated), np.int64)
    return Run(
        Events(ptr, idx, n), active, none, none, state, spk, out, n_open, np.zeros(n_open.shape, state.dtype),
        np.zeros((n_samples, 0), np.int64),
    )  # fmt: skip


def _joined(parts: list[tuple[Any, ...]], n_threads: int) -> list[Any]:
    """Return the lists of all ranges of samples one behind the other: `np.concatenate`, by all threads."""
    starts = [np.cumsum([0, *(len(part[i]) for part in parts)]) for i in range(len(parts[0]))]
    # not memory.empty: no two steps ask for the same size
    whole = [np.empty(ends[-1], x.dtype) for ends, x in zip(starts, parts[0], strict=True)]

    def copy(low: int, high: int) -> None:
        for j in range(low, high):
            for to, begins, x in zip(whole, starts, parts[j], strict=True):
                to[begins[j] : begins[j + 1]] = x

    over_samples(copy, len(parts), n_threads)
    return whole


@kernel()
def _forward(
    layer: Any,
    shared: Any,
    state: Any,
    spk: Any,
    width: Any,
    low: int,
    high: int,
    n_spk: Any,
    n_act: Any,
    out: Any,
    n_open: Any,
    ramp: Any,
    open_at: Any,
) -> Any:
    """Run samples low .. high - 1; what is [S, B, N], [B, N] or [B, T] holds or takes all samples."""
    n_steps, n, dtype = n_spk.shape[1], spk.shape[1], state.dtype
    s_idx, a_idx = np.empty(0, np.int32), np.empty(0, np.int32)
    value, distance = np.empty(0, dtype), np.empty(0, dtype)
    vectors, flags = scratch(2, n, state), np.zeros((3, n), np.uint8)
    flags[0] = 1
    activation, before = np.empty(n_open.shape[1], dtype), np.empty(n + AHEAD, np.int32)
    edges = np.zeros((2, n // 32 + 1), np.int32)
    edges[1] = n
    seg_low, seg_high = (shared.low, shared.high) if shared.ptr.shape[0] else (edges[0], edges[1])
    n_s = n_a = 0
    most = n_steps * n + AHEAD
    for b in range(low, high):
        share = (b - low) / (high - low)  # memory that is never written is only address space
        s_idx = room(s_idx, n_s, most, share)
        if width > 0:
            a_idx = room(a_idx, n_a, most, share)
            value, distance = room(value, n_a, most, share), room(distance, n_a, most, share)
        n_s, n_a = _run_sample(
            b, layer, shared, state, spk, width, n_spk, n_act, out, n_open, ramp, open_at, s_idx, a_idx, value,
            distance, n_s, n_a, vectors[0], vectors[1], activation, before, flags[0], flags[1], flags[2], seg_low,
            seg_high,
        )  # fmt: skip
    return s_idx[:n_s], a_idx[:n_a], value[:n_a], distance[:n_a]


@kernel(allocates=False)
def _run_sample(
    b: int, layer: Any, shared: Any, state: Any, spk: Any, width: Any, n_spk: Any, n_act: Any, out: Any, n_open: Any,
    ramp: Any, open_at: Any, s_idx: Any, a_idx: Any, value: Any, distance: Any, n_s: int, n_a: int, cur: Any,
    apart: Any, activation: Any, before: Any, is_open: Any, is_near: Any, fired: Any, seg_low: Any, seg_high: Any,
) -> Any:  # fmt: skip
    """Run sample b, append to the lists, and return how many entries the two have then."""
    gate, given, events, synapses = layer.gate, layer.current, layer.events, layer.synapses
    kind, beta, threshold, reset, _, decay, a, jump = layer.neurons
    n_steps, n, dtype = steps.n_steps_of(layer, b), spk.shape[1], state.dtype
    one, zero = dtype.type(1), dtype.type(0)
    v, x = state[0, b], state[state.shape[0] - 1, b]
    last, first, end = before, 0, steps.append_above(spk[b], before, 0, 0, n)
    first_seg, last_seg, start_a = 0, 1, n_a
    for t in range(n_steps):
        if gate.kind == 2:
            gating.activate(gate, b, t, last, first, end, activation)
        if gate.kind == 1 or gate.kind == 2:
            first_seg, last_seg = gating.open_step(
                gate, shared, b, t, activation, is_open, is_near, False, seg_low, seg_high
            )
        steps.sum_current(
            synapses, given, events, b, t, last, first, end, cur, seg_low, seg_high, first_seg, last_seg
        )  # fmt: skip
        if gate.kind == 3:
            gating.drive_open(gate, cur, activation, is_open, is_near)
        if gate.kind > 1:
            gating.tally(gate, activation, n_open[b], ramp[b])
            for k in range(n):
                open_at[b, t] += is_open[k]
        last, first, first_a = s_idx, n_s, n_a
        for s in range(first_seg, last_seg):
            left, right = seg_low[s], seg_high[s]
            if kind == 0 and gate.kind == 0:
                steps.advance_all(beta, threshold, reset, v, cur, apart, left, right)
            else:
                steps.advance(kind, beta, decay, v, x, cur, is_open, left, right)
                steps.compare(v, threshold, is_open, gate.kind > 0, apart, left, right)
            if width > zero:
                n_a = steps.append_within(apart, width, a_idx, distance, n_a, left, right)
            n_s = steps.append_above(apart, s_idx, n_s, left, right)
        end = n_s
        if kind or gate.kind:
            steps.settle(threshold, reset, v, s_idx, first, end)
        if kind == 2:
            for e in range(first, end):
                fired[s_idx[e]] = 1
            for s in range(first_seg, last_seg):
                steps.adapt(decay, a, jump, v, x, fired, is_open, seg_low[s], seg_high[s])
            for e in range(first, end):
                fired[s_idx[e]] = 0
        if out.shape[0]:
            for k in columns(0, n):
                out[t, b, k] = v[k]
        n_spk[b, t], n_act[b, t] = end - first, n_a - first_a
    for t in range(n_steps, out.shape[0]):
        for k in columns(0, n):
            out[t, b, k] = v[k]
    steps.spikes_at(distance, value, start_a, n_a)
    if n_steps:
        for k in range(n):
            spk[b, k] = zero
        for e in range(first, end):
            spk[b, last[e]] = one
    return n_s, n_a
