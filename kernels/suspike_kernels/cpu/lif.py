"""A fully connected LIF layer on the CPU: one sample at a time, state in the nearest cache, weight rows from the next.

Same signatures and meaning as `suspike_kernels.reference`. Memory grows with spikes and active places, and per thread
with T x N; the forward pass is replayed in the backward pass where a gradient needs states that nobody kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from suspike_kernels import rules
from suspike_kernels.compiling import kernel
from suspike_kernels.cpu.rows import add_by_source, add_rows, dot, dot_rows
from suspike_kernels.layout import DenseArrays, Events, FloatArray, GateArrays, LIFArrays, offsets
from suspike_kernels.pool import over_samples
from suspike_kernels.reference import LIFGrads, LIFRun


@kernel()
def _room(array: Any, used: int, wanted: int, share: float) -> Any:
    """Return `array`, or a longer copy of it, with room for `wanted` entries after the `used` ones.

    `share` of the work is done: the copy is as long as the rest will need if it goes on like this, and a fifth more,
    since copying again costs more than address space that is never touched.
    """
    if used + wanted <= array.shape[0]:
        return array
    longer = np.empty(int(1.2 * used / share) + wanted, array.dtype)
    longer[:used] = array[:used]
    return longer


@kernel()
def _step(v: Any, cur: Any, beta: Any, threshold: Any, width: Any, fired: Any, near: Any) -> None:
    """Move `v` [N] to the state before reset; flag who fires, and who carries a gradient."""
    for k in range(v.shape[0]):
        v[k] = rules.leak(v[k], cur[k], beta[k])
        fired[k] = rules.fires(v[k], threshold[k])
        near[k] = abs(v[k] - threshold[k]) < width


@kernel()
def _gated_step(v: Any, cur: Any, is_open: Any, beta: Any, threshold: Any, width: Any, fired: Any, near: Any) -> None:
    """As `_step`, where `is_open` [N]; elsewhere nothing moves and nothing is flagged.

    Apart from it, since a vectorised loop would read an absent gate's table too, under a mask, and faults slowly.
    """
    for k in range(v.shape[0]):
        v[k] = rules.select(is_open[k] != 0, rules.leak(v[k], cur[k], beta[k]), v[k])
        fired[k] = is_open[k] & rules.fires(v[k], threshold[k])
        near[k] = is_open[k] & (abs(v[k] - threshold[k]) < width)


@kernel()
def _append(flags: Any, idx: Any, used: int) -> int:
    """Append the flagged units to `idx` behind its `used` entries, and return how many there are then."""
    for k in range(flags.shape[0]):  # no branch: the entry is written, and kept by moving on
        idx[used] = k
        used += flags[k]
    return used


@kernel()
def _forward(
    events: Any,
    dense: Any,
    lif: Any,
    gate: Any,
    v: Any,
    spk: Any,
    width: Any,
    low: int,
    high: int,
    n_spk: Any,
    n_act: Any,
) -> Any:
    """Run samples low .. high - 1; `v`, `spk` [B, N] hold the state, `n_spk`, `n_act` [B, T] take the counts."""
    n_steps, n = n_spk.shape[1], dense.bias.shape[0]
    gated, recurrent = gate.open.shape[0] > 0, dense.recurrent.shape[0] > 0
    one, zero = dense.bias.dtype.type(1), dense.bias.dtype.type(0)
    s_idx, a_idx = np.empty(16 * n, np.int32), np.empty(16 * n, np.int32)
    value, slope = np.empty(16 * n, dense.bias.dtype), np.empty(16 * n, dense.bias.dtype)
    cur, before = np.empty(n, dense.bias.dtype), np.empty(n + 1, np.int32)
    fired, near = np.empty(n, np.uint8), np.empty(n, np.uint8)
    n_s = n_a = 0
    for b in range(low, high):
        state = v[b]
        for k in range(n):
            fired[k] = spk[b, k] > zero
        n_before, last_s = _append(fired, before, 0), n_s
        for t in range(n_steps):
            cur[:] = dense.bias
            add_rows(cur, dense.weight, events.idx, events.ptr[b, t], events.ptr[b, t + 1])
            if recurrent and t == 0:
                add_rows(cur, dense.recurrent, before, 0, n_before)
            elif recurrent:
                add_rows(cur, dense.recurrent, s_idx, last_s, n_s)
            if gated:
                _gated_step(state, cur, gate.open[t], lif.beta, lif.threshold, width, fired, near)
            else:
                _step(state, cur, lif.beta, lif.threshold, width, fired, near)
            share = ((b - low) * n_steps + t + 1) / ((high - low) * n_steps)
            if width > zero:
                if n_a + n >= a_idx.shape[0]:
                    a_idx = _room(a_idx, n_a, n + 1, share)
                    value, slope = _room(value, n_a, n + 1, share), _room(slope, n_a, n + 1, share)
                last_a, n_a = n_a, _append(near, a_idx, n_a)
                for e in range(last_a, n_a):
                    k = a_idx[e]
                    value[e] = one if fired[k] else zero
                    slope[e] = rules.triangle(state[k] - lif.threshold[k], width)
                n_act[b, t] = n_a - last_a
            s_idx = _room(s_idx, n_s, n + 1, share)
            last_s, n_s = n_s, _append(fired, s_idx, n_s)
            for e in range(last_s, n_s):
                k = s_idx[e]
                state[k] = rules.reset(state[k], lif.threshold[k], lif.reset)
            n_spk[b, t] = n_s - last_s
        if n_steps:
            for k in range(n):
                spk[b, k] = one if fired[k] else zero
    return s_idx[:n_s], a_idx[:n_a], value[:n_a], slope[:n_a]


@kernel()
def _replay(
    events: Any, dense: Any, lif: Any, gate: Any, spikes: Any, b: int, state: Any, spk: Any, before: Any, candidate: Any
) -> None:
    """Run sample b again from its known spikes; `before`, `candidate` [T, N] take v before each step and u."""
    n_steps, n = before.shape[0], dense.bias.shape[0]
    cur, fired = np.empty(n, dense.bias.dtype), np.empty(n, np.int32)
    n_fired = 0
    for k in range(n):
        fired[n_fired] = k
        n_fired += spk[k] > 0
    for t in range(n_steps):
        cur[:] = dense.bias
        add_rows(cur, dense.weight, events.idx, events.ptr[b, t], events.ptr[b, t + 1])
        if dense.recurrent.shape[0]:
            if t == 0:
                add_rows(cur, dense.recurrent, fired, 0, n_fired)
            else:
                add_rows(cur, dense.recurrent, spikes.idx, spikes.ptr[b, t - 1], spikes.ptr[b, t])
        before[t] = state
        for k in range(n):
            candidate[t, k] = rules.leak(state[k], cur[k], lif.beta[k])
        if gate.open.shape[0]:
            for k in range(n):
                state[k] = rules.select(gate.open[t, k] != 0, candidate[t, k], state[k])
        else:
            state[:] = candidate[t]
        for e in range(spikes.ptr[b, t], spikes.ptr[b, t + 1]):
            k = spikes.idx[e]
            state[k] = rules.reset(state[k], lif.threshold[k], lif.reset)


@kernel(reassociate=True)
def _backward(
    g: Any,
    run: Any,
    events: Any,
    sources: Any,
    dense: Any,
    lif: Any,
    gate: Any,
    start: Any,
    low: int,
    high: int,
    replay: bool,
) -> Any:
    """Add the gradients of samples low .. high - 1 to `start`'s arrays (a LIFGrads); `g` is (value, v, spk)."""
    g_value, g_v, g_spk = g
    v_start, spk_start, grads = start
    n_steps, n = events.ptr.shape[1] - 1, dense.bias.shape[0]
    gated, near, recurrent = gate.open.shape[0] > 0, gate.near.shape[0] > 0, dense.recurrent.shape[0] > 0
    dtype, zero = dense.bias.dtype, dense.bias.dtype.type(0)
    later = np.zeros((n_steps + 1, n), dtype)  # gradient by cur, each step; row T stays 0
    before, candidate = np.empty((n_steps if replay else 0, n), dtype), np.empty((n_steps if replay else 0, n), dtype)
    dv, by_next = np.empty(n, dtype), np.empty(n, dtype)
    beta, by_bias, by_beta = lif.beta, grads.bias, grads.beta
    longest = 0
    for b in range(low, high):
        longest = max(
            longest, events.ptr[b, n_steps] - events.ptr[b, 0], run.spikes.ptr[b, n_steps] - run.spikes.ptr[b, 0]
        )
    steps = np.empty(longest + 1, np.int32)
    at = np.empty(max(dense.weight.shape[0], n) + 1, np.int64)
    for b in range(low, high):
        if replay:
            _replay(events, dense, lif, gate, run.spikes, b, v_start[b].copy(), spk_start[b], before, candidate)
        dv[:] = g_v[b]
        for t in range(n_steps - 1, -1, -1):
            cur = later[t]
            for e in range(run.spikes.ptr[b, t], run.spikes.ptr[b, t + 1]):
                k = run.spikes.idx[e]
                if lif.reset == 0:
                    dv[k] = zero
                elif lif.reset == 1:
                    grads.threshold[k] -= dv[k]
            first, last = run.active.ptr[b, t], run.active.ptr[b, t + 1]
            if recurrent:
                dot_rows(dense.recurrent, run.active.idx, first, last, later[t + 1], by_next)
            for e in range(first, last):
                k = run.active.idx[e]
                d_spk = g_value[e]
                if recurrent:
                    d_spk += by_next[e - first]
                if t == n_steps - 1:
                    d_spk += g_spk[b, k]
                dv[k] += d_spk * run.slope[e]
                grads.threshold[k] -= d_spk * run.slope[e]
            if near:
                near_t, by_gate, u, v = gate.near[t], grads.gate[t], candidate[t], before[t]
                for k in range(n):
                    by_gate[k] += dv[k] * (u[k] - v[k]) if near_t[k] else zero
            if gated:
                open_t = gate.open[t]
                for k in range(n):
                    cur[k] = dv[k] if open_t[k] else zero
                    dv[k] = beta[k] * dv[k] if open_t[k] else dv[k]
                    by_bias[k] += cur[k]
            else:
                for k in range(n):
                    cur[k] = dv[k]
                    dv[k] = beta[k] * dv[k]
                    by_bias[k] += cur[k]
            if replay:
                v = before[t]
                for k in range(n):
                    by_beta[k] += cur[k] * v[k]
            low_s, high_s = sources.ptr[b, t], sources.ptr[b, t + 1]
            dot_rows(dense.weight, sources.idx, low_s, high_s, cur, grads.source[low_s:high_s])
        grads.v[b] = dv
        add_by_source(grads.weight, later, events.ptr[b], events.idx, 0, steps, at[: dense.weight.shape[0] + 1])
        if recurrent and n_steps:
            add_by_source(grads.recurrent, later, run.spikes.ptr[b], run.spikes.idx, 1, steps, at[: n + 1])
            for k in range(n):
                grads.spk[b, k] = dot(dense.recurrent[k], later[0])
                if spk_start[b, k] > zero:
                    grads.recurrent[k] += later[0]
        if n_steps == 0:
            grads.spk[b] = g_spk[b]
    return grads


def lif_forward(
    events: Events,
    dense: DenseArrays,
    lif: LIFArrays,
    gate: GateArrays,
    v: FloatArray,
    spk: FloatArray,
    *,
    width: float = 0.0,
    n_threads: int = 1,
) -> LIFRun:
    """Run a LIF layer: see `reference.lif_forward`. `n_threads` share the samples and change no bit of the result."""
    n_spk = np.zeros((events.n_samples, events.n_steps), np.int64)
    n_act, n = np.zeros_like(n_spk), len(dense.bias)
    v, spk, half = v.copy(), spk.copy(), dense.weight.dtype.type(width)
    parts = over_samples(
        lambda low, high: _forward(events, dense, lif, gate, v, spk, half, low, high, n_spk, n_act),
        events.n_samples,
        n_threads,
    )
    s_idx, a_idx, value, slope = (np.concatenate(p) if len(parts) > 1 else p[0] for p in zip(*parts, strict=True))
    return LIFRun(Events(offsets(n_spk), s_idx, n), Events(offsets(n_act), a_idx, n), value, slope, v, spk)


def lif_backward(
    grad_value: FloatArray,
    grad_v: FloatArray,
    grad_spk: FloatArray,
    run: LIFRun,
    events: Events,
    sources: Events,
    dense: DenseArrays,
    lif: LIFArrays,
    gate: GateArrays,
    v: FloatArray,
    spk: FloatArray,
    *,
    want_beta: bool = True,
    n_threads: int = 1,
) -> LIFGrads:
    """Return the gradients of a LIF layer: see `reference.lif_backward`.

    Without ``want_beta`` and gate-near places nothing is replayed, and `beta`'s gradient is 0. Each thread sums the
    gradients of its samples; the sums are then added in the threads' order, so a result is reproducible for a given
    `n_threads`.
    """
    source = np.zeros(len(sources.idx), dense.weight.dtype)
    d_v, d_spk = np.zeros_like(v), np.zeros_like(spk)
    replay = want_beta or bool(gate.near.any())

    def work(low: int, high: int) -> LIFGrads:
        z = np.zeros_like
        grads = LIFGrads(
            source, z(dense.weight), z(dense.recurrent), z(dense.bias), z(lif.beta), z(lif.threshold),
            np.zeros(gate.near.shape, dense.weight.dtype), d_v, d_spk,
        )  # fmt: skip
        g = (grad_value, grad_v, grad_spk)
        filled: LIFGrads = _backward(g, run, events, sources, dense, lif, gate, (v, spk, grads), low, high, replay)
        return filled

    total, *others = over_samples(work, events.n_samples, n_threads)
    for part in others:
        for name in ("weight", "recurrent", "bias", "beta", "threshold", "gate"):
            getattr(total, name)[...] += getattr(part, name)
    return total
