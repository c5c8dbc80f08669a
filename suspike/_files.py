"""Files made whole in memory, written beside their place and moved there when complete: none is ever half there.

HDF5 and npz are made in memory because their libraries leave a broken file, and an error at exit, on a full disk.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from suspike._validate import import_extra, message

PathLike = str | os.PathLike[str]


def write_atomic(path: PathLike, data: bytes) -> None:
    """Put `data` at `path`, whole or not at all.

    Raises
    ------
    OSError
        If the place cannot be written or the disk is full, or something other than a regular file is there.
    """
    place = Path(os.path.realpath(path))  # what a link points to is replaced, not the link
    if place.exists() and not place.is_file():
        raise FileExistsError(errno.EEXIST, "Not a regular file; nothing was written", str(path))
    temporary = sibling(place)
    try:
        write_new(temporary, data)
        os.replace(temporary, place)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; nothing was written", str(path)) from None
    finally:
        with suppress(OSError):  # gone where it was moved
            temporary.unlink()


def make_folder(path: PathLike, name: str) -> Path:
    """Return the folder at `path`, made where there is none; `name` is the argument it came as.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        rule = f"a folder that can be made ({error.strerror})"
        raise OSError(message(name, rule, str(path), "Choose another place.")) from None
    return Path(path)


def write_new(path: Path, data: bytes) -> None:
    """Write a file that is not there yet, down to the disk."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # some places tell of a full disk only now


def sibling(path: Path) -> Path:
    """Return a free name beside `path`; short, since `path` may be as long as names can be."""
    return path.with_name(f".{secrets.token_hex(8)}.tmp")


def read_bytes(path: PathLike) -> bytes:
    """Return what is in a regular file; a pipe would never end.

    Raises
    ------
    OSError
        If there is no such file, or something else.
    """
    with open_file(path) as file:
        data: bytes = file.read()
    return data


def open_file(path: PathLike) -> BinaryIO:
    """Open a regular file for reading; raises like `read_bytes`."""
    place = Path(path)
    if place.exists() and not place.is_file():
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return open(place, "rb")


@contextmanager
def reading(path: PathLike, what: str) -> Iterator[None]:
    """Turn whatever a damaged or foreign file provokes in its reader into one ValueError that names the file."""
    try:
        yield
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f" with {type(error).__name__}"
        raise ValueError(message(Path(path).name, what, f"one that fails{kind}: {error}".rstrip(".: "))) from None


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the arrays as an npz; the same arrays give the same bytes."""
    file, content = io.BytesIO(), dict[str, Any](arrays)
    np.savez_compressed(file, **content)
    return file.getvalue()


def npz_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz; pickled objects are refused."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def hdf5_bytes(fill: Callable[[Any], None]) -> bytes:
    """Return the HDF5 file that `fill` puts into the open h5py.File it is given."""
    h5py = import_extra("h5py", extra="export")
    file = io.BytesIO()
    with h5py.File(file, "w") as hdf5:
        fill(hdf5)
    return file.getvalue()


@contextmanager
def hdf5_file(data: bytes) -> Iterator[Any]:
    """Open the bytes of an HDF5 file for reading."""
    h5py = import_extra("h5py", extra="export")
    with h5py.File(io.BytesIO(data), "r") as hdf5:
        yield hdf5
