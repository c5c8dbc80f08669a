"""N-MNIST: its 5-byte recordings, written, read, and loaded as a set.

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
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from suspike_datasets.checks import EVENT_DTYPE, EventArray, Limits, check_events, storage

SIDE = 34
"""Rows and columns of the recorded window."""

T_END_US = 1 << 23
"""The first time that no longer fits into a record, in microseconds (8.4 s)."""

RECORD_BYTES = 5
LIMITS = Limits(width=SIDE, height=SIDE, t_end_us=T_END_US)
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


def load(root: str | os.PathLike[str], split: Literal["train", "test"]) -> tuple[list[EventArray], NDArray[np.int64]]:
    """Load the recordings of ``<root>/NMNIST/{Train,Test}`` through tonic, whole or a subset, never over the network.

    Parameters
    ----------
    root : path
        The folder that holds ``NMNIST``.
    split : {"train", "test"}

    Returns
    -------
    recordings : list of B structured arrays [E]
        int64 fields x, y, t (us), p; ordered by file number, then digit, on every machine.
    labels : int64 [B]
        The digit of each.

    Raises
    ------
    ImportError
        If tonic is missing.
    FileNotFoundError
        If there are no recordings at that place.
    ValueError
        Naming the first file that is damaged or stands where none should.
    """
    if split not in FOLDERS:
        raise ValueError(f'`split` must be "train" or "test", got {split!r}.')
    root = Path(root).expanduser()
    sizes = _check_files(root / "NMNIST" / FOLDERS[split])
    data = _tonic_nmnist()(save_to=str(root), train=split == "train")
    # tonic lists the files in os.walk's order, folder by folder; an order of our own ties sample to number.
    order = sorted(range(len(data)), key=lambda i: (int(Path(data.data[i]).stem), data.targets[i]))
    if len(order) != len(sizes):
        raise ValueError(f"`root` must hold {len(sizes)} recordings for tonic too, it found {len(order)} in {root}.")
    recordings: list[EventArray] = []
    for i in order:
        path = Path(data.data[i])
        events: EventArray = data[i][0]
        if len(events) * RECORD_BYTES != sizes[path]:  # tonic drops records with y = 240 and shifts the times after
            read_recording(path)
        recordings.append(check_events(events, LIMITS, str(path)))
    return recordings, np.array([data.targets[i] for i in order], np.int64)


def _tonic_nmnist() -> Any:
    """Return tonic's N-MNIST class, made to read what stands there and never to download."""
    try:
        import tonic.datasets
    except ImportError as err:
        raise ImportError("`load` needs tonic: pip install 'suspike[datasets]'.") from err

    # The name must stay: tonic looks into the folder named after the class. Its own check wants the original archive
    # and 10,000 files, and downloads otherwise.
    class NMNIST(tonic.datasets.NMNIST):  # type: ignore[misc]  # tonic is untyped
        def _check_exists(self) -> bool:
            return True

    return NMNIST


def _check_files(folder: Path) -> dict[Path, int]:
    """Return the size of each recording below `folder`; tonic would misread or silently skip what is refused here."""
    files = sorted(path for path in folder.rglob("*bin") if not path.is_dir())
    if not files:
        raise FileNotFoundError(f"`root` must hold recordings, got none in {folder}/<digit>/NNNNN.bin.")
    sizes = {}
    for path in files:
        digit, *rest = path.relative_to(folder).parts
        named = path.suffix == ".bin" and path.stem.isascii() and path.stem.isdigit()
        if not (len(rest) == 1 and named and len(digit) == 1 and digit in "0123456789"):
            raise ValueError(f"`root` must hold recordings as {folder}/<digit>/NNNNN.bin, got {path}.")
        sizes[path] = path.stat().st_size
        _check_size(path, sizes[path])
        if not sizes[path]:
            raise ValueError(f"`root` must hold recordings with events, got the empty file {path}: fetch it again.")
    return sizes


def _check_size(path: Path, size: int) -> None:
    if size % RECORD_BYTES:
        raise ValueError(
            f"`size` must be a multiple of {RECORD_BYTES} bytes, got {size} "
            f"(record {size // RECORD_BYTES} of {path} is cut off): the file is damaged."
        )
