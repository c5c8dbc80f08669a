import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suspike_datasets import BinnedEvents, bin_events, load

FIELDS = [("t", "i8"), ("p", "?"), ("x", "u2"), ("y", "u2")]  # another order and other integers than N-MNIST's


@st.composite
def batches(draw):
    height, width = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    batch = []
    for n in draw(st.lists(st.integers(0, 40), max_size=4)):
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        events = np.zeros(n, FIELDS)
        events["t"] = np.sort(rng.integers(0, 100, n))
        events["x"], events["y"] = rng.integers(0, width, n), rng.integers(0, height, n)
        events["p"] = rng.integers(0, 2, n)
        batch.append(events)
    return batch, (height, width), draw(st.integers(1, 120))


def naive(batch, sensor, dt_us, n_steps):
    """Counts [B, T, 2, H, W], event by event."""
    counts = np.zeros((len(batch), n_steps, 2, *sensor), int)
    for b, events in enumerate(batch):
        for e in events:
            if e["t"] // dt_us < n_steps:
                counts[b, e["t"] // dt_us, int(e["p"]), e["y"], e["x"]] += 1
    return counts.reshape(len(batch), n_steps, 2 * sensor[0] * sensor[1])


def dense(binned):
    ptr, idx, n_units = binned
    counts = np.zeros((len(ptr), ptr.shape[1] - 1, n_units), int)
    for b, t in np.ndindex(counts.shape[:2]):
        np.add.at(counts[b, t], idx[ptr[b, t] : ptr[b, t + 1]], 1)
    return counts


def check_form(binned, n_samples, n_steps):
    assert type(binned) is BinnedEvents
    assert binned._fields == ("ptr", "idx", "n_units")
    ptr, idx, n_units = binned
    assert ptr.dtype == np.int64
    assert ptr.shape == (n_samples, n_steps + 1)
    assert idx.dtype == np.int32
    assert isinstance(n_units, int)
    if n_samples:
        assert ptr[0, 0] == 0
        assert ptr[-1, -1] == len(idx)
        assert (np.diff(ptr.ravel()) >= 0).all()
        assert (ptr[1:, 0] == ptr[:-1, -1]).all()
    for b, t in np.ndindex(n_samples, n_steps):
        assert (np.diff(idx[ptr[b, t] : ptr[b, t + 1]]) >= 0).all()


@settings(deadline=None, max_examples=80)
@given(batch=batches())
def test_no_event_is_lost_or_moved(batch):
    events, sensor, dt_us = batch
    binned = bin_events(events, dt_us=dt_us, sensor=sensor)
    n_steps = max((int(e["t"][-1]) // dt_us + 1 for e in events if len(e)), default=0)
    check_form(binned, len(events), n_steps)
    assert len(binned.idx) == sum(map(len, events))
    assert binned.n_units == 2 * sensor[0] * sensor[1]
    np.testing.assert_array_equal(dense(binned), naive(events, sensor, dt_us, n_steps))


@settings(deadline=None, max_examples=80)
@given(batch=batches(), n_steps=st.integers(1, 12))
def test_merging_and_a_given_number_of_steps(batch, n_steps):
    events, sensor, dt_us = batch
    want = naive(events, sensor, dt_us, n_steps)
    binned = bin_events(events, dt_us=dt_us, n_steps=n_steps, sensor=sensor)
    check_form(binned, len(events), n_steps)
    np.testing.assert_array_equal(dense(binned), want)
    merged = bin_events(events, dt_us=dt_us, n_steps=n_steps, sensor=sensor, merge=True)
    check_form(merged, len(events), n_steps)
    np.testing.assert_array_equal(dense(merged), np.minimum(want, 1))


def test_cropping_says_how_many(make_events, caplog):
    batch = [make_events([0, 99, 100, 350]), make_events([100]), make_events([5])]
    with caplog.at_level(logging.INFO):
        bin_events(batch, dt_us=10, n_steps=36)
    assert caplog.messages == []
    with caplog.at_level(logging.INFO):
        binned = bin_events(batch, dt_us=10, n_steps=10)
    assert len(binned.idx) == 3
    assert caplog.messages == ["dropped 3 events from 100 us on (n_steps = 10); the longest recording needs 36 steps"]
    assert caplog.records[0].levelno == logging.WARNING


def test_units_are_polarity_row_column(make_events):
    events = make_events([0, 0, 0], x=[4, 0, 1], y=[0, 2, 1], p=[0, 0, 1])
    assert bin_events([events], dt_us=1, sensor=(3, 5)).idx.tolist() == [4, 10, 15 + 5 + 1]


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("t", -1, "`t` must be from 0 to 1099511627775, got -1"),
        ("t", 2**40, "`t` must be from 0 to 1099511627775, got 1099511627776"),
        ("t", 5, "`t` must not decrease, got 5 after 20"),
        ("x", 34, "`x` must be from 0 to 33, got 34"),
        ("y", -2, "`y` must be from 0 to 33, got -2"),
        ("p", 2, "`p` must be from 0 to 1, got 2"),
    ],
)
def test_a_broken_record_is_named(make_events, field, value, fault):
    bad = make_events([10, 20, 30, 40])
    bad[field][2] = value
    with pytest.raises(ValueError, match="record") as caught:
        bin_events([make_events([1]), bad], dt_us=10)
    assert str(caught.value) == f"{fault} (record 2 of sample 1)."


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dt_us": 0}, ValueError, "`dt_us` must be from 1 to 1099511627776, got 0."),
        ({"dt_us": 0.5}, TypeError, "`dt_us` must be an integer, got 0.5."),
        ({"n_steps": 0}, ValueError, "`n_steps` must be from 1 to 1099511627776, got 0."),
        ({"n_steps": True}, TypeError, "`n_steps` must be an integer, got True."),
        ({"sensor": 34}, TypeError, "`sensor` must be a tuple (height, width), got 34."),
        ({"sensor": (34, 4096)}, ValueError, "`sensor` must be from 1 to 2048, got 4096."),
        (
            {"recordings": np.zeros(2, FIELDS)},
            TypeError,
            "`recordings` must be a sequence of structured arrays, got ndarray.",
        ),
        ({"recordings": [[1]]}, TypeError, "`events` must be a structured array, got list (sample 0)."),
        (
            {"recordings": [np.zeros(2, [("t", "f8")])]},
            TypeError,
            "`events` must be of shape [E] with integer fields x, y, t and p, "
            "got [('t', '<f8')] of shape (2,) (sample 0).",
        ),
    ],
)
def test_errors(arguments, error, message):
    arguments = {"recordings": [], "dt_us": 1000, **arguments}
    with pytest.raises(error) as caught:
        bin_events(**arguments)
    assert str(caught.value) == message


def test_real_recordings_become_valid_kernel_events(real_root):
    layout = pytest.importorskip("suspike_kernels.layout")
    recordings, _ = load(real_root, "test")
    binned = bin_events(recordings, dt_us=1000)
    assert len(binned.idx) == sum(map(len, recordings))
    assert 297 <= binned.ptr.shape[1] - 1 <= 337
    events = layout.check_events(layout.Events(*binned))
    counts = np.bincount(recordings[3]["t"] // 1000, minlength=events.n_steps)
    np.testing.assert_array_equal(events.per_step()[3], counts)
