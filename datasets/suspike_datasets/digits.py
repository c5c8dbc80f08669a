"""scikit-learn's handwritten digits as an N-MNIST set, seen through the event camera of `camera`.

1,797 real 8 x 8 images (UCI "Optical Recognition of Handwritten Digits", Alpaydin and Kaynak 1998,
doi 10.24432/C50P49, CC BY 4.0) that come with scikit-learn, so nothing is fetched. The recordings are simulated.

The split is fixed for good: of each digit the 36 images whose index has the smallest SHA-256 are test images, 360 in
all; 1,437 remain. Both parts hold images by the same writers, so the test says nothing about unseen writers.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from suspike_datasets.cache import code_hash, folder_once
from suspike_datasets.camera import saccade_events
from suspike_datasets.checks import storage
from suspike_datasets.nmnist import FOLDERS, RECORD_BYTES, pack

log = logging.getLogger(__name__)

N_DIGITS = 1797
N_TEST_PER_DIGIT = 36
SEED = 2015
PIXEL_PX = 2.4
"""Pixels of the sensor to a pixel of the image: a digit is then about as tall as in N-MNIST."""

THRESHOLD = 0.157
"""Below the camera's default, because the edges of 8 x 8 images are softer: events as many as in N-MNIST."""

CODE = ("camera.py", "checks.py", "digits.py", "nmnist.py")
"""What a recording's bytes depend on in this package."""


def digits_as_nmnist(cache: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None) -> Path:
    """Encode the digits into N-MNIST's layout under `cache`, once; later calls find them there.

    The set lies in ``<cache>/digits-<hash>/NMNIST/{Train,Test}/<digit>/NNNNN.bin``, NNNNN the 1-based index of the
    image in `sklearn.datasets.load_digits`; the hash is one of the encoder's source. It appears whole or not at all:
    what a killed run left is removed by the next, and a second process waits for the first (POSIX file locks).

    Parameters
    ----------
    cache : path
        A folder, made where missing. The set takes 38 MB.
    progress : callable (done, total), optional
        Called after every image while encoding, not when the set is there already.

    Returns
    -------
    Path
        The folder to give to `load`.

    Raises
    ------
    ImportError
        If scikit-learn is missing.
    OSError
        If `cache` cannot be written or is full. Nothing half-written stays.
    """
    cache = Path(cache).expanduser()
    return folder_once(cache / f"digits-{code_hash(*CODE)}", _complete, lambda folder: _encode(folder, cache, progress))


def _encode(folder: Path, cache: Path, progress: Callable[[int, int], None] | None) -> None:
    images, labels = _digits()
    is_test = _is_test(labels)
    log.info("encoding %d digits into %s", len(images), cache)
    with storage("cache", cache):
        for split in FOLDERS.values():
            for digit in range(10):
                (folder / "NMNIST" / split / str(digit)).mkdir(parents=True)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        # Dark strokes on a light screen, as N-MNIST's polarities have it. The border is background: without it the
        # camera would see strokes go on for ever beyond the image.
        light = 1 - np.pad(image / 16, 1)
        events = saccade_events(light, seed=(SEED, i), span_px=PIXEL_PX * len(light), threshold=THRESHOLD)
        split = FOLDERS["test" if is_test[i] else "train"]
        path = folder / "NMNIST" / split / str(label) / f"{i + 1:05d}.bin"
        raw = pack(events, str(path))
        with storage("cache", cache):
            path.write_bytes(raw)
        if progress is not None:
            progress(i + 1, len(images))


def _digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the images [1797, 8, 8], from 0 to 16, and their labels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as err:
        raise ImportError("`digits_as_nmnist` needs scikit-learn: pip install 'suspike[datasets]'.") from err
    bunch = load_digits()
    return bunch.images, bunch.target


def _is_test(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the fixed split as a mask; hashes, because numpy may change its permutations between versions."""
    rank = np.array([hashlib.sha256(str(i).encode()).hexdigest() for i in range(len(labels))])
    mask = np.zeros(len(labels), bool)
    for digit in np.unique(labels):
        members = np.flatnonzero(labels == digit)
        mask[members[np.argsort(rank[members])[:N_TEST_PER_DIGIT]]] = True
    return mask


def _complete(target: Path) -> bool:
    """Tell whether both folders hold their number of files of whole records; a power cut leaves empty files."""
    counts = []
    for split in ("Train", "Test"):
        try:
            sizes = [path.stat().st_size for path in (target / "NMNIST" / split).glob("[0-9]/*.bin")]
        except OSError:  # another process is replacing it
            return False
        if not all(size and size % RECORD_BYTES == 0 for size in sizes):
            return False
        counts.append(len(sizes))
    return counts == [N_DIGITS - 10 * N_TEST_PER_DIGIT, 10 * N_TEST_PER_DIGIT]
