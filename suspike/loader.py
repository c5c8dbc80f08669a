"""Event data for training: recordings as event lists, and a DataLoader whose batches are Spikes."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from suspike._validate import fail
from suspike.augment import Augment, Sample
from suspike.spikes import Spikes
from suspike_kernels.layout import Events, check_events, check_lengths

Loader = DataLoader[tuple[Spikes, Tensor]]
"""Batches of (Spikes of [T, batch, n_units], labels int64 [batch])."""


class Recordings(NamedTuple):
    """Labelled recordings in time steps.

    Attributes
    ----------
    events : Events [B, T]
    labels : int64 [B]
    n_steps : int64 [B], optional
        True length of each; all T without it.
    subjects : int64 [B], optional
        Who spoke, wrote or moved.
    sensor : (int, int, int), optional
        Channels P, rows H, columns W of the units, ``(p * H + y) * W + x``; augmentation asks for it.
    """

    events: Events
    labels: np.ndarray
    n_steps: np.ndarray | None = None
    subjects: np.ndarray | None = None
    sensor: tuple[int, int, int] | None = None

    def take(self, samples: Sequence[int] | np.ndarray) -> Recordings:
        """Return the recordings named by index, in that order."""
        chosen = np.asarray(samples, np.int64)
        n_steps, subjects = (None if x is None else x[chosen] for x in (self.n_steps, self.subjects))
        return Recordings(self.events.take(samples), self.labels[chosen], n_steps, subjects, self.sensor)


def load(
    name: Literal["nmnist", "shd", "ssc", "dvsgesture", "smnist", "psmnist"],
    *,
    root: str | os.PathLike[str],
    split: str,
    dt_ms: float | None = None,
    n_steps: int | None = None,
    window: tuple[tuple[int, int], tuple[int, int]] | None = None,
    pool: tuple[int, int, int] = (1, 1, 1),
    merge: bool = False,
    damaged: Literal["refuse", "skip"] = "refuse",
    cache: str | os.PathLike[str] | None = None,
) -> Recordings:
    """Load a part of a data set in time steps: the whole of it, or what there is. Nothing is ever fetched.

    Parameters
    ----------
    name : {"nmnist", "shd", "ssc", "dvsgesture", "smnist", "psmnist"}
    root : path
        The folder that holds ``NMNIST/{Train,Test}/<digit>/NNNNN.bin``, ``SHD/shd_<split>.h5``,
        ``SSC/ssc_<split>.h5``, ``DVSGesture/ibmGesture{Train,Test}/user<number>_<lighting>/<label>.npy`` or
        ``smnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte``.
    split : {"train", "test"}, "valid" too for "ssc"
    dt_ms : float, optional
        Length of a step in ms, a whole number of microseconds. Without it each recording is stretched over `n_steps`.
    n_steps : int, optional
        Steps T; by default as many as the longest recording needs. What lies behind is dropped; a warning counts it.
    window : ((int, int), (int, int)), optional
        Rows from top up to bottom, columns from left up to right, of the sensor.
    pool : (int, int, int)
        How many channels (polarities), rows and columns become one; SHD's 700 units are columns.
    merge : bool
        Keep at most one event of a unit in a step; by default all stay.
    damaged : {"refuse", "skip"}
        What to do with a damaged recording; a warning counts those that are skipped.
    cache : path, optional
        Recordings in steps are kept there: another call with the same arguments reads and bins nothing.

    Raises
    ------
    ImportError
        If h5py is missing where it is needed (the `datasets` extra).
    ValueError, OSError
        If a recording is damaged, there are none, or the cache cannot be written.
    """
    from suspike_datasets import load_binned

    if dt_ms is not None and not (
        math.isfinite(dt_ms) and dt_ms > 0 and abs(dt_ms * 1000 - round(dt_ms * 1000)) < 1e-6
    ):
        fail("dt_ms", "a whole number of microseconds above 0", f"{dt_ms} ms")
    dt_us = None if dt_ms is None else round(dt_ms * 1000)
    found = load_binned(
        name, root=root, split=split, dt_us=dt_us, n_steps=n_steps, window=window, pool=pool, merge=merge,
        damaged=damaged, cache=cache,
    )  # fmt: skip
    binned = found.events
    events = Events(binned.ptr, binned.idx, binned.n_units)
    return Recordings(events, found.labels, binned.n_steps, found.subjects, binned.sensor)


def hold_out(recordings: Recordings, share: float, *, seed: int = 0) -> tuple[Recordings, Recordings]:
    """Return the recordings in two parts: most, and of each class a random `share`; the same on every machine.

    Parameters
    ----------
    recordings : Recordings
    share : float
        Of each class, rounded, 0 to 1.
    seed : int
    """
    if not 0 <= share <= 1:
        fail("share", "from 0 to 1", f"{share}")
    # raw bits: numpy may change how it makes permutations of them, not the bits
    draw = np.random.PCG64(seed).random_raw(len(recordings.labels))
    is_out = np.zeros(len(recordings.labels), bool)
    for label in np.unique(recordings.labels):
        members = np.flatnonzero(recordings.labels == label)
        order = members[np.argsort(draw[members], kind="stable")]
        is_out[order[: round(share * len(members))]] = True
    return recordings.take(np.flatnonzero(~is_out)), recordings.take(np.flatnonzero(is_out))


def hold_out_subjects(recordings: Recordings, subjects: Sequence[int]) -> tuple[Recordings, Recordings]:
    """Return the recordings in two parts: those of other subjects, and those of `subjects`, in their order."""
    if recordings.subjects is None or (recordings.subjects < 0).all():
        fail("recordings", "of known subjects", "recordings without")
    absent = sorted(set(subjects) - set(recordings.subjects.tolist()))
    if absent:
        there = sorted(set(recordings.subjects.tolist()))
        fail("subjects", f"among {there}", f"{absent}")
    is_out = np.isin(recordings.subjects, np.asarray(subjects))
    return recordings.take(np.flatnonzero(~is_out)), recordings.take(np.flatnonzero(is_out))


def load_digits(
    cache: str | os.PathLike[str],
    *,
    dt_ms: float,
    n_steps: int | None = None,
    merge: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Recordings, Recordings]:
    """Load scikit-learn's digits as an event camera sees them: 1,437 recordings to train on, 360 held out.

    They are encoded into N-MNIST's format under `cache` once (`suspike_datasets.digits_as_nmnist`), which calls
    ``progress(done, total)``. Other parameters and errors are those of `load`; all recordings count as T steps long.
    """
    from suspike_datasets import digits_as_nmnist

    root = digits_as_nmnist(cache, progress=progress)
    train, held_out = (
        load("nmnist", root=root, split=s, dt_ms=dt_ms, n_steps=n_steps, merge=merge)._replace(n_steps=None)
        for s in ("train", "test")
    )
    return train, held_out


def batches(
    recordings: Recordings,
    *,
    batch_size: int,
    shuffle: bool = False,
    seed: int = 0,
    augment: Augment | None = None,
    num_workers: int = 0,
) -> Loader:
    """Return a DataLoader of (Spikes of [T, batch, n_units], labels int64 [batch]).

    Parameters
    ----------
    recordings : Recordings
        Arrays that are mapped into memory from a cache are mapped by workers too, not sent to them: the cache has to
        stay as long as workers may start.
    batch_size : int
    shuffle : bool
        In an order drawn from `seed` and the epoch alone (``loader.sampler.set_epoch``, which Lightning calls).
    seed : int
    augment : callable (sample, generator) -> sample, optional
        One of `suspike.augment`, or one like them. Applied to each recording as it is drawn, with a generator made from
        `seed`, the epoch and the recording's index: what becomes of it hangs on neither batch nor worker. Recordings
        without `n_steps` stay without: all last T steps, whatever became of a sample's own.
    num_workers : int
        Processes that draw batches; a batch is one gather from memory, so they help only where `augment` is slow.

    Raises
    ------
    ValueError
        If the recordings' parts do not fit together, or are augmented without a `sensor`.
    """
    data = _Batches(recordings, seed, augment)
    order = _Order(len(data), seed, shuffle=shuffle)
    drawn: Any = _as_drawn  # a batch, not a list of samples
    return DataLoader(data, batch_size=batch_size, sampler=order, collate_fn=drawn, num_workers=num_workers)


_Drawn = tuple[int, int]
"""An epoch and the index of a recording: a worker's copy of the data set does not hear of the epoch otherwise."""


class _Batches(Dataset[tuple[Spikes, Tensor]]):
    """Takes a whole batch of indices at once: one gather instead of one for each sample."""

    def __init__(self, recordings: Recordings, seed: int, augment: Augment | None) -> None:
        events, sensor = recordings.events, recordings.sensor
        check_events(events, "recordings.events")
        for name in ("labels", "n_steps", "subjects"):
            given = getattr(recordings, name)
            if given is not None and len(given) != events.n_samples:
                fail(f"recordings.{name}", f"of {events.n_samples} recordings", f"{len(given)}")
        if recordings.n_steps is not None:
            check_lengths(recordings.n_steps, events)
        if sensor is not None and (len(sensor) != 3 or math.prod(sensor) != events.n_units):
            fail("recordings.sensor", f"(P, H, W) of {events.n_units} units", f"{sensor}")
        if sensor is None and augment is not None:
            cure = "Name it by _replace(sensor=(channels, rows, columns)); a cochlea has one row of one channel."
            fail("recordings.sensor", "known where `augment` is given", "None", cure)
        self.recordings, self.seed, self.augment = recordings, seed, augment

    def __len__(self) -> int:
        return len(self.recordings.labels)

    def __getitem__(self, index: int | _Drawn) -> tuple[Spikes, Tensor]:
        return self.__getitems__([index if isinstance(index, tuple) else (0, index)])

    def __getitems__(self, drawn: list[_Drawn]) -> tuple[Spikes, Tensor]:
        drawn = [pair if isinstance(pair, tuple) else (0, pair) for pair in drawn]  # a sampler of the user's own
        batch = self.recordings.take([i for _, i in drawn])
        if self.augment is not None:
            # numpy fills seeds up with zeros: without the 1, recording 0 would get the generator of the order
            generators = [np.random.default_rng([self.seed, epoch, 1 + i]) for epoch, i in drawn]
            batch = _augmented(batch, self.augment, generators)
        n_steps = None if batch.n_steps is None else torch.from_numpy(batch.n_steps)
        return Spikes.from_events(batch.events, n_steps), torch.from_numpy(batch.labels)

    def __getstate__(self) -> dict[str, Any]:
        events = self.recordings.events
        sent = events._replace(ptr=_sent(events.ptr), idx=_sent(events.idx))
        return self.__dict__ | {"recordings": self.recordings._replace(events=sent)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        ptr, idx, n_units = self.recordings.events
        self.recordings = self.recordings._replace(events=Events(_arrived(ptr), _arrived(idx), n_units))


def _sent(array: Any) -> Any:
    """Return how an array goes to a worker: by its place and time of change, if it is a whole read-only mapping."""
    if not (isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap) and array.mode == "r"):
        return array
    place = (array.filename, array.dtype, "r", array.offset, array.shape)  # as np.memmap takes it
    return place, os.stat(str(array.filename)).st_mtime_ns


def _arrived(sent: Any) -> Any:
    if not isinstance(sent, tuple):
        return sent
    place, changed = sent
    if os.stat(place[0]).st_mtime_ns != changed:
        raise OSError(f"`recordings` must stay what they were while workers start, got another file at {place[0]}.")
    return np.memmap(*place)


def _augmented(batch: Recordings, augment: Augment, generators: Sequence[np.random.Generator]) -> Recordings:
    """Return a batch with each of its recordings augmented."""
    ptr, idx, n_units = batch.events
    n_total, sensor = batch.events.n_steps, batch.sensor
    assert sensor is not None, "checked before the first batch"
    steps = np.arange(n_total)
    new, units, lengths = np.zeros_like(ptr), [idx[:0]], []
    for b, generator in enumerate(generators):
        row = ptr[b]
        length = n_total if batch.n_steps is None else int(batch.n_steps[b])
        sample = Sample(np.repeat(steps, np.diff(row)), idx[row[0] : row[-1]], length, n_total, sensor)
        out = augment(sample, generator)
        if not isinstance(out, Sample):
            fail("augment", "of samples that become samples", type(out).__name__, "Return sample._replace(...).")
        step, unit, length, *_ = out
        in_order = not len(step) or (step[0] >= 0 and step[-1] < n_total and not (step[1:] < step[:-1]).any())
        if len(step) != len(unit) or step.dtype.kind != "i" or not in_order:
            fail("augment", f"of samples whose steps rise from 0 to at most {n_total - 1}, one for each unit", "others")
        in_range = unit.dtype == np.int32 and (not len(unit) or (unit.min() >= 0 and unit.max() < n_units))
        if not in_range or not isinstance(length, (int, np.integer)) or not 0 <= length <= n_total:
            rule = f"of samples with int32 units from 0 to {n_units - 1} and `n_steps` from 0 to {n_total}"
            fail("augment", rule, "others")
        new[b, 1:] = np.searchsorted(step, steps, side="right")
        units.append(unit)
        lengths.append(length)
    ends = np.cumsum(new[:, -1])
    new[1:] += ends[:-1, None]
    events = Events(new, np.concatenate(units), n_units)
    return batch._replace(events=events, n_steps=None if batch.n_steps is None else np.array(lengths, np.int64))


class _Order(Sampler[_Drawn]):
    """The order of an epoch, from the seed and the epoch's number alone: a resumed run goes on as it would have."""

    def __init__(self, n: int, seed: int, *, shuffle: bool) -> None:
        self.n, self.seed, self.shuffle, self.epoch = n, seed, shuffle, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[_Drawn]:
        order = range(self.n)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.n).tolist()
        return iter([(self.epoch, i) for i in order])


def _as_drawn(batch: tuple[Spikes, Tensor]) -> tuple[Spikes, Tensor]:
    return batch
