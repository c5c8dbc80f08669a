"""Which units of a recurrent cell are computed at each step, and the rows of their weights."""

from __future__ import annotations

import numpy as np
import pytest

from suspike_kernels.cpu.cells import computed, rows_of


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("learns", [False, True])
def test_open_units_come_first_then_near_ones(share: float, learns: bool) -> None:
    rng = np.random.default_rng(0)
    is_open, near = rng.random((9, 21)) < share, rng.random((9, 21)) < 0.4
    near[3] = False
    units = computed(is_open, near if learns else None)
    assert units.ptr[0] == 0
    assert len(units.idx) == units.ptr[-1]
    rows, chunks = rows_of(units.ptr, units.ends, units.idx, np.array([0, 2]), 21), []
    for t in range(9):
        wanted = [np.flatnonzero(is_open[t]), np.flatnonzero(near[t] & ~is_open[t]) if learns else np.zeros(0, int)]
        np.testing.assert_array_equal(units.idx[units.ptr[t] : units.ptr[t + 1]], np.concatenate(wanted))
        assert units.ends[t] - units.ptr[t] == len(wanted[0])
        chunks.append(np.concatenate([wanted[0], 42 + wanted[0]]))
        np.testing.assert_array_equal(rows[2 * units.ptr[t] :][: len(chunks[-1])], chunks[-1])
