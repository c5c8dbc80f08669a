"""SpikingJelly's batches of frames, in the peers' environment: ``peers_data.py FOLDER SCRATCH DT_MS BATCH``.

It cuts the recordings into frames once, one .npz each under SCRATCH, and prints a JSON line when that is done; each
line of input is then answered by ``{"seconds": CPU seconds, "events": ...}`` of an epoch over these files. N-MNIST
alone: its SHD refuses a set in which classes are missing.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import time
import types
from pathlib import Path
from typing import Any


def bare(package: str) -> None:
    """Let modules of a package be imported without its ``__init__``.

    torchvision's needs operators that do not load beside a CPU build of torch, SpikingJelly's data sets' torchaudio.
    What is timed, their own data set classes and collate function, needs neither.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"{package} is not installed")
    sys.modules[package] = module = types.ModuleType(package)
    module.__path__ = list(spec.submodule_search_locations)


def nmnist(folder: Path, scratch: Path, dt_ms: int) -> Any:
    """Return N-MNIST's training part as frames of `dt_ms`, made from what is under `folder`."""
    bare("torchvision")
    bare("spikingjelly.datasets")
    kind = importlib.import_module("spikingjelly.datasets.n_mnist").NMNIST
    raw = scratch / "events_np"
    raw.mkdir()
    kind.create_raw_from_extracted(folder / "NMNIST", raw)
    return kind(root=scratch, train=True, data_type="frame", duration=dt_ms * 1000)


def main() -> None:
    """Serve epochs."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    folder, scratch, dt_ms, batch = sys.argv[1:]
    import torch
    from torch.utils.data import DataLoader

    torch.set_num_threads(1)
    data = nmnist(Path(folder), Path(scratch), int(dt_ms))
    collate = importlib.import_module("spikingjelly.datasets.utils").pad_sequence_collate
    loader = DataLoader(data, batch_size=int(batch), collate_fn=collate)
    answers.write(json.dumps({"recordings": len(data)}) + "\n")
    for line in sys.stdin:
        start = time.process_time()
        drawn = [x.sum(dtype=torch.float64) if line.strip() == "count" else None for x, _, _ in loader]
        seconds = time.process_time() - start
        events = int(sum(drawn)) if line.strip() == "count" else None
        answers.write(json.dumps({"seconds": seconds, "events": events}) + "\n")


if __name__ == "__main__":
    main()
