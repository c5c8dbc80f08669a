"""Comparisons; `tests/kernels/test_comparing.py` shows that each of them fails on a wrong value."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from suspike_kernels.layout import Events


def bits(array: Any) -> NDArray[np.unsignedinteger[Any]]:
    """The bits of a float array, so that -0.0 differs from 0.0 and NaN equals itself."""
    array = np.ascontiguousarray(array)
    return array.view({4: np.uint32, 8: np.uint64}[array.dtype.itemsize])


def assert_same_bits(found: Any, wanted: Any, name: str = "array") -> None:
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.dtype == wanted.dtype, f"{name}: {found.dtype}, not {wanted.dtype}"
    assert found.shape == wanted.shape, f"{name}: shape {found.shape}, not {wanted.shape}"
    differ = np.argwhere(bits(found) != bits(wanted))
    assert not len(differ), f"{name}: {len(differ)} values differ, the first at {differ[0]}"


def assert_same_events(found: Events, wanted: Events, name: str = "events") -> None:
    assert found.ptr.dtype == np.int64, name
    assert found.idx.dtype == np.int32, name
    assert found.n_units == wanted.n_units, name
    np.testing.assert_array_equal(found.ptr, wanted.ptr, err_msg=name)
    np.testing.assert_array_equal(found.idx, wanted.idx, err_msg=name)


def assert_close(found: Any, wanted: Any, rel: float, name: str = "array", *, floor: float = 0.0) -> None:
    """The difference's norm is at most `rel` of the wanted norm, or `floor`; NaN is never close."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.dtype == wanted.dtype, f"{name}: {found.dtype}, not {wanted.dtype}"
    assert found.shape == wanted.shape, f"{name}: shape {found.shape}, not {wanted.shape}"
    difference = np.linalg.norm((found.astype(np.float64) - wanted).ravel())
    norm = np.linalg.norm(wanted.astype(np.float64).ravel())
    assert difference <= max(rel * norm, floor), f"{name}: off by {difference:.3g} of norm {norm:.3g}"


def assert_same_run(found: Any, wanted: Any) -> None:
    """Two `Run`s are equal to the last bit, but for `ramp`: a sum of floats, whose order is free."""
    assert_same_events(found.spikes, wanted.spikes, "spikes")
    assert_same_events(found.active, wanted.active, "active")
    for name in ("value", "distance", "state", "spk", "trace"):
        assert_same_bits(getattr(found, name), getattr(wanted, name), name)
    for name in ("n_open", "open_at"):
        assert getattr(found, name).dtype == np.int64, name
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name, strict=True)
    assert_close(found.ramp, wanted.ramp, 10 * float(np.finfo(wanted.ramp.dtype).eps), "ramp")


def assert_close_fields(found: Any, wanted: Any, rel: float) -> None:
    """Each array of two NamedTuples is close.

    A field of few entries may be a small difference of large terms, so ten roundings of the largest field are allowed.
    """
    assert found._fields == wanted._fields
    largest = max(float(np.linalg.norm(x.ravel())) for x in wanted)
    for name, a, b in zip(found._fields, found, wanted, strict=True):
        assert_close(a, b, rel, name, floor=10 * float(np.finfo(b.dtype).eps) * largest)


def assert_same_fields(found: Any, wanted: Any) -> None:
    """Each array of two NamedTuples is equal to the last bit."""
    assert found._fields == wanted._fields
    for name, a, b in zip(found._fields, found, wanted, strict=True):
        assert_same_bits(a, b, name)


def numeric_gradient(loss: Any, at: NDArray[np.float64], step: float = 1e-6) -> NDArray[np.float64]:
    """Central differences of ``loss(array)`` by each entry of `at`."""
    out = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        sides = []
        for sign in (1, -1):
            moved = at.copy()
            moved[place] += sign * step
            sides.append(loss(moved))
        out[place] = (sides[0] - sides[1]) / (2 * step)
    return out


def assert_same_result(found: Any, wanted: Any) -> None:
    """Two results of `simulate` are equal in every field, to the last bit."""
    assert (found.output is None) == (wanted.output is None)
    assert (len(found.spikes), len(found.counts)) == (len(wanted.spikes), len(wanted.counts))
    if wanted.output is not None:
        assert_same_bits(found.output, wanted.output, "output")
    assert len(found.spikes) == len(wanted.spikes), "spikes"
    for i, (a, b) in enumerate(zip(found.spikes, wanted.spikes, strict=True)):
        assert_same_events(a, b, f"spikes {i}")
    for a, b in zip(found.counts, wanted.counts, strict=True):
        assert a == b
    assert found.state.t == wanted.state.t
    for name in ("layers", "probes"):
        mine, theirs = (result.state.layers if name == "layers" else result.probes for result in (found, wanted))
        assert list(mine) == list(theirs), name
        for key, fields in theirs.items():
            for field, a, b in zip(fields._fields, mine[key], fields, strict=True):
                assert (a.dtype, a.shape) == (b.dtype, b.shape), f"{name}: {key}.{field}"
                assert a.tobytes() == b.tobytes(), f"{name}: {key}.{field}"
