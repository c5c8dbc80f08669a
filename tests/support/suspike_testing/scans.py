"""Scans drawn at random, and what the reference makes of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from suspike_kernels import reference
from suspike_kernels.layout import (
    N_COMPACT,
    SURROGATES,
    Events,
    GateArrays,
    NeuronArrays,
    SynapseArrays,
    always_open,
    table_gate,
)
from suspike_kernels.reference import Layer, LayerGrads, RunGrads, Surrogate
from suspike_kernels.scanning import ScanGrads, ScanPull, ScanRun


class Model(NamedTuple):
    """What a scan is compiled for; the shapes are drawn."""

    kind: int = 0
    reset: int = 0
    attached: int = 0
    gate: str = "none"  # "shared", "own": tables; "grouped": a shared table of fewer gates; "drive"
    shape: str = "triangle"
    wants: str = "spikes"  # "trace": a readout; "both"
    params: bool = True
    dtype: str = "float32"


MODELS = [
    Model(params=False),
    Model(reset=1, params=False),
    Model(reset=2, shape="boxcar", wants="both"),
    Model(reset=1, attached=1, gate="shared"),
    Model(attached=1, shape="atan", gate="own"),
    Model(shape="fast_sigmoid", params=False),
    Model(reset=1, attached=1, shape="sigmoid", dtype="float64"),
    Model(shape="atan", dtype="float64", wants="both"),
    Model(wants="trace", reset=2),
    Model(wants="trace", reset=1, attached=1, shape="atan", gate="grouped"),
    Model(kind=1, reset=1, attached=1, gate="grouped"),
    Model(kind=1, gate="drive", wants="both"),
    Model(kind=1, wants="trace", reset=2, dtype="float64"),
    Model(kind=2, attached=1, gate="shared", wants="both"),
    Model(kind=2, reset=1, gate="drive", shape="boxcar"),
    Model(kind=2, reset=2, gate="own", dtype="float64"),
    Model(kind=2, reset=1, shape="atan", params=False),
    Model(gate="drive", reset=1, params=False),
]


class Case(NamedTuple):
    layer: Layer
    pull: ScanPull
    surrogate: Surrogate


def make(model: Model, n_steps: int, n_samples: int, n: int, seed: int) -> Case:
    """Draw a layer of a dense current, on a grid of 2^-8, and gradients by what it returns."""
    rng, dtype = np.random.default_rng(seed), np.dtype(model.dtype)

    def grid(*shape: int, low: float = -1.0, high: float = 1.0) -> Any:
        return (np.round(rng.uniform(low, high, shape) * 256) / 256).astype(dtype)

    size = 2 if model.gate == "grouped" and n % 2 == 0 else 1
    none, off = np.zeros(0, dtype), np.zeros((0, 0, 0), np.uint8)
    if model.gate == "drive":
        kappa, width, scale = grid(n, low=0, high=0.5), grid(n, low=0.1, high=0.5), grid(n, low=0.1, high=1)
        gate = GateArrays(3, off, off, np.zeros((0, 0, 0), dtype), np.zeros((0, 0), dtype), kappa, width, scale)
    elif model.gate == "none" or not n_samples:
        gate = always_open(dtype)
    else:
        shape = (n_samples if model.gate == "own" else 1, n_steps, n // size)
        gate = table_gate(*((rng.random(shape) < p).astype(np.uint8) for p in (0.6, 0.4)), dtype)
    threshold = np.full(n, np.inf, dtype) if model.wants == "trace" else grid(n, low=0.25, high=1)
    second = [grid(n, low=0.25, high=1) if model.kind >= least else none for least in (1, 2, 2)]
    neurons = NeuronArrays(model.kind, grid(n, low=0.5, high=1), threshold, model.reset, model.attached, *second)
    n_states = 1 + (model.kind > 0)
    events = Events(np.zeros((n_samples, n_steps + 1), np.int64), np.zeros(0, np.int32), 1)
    synapses = SynapseArrays(np.zeros((1, n), dtype), np.zeros((0, n), dtype), np.zeros(n, dtype))
    state, spk = grid(n_states, n_samples, n), np.zeros((n_samples, n), dtype)
    layer = Layer(events, grid(n_steps, n_samples, n), synapses, neurons, gate, state, spk)
    wanted = {"spikes": (1, 0), "trace": (0, 1), "both": (1, 1)}[model.wants]
    d_spk, d_trace = (grid(n_steps, n_samples, n) if w else None for w in wanted)
    d_ramp = grid(n_samples, n) if model.gate == "drive" else None
    width = 0.4 if model.shape in SURROGATES[:N_COMPACT] else 3.0
    pull = ScanPull(d_spk, d_trace, grid(n_states, n_samples, n), d_ramp)
    return Case(layer, pull, Surrogate(SURROGATES.index(model.shape), width))


def oracle(case: Case) -> tuple[reference.Run, LayerGrads]:
    layer, (d_spk, d_trace, d_state, d_ramp), surrogate = case
    support = surrogate if surrogate.shape < N_COMPACT else Surrogate(0, np.inf)  # all places are active
    run = reference.forward(layer, support, trace=True)
    _, n_samples, n = layer.current.shape
    dtype = layer.state.dtype
    sample, step, _ = run.active.places()
    zeros = np.zeros((n_samples, n), dtype)
    value = np.zeros(len(sample), dtype) if d_spk is None else d_spk[step, sample, run.active.idx]
    grads = RunGrads(
        value, d_state, zeros, np.zeros((0, n_samples, n), dtype) if d_trace is None else d_trace,
        zeros if d_ramp is None else d_ramp,
    )  # fmt: skip
    return run, reference.backward(grads, run, layer, surrogate, layer.events)


def compare(case: Case, model: Model, run: ScanRun, by: ScanGrads) -> None:
    wanted, right = oracle(case)
    if model.wants != "trace":
        np.testing.assert_array_equal(run.spk, wanted.spikes.dense(model.dtype))
    if model.wants != "spikes":
        np.testing.assert_array_equal(run.trace, wanted.trace)
    np.testing.assert_array_equal(run.state, wanted.state)
    if model.gate == "drive":
        np.testing.assert_array_equal(run.n_open, wanted.n_open)
        np.testing.assert_array_equal(run.open_at, wanted.open_at)
        np.testing.assert_allclose(run.ramp, wanted.ramp, rtol=1e-5)
    for name in ScanGrads._fields:
        got, expected = getattr(by, name), getattr(right, name)
        if got is None:
            assert not expected.size or not expected.any() or (not model.params and name not in ("kappa", "gate"))
            continue
        assert got.dtype == model.dtype, name
        assert got.shape == expected.shape, name
        scale = max(1.0, float(abs(expected).max(initial=0)))
        close = 1e-5 if model.dtype == "float32" else 1e-12
        np.testing.assert_allclose(got, expected, rtol=close, atol=close * scale, err_msg=name)
