"""Workers of several environments, checked against each other and timed interleaved, in one table of rows."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from table import markdown
from work import Work, save

OUT = Path("build/bench")
PEER_PYTHON = Path("build/peers/bin/python")
SIMULATOR_PYTHON = Path("build/simulators/bin/python")
SIMULATORS = ("peers_brian2", "peers_nest")
TOLERANCE = 1e-5


class Impl(NamedTuple):
    """An implementation and how to run it.

    Attributes
    ----------
    function : str
        ``module:function``, as the worker imports it; modules of peers run in their environment.
    options : dict
        Its keyword arguments.
    like : Impl, optional
        What it must agree with in rate, loss and gradients, before anything is timed.
    differs : str
        What it computes otherwise than suspike.
    threads : int
    pinned : bool
        One core and CPU time; without it any core and wall time.
    """

    function: str
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    like: Impl | None = None
    differs: str = ""
    threads: int = 1
    pinned: bool = True

    @property
    def python(self) -> str:
        """The interpreter of its environment."""
        if self.function.split(":")[0] in SIMULATORS:
            return str(SIMULATOR_PYTHON)
        return str(PEER_PYTHON) if self.function.startswith("peers") else sys.executable


class Absent(Exception):
    """An implementation does not start; says why."""


class Worker:
    """A process that runs one implementation."""

    def __init__(self, name: str, impl: Impl, path: Path, script: str = "worker.py") -> None:
        self.name, self.log = name, OUT / f"{''.join(c if c.isalnum() else '_' for c in name)}.log"
        if not Path(impl.python).exists():
            raise Absent(f"{impl.python} is missing; `make bench` makes it where there is a network")
        libraries = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        env = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
        env |= dict.fromkeys(libraries, str(impl.threads)) | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        env["OMP_WAIT_POLICY"] = "PASSIVE"  # else torch's second thread spins for ms behind each of its operations
        how = (json.dumps(impl.options), str(path), str(impl.threads), "pinned" if impl.pinned else "free")
        command = [impl.python, str(Path(__file__).with_name(script)), impl.function, *how]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=env
            )
        self.facts = self._answer()
        if "error" in self.facts:
            raise Absent(self.facts["error"])

    def ask(self, line: str) -> dict[str, Any]:
        """Send a line and return the answer."""
        assert self.process.stdin is not None, "opened as a pipe"
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        if "error" in answer:
            sys.exit(f"{self.name}: `{line}` failed: {answer['error']}")
        return answer

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None, "opened as a pipe"
        line = self.process.stdout.readline()
        if not line:
            return {"error": f"its process ended with {self.process.wait()}; its last words are in {self.log}"}
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def running(name: str, impl: Impl, path: Path, script: str = "worker.py") -> Iterator[Worker]:
    """Run a worker that ends with the block."""
    worker = Worker(name, impl, path, script)
    try:
        yield worker
    finally:
        worker.process.kill()
        worker.process.communicate()


def outcome(worker: Worker) -> tuple[float | None, float, list[np.ndarray]]:
    """Return rate, loss and gradients of a step."""
    path = OUT / "result.npz"
    found = worker.ask(f"result {path}")
    with np.load(path) as grads:
        return found["rate"], found["loss"], [grads[key].astype(np.float64) for key in grads]


def require_same(case: str, worker: Worker, wanted: tuple[float | None, float, list[np.ndarray]]) -> float | None:
    """Return a worker's rate; stop where it does not compute what its reference does: nothing wrong is timed."""
    (rate, loss, grads), (want_rate, want_loss, want_grads) = outcome(worker), wanted
    off = [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(grads, want_grads, strict=True)]
    close = [o <= TOLERANCE for o in (abs(loss / want_loss - 1), *off)]  # False for what is not a number
    if rate != want_rate or not all(close):
        sys.exit(
            f"{case}, {worker.name}: rate {rate} for {want_rate}, loss {loss} for {want_loss}, gradients off by "
            f"{', '.join(f'{o:.1e}' for o in off)}; at most {TOLERANCE} may be. Nothing is timed."
        )
    return rate


def measure(
    case: str, impls: dict[str, Impl], works: dict[str, Work] | Work, *, density: float | None, base: str, rounds: int
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Check and time the implementations of a case, interleaved.

    Parameters
    ----------
    works : Work or dict of Work
        For all, or by name.
    base : str
        The implementation whose time the ratios are to.

    Returns
    -------
    rows : list of dict
    absent : dict of str
        Why a peer was left out.
    """
    OUT.mkdir(parents=True, exist_ok=True)
    absent: dict[str, str] = {}
    rates: dict[str, float | None] = {}
    workers: dict[str, Worker] = {}
    references: dict[str, Any] = {}
    with ExitStack() as stack:
        for i, (name, impl) in enumerate(impls.items()):
            path = OUT / f"work{i if isinstance(works, dict) else ''}.npz"
            if isinstance(works, dict) or i == 0:
                save(works[name] if isinstance(works, dict) else works, path)
                stack.callback(path.unlink)
            try:
                workers[name] = worker = stack.enter_context(running(name, impl, path))
            except Absent as why:
                if impl.python == sys.executable:
                    sys.exit(f"{case}, {name}: {why}")
                absent[name] = str(why)
                sys.stderr.write(f"{case}: {name} is left out: {why}\n")
                continue
            if impl.like is None:
                rates[name] = outcome(worker)[0]
                continue
            key = f"{impl.like}, {path}"
            if key not in references:
                with running(f"reference of {name}", impl.like, path) as reference:
                    references[key] = outcome(reference)
            rates[name] = require_same(case, worker, references[key])
        times: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(rounds):
            for name, worker in workers.items():
                times[name].append(worker.ask("step")["cpu" if impls[name].pinned else "wall"])
        peaks = {name: worker.ask("peak")["mb"] for name, worker in workers.items()}
    ms = {name: statistics.median(each) for name, each in times.items()}
    active = next((w.facts["active"] for w in workers.values() if "active" in w.facts), None)  # of the same spikes
    rows = []
    for name, worker in workers.items():
        work = works[name] if isinstance(works, dict) else works
        rows.append(
            {
                "case": case, "impl": name, "density": density, "threads": impls[name].threads, "ms": ms[name],
                "min_ms": min(times[name]), "max_ms": max(times[name]), "rounds": rounds,
                "time": "CPU, one pinned core" if impls[name].pinned else "wall, not pinned",
                "ratio_to_snntorch": ms["snnTorch"] / ms[name] if "snnTorch" in ms else None,
                "base": base, "ratio_to_base": ms[base] / ms[name] if base in ms else None,
                "peak_mb": peaks[name], "rate": rates[name], "width": work.width, "beta": work.beta,
                "n_steps": len(work.x), "active": active, "differs": impls[name].differs,
            }
            | worker.facts
        )  # fmt: skip
    return rows, absent


def report(name: str, groups: list[tuple[list[dict[str, Any]], dict[str, str]]]) -> None:
    """Write build/bench/NAME.json and print its table."""
    rows = [row for found, _ in groups for row in found]
    absent = {peer: why for _, found in groups for peer, why in found.items()}
    machine = platform.processor() or platform.machine()
    path = OUT / f"{name}.json"
    path.write_text(json.dumps({"machine": machine, "left_out": absent, "rows": rows}, indent=1))
    sys.stdout.write(markdown(path) + "\n")
