"""A small gated network, its events and what a bundle of it holds, for the tests of bundles and of verification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from suspike.graph import LI, LIF, Graph, Layer, Rhythm
from suspike_kernels.layout import Events, events_from_dense

FILES = {
    "manifest.json", "network.nir", "schedule.npz", "golden.npz",
    "recording-0.aedat", "recording-0.sonata.h5", "recording-1.aedat", "recording-1.sonata.h5",
}  # fmt: skip


def grid(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return (rng.integers(-64, 129, size=shape) / 256).astype(np.float32)


def make_graph(*, gated: bool = True, readout: bool = True, seed: int = 0) -> Graph:
    rng, n = np.random.default_rng(seed), 10
    gate = (
        Rhythm(rng.normal(size=n), rng.normal(size=(n, 2)), rng.normal(size=(n, 2)), 2 + 9 * rng.random(2))
        if gated
        else None
    )
    neuron = LIF(np.full(n, 0.9, np.float32), np.ones(n, np.float32), gate=gate)
    layers = [Layer("hidden", grid(rng, 6, n), grid(rng, n) / 4, neuron, grid(rng, n, n))]
    if readout:
        layers.append(Layer("readout", grid(rng, n, 3), grid(rng, 3), LI(np.full(3, 0.95, np.float32))))
    return Graph(tuple(layers), 0.5)


def make_events(*, n_samples: int = 3, n_steps: int = 20, seed: int = 0, most: int = 1) -> Events:
    rng = np.random.default_rng(seed)
    return events_from_dense(
        (rng.random((n_steps, n_samples, 6)) < 0.3) * rng.integers(1, most + 1, (n_steps, n_samples, 6))
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
