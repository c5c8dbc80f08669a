"""One implementation in a process of its own, in whichever environment: see `serve`.

It prints one JSON line when it is ready (or ``{"error": ...}``), then answers each line of its input with one:
``step`` with the time of a training step, ``peak`` with its memory, ``result PATH`` with loss, rate and gradients.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from work import Built, Work, load

LEAST_MS = 50.0
"""Short steps are repeated for so long."""


def timed(built: Built) -> dict[str, float]:
    """Time a step, in ms, the median of several if it is short; two go before, as in training the caches are its own.

    None does before one that has its own clock, which starts with a program or a long run.
    """
    if built.clock is None:
        built.step()
    gc.collect()
    gc.disable()
    if built.clock is None:
        built.step()
    found: list[tuple[float, float]] = []
    while sum(wall for _, wall in found) < LEAST_MS:
        cpu, wall = time.process_time(), time.perf_counter()
        done = built.step()
        took = time.process_time() - cpu, time.perf_counter() - wall
        cpu, wall = built.clock(done) if built.clock else took
        found.append((1e3 * cpu, 1e3 * wall))
    gc.enable()
    return {
        name: statistics.median(times) for name, times in zip(("cpu", "wall"), zip(*found, strict=True), strict=True)
    }


def peak(built: Built) -> dict[str, float]:
    """Measure by how much a step raises the peak resident memory of the process, in MB."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _status("VmRSS")
    built.step()
    return {"mb": (_status("VmHWM") - before) / 1024}


def _status(key: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1])


def result(built: Built, work: Work, path: str) -> dict[str, Any]:
    """Write the gradients of a step, in our shapes, to `path`."""
    loss, grads, spikes = built.step()
    np.savez(path, *(np.asarray(g) for g in built.as_ours(grads)))
    if loss is None:
        loss = (np.asarray(spikes, np.float64) * work.mask).sum()
    n_places = work.x.shape[0] * work.x.shape[1] * work.mask.shape[-1]
    n_spikes = float(np.asarray(spikes).sum(dtype=np.float64))
    return {"loss": float(loss), "rate": None if np.isnan(n_spikes) else n_spikes / n_places}


def serve(load: Callable[[Path], Any], result: Callable[[Built, Any, str], dict[str, Any]]) -> None:
    """Serve ``SCRIPT MODULE:FUNCTION OPTIONS WORK THREADS pinned|free``."""
    function, options, path, threads, where = sys.argv[1:]
    if where == "pinned":  # before any library looks at how many cores there are
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        work = load(Path(path))
        module, name = function.split(":")
        built: Built = getattr(importlib.import_module(module), name)(work, int(threads), **json.loads(options))
        built.step()  # compiles
        print(json.dumps(built.facts), file=answers)
        for line in sys.stdin:
            do, *rest = line.split()
            answer = result(built, work, *rest) if do == "result" else {"step": timed, "peak": peak}[do](built)
            print(json.dumps(answer), file=answers)
    except Exception as error:
        traceback.print_exc()
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers)


if __name__ == "__main__":
    serve(load, result)
