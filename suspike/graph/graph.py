"""A network as a whole: nodes in the order in which they are computed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from suspike._validate import fail
from suspike.graph.layers import Layer, Route

INPUT = "input"
"""What the graph's input is called among a node's `inputs`."""


@dataclass(frozen=True, eq=False)
class Graph:
    """Layers and routes, and the length of a time step.

    Parameters
    ----------
    layers : tuple of Layer and Route
        Each hears nodes that stand before it, or the input. A readout may only be last.
    dt_ms : float
        Length of a step in ms.
    max_count : int
        The largest number of events of one input unit in one step for which every sum is exact, whatever its order;
        0 where nothing of the kind is known. `convert.to_graph` rounds weights so.
    """

    layers: tuple[Layer | Route, ...]
    dt_ms: float
    max_count: int = 0

    def __post_init__(self) -> None:
        if not self.layers:
            fail("layers", "at least one layer", "none")
        if not (np.isfinite(self.dt_ms) and self.dt_ms > 0):
            fail("dt_ms", "above 0", repr(self.dt_ms))
        if self.max_count < 0:
            fail("max_count", "0 or more", repr(self.max_count))
        names = [layer.name for layer in self.layers]
        if len(set(names)) < len(names):
            fail("layers", "of different names", ", ".join(names))
        if INPUT in names:
            fail("layers", f"of other names than {INPUT!r}, which is the graph's input", ", ".join(names))
        sizes: dict[str, int] = {}
        for layer, sources in zip(self.layers, self.sources, strict=True):
            for source in sources:
                if source == INPUT:
                    sizes.setdefault(INPUT, layer.n_in)
                _check_edge(source, layer, sizes)
            sizes[layer.name] = layer.n_units
        for layer, after in pairwise(self.layers):
            if isinstance(layer, Layer) and not layer.neuron.fires:
                fail(f"layer {layer.name!r}", "the last one, since a readout never fires", f"{after.name!r} behind it")
        if INPUT not in sizes:
            fail("layers", "one of them at least on the graph's input", "none")

    @cached_property
    def sources(self) -> tuple[tuple[str, ...], ...]:
        """What each node hears: names of nodes, or `INPUT`."""
        before = (INPUT, *(layer.name for layer in self.layers))
        return tuple(layer.inputs or (before[i],) for i, layer in enumerate(self.layers))

    @cached_property
    def n_in(self) -> int:
        """Number of input units."""
        hears = (layer for layer, names in zip(self.layers, self.sources, strict=True) if INPUT in names)
        return next(hears).n_in

    @cached_property
    def neurons(self) -> tuple[Layer, ...]:
        """The layers alone, without routes."""
        return tuple(layer for layer in self.layers if isinstance(layer, Layer))

    @property
    def dtype(self) -> Any:
        """The float type of the first layer."""
        return self.neurons[0].bias.dtype


def _check_edge(source: str, layer: Layer | Route, sizes: dict[str, int]) -> None:
    kind = "route" if isinstance(layer, Route) else "layer"
    if source not in sizes:
        fail(f"inputs of {kind} {layer.name!r}", f"among {', '.join(sizes) or INPUT}, which come before", repr(source))
    if sizes[source] == layer.n_in:
        return
    part = f"weight of layer {layer.name!r}" if isinstance(layer, Layer) else f"units of route {layer.name!r}"
    fail(part, f"of {sizes[source]} rows, one a unit of {source!r}", f"{layer.n_in} rows")
