import numpy as np
import pytest

from suspike_datasets import from_recordings
from suspike_datasets.sets import check_set

SENSOR = (2, 5, 7)


def some(make_events, n=6, seed=0):
    rng = np.random.default_rng(seed)
    recordings = []
    for size in rng.integers(0, 30, n):
        t = np.sort(rng.integers(0, 1000, size))
        recordings.append(
            make_events(t, rng.integers(0, 7, size), rng.integers(0, 5, size), rng.integers(0, 2, size))
        )  # fmt: skip
    return recordings


def test_recordings_come_back_as_they_were(make_events):
    recordings = some(make_events)
    events = from_recordings(recordings, sensor=SENSOR, labels=range(6), classes=tuple("abcdef"))
    assert check_set(events, "here") is events
    assert events.n_units == 70
    assert events.subjects.tolist() == [-1] * 6
    chosen = [4, 0, 4, 5]
    taken = check_set(events.take(chosen), "taken")
    assert taken.labels.tolist() == chosen
    for b, recording in enumerate(recordings):
        np.testing.assert_array_equal(events.recording(b), recording)
    for b, i in enumerate(chosen):
        np.testing.assert_array_equal(taken.recording(b), recordings[i])
    assert len(events.take([]).t) == 0
    np.testing.assert_array_equal(events.take([-1]).recording(-1), recordings[-1])
    with pytest.raises(IndexError):
        events.take([6])
    with pytest.raises(TypeError, match=r"^`samples` must be whole numbers, got bool\."):
        events.take(np.array([False, True]))


def test_a_cochlea_needs_no_rows_and_no_polarity():
    recording = np.array([(3, 5), (9, 699)], [("t", "u4"), ("x", "u2")])
    events = from_recordings([recording], sensor=(1, 1, 700))
    assert events.unit.tolist() == [5, 699]
    assert events.recording(0)["p"].tolist() == [0, 0]
    recording["x"][1] = 700
    with pytest.raises(ValueError, match=r"^`x` must be from 0 to 699, got 700 \(record 1 of sample 0\)\.$"):
        from_recordings([recording], sensor=(1, 1, 700))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t": (3, -1)}, "`t` must be from 0 to 2147483647, got -1 (record 0 of recording 1, here)."),
        ({"t": (4, 0)}, "`t` must not decrease, got 0 after 8 (record 1 of recording 1, here)."),
        ({"unit": (5, 70)}, "`unit` must be from 0 to 69, got 70 (record 2 of recording 1, here)."),
        ({"unit": (0, -1)}, "`unit` must be from 0 to 69, got -1 (record 0 of recording 0, here)."),
        ({"start": (1, 7)}, "`start` must be 3 offsets from 0 to 6 that do not decrease (here)."),
        ({"start": (2, 5)}, "`start` must be 3 offsets from 0 to 6 that do not decrease (here)."),
        ({"labels": (1, 2)}, "`labels` must be from 0 to 1, got 2 (recording 1, here)."),
    ],
)
def test_a_broken_set_is_named(make_events, change, message):
    recordings = [make_events([1, 2, 2]), make_events([8, 8, 9])]
    events = from_recordings(recordings, sensor=SENSOR, labels=[0, 1], classes=("a", "b"))
    ((name, (at, value)),) = change.items()
    array = getattr(events, name).copy()
    array[at] = value
    with pytest.raises(ValueError, match="must") as caught:
        check_set(events._replace(**{name: array}), "here")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sensor": 34}, TypeError, "`sensor` must be a tuple (channels, rows, columns), got 34."),
        ({"sensor": (1, 2.0, 3)}, TypeError, "`sensor` must hold integers, got (1, 2.0, 3)."),
        (
            {"sensor": (2, 4096, 4096)}, ValueError,
            "`sensor` must hold numbers from 1 on, of fewer than 16777216 units, got (2, 4096, 4096).",
        ),
        (
            {"recordings": np.zeros(2, [("t", "i8")])}, TypeError,
            "`recordings` must be a sequence of structured arrays, got ndarray.",
        ),
        ({"recordings": [[1]]}, TypeError, "`events` must be a structured array, got list (sample 0)."),
        (
            {"recordings": [np.zeros(2, [("t", "f8")])]}, TypeError,
            "`events` must be of shape [E] with integer fields p, t, x, y, "
            "got [('t', '<f8')] of shape (2,) (sample 0).",
        ),
        ({"labels": [1]}, ValueError, "`labels` must be those of 0 recordings, got shape (1,)."),
    ],
)  # fmt: skip
def test_errors(arguments, error, message):
    with pytest.raises(error) as caught:
        from_recordings(**{"recordings": [], "sensor": SENSOR, **arguments})
    assert str(caught.value) == message
