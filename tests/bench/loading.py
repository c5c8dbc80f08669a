"""Loading recordings for training: an epoch of batches, from the files and from a cache, beside tonic.

``loading.py ROUNDS [FOLDER]`` reads FOLDER/NMNIST and FOLDER/speech/SHD, whatever part of the sets is there; without a
folder scikit-learn's digits in N-MNIST's format, which it makes. It fetches nothing. All in one process on one pinned
core, CPU time, interleaved, medians; batches of 32, in order. suspike's batches are event lists (and, in rows of their
own, the dense tensors [T, B, N] of them), tonic's the dense frames of ToFrame, padded and stacked by its own collate
function, from its own classes and from its DiskCachedDataset. Before anything is timed the frames have to hold the same
counts, but for single events that ToFrame loses. The table and build/bench/loading.json have events a second, of those
that were recorded.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tonic
import torch
from torch.utils.data import DataLoader

from suspike.loader import batches, load
from suspike_datasets import digits_as_nmnist
from suspike_datasets import load as load_events

BATCH = 32
SETS = {"nmnist": (".", 3), "shd": ("speech", 5)}
"""Folder below the given one, and length of a step in ms."""

Epoch = Callable[[], Iterator[Any]]


def ours(name: str, root: Path, dt_ms: int, cache: Path | None, *, dense: bool) -> Epoch:
    """Return an epoch of our batches; without a cache the files are read and binned in it."""

    def epoch() -> Iterator[Any]:
        data = load(name, root=root, split="train", dt_ms=dt_ms, cache=cache)
        for spikes, labels in batches(data, batch_size=BATCH):
            yield (spikes.dense() if dense else spikes), labels

    return epoch


def theirs(name: str, root: Path, dt_ms: int, cache: Path | None) -> Epoch:
    """Return an epoch of tonic's batches of frames [T, B, P, H, W] or [T, B, P, W]."""
    stock = {"nmnist": tonic.datasets.NMNIST, "shd": tonic.datasets.SHD}[name]
    stock._check_exists = lambda self: True  # a subset is there, without its archive
    frames = tonic.transforms.ToFrame(
        sensor_size=stock.sensor_size, time_window=dt_ms * 1000, start_time=0, include_incomplete=True
    )  # fmt: skip
    data: Any = stock(save_to=str(root), train=True, transform=frames)
    if cache is not None:
        data = tonic.DiskCachedDataset(data, cache_path=str(cache))
    collate = tonic.collation.PadTensors(batch_first=False)
    return lambda: iter(DataLoader(data, batch_size=BATCH, collate_fn=collate))


def timed(epoch: Epoch) -> float:
    """Return the CPU seconds of an epoch."""
    start = time.process_time()
    for _ in epoch():
        pass
    return time.process_time() - start


def lost(name: str, mine: Epoch, other: Epoch) -> int:
    """Return how many events the other's frames miss; stop if that is more than one in 100,000, or one was moved."""
    steps = []
    for epoch in (mine, other):
        per_step = np.zeros(2000)
        for x, _ in epoch():
            counts = x.flatten(1).sum(1, dtype=torch.float64).numpy()
            per_step[: len(counts)] += counts
        steps.append(per_step)
    missing = steps[0] - steps[1]
    if missing.min() < 0 or missing.sum() > 1e-5 * steps[0].sum():
        sys.exit(f"{name}: {steps[0].sum():.0f} events here, {steps[1].sum():.0f} there. Nothing is timed.")
    return int(missing.sum())


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        given = sys.argv[2:]
        folder = Path(given[0]) if given else digits_as_nmnist(scratch)
        for name, (below, dt_ms) in SETS.items() if given else [("nmnist", SETS["nmnist"])]:
            root, cache = folder / below, Path(scratch) / name
            events = load_events(name, root=root, split="train")  # type: ignore[arg-type]
            epochs = {
                "suspike, files": ours(name, root, dt_ms, None, dense=False),
                "suspike, cache": ours(name, root, dt_ms, cache / "ours", dense=False),
                "suspike, cache, dense": ours(name, root, dt_ms, cache / "ours", dense=True),
                "tonic, files": theirs(name, root, dt_ms, None),
                "tonic, DiskCachedDataset": theirs(name, root, dt_ms, cache / "theirs"),
            }
            # fills both caches; where a recording's last event begins a step, ToFrame leaves that step out
            missing = lost(name, epochs["suspike, cache, dense"], epochs["tonic, DiskCachedDataset"])
            times: dict[str, list[float]] = {impl: [] for impl in epochs}
            for _ in range(rounds):
                for impl, epoch in epochs.items():
                    times[impl].append(timed(epoch))
            base = statistics.median(times["tonic, DiskCachedDataset"])
            for impl, found in times.items():
                median = statistics.median(found)
                rows.append({
                    "set": name, "encoded": not given, "recordings": events.n_recordings,
                    "events": len(events.t), "impl": impl,
                    "dt_ms": dt_ms, "seconds": median, "min": min(found), "max": max(found), "rounds": rounds,
                    "tonic_lost": missing, "events_per_second": len(events.t) / median,
                    "ratio_to_tonic_cache": base / median,
                })  # fmt: skip
                sys.stdout.write(
                    f"{name} {impl:26} {median:7.3f} s ({min(found):.3f} to {max(found):.3f}) "
                    f"{len(events.t) / median / 1e6:8.2f} M events/s, {base / median:7.1f} x tonic's cache\n"
                )
    out = Path("build/bench/loading.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": platform.processor() or platform.machine(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
