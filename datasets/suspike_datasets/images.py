"""Any set of small grey images as recordings of the event camera, in N-MNIST's layout.

Three forms are read: a folder of ``CLASS/*.png|jpg`` (or of ``train/CLASS/*`` and ``test/CLASS/*``), an npz with
x_train, y_train, x_test, y_test, and MNIST's idx files as they are distributed, plain or gzipped.
"""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from suspike_datasets.cache import locked
from suspike_datasets.camera import saccade_events
from suspike_datasets.checks import check_int, storage
from suspike_datasets.nmnist import CLASSES, FOLDERS, pack

log = logging.getLogger(__name__)

IDX_NAMES = {"train": "train", "test": "t10k"}
SUFFIXES = (".png", ".jpg", ".jpeg")
MODES = ("1", "L", "P", "RGB")
MAX_SIDE = 4096
N_LOOKED_AT = 100
"""Images of a split whose borders tell whether the background is dark."""


class Images(NamedTuple):
    """A split: `get(i)` is image i, uint8 [H, W], `labels` [N] from 0 to 9."""

    get: Callable[[int], NDArray[np.uint8]]
    labels: NDArray[np.int64]


def encode_images(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    images: tuple[int, int] | None = None,
    invert: bool | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Encode a set of images with `saccade_events` into ``<path>/NMNIST/{Train,Test}/<label>/NNNNN.bin``.

    NNNNN is the 1-based index of the image in its split. The folder NMNIST appears whole or not at all: what a killed
    run left is removed by the next, and a second process waits for the first (POSIX file locks). It runs in as many
    threads as this process may use processors; the recordings do not depend on how many.

    Parameters
    ----------
    source : path
        A folder of ``CLASS/*.png|jpg|jpeg`` (all are for training) or of ``train/CLASS/*`` and ``test/CLASS/*``: ten
        classes at most, numbered in sorted order of their names unless these are digits; images in sorted order of
        their paths. Or an .npz with uint8 x_train, x_test [N, H, W] and y_train, y_test [N] from 0 to 9; one split
        may be missing. Or a folder of train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-..., plain or .gz, or
        the one that holds it as MNIST/raw.
    path : path
        A folder, made where missing, that holds no NMNIST yet.
    images : (first, last), from 1, optional
        Which images of each split, both ends included; all without it.
    invert : bool, optional
        Whether to exchange black and white. N-MNIST's polarities are those of dark strokes on a light screen; without
        it, sets whose borders are dark, as MNIST's, are inverted, and a log line tells so.
    seed : int, from 0
        Image i of the training part is encoded with the seed (seed, 0, i), of the test part with (seed, 1, i).
    progress : callable (done, total), optional
        Called after every image.

    Returns
    -------
    Path
        `path`, the folder to give to `load`.

    Raises
    ------
    FileNotFoundError
        If there are no images at `source`, or none in the range `images`.
    FileExistsError
        If `path` holds an NMNIST.
    ValueError
        Naming the first file that is damaged or of another kind, and the rule. Nothing but a lock file stays then.
    ImportError
        If Pillow is missing, for a folder of images.
    OSError
        If `path` cannot be written or is full. Nothing half-written stays.
    """
    source, path = Path(source).expanduser(), Path(path).expanduser()
    seed = check_int("seed", seed, 0, 2**63 - 1)
    first, last = _range(images)
    _refuse_existing(path)
    splits = _splits(source)
    if invert is None:
        invert = _is_dark(splits)
        log.info("%s: the background is %s", source, "dark, so black and white are exchanged" if invert else "light")
    jobs = [(split, i) for split, part in splits.items() for i in range(first, min(last, len(part.labels)) + 1)]
    if not jobs:
        raise FileNotFoundError(f"`images` must reach into the set, got {images}: no split of {source} goes so far.")
    log.info("encoding %d images of %s into %s", len(jobs), source, path)

    def encode(job: tuple[str, int], folder: Path) -> None:
        split, i = job
        part = splits[split]
        image = part.get(i - 1)
        events = saccade_events(255 - image if invert else image, seed=(seed, list(FOLDERS).index(split), i))
        file = folder / FOLDERS[split] / str(part.labels[i - 1]) / f"{i:05d}.bin"
        raw = pack(events, str(file))
        with storage("path", path):
            file.write_bytes(raw)

    with locked(path / ".NMNIST.lock", "path"), _whole(path) as folder:
        with storage("path", path):
            for split in {split for split, _ in jobs}:
                for digit in CLASSES:
                    (folder / FOLDERS[split] / digit).mkdir(parents=True)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None) as pool:
            try:
                for done, _ in enumerate(pool.map(lambda job: encode(job, folder), jobs), 1):
                    if progress is not None:
                        progress(done, len(jobs))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return path


def _range(images: Any) -> tuple[int, int]:
    """Return first and last index, from 1."""
    if images is None:
        return 1, 2**31
    if not (isinstance(images, (tuple, list)) and len(images) == 2):
        raise TypeError(f"`images` must be (first, last), got {images!r}.")
    first = check_int("images", images[0], 1, 2**31)
    return first, check_int("images", images[1], first, 2**31)


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path / "NMNIST"):
        raise FileExistsError(f"`path` must be a folder that holds no NMNIST, got {path}: move {path / 'NMNIST'} away.")


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Give a new folder that becomes ``path/NMNIST`` at the end, unless something goes wrong. The lock is held."""
    _refuse_existing(path)  # by the process that we waited for
    with storage("path", path):
        for rest in path.glob(".NMNIST.*.partial"):  # whoever wrote these is dead
            shutil.rmtree(rest)
        partial = path / f".NMNIST.{os.urandom(6).hex()}.partial"
        partial.mkdir()
    try:
        yield partial
        with storage("path", path):
            os.replace(partial, path / "NMNIST")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _is_dark(splits: dict[str, Images]) -> bool:
    """Tell whether the borders of a set's images, N_LOOKED_AT of each split, are rather black than white."""
    borders = []
    for part in splits.values():
        n = len(part.labels)
        for i in np.unique(np.linspace(0, n - 1, min(n, N_LOOKED_AT)).astype(int)):
            image = part.get(int(i))
            borders.append(np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]).mean())
    return bool(np.mean(borders) < 127.5)


def _splits(source: Path) -> dict[str, Images]:
    """Return what there is of train and test."""
    if source.suffix == ".npz":
        return _from_npz(source)
    for folder in (source, source / "raw", source / "MNIST" / "raw"):
        if any(_idx_file(folder, f"{name}-images", 3) for name in IDX_NAMES.values()):
            return _from_idx(folder)
    if not source.is_dir():
        raise FileNotFoundError(f"`source` must be a folder of images or an .npz, got {source}.")
    found = {}
    for split in FOLDERS:
        folders = [folder for folder in (source / split, source / split.capitalize()) if folder.is_dir()]
        if folders:
            found[split] = folders[0]
    return _from_folders(found or {"train": source})


def _from_npz(file: Path) -> dict[str, Images]:
    splits = {}
    try:
        # numpy leaves a file open that is no zip, if it has opened it itself
        with file.open("rb") as opened:
            data = np.load(opened, allow_pickle=False)
            if not isinstance(data, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            for split in FOLDERS:
                names = f"x_{split}", f"y_{split}"
                if names[0] in data or names[1] in data:
                    splits[split] = _from_arrays(data[names[0]], data[names[1]])
        if not splits:
            raise ValueError("it holds no x_train and no x_test")
    except FileNotFoundError as err:
        raise FileNotFoundError(f"`source` must be a folder of images or an .npz, got {file}.") from err
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as err:
        raise ValueError(
            f"`source` must be an .npz with uint8 x_train [N, H, W] and y_train [N], got {file}: {_reason(err)}."
        ) from err
    return splits


def _from_idx(folder: Path) -> dict[str, Images]:
    splits = {}
    for split, name in IDX_NAMES.items():
        files = _idx_file(folder, f"{name}-images", 3), _idx_file(folder, f"{name}-labels", 1)
        if files == (None, None):
            continue
        for file, what in zip(files, ("images-idx3", "labels-idx1"), strict=True):
            if file is None:
                raise FileNotFoundError(
                    f"`source` must hold images and labels, got no {name}-{what}-ubyte in {folder}."
                )
        pixels, labels = (_read_idx(file, n) for file, n in zip(files, (3, 1), strict=True) if file)
        try:
            splits[split] = _from_arrays(pixels, labels)
        except ValueError as err:
            raise ValueError(f"`source` must hold MNIST's idx files, got {files[0]}: {_reason(err)}.") from err
    return splits


def _idx_file(folder: Path, name: str, n_dims: int) -> Path | None:
    for ending in (f"-idx{n_dims}-ubyte", f".idx{n_dims}-ubyte"):
        for packed in ("", ".gz"):
            if (folder / f"{name}{ending}{packed}").is_file():
                return folder / f"{name}{ending}{packed}"
    return None


def _read_idx(file: Path, n_dims: int) -> NDArray[np.uint8]:
    """Read an array of bytes: 0, 0, 8, the number of axes, their lengths as big-endian uint32, then the values."""
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as opened:
            head = opened.read(4 + 4 * n_dims)
            if len(head) < 4 + 4 * n_dims or head[:4] != bytes([0, 0, 8, n_dims]):
                raise ValueError(f"it does not begin as an idx{n_dims} of bytes")
            shape = tuple(int(n) for n in np.frombuffer(head, ">u4", offset=4))
            raw = opened.read()
    except (OSError, EOFError, ValueError, zlib.error) as err:
        raise ValueError(f"`source` must hold MNIST's idx files, got {file}: {_reason(err)}.") from err
    if len(raw) != prod(shape):
        raise ValueError(
            f"`source` must hold MNIST's idx files, got {file}: {len(raw)} bytes of values, not {prod(shape)}."
        )
    return np.frombuffer(raw, np.uint8).reshape(shape)


def _from_arrays(pixels: NDArray[Any], labels: NDArray[Any]) -> Images:
    if pixels.ndim != 3 or not pixels.size or pixels.dtype != np.uint8:
        raise ValueError(f"images are {pixels.dtype} of shape {pixels.shape}, not uint8 [N, H, W]")
    if labels.dtype.kind not in "iu" or labels.shape != pixels.shape[:1]:
        raise ValueError(f"labels are {labels.dtype} of shape {labels.shape}, not whole numbers [{len(pixels)}]")
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise ValueError(f"labels are from {labels.min()} to {labels.max()}, not from 0 to {len(CLASSES) - 1}")
    return Images(lambda i: pixels[i], labels.astype(np.int64))


def _from_folders(folders: dict[str, Path]) -> dict[str, Images]:
    try:
        import PIL.Image  # noqa: F401  not after a look at thousands of files
    except ImportError as err:
        raise ImportError("`encode_images` needs Pillow: pip install 'suspike[datasets]'.") from err
    files = {
        split: sorted(
            (file for file in folder.glob("*/*") if file.suffix.lower() in SUFFIXES and file.is_file()),
            key=lambda file, folder=folder: file.relative_to(folder).as_posix(),  # type: ignore[misc]
        )
        for split, folder in folders.items()
    }
    names = sorted({file.parent.name for split in files.values() for file in split})
    if not names:
        raise FileNotFoundError(
            f"`source` must hold images, got none as CLASS/*.png in {next(iter(folders.values()))}."
        )
    if all(name in CLASSES for name in names):
        number = {name: int(name) for name in names}
    else:
        number = {name: i for i, name in enumerate(names)}
    if len(names) > len(CLASSES):
        raise ValueError(f"`source` must hold ten classes at most, got {len(names)}: {', '.join(names[:11])}.")
    return {
        split: Images(lambda i, part=part: _read_image(part[i]), np.array([number[f.parent.name] for f in part]))  # type: ignore[misc]
        for split, part in files.items() if part
    }  # fmt: skip


def _read_image(file: Path) -> NDArray[np.uint8]:
    """Read an image as grey values."""
    import PIL.Image

    try:
        with PIL.Image.open(file) as image:
            image.verify()  # the checksums of a PNG, which reading alone ignores
        with PIL.Image.open(file) as image:
            if image.mode not in MODES:
                raise ValueError(f"its mode is {image.mode}, not {', '.join(MODES)}")
            if max(image.size) > MAX_SIDE:
                raise ValueError(f"its sides are {image.size}, not {MAX_SIDE} at most")
            return np.asarray(image.convert("L"))
    except (OSError, ValueError, SyntaxError, EOFError, zlib.error, PIL.Image.DecompressionBombError) as err:
        raise ValueError(f"`source` must hold whole 8-bit images, got {file}: {_reason(err)}.") from err


def _reason(err: BaseException) -> str:
    return str(err).strip().rstrip(".") or type(err).__name__
