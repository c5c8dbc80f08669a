import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suspike_datasets import BinnedEvents, bin_events, from_recordings, load

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


def binned_of(batch, sensor=(34, 34), **options):
    return bin_events(from_recordings(batch, sensor=(2, *sensor)), **options)


def naive(batch, sensor, dt_us, n_steps):
    """Counts [B, T, 2, H, W], event by event."""
    counts = np.zeros((len(batch), n_steps, 2, *sensor), int)
    for b, events in enumerate(batch):
        for e in events:
            if e["t"] // dt_us < n_steps:
                counts[b, e["t"] // dt_us, int(e["p"]), e["y"], e["x"]] += 1
    return counts.reshape(len(batch), n_steps, 2 * sensor[0] * sensor[1])


def dense(binned):
    ptr, idx = binned.ptr, binned.idx
    counts = np.zeros((len(ptr), ptr.shape[1] - 1, binned.n_units), int)
    for b, t in np.ndindex(counts.shape[:2]):
        np.add.at(counts[b, t], idx[ptr[b, t] : ptr[b, t + 1]], 1)
    return counts


def check_form(binned, n_samples, n_steps):
    assert type(binned) is BinnedEvents
    assert binned._fields == ("ptr", "idx", "sensor", "n_steps")
    ptr, idx = binned.ptr, binned.idx
    assert ptr.dtype == np.int64
    assert ptr.shape == (n_samples, n_steps + 1)
    assert idx.dtype == np.int32
    assert isinstance(binned.n_units, int)
    assert binned.n_steps.shape == (n_samples,)
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
    binned = binned_of(events, sensor, dt_us=dt_us)
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
    binned = binned_of(events, sensor, dt_us=dt_us, n_steps=n_steps)
    check_form(binned, len(events), n_steps)
    np.testing.assert_array_equal(dense(binned), want)
    merged = binned_of(events, sensor, dt_us=dt_us, n_steps=n_steps, merge=True)
    check_form(merged, len(events), n_steps)
    np.testing.assert_array_equal(dense(merged), np.minimum(want, 1))


def test_cropping_says_how_many(make_events, caplog):
    batch = [make_events([0, 99, 100, 350]), make_events([100]), make_events([5])]
    with caplog.at_level(logging.INFO):
        binned_of(batch, dt_us=10, n_steps=36)
    assert caplog.messages == []
    with caplog.at_level(logging.INFO):
        binned = binned_of(batch, dt_us=10, n_steps=10)
    assert len(binned.idx) == 3
    assert caplog.messages == ["dropped 3 events from 100 us on (n_steps = 10); the longest recording needs 36 steps"]
    assert caplog.records[0].levelno == logging.WARNING


def test_units_are_polarity_row_column(make_events):
    events = make_events([0, 0, 0], x=[4, 0, 1], y=[0, 2, 1], p=[0, 0, 1])
    assert binned_of([events], (3, 5), dt_us=1).idx.tolist() == [4, 10, 15 + 5 + 1]


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("t", -1, "`t` must be from 0 to 2147483647, got -1"),
        ("t", 2**31, "`t` must be from 0 to 2147483647, got 2147483648"),
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
        binned_of([make_events([1]), bad], dt_us=10)
    assert str(caught.value) == f"{fault} (record 2 of sample 1)."


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dt_us": 0}, ValueError, "`dt_us` must be from 1 to 2147483648, got 0."),
        ({"dt_us": 0.5}, TypeError, "`dt_us` must be an integer, got 0.5."),
        ({"dt_us": None}, ValueError, "`dt_us` or `n_steps` must be given, got neither."),
        ({"n_steps": 0}, ValueError, "`n_steps` must be from 1 to 2147483647, got 0."),
        ({"n_steps": True}, TypeError, "`n_steps` must be an integer, got True."),
        ({"pool": 2}, TypeError, "`pool` must be a tuple (channels, rows, columns), got 2."),
        ({"pool": (3, 1, 1)}, ValueError, "`pool` must be from 1 to 2, got 3."),
        ({"window": (0, 3)}, TypeError, "`window` must be ((top, bottom), (left, right)), got (0, 3)."),
        (
            {"window": ((0, 3), (2, 2))}, ValueError,
            "`window` must hold at least a row and a column, got ((0, 3), (2, 2)).",
        ),
        (
            {"window": ((0, 9999), (0, 9999))}, ValueError,
            "`window` must leave fewer than 16777216 units, got (2, 9999, 9999).",
        ),
    ],
)  # fmt: skip
def test_errors(arguments, error, message):
    with pytest.raises(error) as caught:
        binned_of([], **{"dt_us": 1000, **arguments})
    assert str(caught.value) == message


@settings(deadline=None, max_examples=80)
@given(batch=batches(), data=st.data())
def test_windows_and_pools(batch, data):
    events, (height, width), dt_us = batch
    top, left = data.draw(st.integers(-2, height - 1)), data.draw(st.integers(-2, width - 1))
    bottom, right = top + data.draw(st.integers(1, 8)), left + data.draw(st.integers(1, 8))
    pool = tuple(data.draw(st.integers(1, n)) for n in (2, bottom - top, right - left))
    n_steps = max((int(e["t"][-1]) // dt_us + 1 for e in events if len(e)), default=0)
    full = naive(events, (height, width), dt_us, n_steps).reshape(len(events), n_steps, 2, height, width)
    framed = np.pad(full, [(0, 0)] * 3 + [(2, 10)] * 2)[..., top + 2 : bottom + 2, left + 2 : right + 2]
    for axis, by in zip((2, 3, 4), pool, strict=True):
        framed = np.add.reduceat(framed, np.arange(0, framed.shape[axis], by), axis=axis)
    binned = binned_of(events, (height, width), dt_us=dt_us, window=((top, bottom), (left, right)), pool=pool)
    check_form(binned, len(events), n_steps)
    assert binned.sensor == framed.shape[2:]
    np.testing.assert_array_equal(dense(binned), framed.reshape(len(events), n_steps, binned.n_units))


@settings(deadline=None, max_examples=80)
@given(batch=batches(), n_steps=st.integers(1, 12))
def test_recordings_stretched_over_a_number_of_steps(batch, n_steps):
    events, sensor, _ = batch
    binned = binned_of(events, sensor, n_steps=n_steps)
    check_form(binned, len(events), n_steps)
    want = np.zeros((len(events), n_steps, 2, *sensor), int)
    for b, recording in enumerate(events):
        for e in recording:
            step = int(e["t"]) * n_steps // (int(recording["t"][-1]) + 1)
            want[b, step, int(e["p"]), e["y"], e["x"]] += 1
    np.testing.assert_array_equal(dense(binned), want.reshape(len(events), n_steps, binned.n_units))
    assert binned.n_steps.tolist() == [n_steps if len(e) else 0 for e in events]


def test_lengths_end_behind_the_last_event(make_events):
    batch = [make_events([0, 99]), make_events([]), make_events([100]), make_events([350])]
    assert binned_of(batch, dt_us=10).n_steps.tolist() == [10, 0, 11, 36]
    assert binned_of(batch, dt_us=10, n_steps=11).n_steps.tolist() == [10, 0, 11, 11]


def test_the_longest_times(make_events):
    batch = [make_events([2**31 - 1])]
    assert binned_of(batch, dt_us=2**31).n_steps.tolist() == [1]
    assert binned_of(batch, dt_us=1, n_steps=10).n_steps.tolist() == [10]


def test_events_outside_of_a_window_are_counted(make_events, caplog):
    batch = [make_events([0, 1, 2], x=[0, 5, 33], y=[7, 7, 7])]
    assert len(binned_of(batch, dt_us=10, window=((0, 34), (0, 34))).idx) == 3
    assert caplog.messages == []
    assert binned_of(batch, dt_us=10, window=((7, 8), (4, 6))).idx.tolist() == [1]
    assert caplog.messages == ["dropped 2 events outside of the window ((7, 8), (4, 6))"]


def test_real_recordings_become_valid_kernel_events(real_root):
    layout = pytest.importorskip("suspike_kernels.layout")
    recordings = load("nmnist", root=real_root, split="test")
    binned = bin_events(recordings, dt_us=1000)
    assert len(binned.idx) == len(recordings.t)
    assert 297 <= binned.ptr.shape[1] - 1 <= 337
    events = layout.check_events(layout.Events(binned.ptr, binned.idx, binned.n_units))
    layout.check_lengths(binned.n_steps, events)
    counts = np.bincount(recordings.recording(3)["t"] // 1000, minlength=events.n_steps)
    np.testing.assert_array_equal(events.per_step()[3], counts)
