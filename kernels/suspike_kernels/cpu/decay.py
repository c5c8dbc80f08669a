"""Silent steps that neurons have missed, made up for by the same multiplications, hence with the same bits.

Every neuron has missed a number of its own. Sorted by it, those that are still behind stand side by side in front, and
one step is one vector loop over these.
"""

from __future__ import annotations

from typing import Any

from suspike_kernels import rules
from suspike_kernels.compiling import kernel
from suspike_kernels.cpu.loops import columns

TILE = 1024
"""Neurons whose membranes and leaks stay in the first-level cache."""


@kernel(allocates=False)
def catch_up(v: Any, beta: Any, which: Any, missed: Any, n: int, room: Any, places: Any, starts: Any) -> None:
    """Set ``room[0, place[0, j]]`` to the membrane of neuron ``which[j]`` after its missed silent steps, for j < `n`.

    Parameters
    ----------
    v, beta : float [N]
    which, missed : int32, at least [n]
        Neurons, and the silent steps that each has missed.
    room : float [2, n or more]
        Written.
    places : int32 [2, n or more]
        Written: where a neuron's membrane is then, and scratch.
    starts : int32, longer than the largest of `missed`
        Scratch.
    """
    x, leak, place, behind = room[0], room[1], places[0], places[1]
    zero, longest = v.dtype.type(0), 0
    for j in range(n):
        if v[which[j]] == zero and missed[j] > 1:
            missed[j] = 1  # a step makes 0 of -0, another one changes nothing
        longest = max(longest, missed[j])
    for d in range(longest + 1):
        starts[d] = 0
    for j in range(n):
        starts[missed[j]] += 1
    total = 0
    for d in range(longest, -1, -1):
        count = starts[d]
        starts[d] = total
        total += count
    for j in range(n):
        at = starts[missed[j]]
        starts[missed[j]] += 1
        place[j], behind[at] = at, missed[j]
        x[at], leak[at] = v[which[j]], beta[which[j]]
    for low in range(0, n, TILE):
        _decay(x, leak, behind, low, min(low + TILE, n))


@kernel(allocates=False)
def _decay(x: Any, leak: Any, behind: Any, low: int, high: int) -> None:
    """Do ``behind[q]`` silent steps of x[q], for q from `low` to `high` - 1; `behind` never rises."""
    zero, done = x.dtype.type(0), 0
    while True:
        while high > low and behind[high - 1] <= done:
            high -= 1
        if high == low:
            return
        until = behind[high - 1]
        while done + 4 <= until:
            moves = False
            for q in columns(low, high):
                y = x[q]
                for _ in range(4):
                    y = rules.leak(y, zero, leak[q])
                moves |= y != x[q]
                x[q] = y
            done += 4
            if not moves:  # all are at 0, at a leak of 1, or at a number so small that the leak rounds it to itself
                return
        for _ in range(until - done):
            for q in columns(low, high):
                x[q] = rules.leak(x[q], zero, leak[q])
        done = max(done, until)
