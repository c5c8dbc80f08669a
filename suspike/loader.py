"""Event data for training: recordings as event lists, and a DataLoader whose batches are Spikes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from suspike._validate import fail
from suspike.spikes import Spikes
from suspike_kernels.layout import Events, check_events

Loader = DataLoader[tuple[Spikes, Tensor]]
"""Batches of (Spikes of [T, batch, n_units], labels int64 [batch])."""


class Recordings(NamedTuple):
    """Labelled recordings in time steps: `events` [B, T] and `labels`, int64 [B]."""

    events: Events
    labels: np.ndarray

    def take(self, samples: Sequence[int] | np.ndarray) -> Recordings:
        """Return the recordings named by index, in that order."""
        return Recordings(self.events.take(samples), self.labels[np.asarray(samples)])


def load_nmnist(
    root: str | os.PathLike[str], split: str, *, dt_ms: float, n_steps: int | None = None, merge: bool = False
) -> Recordings:
    """Load recordings in N-MNIST's layout, through tonic, in time steps. Nothing is ever fetched.

    Parameters
    ----------
    root : path
        The folder that holds ``NMNIST/{Train,Test}/<digit>/NNNNN.bin``, the whole set or a part of it.
    split : "train" or "test"
    dt_ms : float
        Length of a step in ms; a whole number of microseconds.
    n_steps : int, optional
        Steps T; by default as many as the longest recording needs. What lies behind is dropped; a warning counts it.
    merge : bool
        Keep at most one event of a pixel and polarity in a step; by default all stay.

    Raises
    ------
    ImportError
        If tonic is missing (the `datasets` extra).
    ValueError, OSError
        If a recording is damaged or there are none.
    """
    import suspike_datasets

    if split not in ("train", "test"):
        fail("split", "train or test", repr(split))
    dt_us = round(dt_ms * 1000)
    if dt_us < 1 or abs(dt_us - dt_ms * 1000) > 1e-6:
        fail("dt_ms", "a whole number of microseconds above 0", f"{dt_ms} ms")
    recordings, labels = suspike_datasets.load(root, split)  # type: ignore[arg-type]
    binned = suspike_datasets.bin_events(recordings, dt_us=dt_us, n_steps=n_steps, merge=merge)
    return Recordings(Events(*binned), labels)


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
    ``progress(done, total)``; they come back through tonic. Other parameters and errors are those of `load_nmnist`.
    """
    import suspike_datasets

    root = suspike_datasets.digits_as_nmnist(cache, progress=progress)
    train, held_out = (load_nmnist(root, s, dt_ms=dt_ms, n_steps=n_steps, merge=merge) for s in ("train", "test"))
    return train, held_out


def batches(
    recordings: Recordings,
    *,
    batch_size: int,
    shuffle: bool = False,
    seed: int = 0,
    augment: Callable[[Events, np.random.Generator], Events] | None = None,
) -> Loader:
    """Return a DataLoader of (Spikes of [T, batch, n_units], labels int64 [batch]).

    Parameters
    ----------
    recordings : Recordings
    batch_size : int
    shuffle : bool
        In an order drawn from `seed` and the epoch alone (``loader.sampler.set_epoch``, which Lightning calls).
    seed : int
    augment : callable (events, generator) -> events, optional
        Applied to each batch as it is drawn, with a generator made from `seed`, the epoch and the batch's samples.
    """
    data = _Batches(recordings, seed, augment)
    order = _Order(data, shuffle=shuffle)
    # workers would only copy: a batch is one gather from memory
    return DataLoader(data, batch_size=batch_size, sampler=order, collate_fn=_as_drawn)  # type: ignore[arg-type]


def shift_camera(sensor: tuple[int, int], max_shift: int) -> Callable[[Events, np.random.Generator], Events]:
    """Return an augmentation that shifts each recording by up to `max_shift` pixels along x and y.

    Events that leave the sensor (H, W) are dropped. Units are numbered ``(p * H + y) * W + x``.
    """
    height, width = sensor

    def shift(events: Events, generator: np.random.Generator) -> Events:
        by = generator.integers(-max_shift, max_shift, (events.n_samples, 2), endpoint=True)
        by = np.repeat(by, np.diff(events.ptr[:, [0, -1]], axis=1)[:, 0], axis=0)  # [E, 2]
        p, place = np.divmod(events.idx, height * width)
        y, x = (here + by[:, i] for i, here in enumerate(np.divmod(place, width)))
        stays = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        before = np.concatenate([[0], np.cumsum(stays)])
        idx = ((p * height + y) * width + x)[stays].astype(np.int32)
        return Events(before[events.ptr], idx, events.n_units)

    return shift


class _Batches(Dataset[tuple[Spikes, Tensor]]):
    """Takes a whole batch of indices at once: one gather instead of one for each sample."""

    def __init__(
        self, recordings: Recordings, seed: int, augment: Callable[[Events, np.random.Generator], Events] | None
    ) -> None:
        check_events(recordings.events, "recordings.events")
        if len(recordings.labels) != recordings.events.n_samples:
            fail("recordings.labels", f"of {recordings.events.n_samples} recordings", f"{len(recordings.labels)}")
        self.recordings, self.seed, self.augment, self.epoch = recordings, seed, augment, 0

    def __len__(self) -> int:
        return len(self.recordings.labels)

    def __getitem__(self, index: int) -> tuple[Spikes, Tensor]:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> tuple[Spikes, Tensor]:
        events, labels = self.recordings.take(indices)
        if self.augment is not None:
            events = self.augment(events, np.random.default_rng([self.seed, self.epoch, *indices]))
        return Spikes.from_events(events), torch.from_numpy(labels)


class _Order(Sampler[int]):
    """The order of an epoch, from the seed and the epoch's number alone: a resumed run goes on as it would have."""

    def __init__(self, data: _Batches, *, shuffle: bool) -> None:
        self.data, self.shuffle = data, shuffle

    def set_epoch(self, epoch: int) -> None:
        self.data.epoch = epoch

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[int]:
        if not self.shuffle:
            return iter(range(len(self.data)))
        return iter(np.random.default_rng([self.data.seed, self.data.epoch]).permutation(len(self.data)).tolist())


def _as_drawn(batch: tuple[Spikes, Tensor]) -> tuple[Spikes, Tensor]:
    return batch
