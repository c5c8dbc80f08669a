"""Silent steps that neurons have missed, made up for by the same multiplications, hence with the same bits.

Every neuron has missed a number of its own. Where none is large, all do each step, and those that are done keep what
they have; else they are sorted, those that are furthest behind in front, and a step is a loop over those that are left.
"""

from __future__ import annotations

from typing import Any

from suspike_kernels import rules
from suspike_kernels.compiling import kernel
from suspike_kernels.cpu.loops import columns

TILE = 1024
"""Neurons that catch up together: what they need stays in the first-level cache."""

SORTED_FROM = 48
"""Missed steps from which on sorting takes less time than doing all steps for everybody (measured)."""


@kernel(allocates=False)
def catch_up(x: Any, leak: Any, missed: Any, n: int, moved: Any, moved_leak: Any, behind: Any, starts: Any) -> None:
    """Do ``missed[j]`` silent steps of the membrane ``x[j]``, for j < `n`.

    Parameters
    ----------
    x, leak : float [`TILE`]
    missed : int32 [`TILE`]
    moved, moved_leak : float [`TILE`]
    behind : int32 [`TILE`]
    starts : int32, longer than the largest of `missed`
        Scratch.
    """
    zero, longest = x.dtype.type(0), 0
    for j in range(n):
        if x[j] == zero and missed[j] > 1:
            missed[j] = 1  # a step makes 0 of -0, another one changes nothing
        longest = max(longest, missed[j])
    if longest < SORTED_FROM:
        for done in range(longest):
            for q in columns(0, n):
                x[q] = rules.select(done < missed[q], rules.leak(x[q], zero, leak[q]), x[q])
        return
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
        moved[at], moved_leak[at], behind[at] = x[j], leak[j], missed[j]
    _decay(moved, moved_leak, behind, n)
    for j in range(n - 1, -1, -1):  # each start has moved on to its group's end
        starts[missed[j]] -= 1
        x[j] = moved[starts[missed[j]]]


@kernel(allocates=False)
def _decay(x: Any, leak: Any, behind: Any, n: int) -> None:
    """Do ``behind[q]`` silent steps of x[q], for q < `n`; `behind` never rises."""
    zero, done, left = x.dtype.type(0), 0, n
    while True:
        while left > 0 and behind[left - 1] <= done:
            left -= 1
        if left == 0:
            return
        until = behind[left - 1]
        while done + 4 <= until:
            moves = False
            for q in columns(0, left):
                y = x[q]
                for _ in range(4):
                    y = rules.leak(y, zero, leak[q])
                moves |= y != x[q]
                x[q] = y
            done += 4
            if not moves:  # all are at 0, at a leak of 1, or at a number so small that the leak rounds it to itself
                return
        for _ in range(until - done):
            for q in columns(0, left):
                x[q] = rules.leak(x[q], zero, leak[q])
        done = until
