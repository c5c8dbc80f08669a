"""Simulators of a sparse network checked against a plain loop in float64, and timed interleaved, CPU time."""

from __future__ import annotations

import statistics
import sys
from contextlib import ExitStack
from typing import Any

import numpy as np
from simulate import SCRIPT, Group
from sparse_network import FAN_OUT, SparseNetwork, expected, save
from timing import OUT, Absent, Impl, Worker, running

IMPLS = {"Brian2, C++ standalone": Impl("peers_brian2:sparse"), "NEST": Impl("peers_nest:sparse")}


def compared(case: str, worker: Worker, net: SparseNetwork, wanted: Any, near: Any) -> dict[str, int]:
    """Return how many spikes of a run differ; stop where the first of them are not near the threshold."""
    path = OUT / "fired.npz"
    worker.ask(f"result {path}")
    with np.load(path) as found:
        moved = np.setxor1d(found["arr_0"], wanted)
    first = moved[moved // net.n == moved[:1] // net.n]
    if not np.isin(first, near).all():
        sys.exit(
            f"{case}, {worker.name}: {len(moved)} of {len(wanted)} spikes differ, for no rounding. Nothing is timed."
        )
    return {"moved": len(moved), "spikes": len(wanted)}


def measure(case: str, impls: dict[str, Impl], net: SparseNetwork, rounds: int) -> Group:
    """Check and time simulators on a network, interleaved."""
    OUT.mkdir(parents=True, exist_ok=True)
    rows, absent, path = [], {}, OUT / "sparse.npz"
    save(net, path)
    wanted, near = expected(net)
    synops = (len(net.idx) + (len(wanted) if len(net.recurrent_target) else 0)) * FAN_OUT
    with ExitStack() as stack:
        stack.callback(path.unlink)
        workers: dict[str, Worker] = {}
        for name, impl in impls.items():
            try:
                workers[name] = stack.enter_context(running(f"{name} sparse", impl, path, SCRIPT))
            except Absent as why:
                absent[name] = str(why)
                sys.stderr.write(f"{case}: {name} is left out: {why}\n")
        checks = {name: compared(case, worker, net, wanted, near) for name, worker in workers.items()}
        times: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(rounds):
            for name, worker in workers.items():
                times[name].append(worker.ask("step")["cpu"])
    for name, worker in workers.items():
        row = {
            "case": case, "impl": name, "threads": 1, "ms": statistics.median(times[name]), "min_ms": min(times[name]),
            "max_ms": max(times[name]), "rounds": rounds, "base": "", "ratio_to_base": None, "synops": synops,
            "neurons": net.n, "time": "CPU, one pinned core",
        }  # fmt: skip
        rows.append(row | checks[name] | worker.facts)
    return rows, absent
