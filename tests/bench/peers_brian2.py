"""Brian2, C++ standalone: the network of network.py as one compiled program, run over the samples one after another.

A float64 program for one core (float32 took half as long again here), compiled with Brian2's own flags. Its clock is
the CPU time of the loop over the steps inside the program: neither its start nor its arrays and results on disk are
timed. Two silent steps stand behind each sample, in which the membranes are reset.

A spike arrives in the step after it, as synapses stand between decay and threshold: a recurrent one is on time, an
input one step late and one at the readout two; gates are shifted likewise, and spikes shifted back.
"""

from __future__ import annotations

import os
import shutil
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import brian2 as b2
import numpy as np
from brian2 import ms
from network import Network, steps_of
from sparse_network import SparseNetwork
from work import Built

FOLDER = Path("build/bench/brian2")
GAP = 2
LEAK = "dv/dt = -v / tau : 1"
GATED = "v = is_open(t, i) * (beta * v + cur) + (1 - is_open(t, i)) * v\ncur = 0"
BEFORE = "timespec began; clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &began);"
AFTER = """timespec ended; clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ended);
std::ofstream("cpu_seconds.txt") << (ended.tv_sec - began.tv_sec) + 1e-9 * (ended.tv_nsec - began.tv_nsec);"""


def network(net: Network, threads: int) -> Built:
    """The network; gated neurons are updated by an expression of a TimedArray, the others by their equation."""
    del threads
    _start()
    length, gated = net.n_steps + GAP, len(net.is_open) > 0
    n, n_out = net.readout.shape
    names = {"tau": -1 * ms / np.log(net.beta), "theta": net.threshold, "beta": net.beta}
    settings: dict[str, Any] = {"threshold": "v > theta", "reset": "v = 0", "method": "exact", "namespace": names}
    out = b2.NeuronGroup(n_out, LEAK, **settings)
    if gated:
        silent = np.zeros((1, n))
        names["is_open"] = b2.TimedArray(np.tile([*silent, *net.is_open, *silent], (net.n_samples, 1)), dt=1 * ms)
        settings["threshold"] = "v > theta and is_open(t, i) > 0.5"
        hidden = b2.NeuronGroup(n, "v : 1\ncur : 1", **settings)
        hidden.run_regularly(GATED, when="after_synapses")
    else:
        hidden = b2.NeuronGroup(n, LEAK, **settings)
    sample, step = steps_of(net)
    given = b2.SpikeGeneratorGroup(len(net.weight), net.idx, (sample * length + step) * ms, sorted=True)
    ends = np.arange(net.n_samples) * length + net.n_steps
    ending = b2.SpikeGeneratorGroup(2, np.tile([0, 1], len(ends)), np.stack([ends, ends + 1], 1).ravel() * ms)
    synapses, among = [], [(given, hidden, net.weight), (hidden, hidden, net.recurrent), (hidden, out, net.readout)]
    for source, group, weight in among:
        if not len(weight):
            continue
        target = "cur" if gated and group is hidden else "v"
        synapses.append(b2.Synapses(source, group, "w : 1", on_pre=f"{target}_post += w", namespace={}))
        synapses[-1].connect()
        synapses[-1].w = weight.ravel()
    for i, group in enumerate((hidden, out)):
        synapses.append(b2.Synapses(ending, group, on_pre="v_post = 0", order=1, namespace={}))
        synapses[-1].connect(i=i, j=np.arange(len(group)))
    spikes = b2.SpikeMonitor(hidden), b2.SpikeMonitor(out)
    compiled = _program([given, ending, hidden, out, *synapses, *spikes], net.n_samples * length)

    def as_ours(done: Any) -> list[Any]:
        del done
        found = []
        for late, (monitor, width) in enumerate(zip(spikes, (n, n_out), strict=True), start=1):
            at = np.round(np.asarray(monitor.t / ms)).astype(int) - late
            dense = np.zeros((net.n_samples * length, width), bool)
            dense[at, np.asarray(monitor.i)] = True
            found.append(dense.reshape(net.n_samples, length, width)[:, : net.n_steps].transpose(1, 0, 2))
        return found

    return Built(_once, as_ours, {"version": version("brian2"), "compile_s": compiled}, lambda done: done)


def sparse(net: SparseNetwork, threads: int) -> Built:
    """A sparse network, neuron by neuron connected."""
    del threads
    _start()
    names = {"tau": -1 * ms / np.log(net.beta), "theta": net.threshold}
    neurons = b2.NeuronGroup(net.n, LEAK, threshold="v > theta", reset="v = 0", method="exact", namespace=names)
    given = b2.SpikeGeneratorGroup(len(net.target), net.idx, net.steps * ms, sorted=True)
    objects = [given, neurons, b2.SpikeMonitor(neurons)]
    among = [(given, net.target, net.weight), (neurons, net.recurrent_target, net.recurrent_weight)]
    for source, to, weight in among:
        if not len(to):
            continue
        objects.append(b2.Synapses(source, neurons, "w : 1", on_pre="v_post += w", namespace={}))
        objects[-1].connect(i=np.repeat(np.arange(len(to)), to.shape[1]), j=to.ravel())
        objects[-1].w = weight.ravel()
    compiled = _program(objects, net.n_steps + 1)

    def as_ours(done: Any) -> list[Any]:
        at = np.round(np.asarray(objects[2].t / ms)).astype(int) - 1
        return [np.sort(at * net.n + np.asarray(objects[2].i))]

    return Built(_once, as_ours, {"version": version("brian2"), "compile_s": compiled}, lambda done: done)


def _start() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    b2.set_device("cpp_standalone", directory=str(FOLDER), build_on_run=False)
    b2.defaultclock.dt = 1 * ms


def _program(objects: list[Any], n_steps: int) -> float:
    """Write and compile the program, on all processors, and return the time that took, in s."""
    whole, mine, began = b2.Network(objects), os.sched_getaffinity(0), time.perf_counter()
    whole.schedule = ["start", "groups", "synapses", "thresholds", "resets", "end"]
    b2.device.insert_code("before_network_run", BEFORE)
    b2.device.insert_code("after_network_run", AFTER)
    whole.run(n_steps * ms)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    b2.device.build(directory=str(FOLDER), compile=True, run=False, with_output=False)
    os.sched_setaffinity(0, mine)
    return time.perf_counter() - began


def _once() -> tuple[float, float]:
    b2.device.run(str(FOLDER), with_output=False, run_args=[])
    return float((FOLDER / "cpu_seconds.txt").read_text()), float(b2.device._last_run_time)
