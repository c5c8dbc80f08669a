"""Exact counts of a layer whose sources reach few neurons: an event costs its source's fan-out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from suspike_kernels.counts import Counts
from suspike_kernels.cpu.scatter import count_synops
from suspike_kernels.layout import Events, SynapseArrays


def count_by_fanout(
    counts: Counts,
    synapses: SynapseArrays,
    events: Events,
    spikes: Events,
    initial_spikes: NDArray[np.bool_],
    *,
    is_open: NDArray[np.uint8] | None = None,
    n_steps: NDArray[np.int64] | None = None,
) -> Counts:
    """Count synapses, rows and synaptic operations again, by the lists that the events' sources have.

    Parameters
    ----------
    counts : Counts
        Of the layer, as if it were fully connected (`counting.count_layer`).
    synapses : SynapseArrays
        Of which some are lists.
    events : Events [B, T]
        What reached the layer from outside.
    spikes : Events [B, T]
        What it fired.
    initial_spikes : bool [B, N]
        Its spikes of the step before the first one.
    is_open : uint8 [1 or B, T, N], optional
        Which neurons integrate what arrives; all without it.
    n_steps : int64 [B], optional
        True length of each sample, T without it.
    """
    n, n_samples = len(synapses.bias), events.n_samples
    table = np.zeros((0, 0, 0), np.uint8) if is_open is None else is_open
    lengths = np.full(n_samples, events.n_steps) if n_steps is None else n_steps
    reached = done = rows = 0
    parts = [(events, 0, synapses.fanout), (spikes, 1, synapses.own_fanout)]
    for (ptr, idx, _), delay, (begins, targets) in parts[: 2 if len(synapses.recurrent) else 1]:
        found = count_synops(ptr, idx, delay, initial_spikes, lengths, begins, targets, table, n)
        reached, done, rows = (int(a + b) for a, b in zip((reached, done, rows), found, strict=True))
    own = synapses.recurrent.size
    n_synapses = own + (synapses.weight.size if len(synapses.fanout.ptr) else events.n_units * n)
    return counts._replace(
        synapses=n_synapses, rows_fetched=rows, synops_done=done + counts.gate_synops, synops_skipped=reached - done
    )
