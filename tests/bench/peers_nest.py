"""NEST: the network of network.py of `iaf_psc_delta` neurons, samples simulated one after another.

Inputs are `spike_train_injector`, a tenth faster here than `spike_generator`. The threshold is met from ``V >= V_th``:
V_th is the next float64 above ours. A spike is answered two steps after it, by way of the least delay, so inputs of
step k are stamped k + 1, and NEST's spike of step k + 2 is ours of step k; readout ones come a step later still. The
clock is the CPU time of a `Simulate` call a sample. Between samples, which is not timed, spikes on their way run into
membranes too low to fire, and those are reset.
"""

from __future__ import annotations

import math
import time
from importlib.metadata import version
from typing import Any, NamedTuple

import nest
import numpy as np
from network import Network, steps_of
from sparse_network import SparseNetwork
from work import Built

LATE, GAP = 3, 2
"""Steps after a sample until its last spike at the readout, and until those on their way have arrived."""


class Synapses(NamedTuple):
    """Weights [n_source, n_target] from what comes in (None) or the neurons of a layer to those of a layer.

    Or [n_source, fan_out], with the neuron that each one reaches in `to`.
    """

    source: int | None
    target: int
    weight: Any
    to: Any = None


class Population:
    """Layers of neurons in NEST, and the samples that run through them."""

    def __init__(self, net: Any, sizes: list[int], synapses: list[Synapses], n_steps: int, threads: int) -> None:
        self.n_samples, self.n_steps, self.length = net.n_samples, n_steps, n_steps + LATE + GAP
        nest.verbosity = nest.VerbosityLevel.ERROR
        nest.ResetKernel()
        nest.resolution, nest.local_num_threads = 1.0, threads
        neuron = {
            "tau_m": -1 / math.log(net.beta), "E_L": 0.0, "V_reset": 0.0, "t_ref": 0.0, "I_e": 0.0,
            "V_th": float(np.nextafter(net.threshold, np.inf)),
        }  # fmt: skip
        self.layers = [nest.Create("iaf_psc_delta", size, params=neuron) for size in sizes]
        self.given = nest.Create("spike_train_injector", len(synapses[0].weight))
        for source, target, weight, to in synapses:
            group, layer = self.given if source is None else self.layers[source], self.layers[target]
            if to is None:
                nest.Connect(group, layer, "all_to_all", {"weight": weight.T.astype(np.float64), "delay": 1.0})
                continue
            ends = np.repeat(np.arange(len(to)), to.shape[1]) + group[0].global_id, to.ravel() + layer[0].global_id
            each = {"weight": weight.ravel().astype(np.float64), "delay": np.ones(weight.size)}
            nest.Connect(*ends, "one_to_one", each)
        self.recorders = [nest.Create("spike_recorder") for _ in sizes]
        for layer, recorder in zip(self.layers, self.recorders, strict=True):
            nest.Connect(layer, recorder)

    def run(self, sample: Any, step: Any, idx: Any, breaks: Any = ()) -> tuple[float, float]:
        """Run all samples with these events; return CPU and wall time in s.

        In `breaks`, steps of each sample without an event, membranes stay and the spikes of the step before are lost.
        """
        self.began = nest.biological_time
        for recorder in self.recorders:
            recorder.n_events = 0
        at, order = self.began + sample * self.length + step + 1.0, np.lexsort((step, sample, idx))
        ends = np.cumsum(np.bincount(idx, minlength=len(self.given)))[:-1]
        self.given.set([{"spike_times": times} for times in np.split(at[order], ends)])
        cpu = wall = 0.0
        for _ in range(self.n_samples):
            self._set_v([0.0] * len(self.layers))
            end = nest.biological_time + self.n_steps + LATE
            began = time.process_time(), time.perf_counter()
            for pause in breaks:
                nest.Simulate(end - self.n_steps - LATE + pause + 1.0 - nest.biological_time)
                kept = [layer.V_m for layer in self.layers]
                self._lose(1)
                self._set_v(kept)
            nest.Simulate(end - nest.biological_time)
            cpu, wall = cpu + time.process_time() - began[0], wall + time.perf_counter() - began[1]
            self._lose(GAP)
        return cpu, wall

    def _lose(self, n_steps: int) -> None:
        self._set_v([-1e6] * len(self.layers))
        nest.Simulate(float(n_steps))

    def _set_v(self, v: list[Any]) -> None:
        for layer, each in zip(self.layers, v, strict=True):
            layer.V_m = each

    def places(self) -> list[tuple[Any, Any]]:
        """Return steps and neurons of each layer's spikes of the last run, those behind a sample included."""
        found = []
        for late, (recorder, layer) in enumerate(zip(self.recorders, self.layers, strict=True), start=2):
            events = recorder.events
            found.append(
                (np.round(events["times"] - self.began).astype(int) - late, events["senders"] - layer[0].global_id)
            )
        return found

    def fired(self) -> list[Any]:
        """Return the spikes of the last run: of each layer, [T, B, N]."""
        found = []
        for (at, who), layer in zip(self.places(), self.layers, strict=True):
            dense = np.zeros((self.n_samples * self.length, len(layer)), bool)
            dense[at, who] = True
            found.append(dense.reshape(self.n_samples, self.length, -1)[:, : self.n_steps].transpose(1, 0, 2))
        return found


def network(net: Network, threads: int) -> Built:
    """The network; there are no gates in NEST's neurons."""
    if len(net.is_open):
        raise ValueError("NEST has no gated neuron: see `lowered`")
    synapses = [Synapses(None, 0, net.weight), Synapses(0, 1, net.readout)]
    if len(net.recurrent):
        synapses.insert(1, Synapses(0, 0, net.recurrent))
    population = Population(net, list(net.readout.shape), synapses, net.n_steps, threads)
    sample, step = steps_of(net)

    def once() -> tuple[float, float]:
        return population.run(sample, step, net.idx)

    return Built(once, lambda done: population.fired(), {"version": version("nest-simulator")}, lambda done: done)


def lowered(net: Network, threads: int) -> Built:
    """A gated network in NEST's plain neurons, by time: a rhythm's neurons live through their open steps alone.

    The neurons of each rhythm run by themselves, over the events of their open steps, and their spikes are dealt out to
    these steps again; the readout is another run over them. So neurons of different rhythms cannot be connected, and
    where they are among each other, a step between two open spells loses the spikes that came when the gate had shut.
    """
    rhythms, group = np.unique(net.is_open, axis=1, return_inverse=True)
    if len(net.recurrent) and rhythms.shape[1] > 1:
        raise ValueError("neurons of different rhythms cannot be connected")
    n, n_out = net.readout.shape

    def step() -> list[Any]:
        hidden = np.zeros((net.n_steps, net.n_samples, n), bool)
        sample, at = steps_of(net)
        for g, opens in enumerate(rhythms.T > 0):
            mine, own_step = np.flatnonzero(group.ravel() == g), np.cumsum(opens) - 1
            synapses, breaks = [Synapses(None, 0, net.weight[:, mine])], np.zeros(0, int)
            if len(net.recurrent):
                synapses.append(Synapses(0, 0, net.recurrent))
                own_step += np.cumsum(np.diff(opens, prepend=False) & ~opens)
                breaks = own_step[np.flatnonzero(opens[:-1] & ~opens[1:])] + 1
            length = int(own_step[opens].max()) + 1
            population = Population(net, [len(mine)], synapses, length, threads)
            met = opens[at]
            population.run(sample[met], own_step[at[met]], net.idx[met], breaks[breaks < length])
            spikes = population.fired()[0][own_step[opens]]
            hidden[np.ix_(opens, np.ones(net.n_samples, bool), group.ravel() == g)] = spikes
        fired_at, fired_in, who = np.nonzero(hidden)
        readout = Population(net, [n_out], [Synapses(None, 0, net.readout)], net.n_steps, threads)
        readout.run(fired_in, fired_at, who)
        return [hidden, readout.fired()[0]]

    return Built(step, lambda done: done, {"version": version("nest-simulator"), "rhythms": rhythms.shape[1]})


def sparse(net: SparseNetwork, threads: int) -> Built:
    """A sparse network, neuron by neuron connected."""
    began = time.perf_counter()
    synapses = [Synapses(None, 0, net.weight, net.target)]
    if len(net.recurrent_target):
        synapses.append(Synapses(0, 0, net.recurrent_weight, net.recurrent_target))
    population = Population(net, [net.n], synapses, net.n_steps, threads)
    built, steps = time.perf_counter() - began, net.steps

    def as_ours(done: Any) -> list[Any]:
        ((at, who),) = population.places()
        return [np.sort(at[at < net.n_steps] * net.n + who[at < net.n_steps])]

    def once() -> tuple[float, float]:
        return population.run(np.zeros_like(steps), steps, net.idx)

    return Built(once, as_ours, {"version": version("nest-simulator"), "build_s": built}, lambda done: done)
