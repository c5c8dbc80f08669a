"""Time and memory of cells whose units choose when to update, beside torch.nn's, a loop in C, and what bounds them.

``make bench`` runs it (``sequence.py [ROUNDS [GROUP ...]]``), to build/bench/sequence.json, or with the groups' names.
Each implementation has a process of its own on one pinned core; CPU time, interleaved, medians with the smallest and
the largest; a machine's speed drifts, so read the ratios. Gates are one sine a unit, of period 29.3, phases sorted.

Before anything is timed, outputs and state, or all gradients, have to agree with the same cell on the plain torch path.

stream_N   a GRU of N units on one sample of 784 steps, no gradient wanted: 17 % open and always open, torch.nn.GRU in
           inference mode, in one call and in one call a step; and the kernel alone, its lists of open units ready,
           beside gru_loop.c over all rows and over the open ones alone
train      forward and backward of 784 steps, 128 samples, 256 units, the gradient given at every output; gates that
           stay or learn; "medium" is ``torch.set_float32_matmul_precision``, which sends products to oneDNN
shares     the GRU at other shares of open units
cells      the RNN and the LSTM
memory     what a training step by the last state adds to the peak of a process, 2 % open, 16 samples, 256 units
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sequence_work import Sequence, draw, save
from timing import OUT, TOLERANCE, Absent, Impl, Worker, report, running

SCRIPT = "sequence_worker.py"
OPEN = 0.17
Group = tuple[list[dict[str, Any]], dict[str, str]]
Task = tuple[Impl, Sequence]


def outcome(worker: Worker) -> list[np.ndarray]:
    """Return what a step gives."""
    path = OUT / "result.npz"
    worker.ask(f"result {path}")
    with np.load(path) as found:
        parts = [part.astype(np.float64) for part in found.values()]
    path.unlink()
    return parts


def require_same(case: str, worker: Worker, wanted: list[np.ndarray]) -> float:
    """Return by how much a worker is off; stop where it is too much: nothing wrong is timed."""
    pairs = zip(outcome(worker)[::-1], wanted[::-1], strict=False)  # one may give the last state alone
    off = [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs]
    if not all(o <= TOLERANCE for o in off):  # also for what is not a number
        found = ", ".join(f"{o:.1e}" for o in off)
        sys.exit(f"{case}, {worker.name}: off by {found}; at most {TOLERANCE} may be. Nothing is timed.")
    return max(off)


def measure(case: str, tasks: dict[str, Task], *, base: str, rounds: int) -> Group:
    """Check and time implementations, interleaved."""
    OUT.mkdir(parents=True, exist_ok=True)
    absent: dict[str, str] = {}
    workers: dict[str, Worker] = {}
    references: dict[str, list[np.ndarray]] = {}
    off: dict[str, float] = {}
    with ExitStack() as stack:
        for i, (name, (impl, work)) in enumerate(tasks.items()):
            path = OUT / f"sequence{i}.npz"
            save(work, path)
            stack.callback(path.unlink)
            try:
                workers[name] = worker = stack.enter_context(running(name, impl, path, SCRIPT))
            except Absent as why:
                if impl.python == sys.executable and "c_loop" not in impl.function:
                    sys.exit(f"{case}, {name}: {why}")
                absent[name] = str(why)
                sys.stderr.write(f"{case}: {name} is left out: {why}\n")
                continue
            if impl.like is None:
                continue
            key = f"{impl.like} {work.open}"
            if key not in references:
                with running(f"reference of {name}", impl.like, path, SCRIPT) as reference:
                    references[key] = outcome(reference)
            off[name] = require_same(case, worker, references[key])
        times: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(rounds):
            for name, worker in workers.items():
                times[name].append(worker.ask("step")["cpu"])
    ms = {name: statistics.median(each) for name, each in times.items()}
    return [
        _row(case, name, *tasks[name], ms[name])
        | {"min_ms": min(times[name]), "max_ms": max(times[name]), "rounds": rounds, "base": base}
        | {"ratio_to_base": ms[base] / ms[name] if base in ms else None, "off": off.get(name)}
        | worker.facts
        for name, worker in workers.items()
    ], absent


def _row(case: str, name: str, impl: Impl, work: Sequence, ms: float) -> dict[str, Any]:
    n_steps, batch, _ = work.x.shape
    return {
        "case": case, "impl": name, "threads": 1, "ms": ms, "cell": work.kind, "n_steps": n_steps, "samples": batch,
        "units": work.weight_hh.shape[1], "time": "CPU, one pinned core", "differs": impl.differs,
    }  # fmt: skip


def stream(rounds: int, n: int) -> list[Group]:
    like = Impl("ours_sequence:stream", {"way": "torch"})

    def ours(way: str) -> Impl:
        return Impl("ours_sequence:stream", {"way": way}, like)

    dense, gated = draw("gru", 784, 1, n), draw("gru", 784, 1, n, is_open=OPEN)
    tasks = {
        "17 %": (ours("outputs"), gated),
        "17 %, last state alone": (ours("final"), gated),
        "17 %, one call a step": (ours("each"), gated),
        "always open": (ours("outputs"), dense),
        "always open, last state alone": (ours("final"), dense),
        "torch.nn.GRU": (Impl("ours_sequence:torch_stream", {"each": False}, like), dense),
        "torch.nn.GRU, one call a step": (Impl("ours_sequence:torch_stream", {"each": True}, like), dense),
    }
    kernels = {
        "17 %": (Impl("ours_sequence:kernel", {}, like), gated),
        "always open": (Impl("ours_sequence:kernel", {}, like), dense),
        "C loop": (Impl("ours_sequence:c_loop", {"masked": False}, like), dense),
        "C loop, 17 %": (Impl("ours_sequence:c_loop", {"masked": True}, like), gated),
    }
    return [
        measure(f"stream, {n} units", tasks, base="always open", rounds=rounds),
        measure(f"its kernel, {n} units", kernels, base="always open", rounds=rounds),
    ]


def ours(*, learned: bool = False, precision: str = "highest") -> Impl:
    """Return a training step of our cell, to be checked against its plain torch path."""
    like = Impl("ours_sequence:train", {"learned": learned, "path": "torch"})
    return Impl("ours_sequence:train", {"learned": learned, "precision": precision}, like)


def theirs(precision: str = "highest", module: str = "ours_sequence:torch_train") -> Impl:
    """Return a training step of torch.nn's cell, checked likewise."""
    return Impl(module, {"precision": precision}, Impl("ours_sequence:train", {"path": "torch"}))


def train(rounds: int) -> list[Group]:
    dense, gated = draw("gru", 784, 128, 256), draw("gru", 784, 128, 256, is_open=OPEN)
    tasks = {}
    for precision, note in (("highest", ""), ("medium", ", medium")):
        tasks |= {
            f"17 %, gate stays{note}": (ours(precision=precision), gated),
            f"17 %, gate learns{note}": (ours(learned=True, precision=precision), gated),
            f"torch.nn.GRU{note}": (theirs(precision), dense),
            f"torch.nn.GRU{note}, peers' environment": (theirs(precision, "peers_sequence:train"), dense),
            f"products of open rows alone{note}": (Impl("ours_sequence:products", {"precision": precision}), gated),
        }
    return [measure("train", tasks, base="torch.nn.GRU", rounds=rounds)]


def shares(rounds: int) -> list[Group]:
    tasks = {f"{s:.0%}": (ours(), draw("gru", 784, 128, 256, is_open=s)) for s in (0.05, 0.1, 0.25, 0.5)}
    tasks["torch.nn.GRU"] = theirs(), draw("gru", 784, 128, 256)
    return [measure("shares", tasks, base="torch.nn.GRU", rounds=rounds)]


def cells(rounds: int) -> list[Group]:
    groups = []
    for kind in ("rnn", "lstm"):
        gated, base = draw(kind, 784, 128, 256, is_open=OPEN), f"torch.nn.{kind.upper()}"
        tasks = {
            "17 %, gate stays": (ours(), gated),
            "17 %, gate learns": (ours(learned=True), gated),
            base: (theirs(), draw(kind, 784, 128, 256)),
        }
        groups.append(measure(f"train, {kind}", tasks, base=base, rounds=rounds))
    return groups


def memory(rounds: int) -> list[Group]:
    """One process for each row, once: memory does not vary as time does."""
    rows, path, short = [], OUT / "sequence.npz", OUT / "short.npz"
    env = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    for n_steps in (1_000, 10_000, 100_000):
        for name, impl, share in (
            ("2 %, gate stays", ours(), 0.02),
            ("2 %, gate learns", ours(learned=True), 0.02),
            ("torch.nn.GRU", theirs(), 1.0),
        ):
            if n_steps > 10_000 and share == 1:
                continue
            work = draw("gru", n_steps, 16, 256, is_open=share, outputs=False)
            save(work, path)
            save(draw("gru", 60, 16, 256, is_open=share, outputs=False), short)
            script = str(Path(__file__).with_name("sequence_memory.py"))
            command = [impl.python, script, impl.function, json.dumps(impl.options), str(path), str(short)]
            found = json.loads(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
            row = _row(f"memory, {n_steps} steps", name, impl, work, found["ms"])
            rows.append(row | {"min_ms": found["ms"], "max_ms": found["ms"], "base": "", "ratio_to_base": None} | found)
            path.unlink()
            short.unlink()
    return [(rows, {})]


GROUPS: dict[str, Callable[[int], list[Group]]] = {
    **{f"stream_{n}": partial(stream, n=n) for n in (128, 256, 512)},
    "train": train,
    "shares": shares,
    "cells": cells,
    "memory": memory,
}


def main() -> None:
    rounds, chosen = int(sys.argv[1]) if len(sys.argv) > 1 else 9, sys.argv[2:]
    groups = [group for name in chosen or GROUPS for group in GROUPS[name](rounds)]
    report("_".join(["sequence", *chosen]), groups)


if __name__ == "__main__":
    main()
