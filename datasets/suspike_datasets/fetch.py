"""Original archives of data sets, fetched and unpacked where tonic and `load` look for them.

Addresses, md5s and names are those of tonic's classes, so that what is mended there is mended here. A download grows in
``.<file>.part``, with what the server said of the file beside it in ``.<file>.part.json``, and goes on where it stopped
as long as the server says the same; its md5 is checked before it gets its name. An archive is unpacked into another
folder and renamed. So what has its name is whole, whenever a process was killed, and a second process waits for the
first (POSIX file locks).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import re
import shutil
import stat
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, NamedTuple

from suspike_datasets import dvs_gesture, nmnist, shd, smnist
from suspike_datasets.cache import locked
from suspike_datasets.checks import check_choice, storage

log = logging.getLogger(__name__)

Name = Literal["nmnist", "shd", "ssc", "dvsgesture", "smnist", "psmnist"]
Progress = Callable[[int, int | None], None]

FOLDERS = {
    "nmnist": "NMNIST", "shd": "SHD", "ssc": "SSC", "dvsgesture": "DVSGesture", "smnist": "smnist", "psmnist": "smnist",
}  # fmt: skip
"""Where a set lies below its root, and but for the last two what tonic calls its class."""

CONTENTS: dict[str, dict[str, tuple[str, ...]]] = {
    "nmnist": {split: (folder,) for split, folder in nmnist.FOLDERS.items()},
    **{name: {split: (f"{name}_{split}.h5",) for split in splits} for name, splits in shd.SPLITS.items()},
    "dvsgesture": {split: (folder,) for split, folder in dvs_gesture.FOLDERS.items()},
    "smnist": smnist.FILES,
    "psmnist": smnist.FILES,
}
"""What the archives of a split unpack to, one each."""

TIMEOUT_S = 30.0
CHUNK_BYTES = 2**18
SIDECAR_BYTES = 2**16
"""What is kept of a server's answer is shorter than this."""

UNPACKED_BYTES = 2**36
UNPACKED_FILES = 2**20
"""An archive that unpacks to more than this is none of those here."""


class Archive(NamedTuple):
    """An original archive.

    Attributes
    ----------
    url, md5, filename : str
    folder : str
        Below the root, where the archive is put and unpacked.
    """

    url: str
    md5: str
    filename: str
    folder: str


class _Member(NamedTuple):
    name: str
    kind: str  # "file", "folder", or what else it is
    size: int
    open: Callable[[], IO[bytes] | None]


def archives(name: Name, split: str) -> list[Archive]:
    """Return the archives of a part of a data set, as the installed tonic has them.

    Parameters
    ----------
    name : {"nmnist", "shd", "ssc", "dvsgesture", "smnist", "psmnist"}
    split : {"train", "test"}, "valid" too for "ssc"

    Returns
    -------
    list of Archive
        One for each entry of `CONTENTS`.

    Raises
    ------
    ImportError
        If tonic is missing.
    ValueError
        If there is no such set or part.
    """
    check_choice("split", split, tuple(CONTENTS[check_choice("name", name, tuple(CONTENTS))]))
    try:
        import tonic.datasets
    except ImportError as err:
        raise ImportError("Where archives lie is known from tonic: pip install 'suspike[datasets]'.") from err
    if name in ("smnist", "psmnist"):
        known = tonic.datasets.SMNIST
        return [
            Archive(f"{known.base_url}{file}.gz", getattr(known, f"{split}_{what}_md5"), f"{file}.gz", FOLDERS[name])
            for what in ("images", "labels")
            for file in (getattr(known, f"{split}_{what}_file"),)
        ]
    theirs = getattr(tonic.datasets, FOLDERS[name])
    if name in ("shd", "ssc"):
        filename = getattr(theirs, f"{split}_zip")
        url = theirs.base_url + filename
    else:
        filename, url = getattr(theirs, f"{split}_filename"), getattr(theirs, f"{split}_url")
    return [Archive(url, getattr(theirs, f"{split}_md5"), filename, FOLDERS[name])]


def fetch(name: Name, *, root: str | os.PathLike[str], split: str, progress: Progress | None = None) -> Path:
    """Put a part of a data set below `root`, archive and content, unless it is there.

    What is there is used as it is, a few of its recordings too: nothing is written or asked of the network then. An
    original archive that lies there is unpacked.

    Parameters
    ----------
    name : {"nmnist", "shd", "ssc", "dvsgesture", "smnist", "psmnist"}
    root : path
        The folder to give to `load`, made where missing.
    split : {"train", "test"}, "valid" too for "ssc"
    progress : callable (done, total), bytes, optional
        Called as bytes arrive; the total is None where the server does not tell it.

    Returns
    -------
    Path
        The content: ``NMNIST/{Train,Test}``, ``{SHD,SSC}/<name>_<split>.h5``, ``DVSGesture/ibmGesture{Train,Test}``,
        or the images ``smnist/{train,t10k}-images-idx3-ubyte`` with the labels beside them.

    Raises
    ------
    ImportError
        If tonic, which knows the addresses, is missing and needed.
    ConnectionError
        If the network is away or gives something else: it says which file to put where. What came is kept, and the
        next call goes on from there.
    ValueError
        If an archive has another md5 (one that was fetched is removed, one that lay there stays), or holds what it
        should not: links, devices, names that lead out of its folder, too much.
    OSError
        If `root` cannot be written or is full, or something else stands at the content's place.

    Notes
    -----
    Sets: Orchard et al., doi 10.3389/fnins.2015.00437 (N-MNIST, CC BY-SA 4.0); Cramer et al., doi
    10.1109/TNNLS.2020.3044364 (SHD, SSC, CC BY 4.0); Amir et al., doi 10.1109/CVPR.2017.781 (DVS Gesture, as tonic cut
    it into samples, CC BY 4.0); LeCun et al., doi 10.1109/5.726791 (MNIST, CC BY-SA 3.0 as commonly stated).
    """
    check_choice("split", split, tuple(CONTENTS[check_choice("name", name, tuple(CONTENTS))]))
    folder = Path(root).expanduser() / FOLDERS[name]
    contents = [folder / content for content in CONTENTS[name][split]]
    if not all(_has_data(content) for content in contents):
        for archive, content in zip(archives(name, split), contents, strict=True):
            _put(archive, folder, content, progress)
    return contents[0]


def _put(archive: Archive, folder: Path, content: Path, progress: Progress | None) -> None:
    """Fetch an archive to `folder` unless it is there, and unpack it to `content`."""
    place = folder / archive.filename
    with locked(place.with_name(f".{place.name}.lock"), "root"):
        if _has_data(content):  # by the process we waited for
            return
        # before gigabytes are fetched that could not be put there
        if content.is_dir() and any(content.iterdir()):
            raise FileExistsError(f"`root` must hold recordings or nothing in {content}, got other things: move them.")
        with storage("root", folder):
            # Nobody else holds the lock, so whoever wrote these is dead.
            for rest in folder.glob(f".{place.name}.*.partial"):
                shutil.rmtree(rest)
            # tonic is content with an empty archive beside unpacked data: a sign, not a file
            given = place.exists() and place.stat().st_size > 0
        if not given:
            _download(archive, place, progress)
        elif (found := _md5(place)) != archive.md5:
            raise ValueError(
                f"`root` must hold the original {archive.filename} (md5 {archive.md5}), got md5 {found} of {place}: "
                "remove that file, and it is fetched."
            )
        with storage("root", folder):
            _forget(_part(place))
        log.info("unpacking %s", place)
        _unpack(place, content)


def _has_data(content: Path) -> bool:
    """Tell whether a file that is not empty stands there, or a folder with at least one recording."""
    if content.is_dir():
        return any(path.is_file() for kind in ("*.bin", "*.npy") for path in content.rglob(kind))
    return content.is_file() and content.stat().st_size > 0


def _md5(path: Path) -> str:
    with storage("root", path), path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def _part(place: Path) -> Path:
    return place.with_name(f".{place.name}.part")


def _sidecar(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _forget(part: Path) -> None:
    # What vouches for the bytes goes before them.
    _sidecar(part).unlink(missing_ok=True)
    part.unlink(missing_ok=True)


def _download(archive: Archive, place: Path, progress: Progress | None) -> None:
    """Put the archive at its place, whole, or raise."""
    part = _part(place)
    log.info("fetching %s from %s", archive.filename, archive.url)
    while True:
        before = _size(part)
        fault = _receive(archive, part, progress)
        if not fault:
            break
        if _size(part) <= before:  # a cut connection is taken up again as long as that helps
            raise ConnectionError(
                f"`network` must give {archive.filename}, got {fault} from {archive.url}: try again, or get the file "
                f"(md5 {archive.md5}) from there by other means and put it at {place}."
            )
    found = _md5(part)
    with storage("root", place):
        if found == archive.md5:
            os.replace(part, place)
            return
        _forget(part)
    raise ValueError(
        f"`md5` of {archive.filename} must be {archive.md5}, got {found} from {archive.url}: what came was removed. "
        f"Try again, or get the file by other means and put it at {place}."
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _receive(archive: Archive, part: Path, progress: Progress | None) -> str:
    """Append to `part` what it lacks, or fill it anew; return what went wrong, or nothing."""
    kept = _kept(part)
    done = _size(part) if kept.get("url") == archive.url else 0
    if done and done == kept.get("length"):
        return ""
    try:
        answer = _ask(archive.url, done)
    except urllib.error.HTTPError as err:
        err.close()
        if not (done and err.code == 416):
            return f"HTTP {err.code} ({_words(err)})"
        answer = None  # the file has become shorter than what we have
    except (OSError, HTTPException, ValueError) as err:
        return _words(err)
    if answer is not None:
        with closing(answer):
            if answer.status not in (200, 206) or answer.headers.get_content_type() == "text/html":
                return f"HTTP {answer.status} with {answer.headers.get_content_type()}, no archive,"
            start, length = _extent(answer)
            said = {
                "url": archive.url, "length": length,
                "etag": answer.headers["ETag"], "modified": answer.headers["Last-Modified"],
            }  # fmt: skip
            if start == 0 or (start == done and said == kept):
                return _append(answer, part, start, said, progress)
    with storage("root", part):
        _forget(part)
    # A server that answers a plain question with the middle of a file would be asked for ever.
    return _receive(archive, part, progress) if done else "the middle of a file"


def _ask(url: str, done: int) -> Any:
    """Return the server's answer, of what comes after the first `done` bytes if it can do that."""
    opener = urllib.request.OpenerDirector()
    # Not build_opener: it would follow a redirect to ftp.
    for handler in (
        urllib.request.ProxyHandler, urllib.request.UnknownHandler, urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler, urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):  # fmt: skip
        opener.add_handler(handler())
    headers = {"User-Agent": "suspike"} | ({"Range": f"bytes={done}-"} if done else {})
    return opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)


def _extent(answer: Any) -> tuple[int, int | None]:
    """Return where an answer starts in its file (-1: it does not say), and how long that is (None: likewise)."""
    if answer.status == 200:
        return 0, answer.length
    found = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", answer.headers.get("Content-Range", "").strip())
    return (int(found[1]), None if found[2] == "*" else int(found[2])) if found else (-1, None)


def _append(answer: Any, part: Path, start: int, said: dict[str, Any], progress: Progress | None) -> str:
    """Write the answer's body behind the first `start` bytes of `part`; return what went wrong, or nothing."""
    size, length = start, said["length"]
    if not start:
        with storage("root", part):
            _forget(part)
            _sidecar(part).write_text(json.dumps(said))
            part.touch()
    while True:
        try:
            chunk = answer.read1(CHUNK_BYTES)
        except (OSError, HTTPException, ValueError) as err:
            return f"{_words(err)} after {size} bytes"
        if not chunk:
            return "" if length is None or size >= length else f"only {size} of {length} bytes"
        # Opened for each chunk: what goes wrong in `progress` is no failure of the file system.
        with storage("root", part), part.open("ab") as file:
            file.write(chunk)
        size += len(chunk)
        if progress is not None:
            progress(size, length)


def _words(err: Exception) -> str:
    """Return in one line what an error says, or what it is called if it says nothing."""
    return " ".join(str(getattr(err, "reason", err)).split()) or type(err).__name__


def _kept(part: Path) -> dict[str, Any]:
    """Return what the server said of the file that `part` is the beginning of, or nothing."""
    try:
        with _sidecar(part).open() as file:
            kept = json.loads(file.read(SIDECAR_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _unpack(place: Path, content: Path) -> None:
    """Unpack the archive at `place` into a folder of its own and rename what it is about to `content`."""
    rest = place.with_name(f".{place.name}.{os.urandom(6).hex()}.partial")
    try:
        with storage("root", rest):
            rest.mkdir()
        _write_members(place, rest)
        if not _has_data(rest / content.name):
            raise ValueError(f"`{place.name}` must hold recordings in {content.name}, got none ({place}).")
        with storage("root", content):
            os.replace(rest / content.name, content)
    finally:
        shutil.rmtree(rest, ignore_errors=True)


def _write_members(place: Path, folder: Path) -> None:
    """Write the files of an archive below `folder`, and nothing but files and folders anywhere."""
    n_files = n_bytes = 0
    with closing(_members(place)) as members:
        while True:
            with _reading(place):
                member = next(members, None)
            if member is None:
                return
            path = _checked(member, place, folder)
            n_files, n_bytes = n_files + 1, n_bytes + member.size
            if n_files > UNPACKED_FILES or n_bytes > UNPACKED_BYTES:
                raise ValueError(
                    f"`{place.name}` must hold at most {UNPACKED_FILES} files and folders and {UNPACKED_BYTES} bytes, "
                    f"got more ({place})."
                )
            with storage("root", path):
                (path if member.kind == "folder" else path.parent).mkdir(parents=True, exist_ok=True)
            if member.kind == "file":
                _copy(member, place, path)


def _checked(member: _Member, place: Path, folder: Path) -> Path:
    """Return where a member is written, if it may be."""
    name = member.name.replace("\\", "/")
    parts = PurePosixPath(name).parts
    fault = ""
    if member.kind not in ("file", "folder"):
        fault = f"the {member.kind}"
    elif name.startswith("/") or ".." in parts or "\0" in name or not (parts or member.kind == "folder"):
        fault = "the name"
    elif member.kind == "file" and os.path.lexists(folder.joinpath(*parts)):
        fault = "twice the name"
    if fault:
        raise ValueError(f"`{place.name}` must hold files and folders below its own, got {fault} {member.name!r}.")
    return folder.joinpath(*parts)


def _copy(member: _Member, place: Path, path: Path) -> None:
    left = member.size
    with _reading(place):
        source = member.open()
        assert source is not None, "a file can be opened"
    # What `_reading` raises is no OSError, so what is told of the file system is the written file's.
    with source, storage("root", path), path.open("xb") as file:
        while left >= 0:
            with _reading(place):
                chunk = source.read(CHUNK_BYTES)
            if not chunk:
                break
            left -= len(chunk)
            file.write(chunk)
    if left:
        raise ValueError(f"`{place.name}` must hold {member.size} bytes of {member.name!r}, got {member.size - left}.")


@contextmanager
def _reading(place: Path) -> Iterator[None]:
    """Tell every way in which an archive cannot be read as one ValueError."""
    try:
        yield
    # zipfile and tarfile let out what their decoders raise, zlib.error among it, which has no better base
    except Exception as err:
        raise ValueError(f"`{place.name}` must be a whole archive, got {place}: {_words(err)}.") from err


def _members(place: Path) -> Generator[_Member, None, None]:
    """Give the members of a .zip, .tar.gz or .gz in their order; each can be opened until the next one is asked for."""
    if place.suffix == ".zip":
        with zipfile.ZipFile(place) as packed:
            for info in packed.infolist():
                # of another system's zip, 0: a name's end tells a folder there
                form = stat.S_IFMT(info.external_attr >> 16) or (stat.S_IFDIR if info.is_dir() else stat.S_IFREG)
                kind = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "symbolic link"}.get(form, "device")
                yield _Member(info.filename, kind, info.file_size, partial(packed.open, info))
        return
    if not place.name.endswith(".tar.gz"):
        with place.open("rb") as raw:
            raw.seek(-4, os.SEEK_END)
            size = int.from_bytes(raw.read(), "little")  # what is unpacked has to be as long
        yield _Member(place.stem, "file", size, partial(gzip.open, place))  # type: ignore[arg-type]
        return
    # Not extract(filter="data"): Python before 3.11.4 has no filter, and links that stay inside would pass it.
    with tarfile.open(place, "r:gz") as tar:
        for member in tar:
            links = {tarfile.SYMTYPE: "symbolic link", tarfile.LNKTYPE: "hard link"}
            kind = "file" if member.isreg() else "folder" if member.isdir() else links.get(member.type, "device")
            size = member.size if member.isreg() else 0
            yield _Member(member.name, kind, size, partial(tar.extractfile, member))
