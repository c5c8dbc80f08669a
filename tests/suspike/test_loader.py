"""Batches of Spikes: what is drawn, in which order, and what becomes of a recording on its way."""

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest

from suspike.augment import Augment, Sample, chain, drop, shift, shift_time, stretch
from suspike.loader import Loader, Recordings, batches, hold_out, hold_out_subjects, load
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


SENSOR = (2, 3, 3)
AUGMENT = chain(stretch(0.5, 2.0), shift(1, 1), shift_time(1), drop(0.2))
Drawn = dict[int, tuple[np.ndarray, int | None]]


def camera_recordings(n_samples: int = 10, *, n_steps: int = 6) -> Recordings:
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, n_steps, n_samples, endpoint=True)
    counts = rng.poisson(0.6, (n_steps, n_samples, 18)) * (np.arange(n_steps)[:, None] < lengths)[..., None]
    return Recordings(events_from_dense(counts), np.arange(n_samples), lengths, sensor=SENSOR)


def drawn(
    data: Recordings,
    epoch: int,
    *,
    batch_size: int = 10,
    shuffle: bool = True,
    workers: int = 0,
    seed: int = 1,
    augment: Augment = AUGMENT,
) -> Drawn:
    """Return what comes: events and length by label."""
    loader = batches(
        data, batch_size=batch_size, shuffle=shuffle, seed=seed, augment=augment, num_workers=workers
    )  # fmt: skip
    return by_label(loader, epoch)


def by_label(loader: Loader, epoch: int) -> Drawn:
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    found: Drawn = {}
    for spikes, labels in loader:
        for b, label in enumerate(labels.tolist()):
            length = None if spikes.n_steps is None else int(spikes.n_steps[b])
            found[label] = spikes.events.take([b]).dense()[:, 0], length
    return found


def alike(one: Drawn, other: Drawn) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(one[i][0], other[i][0]) and one[i][1] == other[i][1] for i in one
    )


def test_what_becomes_of_a_recording_hangs_on_seed_epoch_and_index_alone() -> None:
    data, epoch, seed = camera_recordings(), 4, 1
    found = drawn(data, epoch, seed=seed)
    assert data.n_steps is not None
    for i in range(10):
        step, unit = np.nonzero(one := data.events.take([i]).dense(int)[:, 0])
        step, unit = (np.repeat(x, one[one > 0]) for x in (step, unit))
        sample = Sample(step, unit.astype(np.int32), int(data.n_steps[i]), 6, SENSOR)
        out = AUGMENT(sample, np.random.default_rng([seed, epoch, 1 + i]))
        wanted = np.zeros((6, 18))
        np.add.at(wanted, (out.step, out.unit), 1)
        assert np.array_equal(found[i][0], wanted)
        assert found[i][1] == out.n_steps


@pytest.mark.parametrize("batch_size", [1, 3, 10])
@pytest.mark.parametrize("workers", [0, 1])
def test_neither_batch_nor_order_nor_worker_changes_it(batch_size: int, workers: int) -> None:
    data = camera_recordings()
    for epoch in (0, 3):
        wanted = drawn(data, epoch)
        assert alike(drawn(data, epoch, batch_size=batch_size, workers=workers), wanted)
        assert alike(drawn(data, epoch, batch_size=batch_size, shuffle=False, workers=workers), wanted)


def test_epochs_and_seeds_differ_and_an_epoch_comes_again() -> None:
    data = camera_recordings()
    loader = batches(data, batch_size=4, shuffle=True, seed=1, augment=AUGMENT)
    run = [by_label(loader, epoch) for epoch in range(4)]
    resumed = batches(data, batch_size=4, shuffle=True, seed=1, augment=AUGMENT)
    assert alike(by_label(resumed, 2), run[2])
    assert alike(by_label(resumed, 3), run[3])
    different = [*run, drawn(data, 0, seed=2)]
    assert not any(alike(a, b) for i, a in enumerate(different) for b in different[:i])


def test_no_recording_draws_the_numbers_of_the_order() -> None:
    heard: list[tuple[int, ...]] = []

    def listen(sample: Sample, generator: np.random.Generator) -> Sample:
        heard.append(tuple(generator.permutation(10).tolist()))
        return sample

    order = list(drawn(camera_recordings(), 0, augment=listen))
    assert len(set(heard)) == 10
    assert tuple(order) not in heard


def test_lengths_follow_where_there_are_any() -> None:
    data = camera_recordings()
    assert data.n_steps is not None
    later = drawn(data, 0, augment=shift_time(5))
    assert {i: length for i, (_, length) in later.items()} != dict(enumerate(data.n_steps.tolist()))
    without = drawn(data._replace(n_steps=None), 0, augment=shift_time(5))
    assert all(length is None for _, length in without.values())
    for i in later:
        assert np.array_equal(later[i][0], without[i][0])


def test_augmentation_of_nothing_changes_nothing() -> None:
    data = camera_recordings()
    loaders = [batches(data, batch_size=4, augment=augment) for augment in (chain(), None)]
    for (spikes, labels), (theirs, others) in zip(*loaders, strict=True):
        assert labels.tolist() == others.tolist()
        assert all(np.array_equal(a, b) for a, b in zip(spikes.events, theirs.events, strict=True))


STEPS = r"^`augment` must be of samples whose steps rise from 0 to at most 5, one for each unit, got others\.$"
UNITS = r"^`augment` must be of samples with int32 units from 0 to 17 and `n_steps` from 0 to 6, got others\.$"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda sample, _: sample._replace(step=sample.step[::-1]), STEPS),
        (lambda sample, _: sample._replace(step=sample.step + 6), STEPS),
        (lambda sample, _: sample._replace(step=sample.step - 6), STEPS),
        (lambda sample, _: sample._replace(step=sample.step * 1.0), STEPS),
        (lambda sample, _: sample._replace(unit=sample.unit[:-1]), STEPS),
        (lambda sample, _: sample._replace(unit=sample.unit + np.int32(18)), UNITS),
        (lambda sample, _: sample._replace(unit=sample.unit - np.int32(18)), UNITS),
        (lambda sample, _: sample._replace(unit=sample.unit.astype(np.int64)), UNITS),
        (lambda sample, _: sample._replace(n_steps=7), UNITS),
        (lambda sample, _: sample._replace(n_steps=2.0), UNITS),
        (lambda sample, _: tuple(sample), r"^`augment` must be of samples that become samples, got tuple\. Return"),
    ],
)
def test_an_augmentation_of_no_samples_is_refused(wrong: Augment, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        drawn(camera_recordings()._replace(n_steps=None), 0, augment=wrong)


def test_the_sensor_is_known_and_fits() -> None:
    data = camera_recordings()
    for part in (data.take([3, 1]), *hold_out(data, 0.5), *hold_out_subjects(data._replace(subjects=data.labels), [2])):
        assert part.sensor == SENSOR
    with pytest.raises(
        ValueError, match=r"^`recordings.sensor` must be known where `augment` is given, got None\. Name"
    ):
        batches(data._replace(sensor=None), batch_size=2, augment=AUGMENT)
    for sensor in ((2, 3, 4), (18,)):
        with pytest.raises(ValueError, match=r"^`recordings.sensor` must be \(P, H, W\) of 18 units, got \("):
            batches(data._replace(sensor=sensor), batch_size=2)  # type: ignore[arg-type]


def test_mapped_recordings_are_mapped_by_a_worker_too(tmp_path: Path) -> None:
    folder = tmp_path / "NMNIST" / "Test" / "4"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(1, 5):
        events = np.zeros(2000, FIELDS)
        for name, end in (("x", 34), ("y", 34), ("p", 2)):
            events[name] = rng.integers(0, end, 2000)
        events["t"] = np.sort(rng.integers(0, 300_000, 2000))
        write_recording(folder / f"{number:05d}.bin", events)
    data = load("nmnist", root=tmp_path, split="test", dt_ms=10, cache=tmp_path / "cache", pool=(1, 2, 2))
    assert data.sensor == (2, 17, 17)
    assert isinstance(data.events.idx, np.memmap)
    mapped, copied = (
        batches(x, batch_size=3, shuffle=True, seed=1, augment=shift(1, 1), num_workers=1)
        for x in (data, data.take(range(4)))
    )  # fmt: skip
    sizes = [len(pickle.dumps(loader.dataset)) for loader in (mapped, copied)]
    assert sizes[0] < 5000 < 4 * 8000 < sizes[1]
    ptr, idx, n_units = data.events
    part = Events(ptr[1:2] - ptr[1, 0], idx[ptr[1, 0] : ptr[1, -1]], n_units)  # a part of a mapping
    private = np.memmap(idx.filename, idx.dtype, "c", idx.offset, idx.shape)
    private[:3] = 0  # in memory alone
    for events in (part, Events(ptr, private, n_units)):
        dataset = batches(Recordings(events, np.zeros(events.n_samples)), batch_size=2).dataset
        arrived = pickle.loads(pickle.dumps(dataset)).recordings.events
        assert all(np.array_equal(a, b) for a, b in zip(arrived, events, strict=True))
    wanted = by_label(batches(data, batch_size=3, shuffle=True, seed=1, augment=shift(1, 1)), 2)
    mapped.multiprocessing_context = "spawn"
    assert alike(by_label(mapped, 2), wanted)


def test_labels_must_fit() -> None:
    events, labels, *_ = some_recordings()
    with pytest.raises(ValueError, match=r"^`recordings.labels` must be of 10 recordings, got 9\.$"):
        batches(Recordings(events, labels[:9]), batch_size=2)
    with pytest.raises(ValueError, match=r"^`recordings.subjects` must be of 10 recordings, got 11\.$"):
        batches(Recordings(events, labels, None, np.zeros(11)), batch_size=2)


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
    assert data.sensor == (2, 34, 34)
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
