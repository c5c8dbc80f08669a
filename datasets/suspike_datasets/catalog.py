"""Data sets by name: what stands on disk is read as it is, and nothing is ever fetched from here."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from suspike_datasets import dvs_gesture, nmnist, shd, smnist
from suspike_datasets.binning import BinnedEvents, Window, bin_events
from suspike_datasets.cache import arrays_once, code_hash, fingerprint
from suspike_datasets.checks import check_choice
from suspike_datasets.sets import EventSet

log = logging.getLogger(__name__)

Name = Literal["nmnist", "shd", "ssc", "dvsgesture", "smnist", "psmnist"]
Damaged = Literal["refuse", "skip"]


PERMUTE_SEED = 0
"""Of the order in which "psmnist" has its pixels."""


class About(NamedTuple):
    """What there is to know of a data set: its sensor is (channels, rows, columns)."""

    title: str
    sensor: tuple[int, int, int]
    splits: tuple[str, ...]
    licence: str
    source: str


ABOUT = {
    "nmnist": About(
        "digits before an event camera", nmnist.SENSOR, tuple(nmnist.FOLDERS), "CC BY-SA 4.0",
        "Orchard et al. 2015, doi 10.3389/fnins.2015.00437",
    ),
    "shd": About(
        "spoken digits, English and German, through a cochlea", shd.SENSOR, shd.SPLITS["shd"], "CC BY 4.0",
        "Cramer et al. 2022, doi 10.1109/TNNLS.2020.3044364",
    ),
    "ssc": About(
        "spoken commands through a cochlea", shd.SENSOR, shd.SPLITS["ssc"], "CC BY 4.0",
        "Cramer et al. 2022, doi 10.1109/TNNLS.2020.3044364",
    ),
    "dvsgesture": About(
        "gestures before an event camera, cut and in ms as tonic has them", dvs_gesture.SENSOR,
        tuple(dvs_gesture.FOLDERS), "CC BY 4.0", "Amir et al. 2017, doi 10.1109/CVPR.2017.781",
    ),
    "smnist": About(
        "MNIST's digits pixel after pixel, through thresholds", smnist.SENSOR, tuple(smnist.FILES),
        "CC BY-SA 3.0, as commonly stated", "LeCun et al. 1998, doi 10.1109/5.726791",
    ),
    "psmnist": About(
        f"the same, pixels in the order of seed {PERMUTE_SEED}", smnist.SENSOR, tuple(smnist.FILES),
        "CC BY-SA 3.0, as commonly stated", "LeCun et al. 1998, doi 10.1109/5.726791; Le et al. 2015, arXiv 1504.00941",
    ),
}  # fmt: skip

WHOLE = {
    (name, split): n for name in ("nmnist", "smnist", "psmnist") for split, n in (("train", 60_000), ("test", 10_000))
}
"""Recordings of the whole set, where its makers agree on a number: less is a subset, and called so."""

CODE = (
    "binning.py", "cache.py", "catalog.py", "checks.py", "dvs_gesture.py", "nmnist.py", "sets.py", "shd.py",
    "shd_child.py", "smnist.py",
)  # fmt: skip
"""What binned recordings depend on in this package."""


class BinnedSet(NamedTuple):
    """Labelled recordings in time steps.

    Attributes
    ----------
    events : BinnedEvents of B recordings
    labels, subjects : int64 [B]
        As in `EventSet`.
    classes : tuple of str
    """

    events: BinnedEvents
    labels: NDArray[np.int64]
    subjects: NDArray[np.int64]
    classes: tuple[str, ...]


def load(name: Name, *, root: str | os.PathLike[str], split: str, damaged: Damaged = "refuse") -> EventSet:
    """Read a part of a data set, the whole of it or what there is.

    Parameters
    ----------
    name : {"nmnist", "shd", "ssc", "dvsgesture", "smnist", "psmnist"}
    root : path
        The folder that holds ``NMNIST/{Train,Test}/<digit>/NNNNN.bin``, ``SHD/shd_<split>.h5``,
        ``SSC/ssc_<split>.h5``, ``DVSGesture/ibmGesture{Train,Test}/user<number>_<lighting>/<label>.npy`` or
        ``smnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte``. For grey values instead of spikes, and other
        thresholds and permutations, see `smnist.read_images` and `smnist.read_split`.
    split : {"train", "test"}, "valid" too for "ssc"
    damaged : {"refuse", "skip"}
        What to do with a recording that is damaged; how many are skipped is logged as a warning, with the first.

    Returns
    -------
    EventSet
        In the same order on every machine.

    Raises
    ------
    ImportError
        If h5py is missing where it is needed.
    FileNotFoundError
        If there is nothing at that place.
    ValueError
        If a recording or a file is damaged: it names file, recording and rule.
    """
    check_choice("name", name, tuple(ABOUT))
    part: Any = split
    if name == "nmnist":
        found = nmnist.read_split(root, part, damaged=damaged)
    elif name == "dvsgesture":
        found = dvs_gesture.read_split(root, part, damaged=damaged)
    elif name in ("shd", "ssc"):
        found = shd.read_split(root, part, name=name, damaged=damaged)
    else:
        seed = PERMUTE_SEED if name == "psmnist" else None
        found = smnist.read_split(root, part, permute_seed=seed, damaged=damaged)
    log.info("%s, %s: %s", name, split, extent(name, split, found.n_recordings))
    return found


def load_binned(
    name: Name,
    *,
    root: str | os.PathLike[str],
    split: str,
    dt_us: int | None = None,
    n_steps: int | None = None,
    window: Window | None = None,
    pool: tuple[int, int, int] = (1, 1, 1),
    merge: bool = False,
    damaged: Damaged = "refuse",
    cache: str | os.PathLike[str] | None = None,
) -> BinnedSet:
    """Read a part of a data set in time steps, out of a cache where one is given.

    Parameters
    ----------
    name, root, split, damaged
        As in `load`.
    dt_us, n_steps, window, pool, merge
        As in `bin_events`.
    cache : path, optional
        Binned recordings are kept there and mapped into memory; the next call with the same arguments reads and bins
        nothing. A file that changes, an argument, or this package's code make another entry. Warnings about what was
        dropped or skipped come when an entry is made.

    Returns
    -------
    BinnedSet
        Read-only if it comes from the cache.

    Raises
    ------
    TypeError, ValueError, OSError, ImportError
        As `load` and `bin_events`; OSError also if the cache cannot be written.
    """
    options: dict[str, Any] = {"dt_us": dt_us, "n_steps": n_steps, "window": window, "pool": pool, "merge": merge}

    def make() -> dict[str, NDArray[Any]]:
        events = load(name, root=root, split=split, damaged=damaged)
        binned = bin_events(events, **options)
        return {
            "ptr": binned.ptr, "idx": binned.idx, "sensor": np.array(binned.sensor), "n_steps": binned.n_steps,
            "labels": events.labels, "subjects": events.subjects, "classes": np.array(events.classes, np.str_),
        }  # fmt: skip

    if cache is None:
        found = make()
    else:
        paths = files(name, root=root, split=split)
        shaped_by = options | {
            "name": name, "split": split, "damaged": damaged, "root": str(Path(root).expanduser().resolve()),
            "files": fingerprint(paths), "code": code_hash(*CODE),
        }  # fmt: skip
        found = arrays_once(cache, f"{name}-{split}", shaped_by, make)
    p, h, w = (int(n) for n in found["sensor"])
    events = BinnedEvents(found["ptr"], found["idx"], (p, h, w), found["n_steps"])
    return BinnedSet(events, found["labels"], found["subjects"], tuple(str(c) for c in found["classes"]))


def files(name: Name, *, root: str | os.PathLike[str], split: str) -> list[Path]:
    """Return the files that a part of a data set is read from.

    Raises
    ------
    FileNotFoundError, ValueError
        As `load`, where there are none.
    """
    if check_choice("name", name, tuple(ABOUT)) in ("shd", "ssc"):
        return [shd.file_of(root, split, name)]
    if name in ("smnist", "psmnist"):
        return smnist.files_of(root, split)
    return nmnist.files_of(root, split) if name == "nmnist" else dvs_gesture.files_of(root, split)


def extent(name: Name, split: str, n_recordings: int) -> str:
    """Return how much of a data set is there, "850 of 60,000 recordings"."""
    whole = WHOLE.get((name, split))
    return f"{n_recordings:,} of {whole:,} recordings" if whole else f"{n_recordings:,} recordings"
