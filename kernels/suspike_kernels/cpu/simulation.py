"""Simulation of LIF neurons, always open or by one table: whole steps in registers, silent ones in runs.

Where neither events nor own spikes arrive, and nobody stands above a threshold, a membrane that leaks towards 0 cannot
fire: nothing is gathered and nothing compared, and k such steps are k multiplications.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from suspike_kernels.compiling import kernel
from suspike_kernels.cpu import steps
from suspike_kernels.cpu.compress import AHEAD
from suspike_kernels.cpu.fused import WIDE, step_lines
from suspike_kernels.cpu.fused_runs import run_columns, wait_columns
from suspike_kernels.cpu.lists import room
from suspike_kernels.cpu.loops import columns
from suspike_kernels.cpu.memory import LINE
from suspike_kernels.cpu.rows import scratch
from suspike_kernels.layout import Events, FloatArray, is_sparse
from suspike_kernels.reference import Layer


def serves(layer: Layer) -> bool:
    """Say whether `run_samples` can run a layer, if nothing but its spikes and its membrane is wanted."""
    shared = layer.gate.kind == 0 or (layer.gate.kind == 1 and len(layer.gate.open) == 1)
    rows = not len(layer.synapses.geometry) and not is_sparse(layer.synapses)
    return layer.neurons.kind == 0 and shared and rows and not len(layer.current)


def rests(layer: Layer) -> bool:
    """Say whether neurons below their threshold stay there for as long as nothing arrives."""
    return bool(_rests(layer.neurons.beta, layer.neurons.threshold, layer.synapses.bias))


@kernel(allocates=False)
def _rests(beta: Any, threshold: Any, bias: Any) -> bool:
    for k in range(beta.shape[0]):
        if not (0 <= beta[k] <= 1 and threshold[k] > 0 and bias[k] == 0):
            return False
    return True


class Table(NamedTuple):
    """Who is open when, of a table that all samples share; without one, empty arrays.

    Attributes
    ----------
    open : uint8 [T, N] or [0, 0]
    ptr : int64 [T + 1] or [0]
        ``lines[ptr[t] : ptr[t + 1]]`` are touched at step t.
    lines : int32
        First columns of the cache lines of the state in which any neuron is open, increasing; a few more follow.
    """

    open: NDArray[np.uint8]
    ptr: NDArray[np.int64]
    lines: NDArray[np.int32]


NO_TABLE = Table(np.zeros((0, 0), np.uint8), np.zeros(0, np.int64), np.zeros(0, np.int32))


def table_of(layer: Layer) -> Table:
    """Return the table of a layer's gate."""
    gate, n = layer.gate, len(layer.synapses.bias)
    if gate.kind == 0:
        return NO_TABLE
    size = n // max(gate.open.shape[2], 1) or 1
    is_open = np.ascontiguousarray(gate.open[0] if size == 1 else np.repeat(gate.open[0], size, axis=1))
    words = np.pad(is_open, ((0, 0), (0, -n % WORD))) if n % WORD else is_open
    width = LINE // layer.state.itemsize
    ptr = np.zeros(len(is_open) + 1, np.int64)
    lines = np.zeros(len(is_open) * -(-n // width) + WIDE // LINE, np.int32)
    used = _touched(words.view(np.uint64), width, ptr, lines)
    return Table(is_open, ptr, lines[: used + WIDE // LINE])


WORD = 8
"""Columns of a table that are looked at together: a line of float64, half a line of float32."""


@kernel(allocates=False)
def _touched(words: Any, width: int, ptr: Any, lines: Any) -> int:
    """Set `ptr` and `lines` of a table, one or two words a line; return how many lines there are."""
    used, n_words, per_line = 0, words.shape[1], width // WORD
    for t in range(words.shape[0]):
        for k in range(0, n_words, per_line):
            lines[used] = k * WORD
            used += int((words[t, k] | words[t, min(k + per_line, n_words) - 1]) != 0)
        ptr[t + 1] = used
    return used


class Task(NamedTuple):
    """What `run_samples` takes of a `reference.Layer`, and what follows: handing over the whole takes 7 us longer."""

    events: Events
    weight: NDArray[Any]
    recurrent: NDArray[Any]
    bias: FloatArray
    scale: FloatArray
    beta: FloatArray
    threshold: FloatArray
    reset: int
    n_steps: NDArray[np.int64]
    table: Table
    resting: bool


def task_of(layer: Layer) -> Task:
    """Return what `run_samples` does of a layer that this `serves`."""
    weight, recurrent, bias, *_, scale = layer.synapses
    _, beta, threshold, reset, *_ = layer.neurons
    return Task(
        layer.events, weight, recurrent, bias, scale, beta, threshold, reset, layer.n_steps, table_of(layer),
        rests(layer),
    )  # fmt: skip


@kernel()
def run_samples(task: Any, state: Any, spk: Any, low: int, high: int, ptr: Any, out: Any) -> Any:
    """Run samples low .. high - 1 and return their spikes; `ptr` [B, T + 1] gets the steps' begins among these."""
    n_steps, n = ptr.shape[1] - 1, spk.shape[1]
    places, used, before = np.empty(0, np.int32), 0, np.empty(n + AHEAD, np.int32)
    per_line = LINE // state.itemsize
    lined = scratch(3, (n + per_line - 1) // per_line * per_line, state)
    lined[0, :n], lined[1, :n], lined[2, :n] = task.beta, task.threshold, task.bias
    for b in range(low, high):
        places = room(places, used, n_steps * n + AHEAD, (b - low) / (high - low))
        used = _run_sample(b, task, state, spk, ptr, out, places, used, before, lined)
    return places[:used]


@kernel(allocates=False)
def _run_sample(
    b: int, task: Any, state: Any, spk: Any, ptr: Any, out: Any, places: Any, used: int, before: Any, lined: Any
) -> int:
    """Run sample b, append its spikes to `places`, and return how many there are then."""
    events, weight, recurrent, _, scale, _, _, reset, _, table, resting = task
    n_steps, n, t = steps.n_steps_of(task, b), spk.shape[1], 0
    beta, threshold, bias = lined[0][:n], lined[1][:n], lined[2][:n]
    idx, v, fed, gated = events.idx, state[0, b], recurrent.shape[0] > 0, table.ptr.shape[0] > 0
    last, first, end = before, 0, steps.append_above(spk[b], before, 0, 0, n)
    calm = False
    ptr[b, 0] = used
    while t < n_steps:
        low, high, until = events.ptr[b, t], events.ptr[b, t + 1], t + 1
        silent = resting and low == high and not (fed and first < end)
        calm = calm or (silent and not _any_above(v, threshold))
        own = (recurrent, last, first, end if fed else first)
        if silent and calm:
            while until < n_steps and out.shape[0] == 0 and events.ptr[b, until + 1] == low:
                until += 1
            if gated:
                _decay_open(table, beta, bias, v, t, until)
            else:
                wait_columns(v, beta, bias, until - t)
            for now in range(t, until):
                ptr[b, now + 1] = used
        elif gated:
            neurons, arriving = (beta, threshold, bias, table.open[t], scale), (weight, idx, low, high)
            lines = (table.lines, table.ptr[t], table.ptr[until])
            ptr[b, until] = step_lines(v, neurons, reset, arriving, own, *lines, places, used)
        else:
            always, given = (beta, threshold, bias, before, scale), (weight, idx, events.ptr[b])
            span = (t, until if out.shape[0] else n_steps, resting and reset == 0, ptr[b])
            until = run_columns(v, always, reset, given, own, span, places, used)
        last, first, end = places, ptr[b, until - 1], ptr[b, until]
        used = end
        calm = (calm or not gated) and (reset == 0 or first == end)
        if out.shape[0]:
            for k in columns(0, n):
                out[t, b, k] = v[k]
        t = until
    for now in range(n_steps, ptr.shape[1] - 1):
        ptr[b, now + 1] = used
    for now in range(n_steps, out.shape[0]):
        for k in columns(0, n):
            out[now, b, k] = v[k]
    if n_steps:
        for k in range(n):
            spk[b, k] = spk.dtype.type(0)
        for e in range(first, end):
            spk[b, last[e]] = spk.dtype.type(1)
    return used


@kernel(allocates=False)
def _any_above(v: Any, threshold: Any) -> bool:
    some = False
    for k in columns(0, v.shape[0]):
        some |= v[k] > threshold[k]
    return some


@kernel(allocates=False)
def _decay_open(table: Any, beta: Any, bias: Any, v: Any, low: int, high: int) -> None:
    """Do the silent steps low .. high - 1 of those neurons that the table opens."""
    n, width = v.shape[0], LINE // v.itemsize
    for t in range(low, high):
        for e in range(table.ptr[t], table.ptr[t + 1]):
            first = table.lines[e]
            steps.advance(0, beta, beta, v, v, bias, table.open[t], first, min(first + width, n))
