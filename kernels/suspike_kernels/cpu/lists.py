"""Between event lists and arrays of counts: plain passes over lists, where `Events.places` would make temporaries."""

from __future__ import annotations

from typing import Any

from suspike_kernels.compiling import kernel


@kernel()
def add_counts(ptr: Any, idx: Any, counts: Any) -> None:
    """Add to `counts` [B, N] how often each unit stands in each sample's list."""
    for b in range(counts.shape[0]):
        for e in range(ptr[b, 0], ptr[b, -1]):
            counts[b, idx[e]] += 1


@kernel()
def at_counts(ptr: Any, idx: Any, counts: Any, out: Any) -> None:
    """Set `out` [E] to the entry of `counts` [B, N] that each entry of the list adds to."""
    for b in range(counts.shape[0]):
        for e in range(ptr[b, 0], ptr[b, -1]):
            out[e] = counts[b, idx[e]]


@kernel()
def add_dense(ptr: Any, idx: Any, dense: Any) -> None:
    """Add to `dense` [T, B, N] how often each unit stands in each step's list."""
    for b in range(dense.shape[1]):
        for t in range(dense.shape[0]):
            for e in range(ptr[b, t], ptr[b, t + 1]):
                dense[t, b, idx[e]] += 1


@kernel()
def at_dense(ptr: Any, idx: Any, dense: Any, out: Any) -> None:
    """Set `out` [E] to the entry of `dense` [T, B, N] that each entry of the list adds to."""
    for b in range(dense.shape[1]):
        for t in range(dense.shape[0]):
            for e in range(ptr[b, t], ptr[b, t + 1]):
                out[e] = dense[t, b, idx[e]]
