"""DVS Gesture, as tonic cut it into samples: hands before an event camera, an array in a file each.

A set is a folder ``DVSGesture/ibmGesture{Train,Test}/user<number>_<lighting>/<label>.npy``, each file an array [E, 4]
of columns x, y, p and t, in milliseconds: tonic's cut reduced the recorded microseconds to them. Times become
microseconds as in tonic.

Source: Amir et al., "A low power, fully event-based gesture recognition system", CVPR 2017, doi 10.1109/CVPR.2017.781.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

import numpy as np

from suspike_datasets.checks import EVENT_DTYPE, EventArray, Limits, check_choice, check_events
from suspike_datasets.sets import T_END_US, EventSet, absent, from_files

SIDE = 128
"""Rows and columns of the camera."""

SENSOR = (2, SIDE, SIDE)
LIMITS = Limits(width=SIDE, height=SIDE, t_end_us=T_END_US)
FOLDERS = {"train": "ibmGestureTrain", "test": "ibmGestureTest"}
CLASSES = (
    "Hand clapping", "Right hand wave", "Left hand wave", "Right arm cw", "Right arm ccw", "Left arm cw",
    "Left arm ccw", "Arm roll", "Air drums", "Air guitar", "Other gestures",
)  # fmt: skip
"""As tonic has them."""

HEADER_BYTES = 1024
"""numpy's header of such an array is shorter than this."""

_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)"
    rb"(\{'descr': '([<>|](?:[iu][1248]|f[248]))', 'fortran_order': (?:True|False), "
    rb"'shape': \(([0-9]{1,12}), 4\), \} *\n)",
    re.DOTALL,
)


def read_recording(path: str | os.PathLike[str]) -> EventArray:
    """Read one recording.

    Parameters
    ----------
    path : path
        The .npy file: numbers [E, 4], x and y from 0 to 127, p 0 or 1, t in ms, not decreasing.

    Returns
    -------
    structured array [E]
        int64 fields x, y, t (us), p; fractions of a microsecond are cut off.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If the file is no such array, or a record breaks a rule: it names file, record and rule.
    """
    path = Path(path)
    with path.open("rb") as file:
        n = _n_events(file.read(HEADER_BYTES), os.fstat(file.fileno()).st_size)
        if n < 0:
            raise ValueError(f"`path` must be a whole .npy file of numbers [E, 4], got {path}: the file is damaged.")
        file.seek(0)
        columns = np.load(file, allow_pickle=False).T  # x, y, p, t
    events = np.empty(n, EVENT_DTYPE)
    for name, column, scale in zip("xypt", columns, (1, 1, 1, 1000), strict=True):
        is_float = column.dtype.kind == "f"
        wide = column.astype(np.float64) if is_float else column  # its own type may not hold the bound
        most = T_END_US // scale
        good = (wide > -most) & (wide < most)  # NaN is neither
        if is_float and name != "t":
            good &= wide == np.floor(wide)
        if not good.all():
            i = int(np.argmin(good))
            rule = "a number" if name == "t" else "a whole number"
            raise ValueError(f"`{name}` must be {rule} below {most}, got {column[i]} (record {i} of {path}).")
        events[name] = np.floor(wide * scale) if is_float else wide.astype(np.int64) * scale
    return check_events(events, LIMITS, str(path))


def read_split(
    root: str | os.PathLike[str], split: Literal["train", "test"], *, damaged: Literal["refuse", "skip"] = "refuse"
) -> EventSet:
    """Read the recordings of ``<root>/DVSGesture/ibmGesture{Train,Test}``, all or a part of them; each file once.

    Parameters
    ----------
    root : path
        The folder that holds ``DVSGesture``.
    split : {"train", "test"}
    damaged : {"refuse", "skip"}
        What to do with a recording that is damaged; how many are skipped is logged as a warning, with the first.

    Returns
    -------
    EventSet
        Ordered by user, lighting and label on every machine; subjects are the users' numbers.

    Raises
    ------
    FileNotFoundError
        If there are no recordings at that place.
    ValueError
        Naming the first file that is damaged, or stands where none should.
    """
    files = files_of(root, split)
    most = 0
    for path in files:
        with path.open("rb") as file:
            most += max(_n_events(file.read(HEADER_BYTES), path.stat().st_size), 0)
    return from_files(
        files, read_recording, most, sensor=SENSOR, labels=[int(path.stem) for path in files],
        subjects=[_user(path)[0] for path in files], classes=CLASSES, damaged=damaged,
    )  # fmt: skip


def files_of(root: str | os.PathLike[str], split: str) -> list[Path]:
    """Return the files of a split by user, lighting and label; what is no recording is refused."""
    folder = Path(root).expanduser() / "DVSGesture" / FOLDERS[check_choice("split", split, tuple(FOLDERS))]
    files = [path for path in folder.rglob("*npy") if not path.is_dir()]
    layout = f"{folder}/user<number>_<lighting>/<label>.npy"
    if not files:
        raise absent(f"recordings, got none in {layout}", "dvsgesture", root, split)
    labels = {f"{label}.npy" for label in range(len(CLASSES))}
    for path in sorted(files):
        if path.parent.parent != folder or _user(path)[0] < 0 or path.name not in labels:
            raise ValueError(f"`root` must hold recordings as {layout}, labels 0 to {len(CLASSES) - 1}, got {path}.")
    return sorted(files, key=lambda path: (*_user(path), int(path.stem), path))


def _user(path: Path) -> tuple[int, str]:
    """Return whose recording it is and under which light, or -1."""
    found = re.fullmatch(r"user([0-9]{1,9})_(\w+)", path.parent.name)
    return (int(found[1]), found[2]) if found else (-1, "")


def _n_events(head: bytes, size: int) -> int:
    """Return how many events a file of so many bytes holds, by its beginning, or -1 where it is no such file.

    What it declares and what it holds are the same then, so nothing larger than the file is ever set aside.
    """
    found = _HEADER.match(head)
    if not found or int.from_bytes(found[1], "little") != len(found[2]):
        return -1
    n, itemsize = int(found[4]), int(found[3][-1:])
    return n if size == found.end() + 4 * n * itemsize else -1
