"""A population and the signal that drives it, as a Layer of the Graph with the Routes in front of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from suspike._validate import fail
from suspike.graph import INPUT, Layer, Route
from suspike.interop._cells import Cell, neuron
from suspike.interop._maps import Conv, Float64, Gain, Map, Signal, Term, behind, dense, of_channels, one_gain
from suspike_kernels.geometry import Geometry
from suspike_kernels.layout import FloatArray, IntArray

Nodes = list[Layer | Route]


class _Plan(NamedTuple):
    """How a layer hears its terms: one weight array over the places of all of them."""

    weight: Float64
    geometry: Geometry | None
    order: IntArray
    """The place in NIR's order of each of the layer's units."""
    terms: tuple[Term, ...]
    places: tuple[IntArray, ...]
    """For each term, the layer's source for each of its map's places."""
    n_in: int


def add_layer(nodes: Nodes, name: str, signal: Signal, cell: Cell, dtype: Any) -> IntArray:
    """Append the layer `name`, and Routes before it, to `nodes`; return the NIR place of each of its units.

    Parameters
    ----------
    signal : Signal
        What drives it. Units of its terms from `name` itself, whose spikes come a step later, are NIR places.
    cell : Cell
    dtype : numpy dtype
        Of all arrays.
    """
    driven = behind(signal, Gain(cell.gain), signal.shape)
    own = [term for term in driven.terms if term.source == name]
    terms = [term for term in driven.terms if term.source != name]
    if not terms:
        fail(f"node {name!r}", "fed by others too", "one that hears itself alone")
    plan = _images(terms, signal.shape) or _matrix(terms)
    order = plan.order
    inputs = tuple(
        _route(nodes, name, term.source, np.where(term.units >= 0, places[term.units], -1), plan.n_in)
        for term, places in zip(plan.terms, plan.places, strict=True)
    )
    recurrent: FloatArray | None = None
    if own:
        rows = np.sum([_rows(term, dense(term.map)) for term in own], axis=0)
        recurrent = np.ascontiguousarray(rows[order][:, order], dtype)
    bias = (driven.constant + cell.constant)[order].astype(dtype)
    weight = np.ascontiguousarray(plan.weight, dtype)
    nodes.append(Layer(name, weight, bias, neuron(cell, order, dtype), recurrent, plan.geometry, inputs))
    return order


def in_chain(nodes: Nodes) -> Nodes:
    """Return the nodes with `inputs` left out where they are what a node hears anyway, the one before it."""
    before = (INPUT, *(node.name for node in nodes))
    return [replace(node, inputs=()) if node.inputs == (before[i],) else node for i, node in enumerate(nodes)]


def _matrix(terms: list[Term]) -> _Plan:
    """Plan a fully connected layer: the places of different matrices stand one behind the other."""
    groups = _by_map(terms)
    weights = [dense(group[0].map) for group in groups]
    order, first = np.arange(weights[0].shape[1]), terms[0]
    alike = len(groups) == 1 and all(np.array_equal(term.units, first.units) for term in terms)
    if alike and np.array_equal(np.sort(first.units), np.arange(len(weights[0]))):
        # the rows in the order of the source's units spare a Route
        place = np.argsort(first.units)
        return _Plan(_rows(first, weights[0]), None, order, tuple(terms), (place,) * len(terms), len(place))
    low, heard, places = 0, [], []
    for group, weight in zip(groups, weights, strict=True):
        heard += group
        places += [np.arange(low, low + len(weight))] * len(group)
        low += len(weight)
    return _Plan(np.concatenate(weights), None, order, tuple(heard), tuple(places), low)


def _images(terms: list[Term], shape: tuple[int, ...]) -> _Plan | None:
    """Plan a convolution, where the terms are some of one stride and image: their channels stand side by side."""
    gains = {one_gain(term.map) for term in terms}
    if len(gains) == 1 and None not in gains:  # a weight that all connections share: one row of single-channel pixels
        n = int(np.prod(shape))
        one = Conv(Geometry(1, n, 1, 1, n, 1, 1, 1, 1, 1, 0, 0), np.full((1, 1, 1, 1), gains.pop()))
        terms = [term._replace(map=one) for term in terms]
    elif not any(isinstance(term.map, Conv) for term in terms):
        return None
    else:
        terms = [term._replace(map=_as_conv(term.map, shape)) for term in terms]
    groups = _by_map(terms)
    maps = [group[0].map for group in groups]
    convs = [each for each in maps if isinstance(each, Conv)]
    g = convs[0].geometry
    alike = {(c.geometry.height, c.geometry.width, c.geometry.stride_y, c.geometry.stride_x) for c in convs}
    if len(convs) < len(maps) or len(alike) > 1:
        return None
    weight, geometry = _side_by_side(convs)
    pixels = g.height * g.width
    low, heard, places = 0, [], []
    for group, conv in zip(groups, convs, strict=True):
        c, pixel = np.divmod(np.arange(conv.geometry.channels * pixels), pixels)
        heard += group
        places += [pixel * geometry.channels + low + c] * len(group)
        low += conv.geometry.channels
    order = np.arange(geometry.n_out).reshape(geometry.out_channels, -1).T.ravel()
    return _Plan(weight, geometry, order, tuple(heard), tuple(places), geometry.n_in)


def _side_by_side(convs: list[Conv]) -> tuple[Float64, Geometry]:
    """Return convolutions of one image size and stride as one of all their input channels."""
    pads = tuple(max(getattr(c.geometry, key) for c in convs) for key in ("pad_y", "pad_x"))
    lows = [(pads[0] - c.geometry.pad_y, pads[1] - c.geometry.pad_x) for c in convs]
    sizes = [np.add(low, c.kernel.shape[:2]) for low, c in zip(lows, convs, strict=True)]
    height, width = (int(n) for n in np.max(sizes, axis=0))
    parts = []
    for (y, x), conv in zip(lows, convs, strict=True):
        part = np.zeros((height, width, *conv.kernel.shape[2:]))
        part[y : y + conv.kernel.shape[0], x : x + conv.kernel.shape[1]] = conv.kernel
        parts.append(part)
    weight = np.concatenate(parts, axis=2)
    g = convs[0].geometry._replace(
        channels=weight.shape[2], kernel_h=height, kernel_w=width, pad_y=pads[0], pad_x=pads[1]
    )
    return weight, g


def _as_conv(each: Map, shape: tuple[int, ...]) -> Map:
    """Return a factor for each channel of an image as a convolution of single pixels."""
    if not isinstance(each, Gain) or len(shape) != 3:
        return each
    channels, height, width = shape
    own = of_channels(each.values, channels)
    if own is None:
        return each
    return Conv(Geometry(height, width, channels, height, width, channels, 1, 1, 1, 1, 0, 0), np.diag(own)[None, None])


def _by_map(terms: list[Term]) -> list[list[Term]]:
    """Group terms whose map is the same object: the same weights, not copies of them."""
    groups: dict[int, list[Term]] = {}
    for term in terms:
        groups.setdefault(id(term.map), []).append(term)
    return list(groups.values())


def _rows(term: Term, weight: Float64) -> Float64:
    """Return the row of each unit of a term's source."""
    return np.where(term.units[:, None] >= 0, weight[term.units], 0.0)


def _route(nodes: Nodes, name: str, source: str, units: IntArray, n_units: int) -> str:
    """Return the name of a node that passes a source's events on under `units`: the source itself, if it does so."""
    if np.array_equal(units, np.arange(n_units)):
        return source
    for node in nodes:
        if isinstance(node, Route) and node.inputs == (source,) and node.n_units == n_units:
            if np.array_equal(node.units, units):
                return node.name
    taken, made = {node.name for node in nodes}, f"{name}.{source}"
    while made in taken:
        made += "_"
    if not len(units):
        fail(f"node {source!r}", "of at least one unit", "none")
    nodes.append(Route(made, units, n_units, (source,)))
    return made
