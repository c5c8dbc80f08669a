"""Weights of few synapses: for each source a list of its targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suspike._validate import fail, require_shape
from suspike_kernels.layout import Fanout, FloatArray


@dataclass(frozen=True, eq=False)
class Sparse:
    """Fan-out lists: source i has the weights ``weight[ptr[i]:ptr[i + 1]]``, onto the units of this part of `target`.

    A simulation reads rows from memory in their order, so targets that rise within a row are found faster.

    Parameters
    ----------
    ptr : int64 [n_in + 1]
        From 0 to E, never decreasing.
    target : int32 [E]
        Units 0 to ``n_targets - 1``; one that stands in a row twice gets both weights.
    weight : float [E]
    n_targets : int
        Units N that could be reached.
    """

    ptr: NDArray[np.int64]
    target: NDArray[np.int32]
    weight: FloatArray
    n_targets: int

    def __post_init__(self) -> None:
        for name, dtype in (("ptr", np.int64), ("target", np.int32)):
            array = getattr(self, name)
            if array.ndim != 1 or array.dtype != dtype or not array.flags.c_contiguous:
                got = f"{array.dtype} of shape {list(array.shape)}"
                fail(f"Sparse.{name}", f"{np.dtype(dtype)} in one contiguous list", got)
        require_shape("Sparse.weight", self.weight, self.target.shape)
        n_entries = len(self.target)
        if not len(self.ptr) or self.ptr[0] != 0 or self.ptr[-1] != n_entries:
            fail("Sparse.ptr", f"from 0 to the number of targets, {n_entries}", f"{self.ptr[[0, -1][: len(self.ptr)]]}")
        if (self.ptr[1:] < self.ptr[:-1]).any():
            fail("Sparse.ptr", "never decreasing", f"a fall behind source {np.argmax(self.ptr[1:] < self.ptr[:-1])}")
        if n_entries and (self.target.min() < 0 or self.target.max() >= self.n_targets):
            fail(
                "Sparse.target", f"from 0 to n_targets - 1 = {self.n_targets - 1}",
                f"{self.target.min()} to {self.target.max()}",
            )  # fmt: skip

    @classmethod
    def of(cls, matrix: Any) -> Sparse:
        """Return the entries of a matrix [n_in, N]: those of a dense one that are not 0, all that a sparse one stores.

        Parameters
        ----------
        matrix : float array, or anything with a method ``tocsr`` such as `scipy.sparse` has
        """
        if hasattr(matrix, "tocsr"):
            rows = matrix.tocsr()
            ptr, target, weight = rows.indptr, rows.indices, rows.data
        else:
            if matrix.ndim != 2:
                fail("matrix", "of shape [n_in, N]", f"shape {list(matrix.shape)}")
            source, target = np.nonzero(matrix)
            weight, ptr = matrix[source, target], np.searchsorted(source, np.arange(len(matrix) + 1))
        return cls(
            np.ascontiguousarray(ptr, np.int64), np.ascontiguousarray(target, np.int32), np.ascontiguousarray(weight),
            int(matrix.shape[1]),
        )  # fmt: skip

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix: (n_in, N)."""
        return len(self.ptr) - 1, self.n_targets

    @property
    def size(self) -> int:
        """Number of synapses E."""
        return len(self.target)

    @property
    def dtype(self) -> Any:
        """The float type of the weights."""
        return self.weight.dtype

    def dense(self) -> FloatArray:
        """Return the matrix [n_in, N]."""
        out: FloatArray = np.zeros(self.shape, self.dtype)
        np.add.at(out, (np.repeat(np.arange(self.shape[0]), np.diff(self.ptr)), self.target), self.weight)
        return out

    def arrays(self) -> tuple[FloatArray, Fanout]:
        """Return weights [1, E] and lists as kernels take them."""
        return np.ascontiguousarray(self.weight)[None], Fanout(self.ptr, self.target)
