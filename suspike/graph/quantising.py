"""Weights as whole numbers of one byte, and back: a quarter of the bytes to read, and sums that are exact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from suspike._validate import fail
from suspike.graph.graph import Graph
from suspike.graph.layers import Layer
from suspike.graph.rounding import Rounding
from suspike.graph.sparse import Sparse
from suspike_kernels.layout import FloatArray

LARGEST = 127


def to_int8(graph: Graph) -> tuple[Graph, tuple[Rounding, ...]]:
    r"""Round each layer's weights to whole multiples of a power of two that fit a byte, and keep those multiples.

    .. math:: w = 2^{-k} q,\qquad |q| \le 127,\qquad k = \lfloor \log_2 (127 / \max |w|) \rfloor

    The current of a step is :math:`2^{-k} \sum q + b`; the sum is of whole numbers, the membrane stays a float. Biases
    are rounded to the same multiples, so such a network spikes as the floats :math:`2^{-k} q` do (`as_float`).

    Parameters
    ----------
    graph : Graph
        Of weights in rows and convolutions. The weights of input gates stay floats.

    Returns
    -------
    graph : Graph
    roundings : tuple of Rounding
        One for each layer: k, and the largest change of a weight.

    Raises
    ------
    ValueError
        For fan-out lists, and weights that are whole numbers already.
    """
    layers, roundings = [], []
    for layer in graph.layers:
        if isinstance(layer, Layer):
            layer, rounding = _rounded(layer)
            roundings.append(rounding)
        layers.append(layer)
    return replace(graph, layers=tuple(layers)), tuple(roundings)


def as_float(graph: Graph) -> Graph:
    """Return a graph with the floats that int8 weights stand for; one without such weights as it is."""
    return replace(graph, layers=tuple(_floats(x) if isinstance(x, Layer) else x for x in graph.layers))


def _rounded(layer: Layer) -> tuple[Layer, Rounding]:
    weight, recurrent = layer.weight, layer.recurrent
    if isinstance(weight, Sparse) or isinstance(recurrent, Sparse):
        fail(f"weight of layer {layer.name!r}", "rows or a convolution's, to be int8", "fan-out lists")
    if weight.dtype == np.int8:
        fail(f"weight of layer {layer.name!r}", "of floats, to be rounded to int8", "int8")
    largest = max(float(np.abs(x).max(initial=0)) for x in (weight, recurrent) if x is not None)
    k = int(np.floor(np.log2(LARGEST / largest))) if largest > 0 else 0
    scale = 2.0**-k

    def whole(x: FloatArray) -> Any:
        return np.clip(np.round(x.astype(np.float64) / scale), -LARGEST, LARGEST).astype(np.int8)

    made = replace(
        layer, weight=whole(weight), recurrent=None if recurrent is None else whole(recurrent), scale=scale,
        bias=(np.round(layer.bias.astype(np.float64) / scale) * scale).astype(layer.bias.dtype),
    )  # fmt: skip
    back = _floats(made)
    pairs = ((back.weight, weight), (back.recurrent, recurrent), (back.bias, layer.bias))
    change = max(float(np.abs(a - b).max(initial=0)) for a, b in pairs if b is not None)  # type: ignore[operator]
    return made, Rounding(layer.name, k, change)


def _floats(layer: Layer) -> Layer:
    if isinstance(layer.weight, Sparse) or layer.weight.dtype != np.int8:
        return layer
    dtype = layer.bias.dtype
    weights: Any = (
        None if x is None else (np.asarray(x).astype(dtype) * dtype.type(layer.scale))
        for x in (layer.weight, layer.recurrent)
    )
    weight, recurrent = weights
    return replace(layer, weight=weight, recurrent=recurrent, scale=1.0)
