"""Sums of weights that lie in fan-out lists (`layout.Fanout`), and counts of the synaptic operations that they take."""

from __future__ import annotations

from typing import Any

from suspike_kernels.compiling import kernel
from suspike_kernels.cpu.loops import columns, unsigned


@kernel(allocates=False)
def scatter(cur: Any, weight: Any, ptr: Any, target: Any, idx: Any, first: int, last: int) -> None:
    """Add to `cur` [N] the weights of the events ``idx[first:last]``, in their order; `weight` is [1, E]."""
    for f in range(first, last):
        for e in columns(ptr[unsigned(idx[f])], ptr[unsigned(idx[f] + 1)]):
            cur[unsigned(target[e])] += weight[0, e]


@kernel(allocates=False)
def count_synops(
    ptr: Any, idx: Any, delay: int, before: Any, lengths: Any, fan_ptr: Any, fan_target: Any, is_open: Any, n_units: int
) -> Any:
    """Count the synaptic operations of events at all of their targets and at the open ones, and events that have these.

    Parameters
    ----------
    ptr, idx
        The events, as in `layout.Events`.
    delay : int
        Steps until an event arrives: 0, or 1 where they are the layer's own spikes.
    before : bool [B, N]
        Own spikes of the step before the first.
    lengths : int64 [B]
    fan_ptr, fan_target
        As in `layout.Fanout`.
    is_open : uint8 [1 or B, T, N], or [0, 0, 0] where all are open
    n_units : int
        Neurons N.
    """
    reached, opened, fetched = 0, 0, 0
    for b in range(ptr.shape[0]):
        own = b if is_open.shape[0] > 1 else 0
        for t in range(lengths[b]):
            first = delay and t == 0
            low, high = (0, before.shape[1]) if first else (ptr[b, t - delay], ptr[b, t - delay + 1])
            for f in range(low, high):
                if first and not before[b, f]:
                    continue
                i = f if first else idx[f]
                begin, end = (fan_ptr[i], fan_ptr[i + 1]) if fan_ptr.shape[0] else (0, n_units)
                n_open = end - begin
                if is_open.shape[0]:
                    n_open = 0
                    for e in range(begin, end):
                        n_open += is_open[own, t, fan_target[e] if fan_ptr.shape[0] else e]
                reached += end - begin
                opened += n_open
                fetched += n_open > 0
    return reached, opened, fetched
