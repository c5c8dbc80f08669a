"""Drawn layers with their inputs: sizes and kinds from hypothesis, the arrays from a seeded generator.

What is summed (weights, biases, given currents, a gate's activation) is a whole multiple of 2^-8, so a sum is the same
in every order, and spikes are compared for equality. Leaks, thresholds and states are any numbers: the update rounds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from suspike_kernels.layout import (
    NEURONS,
    RESETS,
    Events,
    GateArrays,
    NeuronArrays,
    SynapseArrays,
    always_open,
    events_from_dense,
    table_gate,
)
from suspike_kernels.reference import Layer, LayerGrads, Run, RunGrads, Surrogate

GRID = 2.0**-8
EPSILON = {"float32": 1e-5, "float64": 1e-12}
GATES = ("none", "table", "tables", "input", "drive")
"""Gates of a drawn layer: "table" is one for all samples, "tables" one for each."""

SHAPES = ("triangle", "boxcar")
"""Surrogates of compact support, in the order of `layout.SURROGATES`."""


def on_grid(x: Any, dtype: Any = np.float64) -> NDArray[Any]:
    return np.asarray(np.round(np.asarray(x) / GRID) * GRID).astype(dtype)


@dataclass(frozen=True)
class Case:
    """What a layer's forward and backward pass are given."""

    layer: Layer
    surrogate: Surrogate
    sources: Events
    trace: bool
    seed: int

    def forward(self, module: Any, **options: Any) -> Run:
        """Run `module`, which is `reference` or a compiled target."""
        run: Run = module.forward(self.layer, self.surrogate, trace=self.trace, **options)
        return run

    def backward(self, module: Any, run: Run, grads: RunGrads | None = None, **options: Any) -> LayerGrads:
        grads = self.grads(run) if grads is None else grads
        by: LayerGrads = module.backward(grads, run, self.layer, self.surrogate, self.sources, **options)
        return by

    def dense_grads(self) -> RunGrads:
        """Gradients by the outputs, as a loss would send them back; by the spikes of all places, [T, B, N]."""
        rng, layer = np.random.default_rng([self.seed, 1]), self.layer
        everywhere = (layer.events.n_steps, *layer.spk.shape)
        n_gates = forward_gates(layer)
        shapes = (everywhere, layer.state.shape, layer.spk.shape, everywhere, (len(layer.spk), n_gates))
        grads = RunGrads(*(rng.standard_normal(shape).astype(layer.state.dtype) for shape in shapes))
        return grads if self.trace else grads._replace(trace=grads.trace[:0])

    def grads(self, run: Run) -> RunGrads:
        """As `dense_grads`, by the spikes of active places alone."""
        grads = self.dense_grads()
        return grads._replace(value=grads.value.reshape(-1)[run.active.places()[2]])

    def with_gate(self, gate: GateArrays) -> Case:
        return replace(self, layer=self.layer._replace(gate=gate))


def forward_gates(layer: Layer) -> int:
    """The number of gates that `Run.n_open` and `Run.ramp` speak of."""
    n = len(layer.synapses.bias)
    return (0, layer.gate.open.shape[2], layer.gate.a.shape[2], n)[layer.gate.kind]


def take_samples(layer: Layer, order: NDArray[Any]) -> Layer:
    """The samples named by `order` alone; contiguous, as kernels want their arrays."""
    gate, own = layer.gate, len(layer.gate.open) > 1
    gate = gate._replace(
        open=gate.open[order] if own else gate.open,
        near=gate.near[order] if own and gate.near.size else gate.near,
        a=gate.a[order] if gate.kind == 2 else gate.a,
    )
    return layer._replace(
        events=layer.events.take(order), current=np.ascontiguousarray(layer.current[:, order]), gate=gate,
        state=np.ascontiguousarray(layer.state[:, order]), spk=layer.spk[order],
        n_steps=layer.n_steps[order] if len(layer.n_steps) else layer.n_steps,
    )  # fmt: skip


def take_steps(events: Events, low: int, high: int) -> Events:
    """The events of the steps low .. high - 1, sorted within a step."""
    return events_from_dense(events.dense(np.int64)[low:high])


def cut(layer: Layer, low: int, high: int) -> Layer:
    """The steps low .. high - 1 of a layer, from the same state."""
    gate = layer.gate
    parts = {name: np.ascontiguousarray(getattr(gate, name)[:, low:high]) for name in ("open", "near", "a")}
    events = take_steps(layer.events, low, high)
    left = np.clip(layer.n_steps - low, 0, high - low)
    return layer._replace(events=events, current=layer.current[low:high], gate=gate._replace(**parts), n_steps=left)


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


def make_neurons(
    rng: np.random.Generator, kind: str, n_units: int, reset: str, attached: bool, readout: bool, dtype: str
) -> NeuronArrays:
    def uniform(low: float, high: float, *, wanted: bool = True) -> NDArray[Any]:
        return rng.uniform(low, high, n_units if wanted else 0).astype(dtype)

    threshold = np.full(n_units, np.inf, dtype) if readout else uniform(0.3, 0.8)
    beta, adapts = uniform(0.6, 0.95), kind == "adlif"
    return NeuronArrays(
        NEURONS.index(kind), beta, threshold, RESETS.index(reset), int(attached),
        uniform(0.4, 0.9, wanted=kind != "lif"), uniform(-0.4, 0.6, wanted=adapts), uniform(0, 1.5, wanted=adapts),
    )  # fmt: skip


def make_gate(
    rng: np.random.Generator, kind: str, n_steps: int, n_samples: int, n_units: int, group: int, *,
    opened: float, near: bool, talk: bool, dtype: str,
) -> GateArrays:  # fmt: skip
    """Gates of which about the share `opened` is open: all of them at 1, none at 0."""
    n_gates, none = n_units // group, always_open(dtype)
    if kind == "none":
        return none
    if kind in ("table", "tables"):
        shape = (1 if kind == "table" else n_samples, n_steps, n_gates)
        is_near = (rng.random(shape) < 0.4) & near
        return table_gate((rng.random(shape) < opened).astype(np.uint8), is_near.astype(np.uint8), dtype)
    far = 0.0 if 0 < opened < 1 else 1000.0 if opened else -1000.0
    per_gate = n_gates if kind == "input" else n_units
    width = rng.uniform(0.1, 0.6, per_gate) * (rng.random(per_gate) < 0.9) * near
    gate = none._replace(width=width.astype(dtype), scale=rng.uniform(0.2, 0.8, per_gate).astype(dtype))
    if kind == "drive":
        return gate._replace(kind=3, kappa=(rng.uniform(0.02, 0.3, n_units) - far).astype(dtype))
    a = rng.standard_normal((n_samples, n_steps, n_gates)) * 0.4 + 0.15 + far
    rows = rng.standard_normal((n_units if talk else 0, n_gates)) * 0.2
    return gate._replace(kind=2, a=on_grid(a, dtype), recurrent=on_grid(rows, dtype))


def make_case(
    *,
    neuron: str = "lif",
    gate: str = "table",
    group: int = 1,
    opened: float = 0.6,
    near: bool = True,
    talk: bool = True,
    reset: str = "zero",
    attached: bool = False,
    readout: bool = False,
    shape: str = "triangle",
    width: float = 0.5,
    current: bool = False,
    recurrent: bool = True,
    trace: bool = False,
    ends: bool = False,
    n_steps: int = 12,
    n_samples: int = 4,
    n_in: int = 9,
    n_units: int = 6,
    density: float = 0.2,
    dtype: str = "float32",
    seed: int = 0,
) -> Case:
    """Make one layer; `talk` lets its spikes reach an input gate, `ends` ends samples at steps of their own."""
    rng = np.random.default_rng([seed, n_steps, n_samples, n_in, n_units])
    # currents of about 0.35 whatever the sizes; a leak of adaptive neurons takes 1 - beta of them
    strength = {"lif": 1.0, "cuba": 0.6, "adlif": 6.0}[neuron]
    scale = 0.35 * strength / np.sqrt(max(5 * n_in * density, 0.5))
    given = rng.standard_normal((n_steps if current else 0, n_samples, n_units)) * 0.15 * strength
    synapses = SynapseArrays(
        on_grid(rng.standard_normal((n_in, n_units)) * scale, dtype),
        on_grid(rng.standard_normal((n_units if recurrent else 0, n_units)) * 0.3 * strength, dtype),
        on_grid(rng.uniform(0, 0.1, n_units) * strength, dtype),
    )
    layer = Layer(
        random_events(rng, n_steps, n_samples, n_in, density),
        on_grid(given, dtype),
        synapses,
        make_neurons(rng, neuron, n_units, reset, attached, readout, dtype),
        make_gate(
            rng, gate, n_steps, n_samples, n_units, group, opened=opened, near=near, talk=talk, dtype=dtype
        ),
        (rng.standard_normal((1 if neuron == "lif" else 2, n_samples, n_units)) * 0.4).astype(dtype),
        (rng.random((n_samples, n_units)) < 0.4).astype(dtype),
    )  # fmt: skip
    # a drive gate's threshold is measured against currents
    layer = layer._replace(gate=layer.gate._replace(kappa=(layer.gate.kappa * strength).astype(dtype)))
    sources = random_events(rng, n_steps, n_samples, n_in, 0.3, most=1)
    if ends:
        layer = layer._replace(n_steps=rng.integers(0, n_steps + 1, n_samples))
    return Case(layer, Surrogate(SHAPES.index(shape), width), sources, trace, seed)


@st.composite
def cases(draw: Any, *, dtypes: tuple[str, ...] = ("float32", "float64"), gates: tuple[str, ...] = GATES) -> Case:
    """Layers of every kind, small and lopsided."""
    n_units = draw(st.sampled_from([7, 18, 1, 34]))
    options: dict[str, Any] = {
        "neuron": NEURONS,
        "gate": gates,
        "group": [g for g in (1, 3, 2, n_units) if not n_units % g],
        "opened": [0.6, 0.7, 0.5, 0.0, 1.0],
        "near": [True, False],
        "talk": [True, False],
        "reset": RESETS,
        "attached": [False, True],
        "readout": [False] * 5 + [True],
        "shape": SHAPES,
        "width": [0.5, 0.3, 0.4, 0.0],  # 1 / 0.6 is no float32: a slope of the wrong precision shows
        "current": [False, True],
        "recurrent": [True, False],
        "trace": [False, True],
        "ends": [False, False, True],
        "n_steps": [12, 10, 7, 3, 1, 0],
        "n_samples": [3, 4, 5, 1, 0],
        "n_in": [9, 4, 1],
        "density": [0.3, 0.8, 0.0],
        "dtype": dtypes,
    }
    chosen = {name: draw(st.sampled_from(choices)) for name, choices in options.items()}
    return make_case(n_units=n_units, seed=draw(st.integers(0, 2**16)), **chosen)
