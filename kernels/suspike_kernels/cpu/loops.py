"""Unsigned loop variables and indices: a signed one may be negative for all the compiler knows.

The test for that keeps a loop from being vectorised (measured: 15 times slower), and an index that was read from a list
costs half of a short loop. Slices instead of indices would count references, which costs more than a short loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from suspike_kernels.compiling import rule


@rule
def columns(low: int, high: int) -> Any:
    """Return the range low .. high - 1."""
    return range(np.uint64(low), np.uint64(high))


@rule
def unsigned(i: int) -> Any:
    """Return an index that is not negative, which is the caller's to know: `layout.check_events` sees to lists."""
    return np.uint64(i)
