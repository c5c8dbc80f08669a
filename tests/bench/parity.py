"""Spikes of every mode beside those of plain loops over the rules: ``parity.py [STEPS]``, 8 samples of 3000 steps.

Each case is a layer of 64 neurons, or a convolution of 72, with weights on the grid 2^-8, run by `simulate` on compiled
kernels and by the reference, in one piece and in stretches; LIF layers also on weights of int8 and on fan-out lists.
It counts the spikes and those that differ, and stops with an error if any does. The last line runs random weights, on
no grid, in float32 and in float64: it counts the spikes that moved and looks whether each stood within 1e-5 of the
threshold, or came after one of its own neuron.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any

import numpy as np

from suspike.graph import (
    LIF,
    AdLIF,
    CubaLIF,
    DriveGate,
    Gate,
    Graph,
    InputGate,
    Layer,
    Neuron,
    Periodic,
    Rhythm,
    Sparse,
    to_int8,
)
from suspike.simulate import simulate
from suspike_kernels import cpu
from suspike_kernels.geometry import convolution
from suspike_kernels.layout import Events, SynapseArrays, always_open, events_from_dense, lif_arrays
from suspike_kernels.reference import Layer as KernelLayer
from suspike_kernels.reference import Surrogate

N_IN, N, SAMPLES, GRID, BAND = 48, 64, 8, 2.0**-8, 1e-5
GEOMETRY = convolution((4, 6), 2, 3, (3, 3), padding=(1, 1))
GATES = ("none", "rhythm", "rhythm, grouped", "periodic", "input", "input, recurrent", "drive")
NEURONS = ("LIF, reset to 0", "LIF, reset by subtraction", "LIF, no reset", "CubaLIF", "AdLIF")


def gate_of(kind: str, n: int, rng: np.random.Generator, dtype: Any) -> Gate | None:
    size = 8 if "grouped" in kind or "input" in kind else 1
    draw = lambda *shape: (np.round(rng.normal(0, 0.4, shape) / GRID) * GRID).astype(dtype)  # noqa: E731
    if kind.startswith("rhythm"):
        parts = (rng.normal(0, 0.3, n // size), rng.normal(size=(n // size, 2)), rng.normal(size=(n // size, 2)))
        return Rhythm(*(np.repeat(x, size, 0) for x in parts), np.array([7.3, 29.1]))
    if kind == "periodic":
        return Periodic(np.arange(n) % 5, 5, 3)
    if kind.startswith("input"):
        own = draw(n, n // size) / 4 if "recurrent" in kind else None
        return InputGate(draw(N_IN, n // size), draw(n // size), n, own)
    return DriveGate(np.full(n, 0.25, dtype)) if kind == "drive" else None


def neuron_of(kind: str, n: int, rng: np.random.Generator, gate: Gate | None, dtype: Any) -> Neuron:
    beta, other = (rng.uniform(0.8, 0.95, n).astype(dtype) for _ in range(2))
    threshold = rng.uniform(0.3, 0.5, n).astype(dtype)
    if kind == "CubaLIF":
        return CubaLIF(beta, other / 2, threshold, gate=gate)
    if kind == "AdLIF":
        half = np.full(n, 0.5, dtype)
        return AdLIF(beta / 2, other, half, half, threshold / 8, gate=gate)
    reset = {"LIF, reset by subtraction": "subtract", "LIF, no reset": "none"}.get(kind, "zero")
    return LIF(beta, threshold, reset, gate)


def cases(dtype: Any) -> Iterator[tuple[str, Graph]]:
    for connected in ("fully connected, recurrent", "convolution"):
        n = N if connected != "convolution" else GEOMETRY.n_out
        for neuron in NEURONS if connected != "convolution" else NEURONS[:1]:
            for gate in GATES:
                rng = np.random.default_rng(0)
                draw = lambda *shape: (np.round(rng.normal(0.02, 0.25, shape) / GRID) * GRID).astype(dtype)  # noqa: B023, E731
                cell = neuron_of(neuron, n, rng, gate_of(gate, n, rng, dtype), dtype)
                if connected == "convolution":
                    layer = Layer("x", draw(3, 3, 2, 3) + dtype(0.125), draw(n) / 4, cell, geometry=GEOMETRY)
                else:
                    layer = Layer("x", draw(N_IN, n), draw(n) / 4, cell, draw(n, n) / 4)
                yield f"{connected}, {neuron}, gate: {gate}", Graph((layer,), 1.0)


def other_weights() -> Iterator[tuple[str, Graph]]:
    """The cases of LIF neurons reset to 0, on weights of int8 and on fan-out lists of a third of the synapses."""
    rng = np.random.default_rng(3)
    for name, graph in cases(np.float32):
        if "reset to 0" in name:
            yield f"{name}, int8", to_int8(graph)[0]
            layer = graph.neurons[0]
            if layer.geometry is None:
                full = (np.asarray(layer.weight), np.asarray(layer.recurrent))
                weight, recurrent = (Sparse.of(2 * x * (rng.random(x.shape) < 1 / 3)) for x in full)
                yield f"{name}, fan-out lists", Graph((replace(layer, weight=weight, recurrent=recurrent),), 1.0)


def events_for(n_steps: int) -> Events:
    rng = np.random.default_rng(1)
    return events_from_dense(rng.poisson(0.15, (n_steps, SAMPLES, N_IN)))


def differing(a: Events, b: Events) -> int:
    return len(np.setxor1d(a.places()[2], b.places()[2]))


def in_stretches(graph: Graph, events: Events, n_steps: int) -> Events:
    counts, state, parts = events.dense(np.int64), None, []
    for low, high in pairwise((0, 1, n_steps // 3, n_steps // 3, n_steps)):
        result = simulate(graph, events_from_dense(counts[low:high]), state=state, n_threads=2)
        state = result.state
        parts.append(result.spikes[0].dense(np.int64))
    return events_from_dense(np.concatenate(parts))


def exact(n_steps: int) -> int:
    events, total = events_for(n_steps), 0
    sys.stdout.write("| layer | numbers | spikes | differ in one piece | in stretches |\n|---|---|---|---|---|\n")
    for name, graph in chain(cases(np.float32), cases(np.float64), other_weights()):
        wanted = simulate(graph, events, target="reference").spikes[0]
        found = simulate(graph, events, n_threads=2).spikes[0]
        moved = differing(found, wanted), differing(in_stretches(graph, events, n_steps), wanted)
        sys.stdout.write(f"| {name} | {graph.dtype} | {len(wanted.idx):,} | {moved[0]} | {moved[1]} |\n")
        sys.stdout.flush()
        total += sum(moved)
    return total


def floats(n_steps: int) -> int:
    """Compare float32 with float64 on weights of all bits: return how many moved spikes are not explained."""
    rng, n = np.random.default_rng(2), 256
    dense = rng.poisson(0.05, (n_steps, SAMPLES, 700))
    events = events_from_dense(dense)
    wide = rng.normal(0.01, 0.165, (700, n)).astype(np.float32)
    runs = []
    for dtype in (np.float32, np.float64):
        ones = np.ones(n, dtype)
        neurons = lif_arrays((np.float32(0.95) * ones).astype(dtype), ones, 0)
        synapses = SynapseArrays(wide.astype(dtype), np.zeros((0, n), dtype), 0 * ones)
        rest = np.zeros((1, SAMPLES, n), dtype)
        layer = KernelLayer(events, rest[:0], synapses, neurons, always_open(dtype), rest, rest[0])
        runs.append(cpu.forward(layer, Surrogate(0, BAND)))
    narrow, full = (run.spikes.dense(bool) for run in runs)
    near = full ^ full
    near.reshape(-1)[runs[1].active.places()[2]] = True
    moved = narrow ^ full
    explained = np.logical_or.accumulate(near & moved, axis=0)
    left = int((moved & ~explained).sum())
    first = int((moved & near).sum())
    sys.stdout.write(
        f"\nfloat32 against float64, random weights: {moved.sum()} of {full.sum():,} spikes moved; {first} of them "
        f"stood within {BAND} of the threshold, {moved.sum() - first - left} came behind such a one, {left} neither.\n"
    )
    return left


def main() -> None:
    n_steps = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    if exact(n_steps) + floats(n_steps):
        sys.exit("spikes differ")


if __name__ == "__main__":
    main()
