"""Exact counts of what a layer did and of what its closed gates spared it, from its events and its gate table."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from suspike_kernels.compiling import kernel
from suspike_kernels.counts import Counts
from suspike_kernels.cpu.patches import count_synops
from suspike_kernels.geometry import Geometry
from suspike_kernels.layout import FULL, Events


def count_layer(
    name: str,
    events: Events,
    n_units: int,
    *,
    spikes: Events | None = None,
    gate: NDArray[np.uint8] | None = None,
    recurrent: bool = False,
    initial_spikes: NDArray[Any] | None = None,
    open_at: NDArray[np.int64] | None = None,
    input_gates: int = 0,
    recurrent_gates: int = 0,
    drive_gate: bool = False,
    n_steps: NDArray[np.int64] | None = None,
    state_words: int = 1,
    geometry: Geometry | None = None,
    opened: NDArray[np.uint8] | None = None,
) -> Counts:
    """Count what a layer did.

    Parameters
    ----------
    name : str
    events : Events [B, T]
        What reached the layer from outside.
    n_units : int
        Its neurons N.
    spikes : Events, optional
        What it fired; none for a readout.
    gate : uint8 [T, N], optional
        Its open steps; none when always open.
    recurrent : bool
        Whether its spikes come back to it one step later.
    initial_spikes : [B, N], optional
        Not 0 where it fired in the step before the first one, when its spikes are fed back.
    open_at : int64 [B, T], optional
        How many neurons were open at each step, of a gate that data open; instead of `gate`.
    input_gates : int
        Input gates of the layer: every input event costs each of them a synaptic operation of its own.
    recurrent_gates : int
        Those of them that the layer's own spikes of the step before enter: each spike costs each of them another.
    drive_gate : bool
        Its gates see the current, which is therefore summed everywhere: they spare no synaptic operation.
    n_steps : int64 [B], optional
        True length of each sample, T without it: what lies behind it counts for nothing.
    state_words : int
        State variables of a neuron.
    geometry : Geometry, optional
        Of a convolution; fully connected without it.
    opened : uint8 [B, T, N], optional
        Of a convolution whose gates `open_at` counts: which neurons were open.
    """
    listens = recurrent or recurrent_gates > 0
    assert spikes is not None or not listens, "a layer that hears itself has spikes"
    assert gate is None or len(gate) == events.n_steps, "a row for each step"
    updates, n_given, n_own, given, own, rows, n_steps_all, longest = _tally(
        events.ptr,
        spikes.ptr if listens and spikes is not None else NO_PTR,
        initial_spikes if listens and initial_spikes is not None else NO_BITS,
        FULL if n_steps is None else n_steps,
        NO_BITS if gate is None else gate,
        NO_PTR if open_at is None else open_at,
        n_units, drive_gate, recurrent,
    )  # fmt: skip
    reached = n_given * n_units
    if geometry is not None:
        reached, given = count_synops(events, geometry.array(), gate if opened is None else opened)
    n_arrivals = n_given + recurrent * n_own
    done = given + recurrent * own
    own_synapses = n_units * n_units if recurrent else 0
    gate_synops = n_given * input_gates + n_own * recurrent_gates
    n_gates = n_units if gate is not None or drive_gate else input_gates
    return Counts(
        name=name,
        samples=events.n_samples,
        steps=n_steps_all,
        neurons=n_units,
        synapses=own_synapses + (events.n_units * n_units if geometry is None else geometry.n_synapses),
        events=n_arrivals,
        rows_fetched=rows,
        synops_done=done + gate_synops,
        synops_skipped=reached + recurrent * n_own * n_units - done,
        updates_done=updates,
        updates_skipped=n_steps_all * n_units - updates,
        gate_evaluations=n_gates * (n_steps_all if gate is None else longest),
        spikes=0 if spikes is None else len(spikes.idx),
        gate_synops=gate_synops,
        state_words=state_words,
    )


NO_PTR, NO_BITS = np.zeros((0, 0), np.int64), np.zeros((0, 0), np.uint8)


@kernel()
def _tally(
    ptr: Any, own_ptr: Any, before: Any, lengths: Any, table: Any, open_at: Any, n_units: int, everywhere: bool,
    recurrent: bool,
) -> Any:  # fmt: skip
    """Return sums over all steps: updates, events given and a layer's own, both times the targets summed, rows read.

    Behind them stand the number of steps and the longest sample's. What there is not is empty: `own_ptr` where a layer
    does not hear itself, `before` [B, N] (its spikes of the step before), `lengths` [B], `table` [T, N], `open_at`.
    """
    n_time = ptr.shape[1] - 1
    n_open = np.zeros(table.shape[0], np.int64)
    for t in range(table.shape[0]):
        for k in range(table.shape[1]):
            n_open[t] += table[t, k] != 0
    updates = n_given = n_own = given = own = rows = n_steps_all = longest = 0
    for b in range(ptr.shape[0]):
        n_steps = lengths[b] if lengths.shape[0] else n_time
        n_steps_all += n_steps
        longest = max(longest, n_steps)
        opens = open_at[b] if open_at.shape[0] else n_open
        first = 0
        for k in range(before.shape[1]):
            first += before[b, k] != 0
        if not table.shape[0] and not open_at.shape[0] and n_steps:  # all at once, as the lists' lengths say it
            arriving, back = ptr[b, n_steps] - ptr[b, 0], 0
            if own_ptr.shape[0]:
                back = first + own_ptr[b, n_steps - 1] - own_ptr[b, 0]
            updates += n_steps * n_units
            n_given += arriving
            n_own += back
            given += arriving * n_units
            own += back * n_units
            rows += arriving + (back if recurrent else 0)
            continue
        for t in range(n_steps):
            arriving, back = ptr[b, t + 1] - ptr[b, t], 0
            if own_ptr.shape[0]:
                back = own_ptr[b, t] - own_ptr[b, t - 1] if t else first
            summed = n_units if everywhere else opens[t]
            updates += opens[t]
            n_given += arriving
            n_own += back
            given += arriving * summed
            own += back * summed
            if summed:
                rows += arriving + (back if recurrent else 0)
    return updates, n_given, n_own, given, own, rows, n_steps_all, longest
