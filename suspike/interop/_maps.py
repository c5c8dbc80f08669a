"""What lies between spikes and a current in a NIR graph: linear maps, chained and applied in float64.

Vectors are images [C, H, W] or lists [N], flattened the way NIR and torch do: place ``(c * H + y) * W + x``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from suspike._validate import fail
from suspike_kernels.geometry import Geometry
from suspike_kernels.layout import IntArray

Float64 = NDArray[np.float64]
LARGEST = 2**27
"""Entries of a map written out as a matrix; 1 GB of float64."""


class Gain(NamedTuple):
    """A factor for each place, [n]."""

    values: Float64


class Dense(NamedTuple):
    """A matrix [n_in, n]: row ``i`` is what place ``i`` adds."""

    weight: Float64


class Conv(NamedTuple):
    """A convolution with the kernel [kernel_h, kernel_w, C_in, C_out]."""

    geometry: Geometry
    kernel: Float64


Map = Gain | Dense | Conv


class Term(NamedTuple):
    """What the spikes of one source add to a signal.

    Attributes
    ----------
    source : str
        Node of the Graph.
    units : int [n_source]
        The map's place for each unit of the source, -1 for none; several units may share one.
    map : Map
    """

    source: str
    units: IntArray
    map: Map


class Signal(NamedTuple):
    """A sum of terms and a constant [n], flattened from `shape`."""

    shape: tuple[int, ...]
    terms: tuple[Term, ...]
    constant: Float64


def behind(signal: Signal, then: Map, shape: tuple[int, ...]) -> Signal:
    """Return what a map makes of a signal; terms that share a map share what becomes of it."""
    maps = {id(term.map): term.map for term in signal.terms}
    made = {key: chained(first, then) for key, first in maps.items()}
    terms = tuple(term._replace(map=made[id(term.map)]) for term in signal.terms)
    return Signal(shape, terms, applied(then, signal.constant))


def added(name: str, signals: list[Signal]) -> Signal:
    """Return the sum of what comes into a node."""
    if not signals:
        fail(f"node {name!r}", "behind the Input", "one that nothing leads to")
    if len(signals) == 1:
        return signals[0]
    shapes = {signal.shape for signal in signals}
    if len(shapes) > 1:
        fail(f"node {name!r}", "fed by signals of one shape", ", ".join(str(list(shape)) for shape in sorted(shapes)))
    constant: Float64 = np.sum([signal.constant for signal in signals], axis=0)
    return Signal(signals[0].shape, tuple(term for signal in signals for term in signal.terms), constant)


def chained(first: Map, then: Map) -> Map:
    """Return the map that does `first` and then `then`: a convolution where it can be one, else a matrix."""
    if isinstance(then, Gain) and (then.values == 1).all():
        return first
    if isinstance(first, Gain):
        if (first.values == 1).all():
            return then
        if isinstance(then, Gain):
            return Gain(first.values * then.values)
        if isinstance(then, Dense):
            return Dense(then.weight * first.values[:, None])
        own = of_channels(first.values, then.geometry.channels)
        if own is not None:
            return then._replace(kernel=then.kernel * own[:, None])
    elif isinstance(first, Conv):
        if isinstance(then, Gain):
            own = of_channels(then.values, first.geometry.out_channels)
            if own is not None:
                return first._replace(kernel=first.kernel * own)
        elif isinstance(then, Conv) and _stays_inside(then.geometry):
            return _composed(first, then)
    return Dense(applied(then, dense(first)))


def applied(then: Map, x: Float64) -> Float64:
    """Return what a map makes of vectors [..., n_in]."""
    if isinstance(then, Gain):
        return x * then.values
    if isinstance(then, Dense):
        made: Float64 = x @ then.weight
        return made
    g = then.geometry
    images = x.reshape(-1, g.channels, g.height, g.width)
    out = np.zeros((len(images), g.out_channels, g.out_height, g.out_width))
    for (dy, dx), weight in _taps(then.kernel):
        y, to_y = _reached(g.out_height, g.stride_y, dy - g.pad_y, g.height)
        x_, to_x = _reached(g.out_width, g.stride_x, dx - g.pad_x, g.width)
        out[:, :, to_y[:, None], to_x] += np.einsum("mcyx,co->moyx", images[:, :, y[:, None], x_], weight)
    return out.reshape(*x.shape[:-1], g.n_out)


def dense(first: Map) -> Float64:
    """Return a map as a matrix [n_in, n]."""
    if isinstance(first, Dense):
        return first.weight
    n_in, n = (first.geometry.n_in, first.geometry.n_out) if isinstance(first, Conv) else (len(first.values),) * 2
    if n_in * n > LARGEST:
        what = "convolution" if isinstance(first, Conv) else "scaling"
        cure = "Put neurons between linear nodes, and one gain on each channel."
        fail(f"{what} that has to be written out as a matrix", f"of at most {LARGEST} weights", f"{n_in} x {n}", cure)
    return applied(first, np.eye(n_in))


def pooled(signal: Signal, pool: Conv) -> Signal:
    """Return what a pooling, given as a convolution, makes of a signal; spikes are renumbered where that is all."""
    g, factor = pool.geometry, pool.kernel.max()
    c, y, x = np.indices((g.channels, g.height, g.width)).reshape(3, -1)
    to_y, dy = divmod(y + g.pad_y, g.stride_y)
    to_x, dx = divmod(x + g.pad_x, g.stride_x)
    inside = (dy < g.kernel_h) & (dx < g.kernel_w) & (to_y < g.out_height) & (to_x < g.out_width)
    patch = np.where(inside, (c * g.out_height + to_y) * g.out_width + to_x, -1)
    overlaps = g.kernel_h > g.stride_y or g.kernel_w > g.stride_x
    terms = []
    for term in signal.terms:
        gain = one_gain(term.map)
        if overlaps or gain is None:
            terms.append(term._replace(map=chained(term.map, pool)))
        else:
            units = np.where(term.units >= 0, patch[term.units], -1)
            terms.append(Term(term.source, units, Gain(np.full(g.n_out, gain * factor))))
    return Signal((g.channels, g.out_height, g.out_width), tuple(terms), applied(pool, signal.constant))


def one_gain(first: Map) -> float | None:
    """Return the factor of a map that is the same factor everywhere."""
    own = of_channels(first.values, 1) if isinstance(first, Gain) else None
    return None if own is None or not len(own) else float(own[0])


def of_channels(values: Float64, channels: int) -> Float64 | None:
    """Return the values [C] of an image whose channels have one value each."""
    rows = values.reshape(channels, -1)
    return rows[:, 0] if (rows == rows[:, :1]).all() else None


def _taps(kernel: Float64) -> list[tuple[tuple[int, ...], Float64]]:
    return [(place, kernel[place]) for place in np.ndindex(kernel.shape[:2])]


def _reached(n_out: int, stride: int, shift: int, n_in: int) -> tuple[IntArray, IntArray]:
    """Return the input places inside the image that one tap sees, and the outputs that see them."""
    out = np.arange(n_out)
    place = out * stride + shift
    inside = (place >= 0) & (place < n_in)
    return place[inside], out[inside]


def _stays_inside(g: Geometry) -> bool:
    ends = (g.out_height - 1) * g.stride_y + g.kernel_h, (g.out_width - 1) * g.stride_x + g.kernel_w
    return not g.pad_y and not g.pad_x and ends[0] <= g.height and ends[1] <= g.width


def _composed(first: Conv, then: Conv) -> Conv:
    r"""Return two convolutions as one, :math:`K_{s_1 j + i} = \sum_{i, j} K^1_i K^2_j`; the second has no padding."""
    a, b = first.geometry, then.geometry
    size = a.kernel_h + a.stride_y * (b.kernel_h - 1), a.kernel_w + a.stride_x * (b.kernel_w - 1)
    kernel = np.zeros((*size, a.channels, b.out_channels))
    for (y, x), weight in _taps(then.kernel):
        rows = slice(y * a.stride_y, y * a.stride_y + a.kernel_h)
        columns = slice(x * a.stride_x, x * a.stride_x + a.kernel_w)
        kernel[rows, columns] += first.kernel @ weight
    sizes: dict[str, Any] = {
        "out_height": b.out_height, "out_width": b.out_width, "out_channels": b.out_channels,
        "kernel_h": size[0], "kernel_w": size[1],
        "stride_y": a.stride_y * b.stride_y, "stride_x": a.stride_x * b.stride_x,
    }  # fmt: skip
    return Conv(a._replace(**sizes), kernel)
