"""Spoken words as spikes of a cochlea, in the HDF5 layout of the Heidelberg data sets (SHD, SSC): read and written.

A file holds, of B recordings::

    spikes/times   B arrays of float16, seconds          labels          uint16 [B]
    spikes/units   B arrays of uint16, from 0 on         extra/speaker   uint16 [B]
                                                         extra/keys      bytes, the classes

A half float is 1 ms apart from the next one beyond a second, 0.5 ms beyond half of one: steps shorter than that mean
little late in a word. Times become microseconds as in tonic: the fraction of one is cut off.

Source: Cramer, Stradmann, Schemmel and Zenke, "The Heidelberg spiking data sets for the systematic evaluation of
spiking neural networks", IEEE Transactions on Neural Networks and Learning Systems 33(7), 2022,
doi 10.1109/TNNLS.2020.3044364.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from suspike_datasets.checks import check_choice, storage
from suspike_datasets.sets import T_END_US, UNKNOWN, EventSet, absent, check_set
from suspike_datasets.shd_child import MARK

log = logging.getLogger(__name__)

N_UNITS = 700
"""Channels of the cochlea; unit 0 hears the highest frequency."""

SENSOR = (1, 1, N_UNITS)
SPLITS = {"shd": ("train", "test"), "ssc": ("train", "valid", "test")}
UINT16 = 2**16 - 1

CHILD = Path(__file__).with_name("shd_child.py")

CPU_S, BYTES_PER_S = 10, 2**20
"""A file is read within so many seconds of CPU time, and one more for so many bytes."""

ROOM_BYTES, ROOM_FACTOR = 2**31, 16
"""Reading a file takes less memory than this, and so many times its size."""


def read_split(
    root: str | os.PathLike[str],
    split: Literal["train", "valid", "test"],
    *,
    name: Literal["shd", "ssc"] = "shd",
    damaged: Literal["refuse", "skip"] = "refuse",
) -> EventSet:
    """Read ``<root>/SHD/shd_<split>.h5`` or ``<root>/SSC/ssc_<split>.h5``, where tonic has them too.

    Parameters and errors are those of `read_file`.
    """
    return read_file(file_of(root, split, name), damaged=damaged)


def file_of(root: str | os.PathLike[str], split: str, name: str) -> Path:
    """Return the file of a split of "shd" or "ssc".

    Raises
    ------
    FileNotFoundError
        If it is not there.
    """
    splits = SPLITS[check_choice("name", name, tuple(SPLITS))]
    path = Path(root).expanduser() / name.upper() / f"{name}_{check_choice('split', split, splits)}.h5"
    if not path.is_file():
        raise absent(f"{name.upper()}/{path.name}, got nothing at {path}", name, root, split)
    return path


def read_file(path: str | os.PathLike[str], *, damaged: Literal["refuse", "skip"] = "refuse") -> EventSet:
    """Read a file of recordings, once.

    Parameters
    ----------
    path : path
    damaged : {"refuse", "skip"}
        What to do with a recording that breaks a rule; how many are skipped is logged as a warning, with the first.

    Returns
    -------
    EventSet
        In the file's order; subjects are the speakers. Spikes of a recording that do not stand in order of time, as
        half floats or a writer may leave them, are put in order, the earlier one in the file first.

    Raises
    ------
    ImportError
        If h5py is missing.
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no such HDF5 file, or a recording is damaged: it names file, recording and rule.
    """
    path = Path(path)
    check_choice("damaged", damaged, ("refuse", "skip"))
    found = _read(path)
    labels, ends = found.labels, (np.cumsum(found.n_times), np.cumsum(found.n_units))
    # room for all; that of a recording that is skipped stays unused
    t, unit = np.empty(len(found.times), np.int32), np.empty(len(found.times), np.int32)
    start, faults, kept = [0], [], []
    for b in range(len(labels)):
        times = found.times[ends[0][b] - found.n_times[b] : ends[0][b]]
        units = found.units[ends[1][b] - found.n_units[b] : ends[1][b]]
        fault = _fault(times, units, int(labels[b]), len(found.classes))
        if fault:
            message = f"{fault} (recording {b} of {path}): the file is damaged."
            if damaged == "refuse":
                raise ValueError(message)
            faults.append(message)
            continue
        part = slice(start[-1], start[-1] + len(times))
        t[part], unit[part] = (times.astype(np.float64) * 1e6).astype(np.int32), units
        if (np.diff(t[part]) < 0).any():
            order = np.argsort(t[part], kind="stable")
            t[part], unit[part] = t[part][order], unit[part][order]
        kept.append(b)
        start.append(part.stop)
    if faults:
        log.warning("skipped %d of %d recordings; the first: %s", len(faults), len(labels), faults[0])
    end = start[-1]
    return EventSet(
        np.array(start, np.int64), t[:end], unit[:end], labels[kept], found.speakers[kept], SENSOR, found.classes
    )


class _Found(NamedTuple):
    """What a file holds: `times` and `units` of all recordings one behind the other, and how many of each, [B]."""

    n_times: NDArray[np.int64]
    n_units: NDArray[np.int64]
    labels: NDArray[np.int64]
    speakers: NDArray[np.int64]
    times: NDArray[Any]
    units: NDArray[Any]
    classes: tuple[str, ...]


def _read(path: Path) -> _Found:
    """Read a file in a process of its own: where it is damaged, libhdf5 may read anywhere, fill the memory or hang."""
    if importlib.util.find_spec("h5py") is None:
        raise ImportError("Files in SHD's layout need h5py: pip install 'suspike[datasets]'.")
    if not path.is_file():
        raise FileNotFoundError(f"`path` must be a file in SHD's layout, got nothing at {path}.")
    if getattr(sys, "frozen", False) or not sys.executable or not CHILD.is_file():
        raise RuntimeError(
            f"A Python of its own has to read files of SHD's layout, got {sys.executable!r} for {CHILD}."
        )
    size = path.stat().st_size
    seconds, room = CPU_S + size // BYTES_PER_S, ROOM_BYTES + ROOM_FACTOR * size
    packages = [str(place) for place in sys.path]
    given = json.dumps({"path": str(path.resolve()), "seconds": seconds, "room": room, "sys_path": packages})
    try:
        run = subprocess.run(
            [sys.executable, "-P", CHILD], input=given.encode(), capture_output=True, check=False,
            timeout=10 * seconds, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as err:
        raise ValueError(f"{_WHOLE}, got {path}: reading it takes longer than {10 * seconds:g} s.") from err
    if run.returncode == -_LATE:
        raise ValueError(f"{_WHOLE}, got {path}: reading it takes longer than {seconds:g} s of CPU time.")
    out = run.stdout
    begin = out.find(MARK) + len(MARK)  # a system may print at the start of each Python
    if run.returncode or begin < len(MARK):
        raise ValueError(f"{_WHOLE}, got {path}: reading it ends in a crash ({run.returncode}).")
    at = out.index(b"\n", begin) + 1
    said = json.loads(out[begin:at])
    arrays: list[Any] = []
    if "missing" in said:
        raise ImportError(f"Files in SHD's layout need h5py: pip install 'suspike[datasets]'. {said['missing']}")
    if "fault" in said:
        raise ValueError(f"{_WHOLE}, got {path}: {said['fault']}.")
    for kind, n in said["arrays"]:
        arrays.append(np.frombuffer(out, kind, n, at))
        at += arrays[-1].nbytes
    n_times, n_units, labels, speakers, times, units = arrays
    return _Found(n_times, n_units, labels, speakers, times, units, tuple(said["classes"]))


_WHOLE = "`path` must be a whole file in SHD's layout"
_LATE = int(getattr(signal, "SIGXCPU", 24))  # not on every system


def _fault(times: Any, units: Any, label: int, n_classes: int) -> str:
    """Return what is wrong with a recording, or nothing."""
    if len(times) != len(units):
        return f"`times` and `units` must be as many, got {len(times)} and {len(units)}"
    if not 0 <= label < n_classes:
        return f"`label` must be from 0 to {n_classes - 1}, got {label}"
    bad = np.flatnonzero(~((times >= 0) & (times < T_END_US * 1e-6)))  # NaN too
    if len(bad):
        return f"`times` must be seconds from 0 to {T_END_US * 1e-6:g}, got {times[bad[0]]} at spike {bad[0]}"
    bad = np.flatnonzero(units >= N_UNITS)
    if len(bad):
        return f"`units` must be from 0 to {N_UNITS - 1}, got {units[bad[0]]} at spike {bad[0]}"
    return ""


def write_file(path: str | os.PathLike[str], events: EventSet) -> None:
    """Write recordings of one line of units in SHD's layout; the file appears whole or not at all.

    tonic's ``SHD`` reads ``<root>/SHD/shd_train.h5`` where an (empty) ``shd_train.h5.zip`` lies beside it.

    Parameters
    ----------
    path : path
        Its folder must exist; a file that stands there is replaced.
    events : EventSet
        Of a sensor (1, 1, 700), with labels and classes. Times lose what a half float cannot hold; those of a file that
        was read stay what they were.

    Raises
    ------
    ImportError
        If h5py is missing.
    ValueError
        If the set breaks a rule.
    OSError
        If the file cannot be written; nothing is left of it then.
    """
    path = Path(path)
    try:
        import h5py
    except ImportError as err:
        raise ImportError("Files in SHD's layout need h5py: pip install 'suspike[datasets]'.") from err
    check_set(events, str(path))
    if events.sensor != SENSOR:
        raise ValueError(f"`events.sensor` must be {SENSOR} for SHD's layout, got {events.sensor}.")
    if not events.classes or (events.labels < 0).any():
        raise ValueError("`events` must have labels and classes for SHD's layout, got a recording without.")
    if (
        max(events.labels.max(initial=0), events.subjects.max(initial=0)) > UINT16
        or events.subjects.min(initial=0) < -1
    ):
        raise ValueError(f"`events` must have labels and subjects up to {UINT16} for SHD's layout, got others.")
    # half a microsecond more: a time that was cut off to whole ones comes back as it is
    times = ((events.t + 0.5) * 1e-6).astype(np.float16)
    if (times >= T_END_US * 1e-6).any():
        raise ValueError(f"`events.t` must be below {T_END_US} us as a half float too, got {events.t.max()} us.")
    speakers = np.where(events.subjects == UNKNOWN, 0, events.subjects)
    partial = path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")
    with storage("path", path):
        try:
            with h5py.File(partial, "w") as file:
                for name, values, kind in (("times", times, np.float16), ("units", events.unit, np.uint16)):
                    data = file.create_dataset(f"spikes/{name}", (events.n_recordings,), h5py.vlen_dtype(kind))
                    for b in range(events.n_recordings):
                        data[b] = values[events.start[b] : events.start[b + 1]].astype(kind)
                file["labels"] = events.labels.astype(np.uint16)
                file["extra/speaker"] = speakers.astype(np.uint16)
                file["extra/keys"] = np.array([name.encode() for name in events.classes])
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
