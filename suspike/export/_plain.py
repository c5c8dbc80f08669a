"""What files can hold of a Graph: a chain of fully connected layers of LIF and LI neurons, rhythms on the former."""

from __future__ import annotations

from suspike._validate import fail
from suspike.graph import LI, LIF, Graph, Layer, Rhythm, Route, Sparse


def plain_layers(graph: Graph) -> tuple[Layer, ...]:
    """Return the layers of a graph that files can hold.

    Raises
    ------
    ValueError
        Naming the first node that no file of ours has a form for.
    """
    for before, layer in zip((None, *graph.layers), graph.layers, strict=False):
        got = "a Route"
        if not isinstance(layer, Route):
            neuron = layer.neuron
            rhythms = neuron.gate is None or (isinstance(neuron, LIF) and isinstance(neuron.gate, Rhythm))
            lists = isinstance(layer.weight, Sparse) or isinstance(layer.recurrent, Sparse)
            full = layer.geometry is None and not lists
            if layer.is_int8:
                cure = "Write as_float(graph): it holds the same numbers."
                fail(f"weight of layer {layer.name!r}", "of floats, to be written to a file", "int8", cure)
            if isinstance(neuron, (LIF, LI)) and rhythms and full and not _branches(before, layer):
                continue
            kind = "a convolution" if layer.geometry is not None else f"a layer of {type(neuron).__name__} neurons"
            kind += " with fan-out lists" if lists else ""
            gate = "" if rhythms else f" with a {type(neuron.gate).__name__}"
            got = kind + gate + (f" on {', '.join(layer.inputs)}" if _branches(before, layer) else "")
        rule = "one of a chain of fully connected layers, LIF with or without a Rhythm, or LI, to be written to a file"
        fail(f"layer {layer.name!r}", rule, got)
    return graph.neurons


def _branches(before: Layer | Route | None, layer: Layer) -> bool:
    return layer.inputs not in ((), ("input" if before is None else before.name,))
