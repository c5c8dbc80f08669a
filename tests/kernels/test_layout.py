"""Events against dense arrays and plain loops; every broken rule is named."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from suspike_testing.comparing import assert_same_events

from suspike_kernels.cpu.rows import largest_count
from suspike_kernels.layout import Events, check_events, events_from_dense, offsets

COUNTS = hnp.arrays(
    np.int64,
    st.tuples(*[st.sampled_from([0, 1, 2, 5])] * 3),
    elements=st.sampled_from([0, 0, 1, 2, 7]),
)
# two samples, three steps: sample 0 has units 2, 2 | - | 0, sample 1 has - | 1 | -
PTR, IDX = np.array([[0, 2, 2, 3], [3, 3, 4, 4]]), np.array([2, 2, 0, 1], np.int32)
EVENTS = Events(PTR, IDX, 3)


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(COUNTS)
def test_events_of_a_dense_array(counts: np.ndarray) -> None:
    events = check_events(events_from_dense(counts))
    n_steps, n_samples, n_units = counts.shape
    assert (events.n_steps, events.n_samples, events.n_units) == counts.shape
    idx, ptr = [], [[0] * (n_steps + 1) for _ in range(n_samples)]
    for b in range(n_samples):
        ptr[b][0] = len(idx)
        for t in range(n_steps):
            for i in range(n_units):
                idx += [i] * int(counts[t, b, i])
            ptr[b][t + 1] = len(idx)
    assert_same_events(
        events, Events(np.array(ptr, np.int64).reshape(n_samples, n_steps + 1), np.array(idx, np.int32), n_units)
    )
    np.testing.assert_array_equal(events.dense(np.int64), counts)
    assert events.dense().dtype == np.float32
    np.testing.assert_array_equal(events.per_step(), counts.sum(2).T)
    assert events.max_count() == counts.max(initial=0)
    assert largest_count(events.ptr, events.idx, events.n_units) == counts.max(initial=0)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(COUNTS, st.data())
def test_places_and_take(counts: np.ndarray, data: st.DataObject) -> None:
    events = events_from_dense(counts)
    places = list(zip(*events.places(), events.idx, strict=True))
    walked = [
        (b, t, (t * events.n_samples + b) * events.n_units + i, i)
        for b in range(events.n_samples)
        for t in range(events.n_steps)
        for i in events.idx[events.ptr[b, t] : events.ptr[b, t + 1]]
    ]
    assert places == walked
    chosen = data.draw(st.lists(st.integers(0, events.n_samples - 1), max_size=4)) if events.n_samples else []
    taken = check_events(events.take(chosen))
    np.testing.assert_array_equal(taken.dense(np.int64), counts[:, chosen])
    assert not np.shares_memory(taken.idx, events.idx)


def test_offsets_run_on_from_sample_to_sample() -> None:
    assert offsets(np.array([[2, 0, 1], [0, 1, 0]])).tolist() == PTR.tolist()
    assert offsets(np.zeros((2, 0), np.int64)).tolist() == [[0], [0]]
    assert offsets(np.zeros((0, 2), np.int64)).shape == (0, 3)


@pytest.mark.parametrize(
    "counts",
    [np.array([[[0.5]]]), np.array([[[-1]]]), np.array([[[np.nan]]]), np.array([[[np.inf]]])],
    ids=["fraction", "negative", "nan", "infinity"],
)
def test_what_is_no_count_is_refused(counts: np.ndarray) -> None:
    message = (
        "`counts` must be whole numbers from 0, got others. Events carry no fractions: "
        "pass currents to a neuron, not to an event path."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        events_from_dense(counts)


def test_counts_have_three_axes() -> None:
    with pytest.raises(ValueError, match=re.escape("`counts` must be of shape [T, B, N], got shape (2, 3).")):
        events_from_dense(np.zeros((2, 3)))


def test_good_events_pass_as_they_are() -> None:
    assert check_events(EVENTS) is EVENTS
    for shape in ((0, 4), (0, 1), (3, 1), (3, 4)):
        check_events(Events(np.zeros(shape, np.int64), np.zeros(0, np.int32), 0))


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (
            EVENTS._replace(ptr=PTR.astype(np.int32)),
            "`x.ptr` must be int64 of shape [B, T + 1], got int32 of shape (2, 4).",
        ),
        (EVENTS._replace(ptr=PTR[0]), "`x.ptr` must be int64 of shape [B, T + 1], got int64 of shape (4,)."),
        (
            EVENTS._replace(ptr=np.zeros((2, 0), np.int64)),
            "`x.ptr` must be int64 of shape [B, T + 1], got int64 of shape (2, 0).",
        ),
        (
            EVENTS._replace(idx=IDX.astype(np.int64)),
            "`x.idx` must be int32 of shape [E], got int64 of shape (4,).",
        ),
        (EVENTS._replace(idx=IDX[None]), "`x.idx` must be int32 of shape [E], got int32 of shape (1, 4)."),
        (EVENTS._replace(ptr=PTR + 1), "`x.ptr` must run from 0 to len(idx) = 4 without gaps between samples."),
        (EVENTS._replace(idx=IDX[:3]), "`x.ptr` must run from 0 to len(idx) = 3 without gaps between samples."),
        (
            EVENTS._replace(ptr=np.array([[0, 2, 2, 2], [3, 3, 4, 4]])),
            "`x.ptr` must run from 0 to len(idx) = 4 without gaps between samples.",
        ),
        (EVENTS._replace(ptr=np.zeros((0, 4), np.int64)), "`x.idx` must be empty without samples, got 4 events."),
        (
            EVENTS._replace(ptr=np.array([[0, 2, 2, 3], [3, 5, 3, 4]])),
            "`x.ptr` must not decrease, got a fall at sample 1, step 1: sort the events by time.",
        ),
        (
            EVENTS._replace(n_units=2),
            "`x.idx` must be units from 0 to n_units - 1 = 1, got 2 at sample 0, step 0.",
        ),
        (
            EVENTS._replace(idx=np.array([2, 2, 0, -1], np.int32)),
            "`x.idx` must be units from 0 to n_units - 1 = 2, got -1 at sample 1, step 1.",
        ),
    ],
)
def test_a_broken_rule_is_named(events: Events, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_events(events, "x")


def test_taking_by_a_mask_is_refused() -> None:
    events = events_from_dense(np.ones((2, 3, 1)))
    with pytest.raises(TypeError, match=r"^`samples` must be whole numbers, got bool\. A mask: pass np.flatnonzero"):
        events.take(np.array([True, False, True]))
    assert events.take([]).n_samples == 0
