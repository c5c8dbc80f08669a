"""Batches of Spikes: what is drawn, in which order, and how a camera's events are shifted."""

import logging
from pathlib import Path

import numpy as np
import pytest

from suspike.loader import Recordings, batches, load_nmnist, shift_camera
from suspike_datasets import write_recording
from suspike_kernels.layout import Events, events_from_dense

FIELDS = [("x", np.int64), ("y", np.int64), ("t", np.int64), ("p", np.int64)]


def some_recordings(n_samples: int = 10, *, n_units: int = 6, seed: int = 0) -> Recordings:
    counts = np.random.default_rng(seed).poisson(0.4, (5, n_samples, n_units))
    return Recordings(events_from_dense(counts), np.arange(n_samples))


def test_every_recording_comes_once_with_its_label_and_its_events() -> None:
    data = some_recordings()
    seen = []
    for spikes, labels in batches(data, batch_size=4, shuffle=True, seed=3):
        seen += labels.tolist()
        assert (spikes.events.dense() == data.events.take(labels.numpy()).dense()).all()
    assert sorted(seen) == list(range(10))
    assert seen != list(range(10))


def test_order_follows_from_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        loader = batches(some_recordings(), batch_size=3, shuffle=True, seed=seed)
        loader.sampler.set_epoch(epoch)
        return [int(label) for _, labels in loader for label in labels]

    assert order(1, 4) == order(1, 4)
    assert order(1, 4) != order(1, 5)
    assert order(1, 4) != order(2, 4)


def test_augmentation_follows_from_seed_and_epoch_alone() -> None:
    data = Recordings(some_recordings(n_units=2 * 3 * 3).events, np.arange(10))

    def drawn(epoch: int) -> np.ndarray:
        loader = batches(data, batch_size=10, seed=1, augment=shift_camera((3, 3), 1))
        loader.sampler.set_epoch(epoch)
        return next(iter(loader))[0].events.dense()

    assert (drawn(0) == drawn(0)).all()
    assert (drawn(0) != drawn(1)).any()


def test_shift_moves_whole_recordings_and_drops_what_leaves() -> None:
    height, width = 4, 5
    counts = np.random.default_rng(0).poisson(0.5, (6, 7, 2 * height * width))
    events = events_from_dense(counts)
    moved = shift_camera((height, width), 2)(events, np.random.default_rng(5)).dense()
    images, shifted = (a.reshape(6, 7, 2, height, width) for a in (counts, moved))
    found = set()
    for b in range(7):
        padded = np.pad(images[:, b], ((0, 0), (0, 0), (2, 2), (2, 2)))
        fits = [
            (dy, dx)
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            if (padded[:, :, 2 - dy : 2 - dy + height, 2 - dx : 2 - dx + width] == shifted[:, b]).all()
        ]
        assert len(fits) == 1
        found.add(fits[0])
    assert len(found) > 1


def test_shift_by_nothing_changes_nothing() -> None:
    events = some_recordings(n_units=2 * 3 * 3).events
    same = shift_camera((3, 3), 0)(events, np.random.default_rng(0))
    assert all(np.array_equal(a, b) for a, b in zip(same, events, strict=True))


def test_labels_must_fit() -> None:
    events, labels = some_recordings()
    with pytest.raises(ValueError, match=r"^`recordings.labels` must be of 10 recordings, got 9\.$"):
        batches(Recordings(events, labels[:9]), batch_size=2)


def test_unsorted_events_are_refused_before_a_kernel_sees_them() -> None:
    events, labels = some_recordings()
    wrong = events.idx.copy()
    wrong[3] = 6
    with pytest.raises(ValueError, match=r"^`recordings.events.idx` must be units from 0 to n_units - 1 = 5, got 6 at"):
        batches(Recordings(Events(events.ptr, wrong, 6), labels), batch_size=2)


def test_nmnist_arrives_in_steps_through_tonic(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for digit, number, times in ((3, 2, [0, 900, 1000, 5999]), (7, 1, [10])):
        folder = tmp_path / "NMNIST" / "Train" / str(digit)
        folder.mkdir(parents=True)
        events = np.array([(i, digit, t, 1) for i, t in enumerate(times)], FIELDS)
        write_recording(folder / f"{number:05d}.bin", events)
    data = load_nmnist(tmp_path, "train", dt_ms=1)
    assert data.labels.tolist() == [7, 3]
    assert data.events.n_steps == 6
    assert data.events.n_units == 2 * 34 * 34
    unit = 34 * 34 + 34 * 3  # p = 1, y = 3, x = 0
    step, place = np.nonzero(data.events.dense()[:, 1])
    assert list(zip(step.tolist(), place.tolist(), strict=True)) == [
        (0, unit), (0, unit + 1), (1, unit + 2), (5, unit + 3)
    ]  # fmt: skip
    with caplog.at_level(logging.WARNING):
        assert len(load_nmnist(tmp_path, "train", dt_ms=1, n_steps=2).events.idx) == 4
    assert "dropped 1 events" in caplog.text
    with pytest.raises(ValueError, match=r"^`dt_ms` must be a whole number of microseconds above 0, got 0.0001 ms\.$"):
        load_nmnist(tmp_path, "train", dt_ms=0.0001)
    with pytest.raises(ValueError, match=r"^`split` must be train or test, got 'valid'\.$"):
        load_nmnist(tmp_path, "valid", dt_ms=1)
