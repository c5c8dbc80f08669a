"""Time of simulating a network beside other simulators, on threads, with gates, with short steps, and of a first call.

``make bench`` runs it (``simulate.py [ROUNDS [GROUP ...]]``), to build/bench/simulate.json, or with the groups' names.
Each implementation has a process of its own on one pinned core; CPU time a sample, interleaved, medians with the
smallest and the largest; a machine's speed drifts, so read the ratios. All hand back the spikes of both layers.

Before anything is timed, all have to fire as a plain loop in float64 does. Where a spike differs, its membrane has to
be so close to the threshold that rounding decides, or it comes behind such a one in its sample; else the run stops.

reference  700 inputs, 256 recurrent LIF neurons, 20 behind them, 16 samples of 1000 steps and 8000 events, one sample
           at a time; and the same in one call, in float32 and on weights of int8 (rounded to such ones: other spikes),
           and the weight rows of all events added up and nothing else
threads    all samples in one call on one thread and on two: wall time, not pinned
gates      1024 neurons with rhythms, all samples in one call, against the same network always open, with and without
           recurrence; without it, all have the same events, and a kernel that leaves out closed blocks of 16 neurons
           cannot be faster than 1 / touched
steps      the same events on ten times as many steps, each with the tenth root of the leak, all samples in one call;
           and a C program that does these steps of this network alone, as fast as one was found to (steps_in_c.c)
first      wall time of a new process, from its first import to the first result, compiled kernels on disk
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import steps_in_c
from network import Fired, Network, draw, expected, save, stretched, unexplained
from ours_simulate import in_bytes
from timing import OUT, Absent, Impl, Worker, report, running

from suspike.graph import Rhythm

SCRIPT = "simulation_worker.py"
PERIODS = (2.53, 5.47, 12.1, 29.3)
Group = tuple[list[dict[str, Any]], dict[str, str]]
ONE, ALL = Impl("ours_simulate:suspike", {"batch": 1}), Impl("ours_simulate:suspike", {"batch": 16})
IN_C = Impl("steps_in_c:network")
REFERENCE = {
    "suspike": ONE,
    "suspike, 16 samples a call": ALL,
    "suspike, int8, 16 samples a call": Impl("ours_simulate:suspike", {"batch": 16, "int8": True}),
    "Brian2, C++ standalone": Impl("peers_brian2:network"),
    "NEST": Impl("peers_nest:network"),
    "JAX, dense scan": Impl("peers_simulate_jax:scan"),
    "Norse": Impl("peers_simulate:norse"),
    "snnTorch": Impl("peers_simulate:snntorch"),
    "SpikingJelly": Impl("peers_simulate:spikingjelly"),
    "sinabs": Impl("peers_simulate:sinabs"),
    "torch loop": Impl("peers_simulate:torch_loop"),
    "numpy loop": Impl("ours_simulate:numpy_loop"),
    "rows alone, float32": Impl("ours_simulate:gather", {"dtype": "float32"}),
    "rows alone, int8": Impl("ours_simulate:gather", {"dtype": "int8"}),
}


def compared(case: str, worker: Worker, net: Network, wanted: Fired, near: Fired) -> dict[str, int]:
    """Return how many spikes of a run differ; stop where rounding does not explain them: nothing wrong is timed."""
    path = OUT / "fired.npz"
    worker.ask(f"result {path}")
    with np.load(path) as bits:
        parts = zip(bits.values(), wanted, strict=True)
        found = Fired(*(np.unpackbits(part)[: w.size].reshape(w.shape) > 0 for part, w in parts))
    moved, spikes = (sum(int(x.sum()) for x in each) for each in ((found[0] ^ wanted[0], found[1] ^ wanted[1]), wanted))
    if left := unexplained(found, wanted, near):
        sys.exit(f"{case}, {worker.name}: {moved} of {spikes} spikes differ, {left} for no rounding. Nothing is timed.")
    return {"moved": moved, "spikes": spikes}


def measure(case: str, impls: dict[str, Impl], nets: dict[str, Network] | Network, *, base: str, rounds: int) -> Group:
    """Check and time the implementations of a case, interleaved; as `timing.measure`."""
    OUT.mkdir(parents=True, exist_ok=True)
    absent: dict[str, str] = {}
    workers: dict[str, Worker] = {}
    checks: dict[str, dict[str, int]] = {}
    references: dict[int, tuple[Fired, Fired]] = {}
    with ExitStack() as stack:
        for i, (name, impl) in enumerate(impls.items()):
            net = nets[name] if isinstance(nets, dict) else nets
            path = OUT / f"network{i}.npz"
            save(net, path)
            stack.callback(path.unlink)
            try:
                workers[name] = worker = stack.enter_context(running(name, impl, path, SCRIPT))
            except Absent as why:
                if impl.python == sys.executable:
                    sys.exit(f"{case}, {name}: {why}")
                absent[name] = str(why)
                sys.stderr.write(f"{case}: {name} is left out: {why}\n")
                continue
            if "rows alone" not in name:
                if id(net) not in references:
                    references[id(net)] = expected(net)
                checks[name] = compared(case, worker, net, *references[id(net)])
        times: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(rounds):
            for name, worker in workers.items():
                net = nets[name] if isinstance(nets, dict) else nets
                took = worker.ask("step")["cpu" if impls[name].pinned else "wall"]
                times[name].append(took / net.n_samples)
    ms = {name: statistics.median(each) for name, each in times.items()}
    rows = [
        {
            "case": case, "impl": name, "threads": impls[name].threads, "ms": ms[name], "min_ms": min(times[name]),
            "max_ms": max(times[name]), "rounds": rounds, "base": base,
            "ratio_to_base": ms[base] / ms[name] if base in ms else None,
            "ratio_to_suspike": ms[name] / ms["suspike"] if "suspike" in ms else None,
            "time": "CPU, one pinned core" if impls[name].pinned else "wall, not pinned",
        }
        | checks.get(name, {})
        | worker.facts
        for name, worker in workers.items()
    ]  # fmt: skip
    return rows, absent


def reference(rounds: int) -> list[Group]:
    net = draw()
    nets = {name: in_bytes(net) if impl.options.get("int8") else net for name, impl in REFERENCE.items()}
    return [measure("reference", REFERENCE, nets, base="", rounds=rounds)]


def threads(rounds: int) -> list[Group]:
    impls = {name: ALL._replace(threads=n, pinned=False) for n, name in ((1, "one thread"), (2, "two threads"))}
    return [measure("threads", impls, draw(), base="one thread", rounds=rounds)]


def gated(net: Network, rhythm: Rhythm) -> Network:
    """Return the network with a gate."""
    head = [*rhythm.period, *np.zeros(len(rhythm.period) + 1)]
    table = np.vstack([head, np.column_stack([rhythm.amplitude, rhythm.phase, rhythm.bias])])
    return net._replace(rhythm=table, is_open=rhythm.table(net.n_steps))


def one_sine(n: int, is_open: float, *, group_size: int = 1) -> Rhythm:
    """Neurons, or groups of them, that differ in phase alone, sorted by it."""
    phase = np.repeat(np.arange(0, n, group_size) * (2 * np.pi / n), group_size)[:, None]
    return Rhythm(np.full(n, -np.cos(np.pi * is_open)), np.ones((n, 1)), phase, np.array(PERIODS[-1:]))


def four_sines(n: int, n_steps: int, is_open: float) -> Rhythm:
    """Neurons of random amplitudes and phases, which no order sorts, each open for the same share of the steps."""
    rng, size = np.random.default_rng(3), (n, len(PERIODS))
    amplitude, phase = rng.uniform(0.5, 1, size), rng.uniform(0, 2 * np.pi, size)
    angle = 2 * np.pi * np.arange(n_steps)[:, None] / np.array(PERIODS)
    a = np.stack([(amplitude[i] * np.sin(angle + phase[i])).sum(1) for i in range(n)], 1)
    return Rhythm(-np.quantile(a, 1 - is_open, axis=0), amplitude, phase, np.array(PERIODS))


def gates(rounds: int) -> list[Group]:
    recurrent = draw(1024)
    groups = []
    for case, net in (
        ("gates", recurrent),
        ("gates, no recurrence", recurrent._replace(recurrent=np.zeros((0, 1024), np.float32))),
    ):
        nets = {"always open": net}
        for is_open in (0.1, 0.17):
            nets[f"{is_open:.0%}, one sine, sorted"] = gated(net, one_sine(1024, is_open))
            nets[f"{is_open:.0%}, one sine, 64 a rhythm"] = gated(net, one_sine(1024, is_open, group_size=64))
            nets[f"{is_open:.0%}, four sines"] = gated(net, four_sines(1024, net.n_steps, is_open))
        groups.append(measure(case, dict.fromkeys(nets, ALL), nets, base="always open", rounds=rounds))
    return groups


def steps(rounds: int) -> list[Group]:
    groups = []
    for n_events, gain in ((8000, 1.0), (400, 4.0)):
        net = draw(n_events=n_events, gain=gain)
        nets = {"1000 steps": net, "10000 steps": stretched(net, 10)}
        impls = dict.fromkeys(nets, ALL)
        if steps_in_c.is_possible():
            in_c = {f"{name}, a C program": name for name in nets}
            nets, impls = nets | {new: nets[name] for new, name in in_c.items()}, impls | dict.fromkeys(in_c, IN_C)
        case = f"steps, {n_events} events"
        groups.append(measure(case, impls, nets, base="1000 steps", rounds=rounds))
    return groups


def first(rounds: int) -> list[Group]:
    path = OUT / "network.npz"
    save(draw(n_samples=1), path)
    command = [sys.executable, str(Path(__file__).with_name("first_call.py")), str(path)]
    found = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(rounds + 1)
    ]
    path.unlink()
    rows = []
    for name in found[0]:
        times = sorted(each[name] for each in found[1:])  # the first of them may have to compile
        ms = statistics.median(times)
        rows.append(
            {
                "case": "first call", "impl": name, "threads": 1, "ms": ms, "min_ms": times[0], "max_ms": times[-1],
                "rounds": rounds, "base": "", "ratio_to_base": None, "time": "wall, not pinned",
            }
        )  # fmt: skip
    return [(rows, {})]


GROUPS = {"reference": reference, "threads": threads, "gates": gates, "steps": steps, "first": first}


def main() -> None:
    rounds, chosen = int(sys.argv[1]) if len(sys.argv) > 1 else 9, sys.argv[2:]
    groups = [group for name in chosen or GROUPS for group in GROUPS[name](rounds)]
    report("_".join(["simulate", *chosen]), groups)


if __name__ == "__main__":
    main()
