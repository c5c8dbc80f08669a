"""Simulation of sparsely connected LIF neurons: where few of them are touched a step, the others wait.

A neuron below its threshold cannot fire while nothing arrives if its leak is from 0 to 1 and its threshold above 0. So
a step moves the neurons that an event reached and those that stand above their threshold (before the first step, or
behind a reset that leaves them there); what the others have missed is made up for (`decay`) when they are touched, and
at the end. Where a step touches many neurons, moving all of them takes less time: that is chosen stretch by stretch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from suspike_kernels import rules
from suspike_kernels.compiling import kernel
from suspike_kernels.cpu import gating, steps
from suspike_kernels.cpu.compress import AHEAD
from suspike_kernels.cpu.decay import TILE, catch_up
from suspike_kernels.cpu.loops import columns, unsigned
from suspike_kernels.cpu.scatter import mark, scatter, scatter_marked, take_marked
from suspike_kernels.layout import Events, n_gates, offsets
from suspike_kernels.pool import over_samples
from suspike_kernels.reference import Layer, Run

STRETCH = 32
"""Steps until eager or lazy is chosen again, by the synaptic operations of the last ones."""

CROSSOVER = 64
"""Steps between two synaptic operations at a neuron, on average, from which on they wait.

Measured: waiting takes less time from 200 on among 1e4 neurons, from 55 among 1e5, from 35 among 1e6.
"""

ALWAYS, NEVER, CHOOSE = 1, 0, 2
"""Whether neurons wait."""


def serves(layer: Layer) -> bool:
    """Say whether `forward` can run a layer."""
    synapses, neurons = layer.synapses, layer.neurons
    in_lists = len(synapses.fanout.ptr) > 0 and len(synapses.own_fanout.ptr) + 1 > min(len(synapses.recurrent), 1)
    if not in_lists:
        return False
    by_table = layer.gate.kind < 2 and not len(layer.current)
    rests = (neurons.beta >= 0) & (neurons.beta <= 1) & (neurons.threshold > 0)
    rests &= (synapses.bias == 0) & ~np.signbit(synapses.bias)
    return by_table and neurons.kind == 0 and bool(rests.all())


def forward(layer: Layer, *, n_threads: int = 1, waits: int = CHOOSE) -> Run:
    """Run a layer that this `serves`, without active places and trace: see `reference.forward`.

    Parameters
    ----------
    layer, n_threads
        As of `forward.forward`.
    waits : int
        `ALWAYS`, `NEVER` or `CHOOSE`: it changes no bit of the result.
    """
    events, n, dtype = layer.events, len(layer.synapses.bias), layer.state.dtype
    n_spk = np.zeros((events.n_samples, events.n_steps), np.int64)
    state, spk = layer.state.copy(), layer.spk.copy()
    parts = over_samples(
        lambda low, high: _run(layer, waits, state, spk, low, high, n_spk), events.n_samples, n_threads, ranges_each=4
    )
    idx = parts[0] if len(parts) == 1 else np.concatenate(parts)
    none, n_open = np.zeros(0, dtype), np.zeros((events.n_samples, n_gates(layer.gate, n)), np.int64)
    active, no_trace = Events(np.zeros_like(events.ptr), np.zeros(0, np.int32), n), np.zeros((0, *spk.shape), dtype)
    return Run(
        Events(offsets(n_spk), idx, n), active, none, none, state, spk, no_trace, n_open, np.zeros(n_open.shape, dtype),
        np.zeros((events.n_samples, 0), np.int64),
    )  # fmt: skip


class _Room(NamedTuple):
    """Scratch of one thread, over all neurons; a step reads and writes of it what it touches.

    Attributes
    ----------
    cur : float [N]
        What arrives in a step; 0 between steps.
    words, blocks
        Who is touched: see `scatter.mark`; 0 between steps.
    done : int32 [N]
        Open steps that a neuron has done.
    hot : int32 [N]
        Neurons above their threshold.
    which : int32 [N]
        Neurons of a step.
    missed, behind, starts, tiles
        For `decay.catch_up`.
    apart : float [N]
        Distances from the threshold.
    flags : uint8 [2, N]
        Who is open, and scratch.
    opened : int32 [T + 1, G] or [0, G]
        Open steps of each gate before each step.
    each : int
        0 where all have one leak and one threshold, which are then read in one place; else 1.
    """

    cur: Any
    words: Any
    blocks: Any
    done: Any
    hot: Any
    which: Any
    missed: Any
    behind: Any
    starts: Any
    tiles: Any
    apart: Any
    flags: Any
    opened: Any
    each: Any


@kernel()
def _run(layer: Any, waits: int, state: Any, spk: Any, low: int, high: int, n_spk: Any) -> Any:
    """Run samples low .. high - 1 and return their spikes."""
    n_steps, n, gate, fed = n_spk.shape[1], spk.shape[1], layer.gate, layer.synapses.recurrent.shape[0] > 0
    idx, before, n_s, fanout = np.empty(0, np.int32), np.empty(n + AHEAD, np.int32), 0, layer.synapses.fanout
    gated, n_gated, beta, threshold = gate.kind == 1, gate.open.shape[2], layer.neurons.beta, layer.neurons.threshold
    each = 0
    for k in range(n):
        each |= int(beta[k] != beta[0]) | int(threshold[k] != threshold[0])
    room = _Room(
        np.zeros(n, state.dtype), np.zeros((n + 63) // 64, np.uint64), np.zeros(n // 4096 + 1, np.uint8),
        np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int32), np.empty(TILE, np.int32),
        np.empty(TILE, np.int32), np.empty(n_steps + 1, np.int32), np.empty((4, TILE), state.dtype),
        np.empty(n, state.dtype), np.ones((2, n), np.uint8), np.zeros((n_steps + 1 if gated else 0, n_gated), np.int32),
        each,
    )  # fmt: skip
    for b in range(low, high):
        table = b if gate.open.shape[0] > 1 else 0
        if gated and (b == low or table > 0):
            for t in range(n_steps):
                for g in columns(0, n_gated):
                    room.opened[t + 1, g] = room.opened[t, g] + gate.open[table, t, g]
        length, v = steps.n_steps_of(layer, b), state[0, b]
        last, first, end = before, 0, steps.append_above(spk[b], before, 0, 0, n)
        ptr = layer.events.ptr[b]
        n_synops = (ptr[min(STRETCH, length)] - ptr[0]) * fanout.target.shape[0] // max(fanout.ptr.shape[0] - 1, 1)
        lazy, n_hot = False, 0
        for t in range(length):
            if n_s + n + AHEAD > idx.shape[0]:  # memory that is never written is only address space
                longer = np.empty(2 * n_s + n + AHEAD, np.int32)
                longer[:n_s] = idx[:n_s]
                idx = longer
            if t % STRETCH == 0:
                wait = waits == ALWAYS or (waits == CHOOSE and n * min(STRETCH, length) >= CROSSOVER * n_synops)
                if wait and not lazy:
                    n_hot = _start_waiting(room, v, threshold, gated, t)
                elif lazy and not wait:
                    _catch_up_all(room, v, beta, gated, t)
                lazy, n_synops = wait, 0
            n_synops += _sum_current(room, layer, lazy, ptr[t], ptr[t + 1], last, first, end if fed else first)
            last, first = idx, n_s
            if lazy:
                n_s, n_hot = _move_touched(room, layer, v, t, table, n_hot, idx, n_s)
            else:
                n_s = _move_all(room, layer, v, t, table, idx, n_s)
            end = n_s
            n_spk[b, t] = end - first
        if lazy:
            _catch_up_all(room, v, beta, gated, length)
        if length:
            for k in columns(0, n):
                spk[b, k] = 0
            for e in range(first, end):
                spk[b, last[e]] = 1
    return idx[:n_s]


@kernel(allocates=False)
def _sum_current(
    room: Any, layer: Any, lazy: bool, begin: int, stop: int, last: Any, first: int, end: int
) -> int:  # fmt: skip
    """Add to the current what events and own spikes bring, mark whom they reach, and return how many additions."""
    weight, recurrent, _, _, fanout, own, _ = layer.synapses
    idx, cur, words, blocks = layer.events.idx, room.cur, room.words, room.blocks
    if lazy:
        added = scatter_marked(cur, weight, fanout.ptr, fanout.target, idx, begin, stop, words, blocks)
        if first < end:
            added += scatter_marked(cur, recurrent, own.ptr, own.target, last, first, end, words, blocks)
    else:
        added = scatter(cur, weight, fanout.ptr, fanout.target, idx, begin, stop)
        if first < end:
            added += scatter(cur, recurrent, own.ptr, own.target, last, first, end)
    return added


@kernel(allocates=False)
def _move_touched(
    room: Any, layer: Any, v: Any, t: int, table: int, n_hot: int, idx: Any, n_s: int
) -> Any:  # fmt: skip
    """Do step t of the neurons that are touched and open; return the numbers of spikes and of neurons above threshold.

    Each is left at 0 in `room.cur`.
    """
    beta, threshold, reset = layer.neurons.beta, layer.neurons.threshold, layer.neurons.reset
    cur, done, which, hot, zero = room.cur, room.done, room.which, room.hot, v.dtype.type(0)
    x, leak, missed, each = room.tiles[0], room.tiles[1], room.missed, unsigned(room.each)
    for j in range(n_hot):
        mark(unsigned(hot[j]), room.words, room.blocks)
    n, n_hot = take_marked(room.words, room.blocks, which), 0
    if layer.gate.kind == 1:
        n, n_hot = _leave_closed(room, layer.gate, v, threshold, t, table, n)
    for low in range(0, n, TILE):
        some = which[low : min(low + TILE, n)]
        for j in columns(0, some.shape[0]):
            k = unsigned(some[j])
            now = room.opened[t, some[j] // (v.shape[0] // room.opened.shape[1])] if room.opened.shape[0] else t
            x[j], leak[j], missed[j] = v[k], beta[k * each], now - done[k]
            done[k] = now + 1
        catch_up(x, leak, missed, some.shape[0], room.tiles[2], room.tiles[3], room.behind, room.starts)
        for j in columns(0, some.shape[0]):
            k = unsigned(some[j])
            u, level = rules.leak(x[j], cur[k], leak[j]), threshold[k * each]
            fired = rules.fires(u, level)
            u = rules.reset(u, level, reset) if fired else u
            v[k], cur[k] = u, zero
            idx[n_s], hot[n_hot] = some[j], some[j]
            n_s += int(fired)
            n_hot += int(rules.fires(u, level))
    return n_s, n_hot


@kernel(allocates=False)
def _leave_closed(room: Any, gate: Any, v: Any, threshold: Any, t: int, table: int, n: int) -> Any:
    """Keep the open ones of the first `n` neurons of `room.which`; return how many those are, and how many are hot."""
    which, hot, size = room.which, room.hot, v.shape[0] // gate.open.shape[2]
    n_open, n_hot = 0, 0
    for j in range(n):
        k = which[j]
        if gate.open[table, t, k // size]:
            which[n_open] = k
            n_open += 1
        else:
            room.cur[k] = 0
            hot[n_hot] = k
            n_hot += int(rules.fires(v[k], threshold[k]))
    return n_open, n_hot


@kernel(allocates=False)
def _move_all(room: Any, layer: Any, v: Any, t: int, table: int, idx: Any, n_s: int) -> int:
    """Do step t of all neurons, block by block, so that no array is read twice from memory; return as above."""
    neurons, gated, first, is_open = layer.neurons, layer.gate.kind == 1, n_s, room.flags[0]
    cur, apart, zero, n = room.cur, room.apart, v.dtype.type(0), v.shape[0]
    if gated:
        gating.spread_open(layer.gate, table, t, apart, is_open, room.flags[1], False)
    for low in range(0, n, TILE):
        high = min(low + TILE, n)
        if gated:
            steps.advance(0, neurons.beta, neurons.decay, v, v, cur, is_open, low, high)
            steps.compare(v, neurons.threshold, is_open, True, apart, low, high)
        else:
            steps.advance_all(neurons.beta, neurons.threshold, neurons.reset, v, cur, apart, low, high)
        n_s = steps.append_above(apart, idx, n_s, low, high)
        for k in columns(low, high):
            cur[k] = zero
    if gated:
        steps.settle(neurons.threshold, neurons.reset, v, idx, first, n_s)
    return n_s


@kernel(allocates=False)
def _start_waiting(room: Any, v: Any, threshold: Any, gated: bool, t: int) -> int:
    """Let all neurons wait from step t on; return how many are above their threshold."""
    n_hot, n = 0, v.shape[0]
    for k in range(n):
        room.done[k] = room.opened[t, k // (n // room.opened.shape[1])] if gated else t
        room.hot[n_hot] = k
        n_hot += int(rules.fires(v[k], threshold[k]))
    return n_hot


@kernel(allocates=False)
def _catch_up_all(room: Any, v: Any, beta: Any, gated: bool, t: int) -> None:
    """Make up for all steps before step t that neurons have missed."""
    n, missed = v.shape[0], room.missed
    for low in range(0, n, TILE):
        high = min(low + TILE, n)
        for k in range(low, high):
            now = room.opened[t, k // (n // room.opened.shape[1])] if gated else t
            missed[k - low] = now - room.done[k]
        some = v[low:high]
        catch_up(some, beta[low:high], missed, high - low, room.tiles[2], room.tiles[3], room.behind, room.starts)
