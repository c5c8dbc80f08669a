"""A chain of layers of several neurons and gates, and recordings for it, without torch: what a cluster's workers run.

Weights are any floats, off every grid: results are equal because each sample's sums keep their order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from suspike.graph import LI, LIF, AdLIF, CubaLIF, DriveGate, Graph, InputGate, Layer, Periodic, Rhythm
from suspike_kernels.layout import Events, events_from_dense

N_IN = 12


def make_chain(*, dtype: str = "float32", readout: bool = True, n: int = 20, seed: int = 0) -> Graph:
    """Layers behind a rhythm, a period, a gate that events open and one that currents open; all of them recurrent."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 1.0) -> Any:
        return (rng.standard_normal(shape) * scale).astype(dtype)

    def full(value: float) -> Any:
        return np.full(n, value, dtype)

    rhythm = Rhythm(rng.normal(size=n), rng.normal(size=(n, 2)), rng.normal(size=(n, 2)), np.array([7.3, 20.0]))
    opened = InputGate(normal(n, 5, scale=0.3), normal(5, scale=0.3), n, normal(n, 5, scale=0.3))
    neurons = (
        LIF(full(0.9), full(0.8), "subtract", rhythm),
        CubaLIF(full(0.8), full(0.5), full(0.7), gate=Periodic(np.arange(n) % 3, 3, 2)),
        AdLIF(full(0.7), full(0.8), full(0.3), full(0.2), full(0.15), gate=opened),
        LIF(full(0.9), full(0.8), "zero", DriveGate(full(0.1))),
    )
    layers = [
        Layer(f"hidden{i}", normal(n if i else N_IN, n, scale=0.4), full(0.05), neuron, normal(n, n, scale=0.1))
        for i, neuron in enumerate(neurons)
    ]
    if readout:
        layers.append(Layer("out", normal(n, 3), np.zeros(3, dtype), LI(np.full(3, 0.9, dtype))))
    return Graph(tuple(layers), 1.0)


def make_recordings(n_samples: int, n_steps: int = 30, *, lengths: Any = None, seed: int = 0) -> Events:
    """Events of which the first samples have most; none behind the end of a sample."""
    rng = np.random.default_rng([seed, n_samples, n_steps])
    counts = rng.random((n_steps, n_samples, N_IN)) < np.linspace(0.6, 0.05, n_samples)[:, None]
    if lengths is not None:
        counts &= (np.arange(n_steps)[:, None] < lengths)[:, :, None]
    return events_from_dense(counts)
