"""Uninitialised memory for large results, used again once nobody holds it.

The system hands out large memory page by page, each one set to zero first, and takes it back when it is freed: for a
scan of 16 MB in each direction that cost 9 ms, the scan itself 4.5. Up to `LIMIT` bytes of freed blocks wait for the
next call of the same shapes instead.
"""

from __future__ import annotations

import weakref
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suspike_kernels.layout import LINE as LINE

LARGE = 2**20
"""Bytes from which the system's memory is slow."""

LIMIT = 2**28
"""Bytes that may wait, unused."""

_waiting: dict[int, list[memoryview]] = {}  # by size; each operation on them is one step for other threads
_held: dict[int, weakref.ref[Any]] = {}


def empty(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return an uninitialised array that begins a cache line; its memory waits once the last view of it is gone."""
    size = prod(shape) * np.dtype(dtype).itemsize
    if size < LARGE:
        return np.ndarray(shape, dtype, *_lines(size))
    try:
        block = _waiting[size].pop()
    except (KeyError, IndexError):
        raw, skip = _lines(size)
        block = raw.data[skip : skip + size]
    # a view's base is the first array that rests on something else, here a memoryview: so this one outlives its views
    owner = np.frombuffer(block, dtype)
    key = id(owner)

    def give_back(_: Any) -> None:
        del _held[key]
        if sum(waiting * len(blocks) for waiting, blocks in list(_waiting.items())) + size <= LIMIT:
            _waiting.setdefault(size, []).append(block)

    _held[key] = weakref.ref(owner, give_back)
    return owner.reshape(shape)


def _lines(size: int) -> tuple[NDArray[np.uint8], int]:
    """Return uninitialised bytes, and where the first cache line begins that `size` of them fill."""
    raw = np.empty(size + LINE, np.uint8)
    return raw, -raw.__array_interface__["data"][0] % LINE


def release() -> None:
    """Give the memory that waits back to the system."""
    _waiting.clear()
