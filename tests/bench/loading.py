"""Loading recordings for training: an epoch of batches, from the files and from a cache, beside tonic and SpikingJelly.

``loading.py ROUNDS [FOLDER]`` reads FOLDER/NMNIST and FOLDER/speech/SHD, whatever part of the sets is there; without a
folder scikit-learn's digits in N-MNIST's format, which it makes. It fetches nothing. suspike and tonic run in one
process on one pinned core; CPU time, interleaved, medians; batches of 32, in order. suspike's batches are event lists
(and, in rows of their own, the dense tensors [T, B, N] of them), tonic's the dense frames of ToFrame, padded and
stacked by its own collate function, from its own classes and from its DiskCachedDataset; SpikingJelly's are frames
from the files that it cuts beforehand, in a process of the peers' environment (peers_data.py). Before anything is
timed tonic's frames have to hold the same counts, but for single events that ToFrame loses; what SpikingJelly's lack
is in its row. The table and build/bench/loading.json have events a second, of those that were recorded.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tonic
import torch
from timing import OUT, PEER_PYTHON
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


@contextmanager
def spikingjelly(root: Path, dt_ms: int, scratch: Path) -> Iterator[Callable[[str], dict[str, Any]] | None]:
    """Run SpikingJelly's loader in its own environment: "epoch" or "count" is answered by seconds and events."""
    scratch.mkdir(parents=True)
    given = [str(x) for x in (Path(__file__).with_name("peers_data.py"), root, scratch, dt_ms, BATCH)]
    log = OUT / "spikingjelly_loader.log"
    if not PEER_PYTHON.exists():
        sys.stderr.write(f"SpikingJelly is left out: {PEER_PYTHON} is missing; `make bench` makes it\n")
        yield None
        return
    with log.open("w") as errors, subprocess.Popen(
        [str(PEER_PYTHON), *given], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(what: str) -> dict[str, Any]:
            process.stdin.write(what + "\n")
            process.stdin.flush()
            return dict(json.loads(process.stdout.readline()))

        if process.stdout.readline():
            yield ask
            process.stdin.close()
        else:
            sys.stderr.write(f"SpikingJelly is left out: see {log}\n")
            yield None


def timed(epoch: Epoch) -> float:
    """Return the CPU seconds of an epoch; files of SHD's layout are read by a child."""
    start = cpu_seconds()
    for _ in epoch():
        pass
    return cpu_seconds() - start


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    return sum(sum(resource.getrusage(whose)[:2]) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


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
    rows: list[dict[str, Any]] = []
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        given = sys.argv[2:]
        folder = Path(given[0]) if given else digits_as_nmnist(scratch)
        for name, (below, dt_ms) in SETS.items() if given else [("nmnist", SETS["nmnist"])]:
            about = {"set": name, "encoded": not given, "dt_ms": dt_ms, "rounds": rounds}
            rows += [about | row for row in measured(name, folder / below, dt_ms, Path(scratch) / f"of_{name}", rounds)]
    for row in rows:
        sys.stdout.write(
            f"{row['set']} {row['impl']:26} {row['seconds']:7.3f} s ({row['min']:.3f} to {row['max']:.3f}) "
            f"{row['events_per_second'] / 1e6:8.2f} M events/s, {row['ratio_to_tonic_cache']:7.1f} x tonic's cache\n"
        )
    machine = platform.processor() or platform.machine()
    (OUT / "loading.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


def measured(name: str, root: Path, dt_ms: int, scratch: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """Check and time the loaders of a set, interleaved; a row for each."""
    cache = scratch / "cache"
    recorded = load_events(name, root=root, split="train")  # type: ignore[arg-type]
    epochs = {
        "suspike, files": ours(name, root, dt_ms, None, dense=False),
        "suspike, cache": ours(name, root, dt_ms, cache / "ours", dense=False),
        "suspike, cache, dense": ours(name, root, dt_ms, cache / "ours", dense=True),
        "tonic, files": theirs(name, root, dt_ms, None),
        "tonic, DiskCachedDataset": theirs(name, root, dt_ms, cache / "theirs"),
    }
    # fills both caches; where a recording's last event begins a step, ToFrame leaves that step out
    missing = dict.fromkeys(
        ["tonic, files", "tonic, DiskCachedDataset"],
        lost(name, epochs["suspike, cache, dense"], epochs["tonic, DiskCachedDataset"]),
    )
    seconds: dict[str, Callable[[], float]] = {impl: partial(timed, epoch) for impl, epoch in epochs.items()}
    with spikingjelly(root, dt_ms, scratch / "spikingjelly") if name == "nmnist" else nullcontext() as ask:
        if ask is not None:
            missing["SpikingJelly, frames"] = len(recorded.t) - ask("count")["events"]
            seconds["SpikingJelly, frames"] = lambda: float(ask("epoch")["seconds"])
        times: dict[str, list[float]] = {impl: [] for impl in seconds}
        for _ in range(rounds):
            for impl, take in seconds.items():
                times[impl].append(take())
    base = statistics.median(times["tonic, DiskCachedDataset"])
    for impl, found in times.items():
        median = statistics.median(found)
        yield {
            "recordings": recorded.n_recordings, "events": len(recorded.t), "impl": impl, "seconds": median,
            "min": min(found), "max": max(found), "lost": missing.get(impl, 0),
            "events_per_second": len(recorded.t) / median, "ratio_to_tonic_cache": base / median,
        }  # fmt: skip


if __name__ == "__main__":
    main()
