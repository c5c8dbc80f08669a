"""A layer's backward pass: exact gradients in memory that grows with spikes and active places.

Per thread it needs the gradient by the current of one sample, [T, N]; states that nobody kept are replayed, a sample
at a time, where a gradient needs them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from suspike_kernels.compiling import kernel
from suspike_kernels.cpu import gating, gradients, rows, steps
from suspike_kernels.cpu.compress import AHEAD
from suspike_kernels.cpu.gating import segments
from suspike_kernels.cpu.loops import columns, unsigned
from suspike_kernels.cpu.patches import add_patch_dots, add_patch_gradients
from suspike_kernels.cpu.rows import BLOCK, add_by_source, add_dots, by_source, dot, scratch, spread_width
from suspike_kernels.layout import Events, refuse_scaled
from suspike_kernels.pool import over_samples
from suspike_kernels.reference import Layer, LayerGrads, Run, RunGrads, Surrogate, empty_grads, refuse_fanout

LATER_BYTES = 2**20
"""Gradients by the current wait for those of the weights in so many bytes: half of a second-level cache."""

SHARED = ("source", "current", "state", "spk")
"""Gradients that belong to samples: threads write them side by side. The others are summed."""


def backward(
    grads: RunGrads,
    run: Run,
    layer: Layer,
    surrogate: Surrogate,
    sources: Events,
    *,
    want_weights: bool = True,
    want_neurons: bool = True,
    want_threshold: bool = True,
    want_bias: bool = True,
    want_spk: bool = True,
    n_threads: int = 1,
) -> LayerGrads:
    """Return the gradients of a layer: see `reference.backward`.

    Without `want_weights` those of `weight` and `recurrent` stay 0, without `want_neurons` those of `beta`, `decay`,
    `a` and `b`, without `want_threshold`, `want_bias` and `want_spk` those that they name; what is not wanted costs
    nothing. Threads sum the gradients over ranges of samples (see `pool`); the sums are then added in the ranges'
    order, so a result is reproducible for a given `n_threads`.
    """
    refuse_fanout(layer)
    refuse_scaled(layer.synapses)
    total = empty_grads(layer, sources)
    layer = rows.weights_in_lines(layer)
    near = gate_wanted(layer)
    shared = segments(layer.gate, len(layer.synapses.bias), near=near)
    mine = SHARED if layer.gate.kind == 1 and len(layer.gate.open) == 1 else (*SHARED, "gate")

    def work(low: int, high: int) -> LayerGrads:
        part = total._replace(
            **{x: np.zeros_like(getattr(total, x)) for x in total._fields if x not in mine} if low else {}
        )
        _backward(
            grads, run, layer, shared, sources, part, surrogate.shape, layer.state.dtype.type(surrogate.width),
            low, high, near, want_weights, want_neurons, want_threshold, want_bias, want_spk,
            _room(layer, run, shared, low, high, near or want_neurons),
        )  # fmt: skip
        return part

    _, *others = over_samples(work, layer.events.n_samples, n_threads, ranges_each=2)
    for part in others:
        for name in total._fields:
            if name not in mine:
                getattr(total, name)[...] += getattr(part, name)
    return total


def gate_wanted(layer: Layer) -> bool:
    """Say whether a gradient by a gate is wanted at any place."""
    return bool(layer.gate.near.any()) if layer.gate.kind == 1 else bool((layer.gate.width > 0).any())


class _Room(NamedTuple):
    """A thread's memory for one sample at a time.

    Attributes
    ----------
    later : float [C + 1, N or a little more]
        Gradient by the current of each of C steps, all T or as many as stay in a cache, and of the step behind them;
        0 where nothing is open, and behind the last step.
    later_a : float [T + 1, G]
        Gradient by the activation of gates.
    states, currents, activations : float [S, T + 1, N], [T, N], [T, G], or of no steps
        What a replay keeps: the state before each step, and what the step saw. `activations` has one row at least: it
        is handed on, though not read, where nothing was replayed.
    vectors : float [6, N]
    by_next : float [N]
    flags : uint8 [3, N]
    edges : int32 [2, segments]
    blocks : uint8 [T + 1, blocks] or [0, 0]
        As `gating.Segments.blocks`, for gates that differ between samples.
    steps : int32 [2, events]
    start : int64 [sources + 1]
    before : int32 [N + AHEAD]
    """

    later: Any
    later_a: Any
    states: Any
    currents: Any
    activations: Any
    vectors: Any
    by_next: Any
    flags: Any
    edges: Any
    blocks: Any
    steps: Any
    start: Any
    before: Any


def _room(layer: Layer, run: Run, shared: gating.Segments, low: int, high: int, replay: bool) -> _Room:
    n_steps, (n_states, _, n), dtype = layer.events.n_steps, layer.state.shape, layer.state.dtype
    n_gates, kept = run.n_open.shape[1], n_steps if replay or layer.gate.kind > 1 else 0
    own = layer.gate.kind in (1, 2) and not len(shared.ptr)
    longest = max(
        (int(e.ptr[b, -1] - e.ptr[b, 0]) for e in (layer.events, run.spikes) for b in range(low, high)), default=0
    )
    width = spread_width(n, dtype.itemsize)
    later = scratch(min(n_steps, max(LATER_BYTES // (width * dtype.itemsize), 1)) + 1, width, layer.state)
    later[:] = 0
    flags = np.ones((3, n), np.uint8)
    flags[1:] = 0
    edges = np.zeros((2, n // 32 + 1), np.int32)
    edges[1] = n
    if len(shared.ptr):
        edges = np.stack([shared.low, shared.high])
    blocks = np.zeros((n_steps + 1, -(-n // BLOCK)), np.uint8) if own else shared.blocks
    n_sources = max(len(layer.synapses.weight), n)
    return _Room(
        later, np.zeros((n_steps + 1, n_gates), dtype), np.empty((n_states, kept + 1, n), dtype),
        np.empty((kept, n), dtype), np.empty((max(kept, 1), n_gates), dtype), np.zeros((6, n), dtype),
        np.empty(n, dtype), flags, edges, blocks, np.empty((2, longest + 1), np.int32),
        np.empty(n_sources + 1, np.int64), np.empty(n + AHEAD, np.int32),
    )  # fmt: skip


@kernel(allocates=False)
def _replay(
    layer: Any, shared: Any, spikes: Any, b: int, v: Any, x: Any, states: Any, currents: Any, activations: Any,
    near: bool, fired: Any, before: Any, is_open: Any, is_near: Any, seg_low: Any, seg_high: Any,
) -> None:  # fmt: skip
    """Run sample b again from its known spikes.

    `states` [S, T + 1, N] takes the state before each step, `currents` [T, N] and `activations` [T, G] what it saw.
    """
    gate, given, events, synapses, spk = layer.gate, layer.current, layer.events, layer.synapses, layer.spk[b]
    kind, beta, threshold, reset, _, decay, a, jump = layer.neurons
    s_ptr, s_idx = spikes.ptr, spikes.idx
    n_steps, n = steps.n_steps_of(layer, b), currents.shape[1]
    first_seg, last_seg = 0, 1
    for k in range(n):
        v[k], x[k] = layer.state[0, b, k], layer.state[layer.state.shape[0] - 1, b, k]
    last, first, end = before, 0, steps.append_above(spk, before, 0, 0, n)
    for t in range(n_steps):
        if gate.kind == 2:
            gating.activate(gate, b, t, last, first, end, activations[t])
        if gate.kind == 1 or gate.kind == 2:
            first_seg, last_seg = gating.open_step(
                gate, shared, b, t, activations[t], is_open, is_near, near, seg_low, seg_high
            )
        cur = currents[t]
        steps.sum_current(
            synapses, given, events, b, t, last, first, end, cur, seg_low, seg_high, first_seg, last_seg
        )  # fmt: skip
        if gate.kind == 3:
            gating.drive_open(gate, cur, activations[t], is_open, is_near)
        last, first, end = s_idx, s_ptr[b, t], s_ptr[b, t + 1]
        for s in range(first_seg, last_seg):
            left, right = seg_low[s], seg_high[s]
            for k in columns(left, right):
                states[0, t, k] = v[k]
            if states.shape[0] > 1:
                for k in columns(left, right):
                    states[1, t, k] = x[k]
            steps.advance(kind, beta, decay, v, x, cur, is_open, left, right)
        steps.settle(threshold, reset, v, s_idx, first, end)
        if kind == 2:
            for e in range(first, end):
                fired[s_idx[e]] = 1
            for s in range(first_seg, last_seg):
                left, right = seg_low[s], seg_high[s]
                for k in columns(left, right):
                    states[0, t + 1, k] = v[k]  # the next step may not touch them all
                steps.adapt(decay, a, jump, v, x, fired, is_open, left, right)
            for e in range(first, end):
                fired[s_idx[e]] = 0


@kernel(allocates=False)
def _add_weights(
    b: int, start_t: int, end_t: int, events: Any, spikes: Any, feeds_back: bool, weight: Any, recurrent: Any,
    later: Any, blocks: Any, room: Any,
) -> None:  # fmt: skip
    """Add to `weight` and `recurrent` what steps start_t to end_t - 1 of sample b, from `later` on, are to them."""
    at_source, kept_steps, start = room.steps[0], room.steps[1], room.start
    touched = blocks[start_t:] if blocks.shape[0] else blocks
    by_source(events.ptr[b, start_t : end_t + 1], events.idx, weight.shape[0], 0, at_source, start)
    add_by_source(weight, later, at_source, start, touched, kept_steps)
    if feeds_back and end_t > 0:
        before = max(start_t - 1, 0)  # a spike of the step before is what these steps saw
        by_source(spikes.ptr[b, before:end_t], spikes.idx, recurrent.shape[0], before + 1 - start_t, at_source, start)
        add_by_source(recurrent, later, at_source, start, touched, kept_steps)


@kernel(reassociate=True, allocates=False)
def _backward(
    grads: Any, run: Any, layer: Any, shared: Any, sources: Any, by: Any, shape: int, width: Any, low: int, high: int,
    near: bool, want_weights: bool, want_neurons: bool, want_threshold: bool, want_bias: bool, want_spk: bool,
    room: Any,
) -> None:  # fmt: skip
    """Add the gradients of samples low .. high - 1 to `by` (a LayerGrads)."""
    gate, events, spikes, active, distance = layer.gate, layer.events, run.spikes, run.active, run.distance
    weight, recurrent, bias, geometry = layer.synapses[:4]
    kind, beta, threshold, reset, attached, decay, adapt, bump = layer.neurons
    s_ptr, s_idx, a_ptr, a_idx = spikes.ptr, spikes.idx, active.ptr, active.idx
    n, n_gates = bias.shape[0], run.n_open.shape[1]
    n_states, n_kept, zero = layer.state.shape[0], room.later.shape[0] - 1, layer.state.dtype.type(0)
    feeds_back, talk = recurrent.shape[0] > 0, gate.recurrent.shape[0] > 0
    own_segments = shared.ptr.shape[0] == 0 and (gate.kind == 1 or gate.kind == 2)
    in_patches = geometry.shape[0] > 0
    later, later_a, states, currents, activations = room[:5]
    dv, dx, d_gate, jump, v_run, x_run = (
        room.vectors[0], room.vectors[1], room.vectors[2], room.vectors[3], room.vectors[4], room.vectors[5]
    )  # fmt: skip
    by_next, fired, is_near, is_open, blocks = room.by_next, room.flags[2], room.flags[1], room.flags[0], room.blocks
    seg_low, seg_high, start = room.edges[0], room.edges[1], room.start
    at_source, kept_steps = room.steps[0], room.steps[1]
    kept, no_blocks = currents.shape[0], blocks[:0]
    first_seg, last_seg = 0, 1
    for b in range(low, high):
        n_steps = steps.n_steps_of(layer, b)
        # steps start_t to end_t - 1 wait in `later` for their gradients by the weights
        start_t, end_t = max(0, n_steps - n_kept), n_steps
        later[end_t - start_t :] = zero  # rows of another sample: in this one nothing comes after its end
        for t in range(n_steps, later_a.shape[0]):
            later_a[t] = zero
            if own_segments:
                blocks[t] = 0
        if kept:
            _replay(
                layer, shared, spikes, b, v_run, x_run, states, currents, activations, near, fired, room.before,
                is_open, is_near, seg_low, seg_high,
            )  # fmt: skip
        for k in range(n):
            dv[k], dx[k] = grads.state[0, b, k], grads.state[n_states - 1, b, k]
        for t in range(n_steps, grads.trace.shape[0]):
            for k in columns(0, n):
                dv[k] += grads.trace[t, b, k]
        for t in range(n_steps - 1, -1, -1):
            if t < start_t:
                if want_weights and not in_patches:
                    _add_weights(
                        b, start_t, end_t, events, spikes, feeds_back, by.weight, by.recurrent, later, blocks, room
                    )
                start_t, end_t = max(0, start_t - n_kept), start_t
                for k in columns(0, n):
                    later[end_t - start_t, k] = later[0, k]
            here = t - start_t
            first, last = a_ptr[b, t], a_ptr[b, t + 1]
            for e in columns(0, last - first):
                by_next[e] = zero
            if feeds_back and t < n_steps - 1:  # the segments are still those of step t + 1
                for s in range(first_seg, last_seg):
                    left, right = seg_low[s], seg_high[s]
                    add_dots(recurrent, a_idx, first, last, later[here + 1], left, right, by_next, 0)
            if talk:
                add_dots(gate.recurrent, a_idx, first, last, later_a[t + 1], 0, n_gates, by_next, 0)
            if gate.kind == 1 or gate.kind == 2:
                first_seg, last_seg = gating.open_step(
                    gate, shared, b, t, activations[t if kept else 0], is_open, is_near, near, seg_low, seg_high
                )
            if own_segments:
                gating.touch_blocks(seg_low, seg_high, 0, last_seg, blocks[t])
            if own_segments or (gate.kind == 1 and n_kept < later_a.shape[0] - 1):  # this row was another step's
                for k in columns(0, n):
                    later[here, k] = zero
            elif gate.kind == 3:
                gating.drive_open(gate, currents[t], activations[t], is_open, is_near)
            if grads.trace.shape[0]:
                for k in columns(0, n):
                    dv[k] += grads.trace[t, b, k]
            v, x, after = states[0, min(t, kept)], states[n_states - 1, min(t, kept)], states[0, min(t + 1, kept)]
            if kind == 2:
                for e in range(s_ptr[b, t], s_ptr[b, t + 1]):
                    fired[s_idx[e]] = 1
                for s in range(first_seg, last_seg):
                    gradients.through_adaptation(
                        decay, adapt, bump, dv, dx, jump, after, x, fired, is_open, by.decay, by.a, by.b, d_gate, near,
                        want_neurons, seg_low[s], seg_high[s],
                    )  # fmt: skip
                for e in range(s_ptr[b, t], s_ptr[b, t + 1]):
                    fired[s_idx[e]] = 0
            if kind == 2:
                for e in range(first, last):
                    by_next[e - first] += jump[a_idx[e]]
            if t == n_steps - 1:
                for e in range(first, last):
                    by_next[e - first] += grads.spk[b, a_idx[e]]
            if attached and reset < 2:
                for e in range(first, last):
                    k = a_idx[e]
                    by_next[e - first] -= dv[k] * (threshold[k] + (distance[e] if reset == 0 else zero))
            if first < last:
                gradients.through_surrogate(grads.value, distance, first, last, width, shape, by_next)
            if reset == 0:
                for e in columns(s_ptr[b, t], s_ptr[b, t + 1]):
                    dv[unsigned(s_idx[e])] = zero
            elif reset == 1 and want_threshold:
                for e in range(s_ptr[b, t], s_ptr[b, t + 1]):
                    by.threshold[s_idx[e]] -= dv[s_idx[e]]
            for e in columns(first, last):
                dv[unsigned(a_idx[e])] += by_next[e - unsigned(first)]
            if want_threshold:
                for e in range(first, last):
                    by.threshold[a_idx[e]] -= by_next[e - first]
            cur = later[here]
            for s in range(first_seg, last_seg):
                left, right = seg_low[s], seg_high[s]
                if near:
                    gradients.by_gate(kind, beta, decay, dv, dx, v, x, currents[t], d_gate, left, right)
                if want_neurons:
                    gradients.by_leaks(kind, by.beta, by.decay, dv, dx, v, x, currents[t], is_open, left, right)
                gradients.through_update(
                    kind, gate.kind > 0, beta, decay, dv, dx, cur, is_open, by.bias, want_bias, left, right
                )  # fmt: skip
            if gate.kind == 1 and near:
                row = by.gate[b if by.gate.shape[0] > 1 else 0, t]
                for s in range(first_seg, last_seg):
                    gating.add_near(d_gate, is_near, row, seg_low[s], seg_high[s])
            elif gate.kind > 1:
                gating.gate_slopes(d_gate, activations[t], gate, grads.ramp[b], near, later_a[t])
                if gate.kind == 2:
                    for g in range(n_gates):
                        by.gate[b, t, g] = later_a[t, g]
                else:
                    for k in range(n):
                        by.kappa[k] -= later_a[t, k]
                        push = later_a[t, k] * np.sign(currents[t, k])
                        cur[k] += push
                        if want_bias:
                            by.bias[k] += push
            first_source, last_source = sources.ptr[b, t], sources.ptr[b, t + 1]
            for s in range(first_seg, last_seg):
                left, right = seg_low[s], seg_high[s]
                if by.current.shape[0]:
                    for k in columns(left, right):
                        by.current[t, b, k] = cur[k]
                if first_source < last_source and not in_patches:
                    add_dots(weight, sources.idx, first_source, last_source, cur, left, right, by.source, first_source)
            if in_patches and first_seg < last_seg:
                add_patch_dots(weight, geometry, sources.idx, first_source, last_source, cur, by.source, first_source)
                if want_weights:
                    add_patch_gradients(
                        by.weight, later, here, geometry, events.idx, events.ptr[b, t], events.ptr[b, t + 1]
                    )
        for k in range(n):
            by.state[n_states - 1, b, k] = dx[k]
            by.state[0, b, k] = dv[k]
        if want_weights and not in_patches:
            _add_weights(b, start_t, end_t, events, spikes, feeds_back, by.weight, by.recurrent, later, blocks, room)
        if n_steps == 0 and want_spk:
            for k in range(n):
                by.spk[b, k] = grads.spk[b, k]
        elif n_steps and (feeds_back or talk):
            if talk:
                by_source(s_ptr[b], s_idx, n, 1, at_source, start)
                add_by_source(by.gate_recurrent, later_a, at_source, start, no_blocks, kept_steps)
            for k in range(n):
                if feeds_back and want_spk:
                    by.spk[b, k] += dot(recurrent[k], later[0])
                if talk and want_spk:
                    by.spk[b, k] += dot(gate.recurrent[k], later_a[0])
                for j in range(n if layer.spk[b, k] > zero and feeds_back and want_weights else 0):
                    by.recurrent[k, j] += later[0, j]
                for g in range(n_gates if layer.spk[b, k] > zero and talk else 0):
                    by.gate_recurrent[k, g] += later_a[0, g]
