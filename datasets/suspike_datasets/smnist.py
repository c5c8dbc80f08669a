r"""Sequential MNIST: digits pixel after pixel, as spikes of grey values that cross thresholds.

With pixels g(i), i = 0 to 783, and thresholds :math:`\theta_k`, k = 0 to K - 1, of which the first is 0 and never
crossed, N = 2 K + 1 units:

.. math::
    \text{unit } N - k \text{ at } i:\; g(i) < \theta_k \le g(i + 1), \qquad
    \text{unit } N - K - k \text{ at } i:\; g(i) \ge \theta_k > g(i + 1), \qquad
    \text{unit } 0 \text{ at } i:\; g(i) = 255,

thresholds evenly from 0 to 254, cut to whole numbers. A pixel takes one step, or two where each spike comes twice. The
rule is tonic's ``SMNIST``, and so are the defaults; its events are the same but for their order, which is by pixel and
not by time where spikes come twice.

In permuted sequential MNIST the pixels of every image come in one and the same random order (Le, Jaitly and Hinton,
"A simple way to initialize recurrent networks of rectified linear units", 2015, arXiv 1504.00941). No order is common
to those who use it: name the seed beside a figure.

A set is MNIST's four original files, unpacked: ``smnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte``. Source of the
images: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", Proceedings of the
IEEE 86(11), 1998, doi 10.1109/5.726791.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Literal

import numba
import numpy as np
from numpy.typing import NDArray

from suspike_datasets.checks import check_choice, check_int
from suspike_datasets.sets import T_END_US, UNKNOWN, EventSet, absent

log = logging.getLogger(__name__)

SIDE = 28
N_PIXELS = SIDE * SIDE
CLASSES = tuple("0123456789")
FILES: dict[str, tuple[str, ...]] = {
    split: (f"{name}-images-idx3-ubyte", f"{name}-labels-idx1-ubyte")
    for split, name in (("train", "train"), ("test", "t10k"))
}
N_UNITS = 99
SENSOR = (1, 1, N_UNITS)
DT_US = 1000


def permutation(seed: int) -> NDArray[np.int64]:
    """Return an order of the 784 pixels, int64 [784], the same on every machine.

    Parameters
    ----------
    seed : int
        From 0 on.
    """
    # raw bits: numpy may change how it makes permutations of them, not the bits
    bits = np.random.PCG64(check_int("seed", seed, 0, 2**63 - 1)).random_raw(N_PIXELS)
    return np.argsort(bits, kind="stable")


def read_images(
    root: str | os.PathLike[str], split: Literal["train", "test"]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read the images and their labels as they are, for networks that take grey values.

    Parameters
    ----------
    root : path
        The folder that holds ``smnist``.
    split : {"train", "test"}

    Returns
    -------
    images : uint8 [B, 784]
        Row after row; ``images[:, permutation(seed)]`` is permuted.
    labels : int64 [B]

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    ValueError
        If a file is damaged: it names file and rule.
    """
    of_images, of_labels = files_of(root, split)
    images = read_idx(of_images)
    labels = _read_idx(of_labels, (2049,))
    if len(labels) != len(images):
        raise ValueError(
            f"`root` must hold as many labels as images, got {len(labels)} and {len(images)} in {of_images.parent}."
        )
    return images, labels.astype(np.int64)


def read_idx(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read MNIST's file of images, uint8 [B, 784]; what is no such file raises a ValueError."""
    return _read_idx(Path(path), (2051, SIDE, SIDE)).reshape(-1, N_PIXELS)


def encode(
    images: NDArray[np.uint8], *, n_units: int = N_UNITS, duplicate: bool = True, dt_us: int = DT_US
) -> EventSet:
    """Turn images into spikes by the equations above; labels are unknown.

    Parameters
    ----------
    images : uint8 [B, 784]
    n_units : int
        N, odd, up to 511; below 5 no threshold is crossed.
    duplicate : bool
        Each spike comes twice, one step after the other.
    dt_us : int, us
        Length of a step; pixel i is the step 2 i, or i where spikes come once.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type, or out of range.
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (N_PIXELS,):
        got = f"{images.dtype} {list(images.shape)}" if isinstance(images, np.ndarray) else type(images).__name__
        raise TypeError(f"`images` must be an array uint8 [B, {N_PIXELS}], got {got}.")
    if not check_int("n_units", n_units, 1, 511) % 2:
        raise ValueError(f"`n_units` must be odd, got {n_units}.")
    dt_us = check_int("dt_us", dt_us, 1, T_END_US // (2 * N_PIXELS))
    thresholds = np.linspace(0, 254, n_units // 2).astype(np.uint8)
    below = np.searchsorted(thresholds, np.arange(256), side="right")
    copies = 2 if duplicate else 1
    start = np.zeros(len(images) + 1, np.int64)
    start[1:] = np.cumsum(_count(images, below)) * copies
    t, unit = np.empty(start[-1], np.int32), np.empty(start[-1], np.int32)
    _fill(images, below, n_units, copies, dt_us, start, t, unit)
    unknown = np.full(len(images), UNKNOWN, np.int64)
    return EventSet(start, t, unit, unknown, unknown.copy(), (1, 1, n_units), ())


def read_split(
    root: str | os.PathLike[str],
    split: Literal["train", "test"],
    *,
    permute_seed: int | None = None,
    n_units: int = N_UNITS,
    duplicate: bool = True,
    dt_us: int = DT_US,
    damaged: Literal["refuse", "skip"] = "refuse",
) -> EventSet:
    """Read ``<root>/smnist`` as spikes; each file once.

    Parameters
    ----------
    root, split
        As in `read_images`.
    permute_seed : int, optional
        Pixels come in the order ``permutation(permute_seed)``.
    n_units, duplicate, dt_us
        As in `encode`.
    damaged : {"refuse", "skip"}
        What to do with an image whose label is no digit; how many are skipped is logged as a warning, with the first.

    Returns
    -------
    EventSet
        In the files' order. Who wrote a digit is not known.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        As `read_images` and `encode`.
    """
    check_choice("damaged", damaged, ("refuse", "skip"))
    images, labels = read_images(root, split)
    place = files_of(root, split)[1]
    bad = np.flatnonzero(labels >= len(CLASSES))
    if len(bad):
        fault = f"`label` must be from 0 to {len(CLASSES) - 1}, got {labels[bad[0]]} (recording {bad[0]} of {place})"
        if damaged == "refuse":
            raise ValueError(f"{fault}: the file is damaged.")
        log.warning("skipped %d of %d recordings; the first: %s", len(bad), len(labels), fault)
        images, labels = np.delete(images, bad, 0), np.delete(labels, bad)
    if permute_seed is not None:
        images = images[:, permutation(permute_seed)]
    events = encode(images, n_units=n_units, duplicate=duplicate, dt_us=dt_us)
    return events._replace(labels=labels, classes=CLASSES)


def files_of(root: str | os.PathLike[str], split: str) -> list[Path]:
    """Return the files of images and labels of a split.

    Raises
    ------
    FileNotFoundError
        If one is not there.
    """
    folder = Path(root).expanduser() / "smnist"
    paths = [folder / file for file in FILES[check_choice("split", split, tuple(FILES))]]
    for path in paths:
        if not path.is_file():
            raise absent(f"smnist/{path.name}, got nothing at {path}", "smnist", root, split)
    return paths


def _read_idx(path: Path, head: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return what stands behind the header (the first number of `head`, how many, its other numbers), big-endian."""
    raw = np.fromfile(path, np.uint8)
    numbers = raw[: 4 * (1 + len(head))].view(">u4").tolist() if len(raw) >= 4 * (1 + len(head)) else []
    each = int(np.prod(head[1:]))
    if numbers[:1] + numbers[2:] != [*head] or len(raw) != 4 * len(numbers) + numbers[1] * each:
        raise ValueError(
            f"`root` must hold MNIST's original files, unpacked, got another one or a damaged one at {path}."
        )
    return raw[4 * len(numbers) :]


@numba.njit(nogil=True)
def _count(images: NDArray[np.uint8], below: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many spikes each image [B] makes; ``below[g]`` thresholds are at most g."""
    n = np.zeros(len(images), np.int64)
    for b in range(len(images)):
        for i in range(images.shape[1]):
            n[b] += images[b, i] == 255
            if i:
                n[b] += abs(below[images[b, i]] - below[images[b, i - 1]])
    return n


@numba.njit(nogil=True)
def _fill(
    images: NDArray[np.uint8], below: NDArray[np.int64], n_units: int, copies: int, dt_us: int,
    start: NDArray[np.int64], t: NDArray[np.int32], unit: NDArray[np.int32],
) -> None:  # fmt: skip
    """Write times and units of the spikes, units ascending within a step."""
    for b in range(len(images)):
        e = start[b]
        for i in range(images.shape[1]):
            for copy in range(copies):
                first = e
                if images[b, i] == 255:
                    unit[e] = 0
                    e += 1
                now = below[images[b, i]]
                then = below[images[b, i + 1]] if i + 1 < images.shape[1] else now
                for k in range(max(now, then) - 1, min(now, then) - 1, -1):
                    unit[e] = n_units - k - (0 if then > now else n_units // 2)
                    e += 1
                t[first:e] = (copies * i + copy) * dt_us
