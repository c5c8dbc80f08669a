r"""Weights on a power-of-two grid, so that every sum is exact in float32 and a network spikes alike everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from suspike._validate import fail
from suspike.graph.gates import InputGate
from suspike.graph.graph import INPUT, Graph
from suspike.graph.layers import Layer, Route, entries
from suspike.graph.sparse import Sparse
from suspike_kernels.layout import FloatArray


class Rounding(NamedTuple):
    """How a layer's weights and biases were rounded: to multiples of ``2**-exponent``, moved by at most `change`.

    An input gate's are a line of their own, ``<layer>.gate``.
    """

    layer: str
    exponent: int
    change: float


def rounded(graph: Graph, *, max_count: int) -> tuple[Graph, tuple[Rounding, ...]]:
    r"""Round weights and biases to the finest grid :math:`2^{-k}`, layer by layer, on which sums are exact.

    .. math:: \sum_j c_j |w_{ij}| + |b_i| < 2^{24-k}

    over all sources of each neuron i (c: the largest count one source can have in a step). Every partial sum of a
    current is then exact in float32, in whatever order it is summed.

    Parameters
    ----------
    graph : Graph
    max_count : int
        The largest number of events that one input unit has in one step (`Events.max_count`).

    Returns
    -------
    graph : Graph
    roundings : tuple of Rounding
    """
    if max_count < 1:
        fail("max_count", "at least 1", repr(max_count))
    largest = {INPUT: max_count}
    layers: list[Layer | Route] = []
    roundings: list[Rounding] = []
    for layer, sources in zip(graph.layers, graph.sources, strict=True):
        count = sum(largest[source] for source in sources)
        if isinstance(layer, Route):
            meeting = np.bincount(layer.units[layer.units >= 0], minlength=1).max()
            largest[layer.name] = count * int(meeting)
            layers.append(layer)
            continue
        largest[layer.name] = 1
        layer, found = _round(layer, count)
        layers.append(layer)
        roundings += found
    return Graph(tuple(layers), graph.dt_ms, max_count), tuple(roundings)


def _round(layer: Layer, count: int) -> tuple[Layer, list[Rounding]]:
    """Round a layer, and its gate where that has weights; whole numbers are exact as they are."""
    if layer.is_int8:
        return layer, []
    arrays, first = _on_grid(layer.name, count, layer.weight, layer.recurrent, layer.bias)
    layer, gate = replace(layer, **arrays), layer.neuron.gate
    if not isinstance(gate, InputGate):
        return layer, [first]
    arrays, second = _on_grid(f"{layer.name}.gate", count, gate.weight, gate.recurrent, gate.bias)
    return replace(layer, neuron=replace(layer.neuron, gate=replace(gate, **arrays))), [first, second]


def _on_grid(
    name: str, count: int, weight: FloatArray | Sparse, recurrent: FloatArray | Sparse | None, bias: FloatArray
) -> tuple[dict[str, Any], Rounding]:
    """Round what is summed; targets are the last axis of each array."""
    given: Mapping[str, FloatArray | Sparse | None] = {"weight": weight, "bias": bias, "recurrent": recurrent}
    present = {key: array for key, array in given.items() if array is not None}

    def largest_sum(grid: float) -> float:
        channels = weight.shape[-1]  # of a convolution: its outputs share the weights
        total = count * _sums(weight, grid)
        total = total + np.abs(_to(bias, grid)).reshape(-1, channels).max(0, initial=0)
        if recurrent is not None:
            total = total + _sums(recurrent, grid)
        return float(total.max(initial=0))

    k = 149  # the finest grid that float32 has
    total = largest_sum(0.0)
    if total > 0:
        k = min(k, int(np.floor(24 - np.log2(total))))
    while largest_sum(2.0**-k) >= 2.0 ** (24 - k):
        k -= 1  # rounding up has moved the sum over the bound
    on_grid = {key: _to(entries(array), 2.0**-k) for key, array in present.items()}
    moved = max(float(np.abs(on_grid[key] - entries(array)).max(initial=0)) for key, array in present.items())
    made: dict[str, Any] = {key: array.astype(present[key].dtype) for key, array in on_grid.items()}
    for key, array in present.items():
        if isinstance(array, Sparse):
            made[key] = replace(array, weight=made[key])
    return made, Rounding(name, k, moved)


def _sums(weight: FloatArray | Sparse, grid: float) -> FloatArray:
    """Return the sum of the absolute weights of each target, rounded to multiples of `grid`."""
    size, n = np.abs(_to(entries(weight), grid)), weight.shape[-1]
    sums: Any = np.bincount(weight.target, size, n) if isinstance(weight, Sparse) else size.reshape(-1, n).sum(0)
    return sums  # type: ignore[no-any-return]


def _to(array: FloatArray, grid: float) -> FloatArray:
    """Round to multiples of `grid`, in float64; 0 leaves the values."""
    wide = array.astype(np.float64)
    return wide if grid == 0 else np.round(wide / grid) * grid
