"""A folder of spoken words as spikes of a cochlea, in one file of SHD's layout."""

from __future__ import annotations

import logging
import os
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from suspike_datasets.checks import check_int
from suspike_datasets.cochlea import MAX_S, RATES_HZ, cochlea_spikes
from suspike_datasets.sets import UNKNOWN, EventSet, from_recordings
from suspike_datasets.shd import SENSOR, write_file

log = logging.getLogger(__name__)

PCM_TYPES = {1: "u1", 2: "<i2", 4: "<i4"}
"""Samples of a wav by their bytes; those of one byte are from 0 to 255, around 128."""


def encode_words(
    folder: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> EventSet:
    """Encode every wav below a folder with `cochlea_spikes` into a file that `load` and tonic read as SHD.

    A sub-folder's wavs are of the class that it is named after (``zero/any_name.wav``). A wav in `folder` itself is
    named ``class_anything.wav``, or ``class_speaker_index.wav`` as in the Free Spoken Digit Dataset.

    Parameters
    ----------
    folder : path
        Wavs of 8, 16 or 32-bit PCM; of several channels the mean is heard.
    path : path
        The HDF5 file. Its folder must exist; a file that stands there is replaced.
    seed : int, from 0
        Recording b is encoded with the seed (seed, b).
    progress : callable (done, total), optional
        Called after every wav.

    Returns
    -------
    EventSet
        In order of path below `folder`, on every machine. Classes and speakers are numbered in sorted order of their
        names; a speaker that no name tells is `UNKNOWN`, and 0 in the file. The file's times are half floats, so they
        are coarser than these.

    Raises
    ------
    FileNotFoundError
        If there are no wavs below `folder`, or no folder for `path`.
    ValueError
        Naming the first wav that is damaged, empty, too long or of another kind; nothing is written then.
    ImportError
        If h5py or scipy is missing.
    OSError
        If the file cannot be written; nothing is left of it then.
    """
    folder, path, seed = Path(folder).expanduser(), Path(path).expanduser(), check_int("seed", seed, 0, 2**63 - 1)
    files = sorted(
        (file for file in folder.rglob("*") if file.suffix.lower() == ".wav" and file.is_file()),
        key=lambda file: file.relative_to(folder).as_posix(),
    )
    if not files:
        raise FileNotFoundError(f"`folder` must hold wavs, got none below {folder}.")
    if not path.parent.is_dir():  # not after minutes of encoding
        raise FileNotFoundError(f"`path` must be in a folder that exists, got {path}.")
    names = [_names(file, folder) for file in files]
    classes = sorted({name for name, _ in names})
    speakers = sorted({speaker for _, speaker in names if speaker})
    log.info("encoding %d words of %d classes into %s", len(files), len(classes), path)
    recordings = []
    for b, file in enumerate(files):
        sound, rate_hz = read_wav(file)
        recordings.append(cochlea_spikes(sound, rate_hz, seed=(seed, b)))
        if progress is not None:
            progress(b + 1, len(files))
    events = from_recordings(
        recordings,
        sensor=SENSOR,
        labels=[classes.index(name) for name, _ in names],
        subjects=[speakers.index(speaker) if speaker else UNKNOWN for _, speaker in names],
        classes=classes,
        places=[str(file) for file in files],
    )
    write_file(path, events)
    return events


def read_wav(path: str | os.PathLike[str]) -> tuple[NDArray[np.float64], int]:
    """Read a wav of 8, 16 or 32-bit PCM.

    Parameters
    ----------
    path : path

    Returns
    -------
    sound : float [S]
        The mean over channels, in units of the file, around 0.
    rate_hz : int, Hz

    Raises
    ------
    ValueError
        If the file is damaged, empty, too long or of another kind: it names file and fault.
    """
    path = Path(path)
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate_hz, n = file.getparams()[:4]
            if width not in PCM_TYPES:
                raise ValueError(f"samples are of {8 * width} bits, not 8, 16 or 32")
            if n == 0:
                raise ValueError("it is empty")
            if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
                raise ValueError(f"{rate_hz} Hz are not from {RATES_HZ[0]} to {RATES_HZ[1]}")
            if n > MAX_S * rate_hz:
                raise ValueError(f"{n} samples at {rate_hz} Hz last longer than {MAX_S} s")
            # a header may promise more than there is, and that much would be set aside
            if n * channels * width > path.stat().st_size:
                raise ValueError("it is cut off")
            raw = file.readframes(n)
            if len(raw) < n * channels * width:
                raise ValueError("it is cut off")
    except (wave.Error, EOFError, ValueError, RuntimeError) as err:  # wave seeks beyond a chunk's end
        raise ValueError(
            f"`folder` must hold whole wavs of 8, 16 or 32-bit PCM, got {path}: {err or 'it is cut off'}."
        ) from err
    samples = np.frombuffer(raw, PCM_TYPES[width]).astype(np.float64)
    if width == 1:
        samples -= 128
    return samples.reshape(n, channels).mean(axis=1), rate_hz


def _names(file: Path, folder: Path) -> tuple[str, str]:
    """Return class and speaker of a wav; no speaker where the name does not tell one."""
    if file.parent != folder:
        return file.parent.name, ""
    parts = file.stem.split("_")
    return parts[0], parts[1] if len(parts) == 3 else ""
