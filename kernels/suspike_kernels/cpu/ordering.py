"""An order of neurons in which those that open together are neighbours: what is closed is skipped by cache lines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from suspike_kernels.compiling import kernel
from suspike_kernels.cpu.loops import columns
from suspike_kernels.cpu.rows import by_source
from suspike_kernels.layout import Events, IntArray

BLOCK = 16
"""Neurons that are skipped together: a cache line of float32."""


def order(table: NDArray[np.uint8]) -> NDArray[np.int64]:
    r"""Return an order of neurons for which few blocks of neighbours have any open at a step.

    Greedily: a block begins with the neuron that opens at the fewest steps outside those of the block before,
    and takes in, 15 times, the neuron that adds the fewest steps to those at which the block is touched,

    .. math:: \arg\min_i \; |G_i \setminus \textstyle\bigcup_{j \in block} G_j|,\qquad G_i = \{t : g_{t,i} = 1\}

    in :math:`N^2 T / 128` operations on words of 64 steps; measured at 1000 steps: 5 ms for 1024 neurons, 60 for 4096.

    Parameters
    ----------
    table : uint8 [T, N]
        1 where a neuron is open; a stretch long enough to tell who opens together.

    Returns
    -------
    int64 [N]
        A permutation: which neuron comes first, second, ...

    Raises
    ------
    ValueError
        If `table` is no two-dimensional uint8 array.
    """
    if table.ndim != 2 or table.dtype != np.uint8:
        raise ValueError(f"`table` must be uint8 of shape [T, N], got {table.dtype} of shape {table.shape}.")
    n_steps, n_units = table.shape
    packed = np.zeros((n_units, -(-n_steps // 64) * 8), np.uint8)
    packed[:, : -(-n_steps // 8)] = np.packbits(table != 0, axis=0).T
    found: NDArray[np.int64] = _greedy(packed.view(np.uint64))
    return found


@kernel()
def _greedy(words: Any) -> Any:
    """Return the order of neurons whose open steps are the bits of `words`, uint64 [N, T / 64]."""
    n, n_words = words.shape
    left, found, union = np.arange(n), np.empty(n, np.int64), np.zeros(n_words, np.uint64)
    for place in range(n):
        best, fewest = 0, 64 * n_words + 1
        for i in range(n - place):
            added = 0
            for k in columns(0, n_words):
                added += _bits(words[left[i], k] & ~union[k])
            if added < fewest:
                best, fewest = i, added
        chosen = left[best]
        found[place] = chosen
        left[best] = left[n - place - 1]
        if place % BLOCK == 0:
            union[:] = 0
        for k in columns(0, n_words):
            union[k] |= words[chosen, k]
    return found


@kernel(allocates=False, inline=True)
def _bits(word: Any) -> Any:
    """Return how many bits of a uint64 are set."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


def renumbered(spikes: Events, order: IntArray) -> Events:
    """Give the spikes of unit i the number ``order[i]``, the units of a step in ascending order.

    Parameters
    ----------
    spikes : Events
    order : whole numbers [N]
        A permutation.
    """
    idx = np.empty_like(spikes.idx)
    _renumber(spikes.ptr, spikes.idx, order, idx)
    return spikes._replace(idx=idx)


@kernel()
def _renumber(ptr: Any, idx: Any, order: Any, out: Any) -> None:
    """List each sample's steps by unit, and its units, from the lowest new number on, by step.

    Two passes without a branch on data, where sorting within a step guesses wrong for every few spikes: 9 ns each
    against 19.
    """
    n, (n_samples, n_steps) = len(order), (ptr.shape[0], ptr.shape[1] - 1)
    unit = np.empty(n, np.int64)
    for k in range(n):
        unit[order[k]] = k
    most = 0
    for b in range(n_samples):
        most = max(most, ptr[b, n_steps] - ptr[b, 0])
    steps, start, end = np.empty(most, np.int32), np.empty(n + 1, np.int64), np.empty(n_steps, np.int64)
    for b in range(n_samples):
        by_source(ptr[b], idx, n, 0, steps, start)
        end[:] = ptr[b, :n_steps]
        for number in range(n):
            first = start[unit[number]]
            for e in range(first, start[unit[number] + 1]):
                t = steps[e]
                out[end[t]] = number
                end[t] += 1
