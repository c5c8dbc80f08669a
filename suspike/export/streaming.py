"""A SONATA spike file read stretch by stretch: a recording of an hour takes the memory of one stretch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from suspike._files import PathLike, open_file, reading
from suspike._validate import fail, import_extra
from suspike.export import sonata
from suspike.export._trains import from_places, input_of, steps_of
from suspike_kernels.layout import Events

BLOCK = 2**16
"""Events read at a time."""


class Stream(NamedTuple):
    """The input of a recording, stretch by stretch.

    Attributes
    ----------
    n_units, n_steps : int
        Of the whole recording.
    dt_ms : float
        Length of a step in ms.
    chunks : iterator of Events [1 sample]
        Each is made when it is asked for; the last one may be shorter.
    """

    n_units: int
    n_steps: int
    dt_ms: float
    chunks: Iterator[Events]


def stream_sonata(path: PathLike, chunk: int) -> Stream:
    """Read the population "input", or the only one, of what `write_sonata` wrote, in stretches.

    Parameters
    ----------
    path : path of a file
        It has to stay as it is until the last stretch.
    chunk : int
        Steps of a stretch, at least 1.

    Raises
    ------
    ValueError
        If it is no such file or has several populations, none of them "input"; from the stretch where it is found, for
        events that are unsorted or lie outside.
    OSError
        If it cannot be read.
    """
    if chunk < 1:
        fail("chunk", "at least 1", repr(chunk))
    h5py = import_extra("h5py", extra="export")
    with open_file(path) as raw, reading(path, sonata.RULE), h5py.File(raw, "r") as file:
        sizes, _, n_steps, dt_ms = sonata.head(file)
        for each in sizes:
            sonata.datasets(file, each)
    name = input_of(sizes, Path(path).name)
    stream = Stream(sizes[name], n_steps, dt_ms, iter(()))
    return stream._replace(chunks=_chunks(path, name, stream, chunk))


def _chunks(path: PathLike, name: str, whole: Stream, chunk: int) -> Iterator[Events]:
    h5py = import_extra("h5py", extra="export")
    with open_file(path) as raw, h5py.File(raw, "r") as file:
        stored_times, stored_ids = sonata.datasets(file, name)
        n_events, done = len(stored_times), 0
        times, ids = np.zeros(0), np.zeros(0, np.int64)
        for low in range(0, whole.n_steps, chunk):
            high = min(low + chunk, whole.n_steps)
            ends = sonata.stamps(low, high, whole.dt_ms)
            with reading(path, sonata.RULE):
                blocks = [(times, ids)]
                last = times[-1] if len(times) else 0.0
                while done < n_events and last <= ends[-1]:
                    block = slice(done, done + BLOCK)
                    blocks.append((stored_times[block], stored_ids[block].astype(np.int64)))
                    # a NaN is not sorted either
                    if not (np.diff(blocks[-1][0], prepend=last) >= 0).all():
                        fail("times", "ascending", "a fall")
                    last, done = blocks[-1][0][-1], done + len(blocks[-1][0])
                times, ids = (np.concatenate(column) for column in zip(*blocks, strict=True))
                n = len(times) if high == whole.n_steps else int(np.searchsorted(times, ends[-1], side="right"))
                events = from_places(steps_of(times[:n], ends), ids[:n], n_steps=high - low, n_units=whole.n_units)
                times, ids = times[n:], ids[n:]
            yield events
