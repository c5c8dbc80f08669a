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

import logging
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from suspike_datasets.checks import check_choice, storage
from suspike_datasets.sets import T_END_US, UNKNOWN, EventSet, check_set

log = logging.getLogger(__name__)

N_UNITS = 700
"""Channels of the cochlea; unit 0 hears the highest frequency."""

SENSOR = (1, 1, N_UNITS)
SPLITS = {"shd": ("train", "test"), "ssc": ("train", "valid", "test")}
UINT16 = 2**16 - 1


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
        raise FileNotFoundError(f"`root` must hold {name.upper()}/{path.name}, got nothing at {path}.")
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
    times, units, labels, speakers, classes = _read(path)
    parts_t: list[NDArray[np.int32]] = []
    parts_unit: list[NDArray[np.int32]] = []
    faults, kept = [], []
    for b in range(len(labels)):
        fault = _fault(times[b], units[b], int(labels[b]), len(classes))
        if fault:
            message = f"{fault} (recording {b} of {path}): the file is damaged."
            if damaged == "refuse":
                raise ValueError(message)
            faults.append(message)
            continue
        t = (times[b].astype(np.float64) * 1e6).astype(np.int32)
        unit = units[b].astype(np.int32)
        if (t[1:] < t[:-1]).any():
            order = np.argsort(t, kind="stable")
            t, unit = t[order], unit[order]
        kept.append(b)
        parts_t.append(t)
        parts_unit.append(unit)
    if faults:
        log.warning("skipped %d of %d recordings; the first: %s", len(faults), len(labels), faults[0])
    start = np.concatenate([[0], np.cumsum([len(t) for t in parts_t])]).astype(np.int64)
    none = np.empty(0, np.int32)
    return EventSet(
        start, np.concatenate([none, *parts_t]), np.concatenate([none, *parts_unit]), labels[kept], speakers[kept],
        SENSOR, classes,
    )  # fmt: skip


def _read(path: Path) -> tuple[Any, Any, NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """Return times and units [B] of arrays, labels and speakers, int64 [B], and the classes."""
    try:
        import h5py
    except ImportError as err:
        raise ImportError("Files in SHD's layout need h5py: pip install 'suspike[datasets]'.") from err
    if not path.is_file():
        raise FileNotFoundError(f"`path` must be a file in SHD's layout, got nothing at {path}.")
    try:
        with h5py.File(path, "r") as file:
            found = {
                key: file[key] for key in ("spikes/times", "spikes/units", "labels", "extra/speaker", "extra/keys")
            }
            wrong = [key for key, data in found.items() if not isinstance(data, h5py.Dataset) or data.ndim != 1]
            for key, kind in (("spikes/times", "f"), ("spikes/units", "u")):
                inner = h5py.check_vlen_dtype(found[key].dtype)
                wrong += [] if inner is not None and inner.kind == kind and inner.itemsize <= 8 else [key]
            wrong += [key for key in ("labels", "extra/speaker") if found[key].dtype.kind not in "iu"]
            wrong += [] if found["extra/keys"].dtype.kind in "SO" else ["extra/keys"]
            # a damaged type that h5py takes for one of these makes libhdf5 read anywhere
            for key in ("spikes/times", "spikes/units") if not wrong else ():
                kind = found[key].id.get_type()
                if kind.encode() != h5py.h5t.vlen_create(kind.get_super()).encode():
                    wrong.append(key)
            if wrong:
                raise ValueError(f"`{wrong[0]}` is not what SHD's layout has there, got {found[wrong[0]]}")
            n = len(found["labels"])
            off = [key for key, data in found.items() if key != "extra/keys" and len(data) != n]
            # a recording takes 16 bytes of the file at least, where its two lists are pointed at
            if off or n * 16 > path.stat().st_size:
                raise ValueError(f"`{(off or ['labels'])[0]}` is not that of {n} recordings")
            keys = found["extra/keys"]
            if len(keys) * keys.dtype.itemsize > path.stat().st_size:
                raise ValueError(f"`extra/keys` is longer than the file, {len(keys)} names")
            times, units = found["spikes/times"][()], found["spikes/units"][()]
            labels, speakers = (found[key][()].astype(np.int64) for key in ("labels", "extra/speaker"))
            classes = tuple(k.decode() if isinstance(k, bytes) else str(k) for k in found["extra/keys"][()])
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, MemoryError) as err:
        raise ValueError(f"`path` must be a whole file in SHD's layout, got {path}: {err}.") from err
    return times, units, labels, speakers, classes


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
