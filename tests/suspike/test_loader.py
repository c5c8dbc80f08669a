"""Batches of Spikes: what is drawn, in which order, and how a camera's events are shifted."""

import logging
from pathlib import Path

import numpy as np
import pytest

from suspike.loader import Recordings, batches, hold_out, hold_out_subjects, load, shift_camera
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
    events, labels, *_ = some_recordings()
    with pytest.raises(ValueError, match=r"^`recordings.labels` must be of 10 recordings, got 9\.$"):
        batches(Recordings(events, labels[:9]), batch_size=2)


def test_unsorted_events_are_refused_before_a_kernel_sees_them() -> None:
    events, labels, *_ = some_recordings()
    wrong = events.idx.copy()
    wrong[3] = 6
    with pytest.raises(ValueError, match=r"^`recordings.events.idx` must be units from 0 to n_units - 1 = 5, got 6 at"):
        batches(Recordings(Events(events.ptr, wrong, 6), labels), batch_size=2)


def test_nmnist_arrives_in_steps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for digit, number, times in ((3, 2, [0, 900, 1000, 5999]), (7, 1, [10])):
        folder = tmp_path / "NMNIST" / "Train" / str(digit)
        folder.mkdir(parents=True)
        events = np.array([(i, digit, t, 1) for i, t in enumerate(times)], FIELDS)
        write_recording(folder / f"{number:05d}.bin", events)
    data = load("nmnist", root=tmp_path, split="train", dt_ms=1)
    assert data.labels.tolist() == [7, 3]
    assert data.events.n_steps == 6
    assert data.n_steps is not None
    assert data.n_steps.tolist() == [1, 6]
    for spikes, labels in batches(data, batch_size=2, shuffle=True, seed=1):
        assert spikes.n_steps is not None
        assert dict(zip(labels.tolist(), spikes.n_steps.tolist(), strict=True)) == {7: 1, 3: 6}
    cached = [load("nmnist", root=tmp_path, split="train", dt_ms=1, cache=tmp_path / "cache") for _ in range(2)]
    for found in cached:  # the second one is mapped
        mine, theirs = (next(iter(batches(x, batch_size=2)))[0].dense() for x in (found, data))
        assert (mine == theirs).all()
    assert data.events.n_units == 2 * 34 * 34
    unit = 34 * 34 + 34 * 3  # p = 1, y = 3, x = 0
    step, place = np.nonzero(data.events.dense()[:, 1])
    assert list(zip(step.tolist(), place.tolist(), strict=True)) == [
        (0, unit), (0, unit + 1), (1, unit + 2), (5, unit + 3)
    ]  # fmt: skip
    with caplog.at_level(logging.WARNING):
        assert len(load("nmnist", root=tmp_path, split="train", dt_ms=1, n_steps=2).events.idx) == 4
    assert "dropped 1 events" in caplog.text
    with pytest.raises(ValueError, match=r"^`dt_ms` must be a whole number of microseconds above 0, got 0.0001 ms\.$"):
        load("nmnist", root=tmp_path, split="train", dt_ms=0.0001)
    with pytest.raises(ValueError, match=r"^`split` must be 'train' or 'test', got 'valid'\.$"):
        load("nmnist", root=tmp_path, split="valid", dt_ms=1)


def test_workers_draw_the_same_batches() -> None:
    data = Recordings(some_recordings(n_units=2 * 3 * 3).events, np.arange(10), np.full(10, 5))

    def drawn(num_workers: int, epoch: int) -> list[tuple[list[int], np.ndarray]]:
        loader = batches(
            data, batch_size=4, shuffle=True, seed=1, augment=shift_camera((3, 3), 1), num_workers=num_workers
        )  # fmt: skip
        loader.sampler.set_epoch(epoch)
        return [(labels.tolist(), spikes.events.dense()) for spikes, labels in loader]

    for epoch in (0, 3):
        for (labels, counts), (theirs, others) in zip(drawn(0, epoch), drawn(1, epoch), strict=True):
            assert labels == theirs
            assert (counts == others).all()
    assert drawn(1, 0)[0][0] != drawn(1, 3)[0][0]


def test_a_share_of_each_class_is_held_out() -> None:
    events = some_recordings(50).events
    data = Recordings(events, np.arange(50) % 3, np.full(50, 5), np.arange(50))
    rest, held = hold_out(data, 0.2, seed=4)
    assert np.bincount(held.labels).tolist() == [3, 3, 3]
    assert rest.subjects is not None
    assert held.subjects is not None
    assert len(set(held.subjects.tolist())) == 9
    assert sorted([*rest.subjects, *held.subjects]) == list(range(50))
    assert (held.events.dense() == events.take(held.subjects).dense()).all()
    assert hold_out(data, 0.2, seed=4)[1].subjects.tolist() == held.subjects.tolist()  # type: ignore[union-attr]
    assert hold_out(data, 0.2, seed=5)[1].subjects.tolist() != held.subjects.tolist()  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"^`share` must be from 0 to 1, got 2\.$"):
        hold_out(data, 2)


def test_whole_subjects_are_held_out() -> None:
    data = Recordings(some_recordings(12).events, np.arange(12), None, np.arange(12) % 4)
    rest, held = hold_out_subjects(data, [3, 1])
    assert held.labels.tolist() == [1, 3, 5, 7, 9, 11]
    assert rest.labels.tolist() == [0, 2, 4, 6, 8, 10]
    with pytest.raises(ValueError, match=r"^`subjects` must be among \[0, 1, 2, 3\], got \[7\]"):
        hold_out_subjects(data, [1, 7])
    with pytest.raises(ValueError, match=r"^`recordings` must be of known subjects, got recordings without"):
        hold_out_subjects(data._replace(subjects=None), [1])
