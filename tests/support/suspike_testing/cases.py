"""Drawn layers with their inputs: sizes and kinds from hypothesis, the arrays from a seeded generator.

Weights are whole multiples of 2^-8, so a current is the same sum in every order, and spikes are compared for equality.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from suspike_kernels.layout import DenseArrays, Events, GateArrays, LIFArrays, events_from_dense

GRID = 2.0**-8
EPSILON = {"float32": 1e-5, "float64": 1e-12}


def on_grid(x: Any, dtype: Any = np.float64) -> NDArray[Any]:
    return np.asarray(np.round(np.asarray(x) / GRID) * GRID).astype(dtype)


@dataclass(frozen=True)
class Case:
    """What a LIF layer's forward and backward pass are given."""

    events: Events
    sources: Events
    dense: DenseArrays
    lif: LIFArrays
    gate: GateArrays
    v: NDArray[Any]
    spk: NDArray[Any]
    width: float
    seed: int

    @property
    def forward(self) -> tuple[Any, ...]:
        return self.events, self.dense, self.lif, self.gate, self.v, self.spk

    def grads(self, n_active: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Gradients by the outputs, as a loss would send them back."""
        rng = np.random.default_rng([self.seed, 1])
        return tuple(rng.standard_normal(s).astype(self.v.dtype) for s in (n_active, self.v.shape, self.v.shape))  # type: ignore[return-value]

    def backward(self, run: Any) -> tuple[Any, ...]:
        return *self.grads(len(run.active.idx)), run, self.events, self.sources, *self.forward[1:]


def random_events(
    rng: np.random.Generator, n_steps: int, n_samples: int, n_units: int, density: float, *, most: int = 3
) -> Events:
    """Events with repeats, in no order within a step."""
    counts = rng.integers(1, most + 1, (n_steps, n_samples, n_units))
    events = events_from_dense(counts * (rng.random(counts.shape) < density))
    idx = events.idx.copy()
    for low, high in zip(events.ptr[:, :-1].ravel(), events.ptr[:, 1:].ravel(), strict=True):
        rng.shuffle(idx[low:high])
    return Events(events.ptr, idx, n_units)


def make_case(
    *,
    n_steps: int = 12,
    n_samples: int = 4,
    n_in: int = 9,
    n_units: int = 7,
    density: float = 0.2,
    recurrent: bool = True,
    gate: str = "random",
    near: bool = True,
    reset: int = 0,
    width: float = 0.5,
    dtype: str = "float32",
    seed: int = 0,
) -> Case:
    """Make one layer; gate is "none", "random", "shut" or "open"."""
    rng = np.random.default_rng([seed, n_steps, n_samples, n_in, n_units])
    scale = 0.35 / np.sqrt(max(5 * n_in * density, 0.5))  # currents of about 0.35, whatever the sizes
    shape = (n_steps, n_units)
    n_recurrent = n_units if recurrent else 0
    tables = {
        "none": np.zeros((0, n_units)),
        "random": rng.random(shape) < 0.6,
        "shut": np.zeros(shape),
        "open": np.ones(shape),
    }
    return Case(
        events=random_events(rng, n_steps, n_samples, n_in, density),
        sources=random_events(rng, n_steps, n_samples, n_in, 0.3, most=1),
        dense=DenseArrays(
            on_grid(rng.standard_normal((n_in, n_units)) * scale, dtype),
            on_grid(rng.standard_normal((n_recurrent, n_units)) * 0.3, dtype),
            on_grid(rng.uniform(0, 0.1, n_units), dtype),
        ),
        lif=LIFArrays(
            rng.uniform(0.6, 0.95, n_units).astype(dtype), rng.uniform(0.3, 0.8, n_units).astype(dtype), reset
        ),
        gate=GateArrays(
            tables[gate].astype(np.uint8),
            (rng.random(shape) < 0.4 if near and gate != "none" else np.zeros((0, n_units))).astype(np.uint8),
        ),
        v=(rng.standard_normal((n_samples, n_units)) * 0.4).astype(dtype),
        spk=(rng.random((n_samples, n_units)) < 0.4).astype(dtype),
        width=width,
        seed=seed,
    )


@st.composite
def cases(draw: Any, *, dtypes: tuple[str, ...] = ("float32", "float64")) -> Case:
    """Layers of every kind, small and lopsided."""
    return make_case(
        n_steps=draw(st.sampled_from([12, 7, 3, 1, 0])),
        n_samples=draw(st.sampled_from([3, 5, 1, 0])),
        n_in=draw(st.sampled_from([9, 4, 1])),
        n_units=draw(st.sampled_from([7, 17, 1])),
        density=draw(st.sampled_from([0.3, 0.8, 0.0])),
        recurrent=draw(st.booleans()),
        gate=draw(st.sampled_from(["random", "none", "shut", "open"])),
        near=draw(st.booleans()),
        reset=draw(st.sampled_from([0, 1, 2])),
        width=draw(st.sampled_from([0.5, 0.2, 0.0])),
        dtype=draw(st.sampled_from(dtypes)),
        seed=draw(st.integers(0, 2**16)),
    )
