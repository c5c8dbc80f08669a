"""Between torch modules and the Graph; the only file that knows both."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from suspike._validate import fail
from suspike.graph import LI, LIF, Graph, Layer, Rhythm
from suspike.nn import layers, neurons, readouts, rhythms
from suspike.nn.gates import Gate
from suspike_kernels.layout import FloatArray

log = logging.getLogger(__name__)


class Rounding(NamedTuple):
    """How a layer's weights and biases were rounded: to multiples of ``2**-exponent``, moved by at most `change`."""

    layer: str
    exponent: int
    change: float


def to_graph(net: layers.Stack, *, dt_ms: float, max_count: int = 1) -> tuple[Graph, tuple[Rounding, ...]]:
    r"""Turn a trained network into a Graph that spikes identically on every machine.

    Weights and biases are rounded to the finest grid :math:`2^{-k}`, chosen per layer, for which

    .. math:: \sum_j c_j |w_{ij}| + |b_i| < 2^{24-k}

    over all sources of each neuron i (c: the largest count one source can have in a step). Every partial sum of a
    current is then exact in float32, in whatever order it is summed.

    Parameters
    ----------
    net : Stack of Dense
    dt_ms : float
        Length of a step in ms.
    max_count : int
        The largest number of events that one input unit has in one step (`Events.max_count`).

    Returns
    -------
    graph : Graph
    roundings : tuple of Rounding
        One for each layer.
    """
    exact = keep_floats(net, dt_ms=dt_ms)
    if max_count < 1:
        fail("max_count", "at least 1", repr(max_count))
    rounded = [_round(layer, max_count if i == 0 else 1) for i, layer in enumerate(exact.layers)]
    for _, rounding in rounded:
        log.info("Layer %s: weights on the grid 2^-%d, moved by at most %.2g.", *rounding)
    graph = Graph(tuple(layer for layer, _ in rounded), dt_ms, max_count)
    return graph, tuple(rounding for _, rounding in rounded)


def keep_floats(net: layers.Stack, *, dt_ms: float) -> Graph:
    """Turn a network into a Graph with its weights as they are: sums then depend on their order in the last bits."""
    return Graph(tuple(_layer(f"{type(m).__name__.lower()}{i}", m) for i, m in enumerate(net)), dt_ms)


def to_nn(graph: Graph) -> layers.Stack:
    """Make torch modules of a Graph, with the same numbers bit for bit.

    What a Graph does not hold is as by default: surrogate and gate widths, and leaks, thresholds and periods are fixed.
    """
    with torch.random.fork_rng(devices=[]):  # weights are drawn before they are replaced
        return layers.Stack(*(_module(layer) for layer in graph.layers))


def _layer(name: str, module: torch.nn.Module) -> Layer:
    if not isinstance(module, layers.Dense):
        fail("net", "a Stack of Dense layers", f"a {type(module).__name__}")
    neuron = module.neuron
    bias = _array(module.weight.new_zeros(module.n_out) if module.bias is None else module.bias)
    made: LIF | LI
    if type(neuron) is readouts.LI and neuron.gate is None:
        made = LI(_array(neuron.beta))
    elif isinstance(neuron, (neurons.LIF, neurons.IF)):
        gate = None if neuron.gate is None else _rhythm(name, neuron.gate)
        made = LIF(_array(neuron.beta), _array(neuron.threshold), neuron.reset, gate)
    else:
        gated = "" if neuron.gate is None else " with a gate"
        rule = "IF, LIF, or LI without a gate: a Graph holds no other"
        fail(f"neuron of layer {name!r}", rule, f"{type(neuron).__name__}{gated}")
    recurrent = None if module.recurrent is None else _array(module.recurrent)
    return Layer(name, _array(module.weight), bias, made, recurrent)


def _rhythm(name: str, gate: Gate) -> Rhythm:
    if not isinstance(gate, rhythms.RhythmGate) or isinstance(gate, rhythms.SoftGate):
        fail(f"gate of layer {name!r}", "a RhythmGate: a Graph holds no other", f"a {type(gate).__name__}")
    bias, amplitude, phase = (
        np.repeat(_array(p).astype(np.float64), gate.group_size, axis=0)
        for p in (gate.bias, gate.amplitude, gate.phase)
    )
    return Rhythm(bias, amplitude, phase, _array(gate.period).astype(np.float64))


def _round(layer: Layer, max_count: int) -> tuple[Layer, Rounding]:
    """Round a layer to the finest grid on which its sums are exact in float32."""
    recurrent = np.zeros((0, layer.n_units)) if layer.recurrent is None else layer.recurrent

    def largest_sum(grid: float) -> float:
        total = max_count * np.abs(_on(layer.weight, grid)).sum(0) + np.abs(_on(recurrent, grid)).sum(0)
        return float((total + np.abs(_on(layer.bias, grid))).max(initial=0))

    k = 149  # the finest grid that float32 has
    total = largest_sum(0.0)
    if total > 0:
        k = min(k, int(np.floor(24 - np.log2(total))))
    while largest_sum(2.0**-k) >= 2.0 ** (24 - k):
        k -= 1  # rounding up has moved the sum over the bound
    grid, moved = 2.0**-k, 0.0
    arrays: dict[str, FloatArray | None] = {"weight": layer.weight, "bias": layer.bias, "recurrent": layer.recurrent}
    for name, array in arrays.items():
        if array is not None:
            on_grid = _on(array, grid)
            moved = max(moved, float(np.abs(on_grid - array).max(initial=0)))
            arrays[name] = on_grid.astype(array.dtype)
    return replace(layer, **arrays), Rounding(layer.name, k, moved)  # type: ignore[arg-type]


def _on(array: FloatArray, grid: float) -> FloatArray:
    """Round to multiples of `grid`, in float64; 0 leaves the values."""
    wide = array.astype(np.float64)
    return wide if grid == 0 else np.round(wide / grid) * grid


def _module(layer: Layer) -> layers.Dense:
    n, neuron = layer.n_units, layer.neuron
    made: neurons.LIF | readouts.LI
    if isinstance(neuron, LI):
        made = readouts.LI(n, beta=0.5)
    else:
        gate = None if neuron.gate is None else _gate(neuron.gate)
        made = neurons.LIF(n, beta=0.5, reset=neuron.reset, gate=gate)
        made.level.fixed = torch.from_numpy(neuron.threshold.copy())
    made.leak.fixed = torch.from_numpy(neuron.beta.copy())
    module = layers.Dense(layer.n_in, n, made, recurrent=layer.recurrent is not None)
    for name in ("weight", "bias", "recurrent"):
        array: Any = getattr(layer, name)
        if array is not None:
            setattr(module, name, torch.nn.Parameter(torch.from_numpy(array.copy())))
    return module


def _gate(rhythm: Rhythm) -> rhythms.RhythmGate:
    gate = rhythms.RhythmGate(len(rhythm.bias), open=0.5, periods=[3.0] * len(rhythm.period))
    gate.fixed_period = torch.from_numpy(rhythm.period.copy())
    for name in ("bias", "amplitude", "phase"):
        setattr(gate, name, torch.nn.Parameter(torch.from_numpy(getattr(rhythm, name).copy())))
    return gate


def _array(x: Tensor) -> Any:
    return x.detach().cpu().numpy().copy()
