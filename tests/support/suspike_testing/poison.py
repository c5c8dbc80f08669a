"""Compiled kernels as plain Python, in which uninitialised memory is full of garbage and every index is checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest


class Poisoned:
    """numpy, but `empty` is full of NaN or of large indices."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def empty(shape: Any, dtype: Any = np.float64) -> np.ndarray:
        dtype = np.dtype(dtype)
        return np.full(shape, np.nan if dtype.kind == "f" else np.iinfo(dtype).max // 2, dtype)


@contextmanager
def poisoned(*modules: ModuleType) -> Iterator[None]:
    """Swap the kernels that `modules` name for their Python functions, and their `np` for a `Poisoned`."""
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            for name, value in vars(module).copy().items():
                if hasattr(value, "py_func"):
                    patch.setattr(module, name, value.py_func)
                elif value is np:
                    patch.setattr(module, name, Poisoned())
        yield
