"""N-MNIST: its 5-byte recordings, one by one and as a set.

A recording is a file of 5-byte records, big-endian, one an event::

    byte 0  x                    byte 2  p << 7 | t >> 16
    byte 1  y                    byte 3  t >> 8 & 255        t in microseconds, 23 bits
                                 byte 4  t & 255

A set is a folder ``NMNIST/{Train,Test}/<digit>/NNNNN.bin``, NNNNN the number of the image that was recorded.

Source: Orchard, Jayawant, Cohen and Thakor, "Converting static image datasets to spiking neuromorphic datasets using
saccades", Frontiers in Neuroscience 9:437, 2015, doi 10.3389/fnins.2015.00437.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np

from suspike_datasets.checks import EVENT_DTYPE, EventArray, Limits, check_choice, check_events, storage
from suspike_datasets.sets import EventSet, absent, from_files

SIDE = 34
"""Rows and columns of the recorded window."""

T_END_US = 1 << 23
"""The first time that no longer fits into a record, in microseconds (8.4 s)."""

RECORD_BYTES = 5
LIMITS = Limits(width=SIDE, height=SIDE, t_end_us=T_END_US)
SENSOR = (2, SIDE, SIDE)
CLASSES = tuple("0123456789")
FOLDERS = {"train": "Train", "test": "Test"}


def write_recording(path: str | os.PathLike[str], events: EventArray) -> None:
    """Write one recording; the file appears whole or not at all.

    Parameters
    ----------
    path : path
        The .bin file. Its folder must exist; a file that stands there is replaced.
    events : structured array [E]
        Integer fields x, y (0 to 33), t (us, 0 to 2^23 - 1, not decreasing), p (0 or 1).

    Raises
    ------
    TypeError
        If `events` has other fields.
    ValueError
        If a record breaks a rule: it names file, record and rule.
    OSError
        If the file cannot be written; nothing is left of it then.
    """
    path = Path(path)
    raw = pack(events, str(path))
    # Not tempfile: its files are 0600, and a cache may be shared.
    partial = path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")
    with storage("path", path):
        try:
            partial.write_bytes(raw)
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def pack(events: EventArray, place: str) -> bytes:
    """Return the bytes of a recording, checked; `place` names it in an error."""
    check_events(events, LIMITS, place)
    t = events["t"].astype(np.int64)
    raw = np.empty((len(events), RECORD_BYTES), np.uint8)
    raw[:, 0] = events["x"]
    raw[:, 1] = events["y"]
    raw[:, 2] = (events["p"].astype(np.int64) << 7) | (t >> 16)
    raw[:, 3] = (t >> 8) & 255
    raw[:, 4] = t & 255
    return raw.tobytes()


def read_recording(path: str | os.PathLike[str]) -> EventArray:
    """Read one recording.

    Parameters
    ----------
    path : path
        The .bin file.

    Returns
    -------
    structured array [E]
        int64 fields x, y, t (us), p, as they stand in the file.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If the file is no whole number of records, or a record breaks a rule: it names file, record and rule.
    """
    path = Path(path)
    raw = np.frombuffer(path.read_bytes(), np.uint8)
    _check_size(path, len(raw))
    b = raw.reshape(-1, RECORD_BYTES).astype(np.int64)
    events = np.empty(len(b), EVENT_DTYPE)
    events["x"], events["y"], events["p"] = b[:, 0], b[:, 1], b[:, 2] >> 7
    events["t"] = (b[:, 2] & 127) << 16 | b[:, 3] << 8 | b[:, 4]
    return check_events(events, LIMITS, str(path))


def read_split(
    root: str | os.PathLike[str], split: Literal["train", "test"], *, damaged: Literal["refuse", "skip"] = "refuse"
) -> EventSet:
    """Read the recordings of ``<root>/NMNIST/{Train,Test}``, the whole set or a part of it; each file once.

    Parameters
    ----------
    root : path
        The folder that holds ``NMNIST``.
    split : {"train", "test"}
    damaged : {"refuse", "skip"}
        What to do with a recording that is damaged; how many are skipped is logged as a warning, with the first.

    Returns
    -------
    EventSet
        Ordered by file number, then digit, on every machine. Who wrote a digit is not known.

    Raises
    ------
    FileNotFoundError
        If there are no recordings at that place.
    ValueError
        Naming the first file that is damaged, or stands where none should.
    """
    files = files_of(root, split)
    most = sum(path.stat().st_size // RECORD_BYTES for path in files)
    labels = [int(path.parent.name) for path in files]
    return from_files(files, read_recording, most, sensor=SENSOR, labels=labels, classes=CLASSES, damaged=damaged)


def files_of(root: str | os.PathLike[str], split: str) -> list[Path]:
    """Return the files of a split by number, then digit; what is no recording is refused."""
    folder = Path(root).expanduser() / "NMNIST" / FOLDERS[check_choice("split", split, tuple(FOLDERS))]
    files = [path for path in folder.rglob("*bin") if not path.is_dir()]
    if not files:
        raise absent(f"recordings, got none in {folder}/<digit>/NNNNN.bin", "nmnist", root, split)
    for path in sorted(files):
        digit, *rest = path.relative_to(folder).parts
        named = path.suffix == ".bin" and path.stem.isascii() and path.stem.isdigit()
        if not (len(rest) == 1 and named and len(digit) == 1 and digit in "0123456789"):
            raise ValueError(f"`root` must hold recordings as {folder}/<digit>/NNNNN.bin, got {path}.")
    return sorted(files, key=lambda path: (int(path.stem), path.parent.name, path.name))


def _check_size(path: Path, size: int) -> None:
    if size % RECORD_BYTES:
        raise ValueError(
            f"`size` must be a multiple of {RECORD_BYTES} bytes, got {size} "
            f"(record {size // RECORD_BYTES} of {path} is cut off): the file is damaged."
        )
