"""What is made once and found again: whole folders, and arrays in them, mapped into memory.

A folder is made under another name and renamed, so it appears whole or not at all; what a killed process left is
removed by the next one, and a second process waits for the first (POSIX file locks). Arrays lie in a folder named after
a hash of everything that shaped them, with a checksum each: damaged ones are made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suspike_datasets.checks import storage

INDEX = "index.json"
INDEX_BYTES = 2**16
"""An index is shorter than this."""


def folder_once(target: Path, is_complete: Callable[[Path], bool], make: Callable[[Path], None]) -> Path:
    """Return the folder `target`, made by ``make(folder)`` unless it is complete.

    Parameters
    ----------
    target : path
        NAME-HASH; its own folder is made where missing.
    is_complete : callable (path) -> bool
        Says whether a folder that stands there holds what it should.
    make : callable (path)
        Fills a new folder.

    Raises
    ------
    OSError
        If the place cannot be written or is full. Nothing half-written stays.
    """
    if is_complete(target):
        return target
    with locked(target.with_name(f".{target.name.rpartition('-')[0]}.lock"), "cache"):
        with storage("cache", target.parent):
            # Nobody else holds the lock, so whoever wrote these is dead.
            for rest in target.parent.glob(f".{target.name}.*.partial"):
                _remove(rest)
            if target.exists() and not target.is_dir():
                raise NotADirectoryError(f"{target} is no folder")
        if is_complete(target):  # by the process we waited for
            return target
        partial = target.with_name(f".{target.name}.{os.urandom(6).hex()}.partial")
        try:
            with storage("cache", target.parent):
                partial.mkdir()
            make(partial)
            with storage("cache", target.parent):
                if os.path.lexists(target):  # damaged since: out of the way in one step, then away
                    damaged = target.with_name(f".{target.name}.damaged.partial")
                    os.replace(target, damaged)
                    _remove(damaged)
                os.replace(partial, target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return target


def _remove(folder: Path) -> None:
    """Remove a folder, or a link to one and not what it leads to."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)


def arrays_once(
    cache: str | os.PathLike[str], name: str, shaped_by: Mapping[str, Any], make: Callable[[], dict[str, NDArray[Any]]]
) -> dict[str, NDArray[Any]]:
    """Return arrays, mapped read-only from ``<cache>/<name>-<hash>``, made there once.

    Parameters
    ----------
    cache : path
        A folder, made where missing.
    name : str
    shaped_by : mapping of what JSON holds
        All that the arrays depend on; the hash is one of it.
    make : callable () -> dict of arrays
        Called where there are none, or damaged ones.

    Raises
    ------
    OSError
        If `cache` cannot be written or is full; what stood there before stays.
    """
    text = json.dumps(shaped_by, sort_keys=True, default=int)  # numpy's whole numbers
    cache = Path(cache).expanduser()
    target = cache / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    found: dict[str, NDArray[Any]] = {}

    def is_complete(folder: Path) -> bool:
        found.clear()
        found.update(_open(folder) or {})
        return bool(found)

    def write(folder: Path) -> None:
        arrays = make()
        with storage("cache", cache):
            index = {}
            for key, array in arrays.items():
                whole = np.ascontiguousarray(array)
                whole.tofile(folder / f"{key}.bin")
                index[key] = _description(whole)
            (folder / INDEX).write_text(json.dumps({"arrays": index, "crc32": _check_sum(index), "shaped_by": text}))

    folder = folder_once(target, is_complete, write)
    if not found and not is_complete(folder):
        raise OSError(f"`cache` must be a place that keeps what is written, got {cache}: {folder.name} is damaged.")
    return dict(found)


def _description(array: NDArray[Any]) -> dict[str, Any]:
    raw = array.reshape(-1).view(np.uint8)
    return {"dtype": array.dtype.str, "shape": list(array.shape), "crc32": zlib.crc32(raw.data)}


def _check_sum(index: Any) -> int:
    return zlib.crc32(json.dumps(index, sort_keys=True).encode())


def _open(folder: Path) -> dict[str, NDArray[Any]] | None:
    """Return the arrays of a folder, or None where one is missing or not what its index says."""
    try:
        if (folder / INDEX).stat().st_size > INDEX_BYTES:
            return None
        found = json.loads((folder / INDEX).read_text())
        index = found["arrays"]
        if found["crc32"] != _check_sum(index):
            return None
        arrays: dict[str, NDArray[Any]] = {}
        for key, description in index.items():
            path = folder / f"{Path(key).name}.bin"
            if not re.fullmatch(r"[<|][iufU]\d{1,6}", description["dtype"]):
                return None
            dtype, shape = np.dtype(description["dtype"]), tuple(description["shape"])
            fits = all(type(n) is int and n >= 0 for n in shape)
            if not fits or path.stat().st_size != prod(shape) * dtype.itemsize:
                return None
            # a mapping takes no memory; numpy maps no empty file
            array = np.memmap(path, dtype, "r", shape=shape) if prod(shape) else np.empty(shape, dtype)
            if _description(array) != description:
                return None
            arrays[key] = array
        return arrays
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None


def fingerprint(paths: Iterable[Path]) -> str:
    """Return a hash of names, sizes and times of change: files that were not touched are not read again."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        stat = path.stat()
        digest.update(f"{path.name}\0{path.parent.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def code_hash(*names: str) -> str:
    """Return a hash of source files of this package."""
    folder = Path(__file__).parent
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in names)).hexdigest()[:12]


@contextmanager
def locked(file: Path, name: str) -> Iterator[None]:
    """Hold a lock file, made with its folder where missing; the system lets go of it when the process dies.

    Parameters
    ----------
    file : path
        It stays.
    name : str
        The argument that an OSError about the place is told of.
    """
    import fcntl  # POSIX only

    with storage(name, file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        opened = file.open("w")
    with opened:
        with storage(name, file.parent):
            fcntl.flock(opened, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(opened, fcntl.LOCK_UN)  # a process forked meanwhile would hold it on
