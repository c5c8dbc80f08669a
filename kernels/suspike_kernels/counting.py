"""Exact counts of what a layer did and of what its closed gates spared it, from its events and its gate table."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from suspike_kernels.compiling import kernel
from suspike_kernels.counts import Counts
from suspike_kernels.cpu.patches import count_synops
from suspike_kernels.geometry import Geometry
from suspike_kernels.layout import Events


def count_layer(
    name: str,
    events: Events,
    n_units: int,
    *,
    spikes: Events | None = None,
    gate: NDArray[np.uint8] | None = None,
    recurrent: bool = False,
    initial_spikes: NDArray[np.bool_] | None = None,
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
    initial_spikes : bool [B, N], optional
        Its spikes of the step before the first one, when they are fed back.
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
    n_samples, n_time = events.n_samples, events.n_steps
    lengths = np.full(n_samples, n_time) if n_steps is None else n_steps
    n_open = np.full((1, n_time), n_units) if gate is None else np.count_nonzero(gate, axis=1)[None]
    n_open = n_open if open_at is None else open_at
    listens = recurrent or recurrent_gates > 0
    assert spikes is not None or not listens, "a layer that hears itself has spikes"
    own_ptr = spikes.ptr if listens and spikes is not None else np.zeros((0, 0), np.int64)
    first = np.zeros(n_samples, np.int64)
    if listens and initial_spikes is not None:
        first = np.count_nonzero(initial_spikes, axis=1)
    updates, n_given, n_own, given, own, rows = (
        int(x) for x in _tally(events.ptr, own_ptr, first, lengths, n_open, n_units, drive_gate, recurrent)
    )
    reached = n_given * n_units
    if geometry is not None:
        reached, given = count_synops(events, geometry.array(), gate if opened is None else opened)
    n_arrivals, n_steps_all = n_given + recurrent * n_own, int(lengths.sum())
    done = given + recurrent * own
    own_synapses = n_units * n_units if recurrent else 0
    gate_synops = n_given * input_gates + n_own * recurrent_gates
    n_gates = n_units if gate is not None or drive_gate else input_gates
    return Counts(
        name=name,
        samples=n_samples,
        steps=n_steps_all,
        neurons=n_units,
        synapses=own_synapses + (events.n_units * n_units if geometry is None else geometry.n_synapses),
        events=n_arrivals,
        rows_fetched=rows,
        synops_done=done + gate_synops,
        synops_skipped=reached + recurrent * n_own * n_units - done,
        updates_done=updates,
        updates_skipped=n_steps_all * n_units - updates,
        gate_evaluations=n_gates * (n_steps_all if gate is None else int(lengths.max(initial=0))),
        spikes=0 if spikes is None else len(spikes.idx),
        gate_synops=gate_synops,
        state_words=state_words,
    )


@kernel(allocates=False)
def _tally(
    ptr: Any, own_ptr: Any, first: Any, n_steps: Any, n_open: Any, n_units: int, everywhere: bool, recurrent: bool
) -> Any:
    """Return sums over all steps: updates, events given and a layer's own, both times the targets summed, rows read.

    `own_ptr` is [0, 0] where it does not hear itself, `first` [B] its spikes of the step before, `n_open` [1 or B, T].
    """
    updates = n_given = n_own = given = own = rows = 0
    for b in range(ptr.shape[0]):
        row = b if n_open.shape[0] > 1 else 0
        for t in range(n_steps[b]):
            arriving, back = ptr[b, t + 1] - ptr[b, t], 0
            if own_ptr.shape[0]:
                back = own_ptr[b, t] - own_ptr[b, t - 1] if t else first[b]
            summed = n_units if everywhere else n_open[row, t]
            updates += n_open[row, t]
            n_given += arriving
            n_own += back
            given += arriving * summed
            own += back * summed
            if summed:
                rows += arriving + (back if recurrent else 0)
    return updates, n_given, n_own, given, own, rows
