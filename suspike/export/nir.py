r"""A network as a NIR file (Neuromorphic Intermediate Representation), which many simulators and chips read.

.. math:: \beta = 1 - \frac{dt}{\tau}, \qquad r = \frac{\tau}{dt}, \qquad v_{leak} = v_{reset} = 0

so that a consumer's Euler step :math:`v + (dt / \tau)(v_{leak} - v + r I)` is :math:`\beta v + I`, at the dt of the
metadata. Each layer becomes ``<name>.weight`` (Affine), ``<name>.neuron`` and, in a cycle with it,
``<name>.recurrent`` (Linear). Where every beta is 1 the neuron is nir.IF or nir.I with r = 1/dt. A gated layer has a
node type of its own (`_nir_nodes`): as an annotated LIF it would run ungated, and silently.
Source: Pedersen et al. 2024, https://doi.org/10.1038/s41467-024-52259-9
"""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suspike._files import PathLike, hdf5_file, read_bytes, reading, write_atomic
from suspike._validate import fail, import_extra
from suspike.export._nir_nodes import gated_nodes
from suspike.export._plain import plain_layers
from suspike.export._trains import require_dt, require_names
from suspike.graph import LI, LIF, Graph, Layer, Rhythm
from suspike.graph.layers import entries

FORMAT = 1
_GATE = ("bias", "amplitude", "phase", "period")


def write_nir(path: PathLike, graph: Graph) -> None:
    """Write a network as a NIR file that `read_nir` gives back bit for bit.

    Parameters
    ----------
    path : path of a file
        Replaced where it exists.
    graph : Graph
        Every LIF with reset "zero".

    Raises
    ------
    ValueError
        If the network has no exact NIR form: another reset, beta 1 in a part of a layer, a beta that 1 - dt/tau does
        not hit, or a layer's name that does not fit in a file.
    ImportError
        Without the package nir.
    OSError
        If the file cannot be written; nothing is left then.
    """
    nir = import_extra("nir", extra="export")
    file = io.BytesIO()
    nir.write(file, to_nir(graph))
    difference = _difference(graph, _decode(file.getvalue()))
    if difference:
        fail("graph", "one that a NIR file gives back bit for bit", f"another {difference}")
    write_atomic(path, file.getvalue())


def read_nir(path: PathLike) -> Graph:
    """Read a network that `write_nir` wrote.

    Raises
    ------
    ValueError
        If the file is damaged, or was not written by `write_nir`.
    ImportError
        Without the package nir.
    OSError
        If the file cannot be read.
    """
    import_extra("nir", extra="export")  # a missing package is no fault of the file
    data = read_bytes(path)
    with reading(path, "a NIR file written by suspike"):
        return _decode(data)


def to_nir(graph: Graph) -> Any:
    """Return the network as a nir.NIRGraph, for mappings of your own; raises like `write_nir`."""
    nir = import_extra("nir", extra="export")
    chain = plain_layers(graph)
    require_names(layer.name for layer in chain)
    nodes: dict[str, Any] = {"input": nir.Input(np.array([graph.n_in]))}
    edges, before = [], "input"
    for layer in chain:
        weight, neuron, recurrent = _keys(layer.name)
        nodes[weight] = nir.Affine(weight=np.ascontiguousarray(entries(layer.weight).T), bias=layer.bias)
        nodes[neuron] = _node(layer, graph.dt_ms / 1000)
        edges += [(before, weight), (weight, neuron)]
        if layer.recurrent is not None:
            nodes[recurrent] = nir.Linear(np.ascontiguousarray(entries(layer.recurrent).T))
            edges += [(neuron, recurrent), (recurrent, neuron)]
        before = neuron
    nodes["output"] = nir.Output(np.array([chain[-1].n_units]))
    # Nodes come back in alphabetical order: the list keeps the layers' own.
    layers = [{"name": layer.name, "dtype": layer.weight.dtype.str} for layer in chain]
    metadata = {
        "suspike_format": FORMAT, "suspike_dt_ms": float(graph.dt_ms), "suspike_max_count": graph.max_count,
        "suspike_layers": json.dumps(layers),
    }  # fmt: skip
    return nir.NIRGraph(nodes=nodes, edges=[*edges, (before, "output")], metadata=metadata)


def _keys(name: str) -> tuple[str, str, str]:
    """Return the node names of a layer: Affine, neuron, recurrent Linear."""
    return f"{name}.weight", f"{name}.neuron", f"{name}.recurrent"


def _node(layer: Layer, dt: float) -> Any:
    """Return the NIR node of a layer's neurons; `dt` in s."""
    nir, neuron, n = import_extra("nir", extra="export"), layer.neuron, layer.n_units
    beta = neuron.beta
    integrator = bool((beta == 1).all())
    if integrator:  # tau would be infinite; NIR has a node without one
        fields: dict[str, Any] = {"r": np.full(n, 1 / dt)}
    else:
        tau = _tau(layer, dt)
        fields = {"tau": tau, "r": tau / dt, "v_leak": np.zeros(n)}
    assert isinstance(neuron, (LIF, LI)), "plain_layers lets no other through"
    if isinstance(neuron, LI):
        return nir.I(**fields) if integrator else nir.LI(**fields)
    if neuron.reset != "zero":
        cure = 'NIR resets to a value: train with reset="zero".'
        fail(f"reset of layer {layer.name!r}", "'zero' in a NIR file", repr(neuron.reset), cure)
    fields |= {"v_threshold": neuron.threshold, "v_reset": np.zeros(n)}
    if neuron.gate is None:
        return nir.IF(**fields) if integrator else nir.LIF(**fields)
    fields |= {f"gate_{name}": getattr(neuron.gate, name) for name in _GATE}
    types = gated_nodes()
    return types.SuspikeSelectiveIF(**fields) if integrator else types.SuspikeSelectiveLIF(**fields)


def _tau(layer: Layer, dt: float) -> NDArray[np.float64]:
    """Return float64 tau [N] in s for which 1 - dt/tau is beta, bit for bit."""
    beta, name = layer.neuron.beta, f"beta of layer {layer.name!r}"
    if (beta == 1).any():
        cure = "Split the layer, or use a beta just below 1."
        found = f"1 for {(beta == 1).sum()} of {len(beta)}"
        fail(name, "1 for all of its neurons or for none in a NIR file", found, cure)
    tau = dt / (1 - beta.astype(np.float64))
    wrong = np.flatnonzero(_beta(tau, dt, beta.dtype).view(np.uint8) != np.ascontiguousarray(beta).view(np.uint8))
    if len(wrong):
        found, cure = beta[wrong[0] // beta.itemsize], "Set smaller ones to 0, and use float32."
        fail(name, "0 or at least 2**-26 in a NIR file, and float32 or coarser", f"{found!r}", cure)
    return tau


def _beta(tau: NDArray[np.float64], dt: float, dtype: Any) -> NDArray[Any]:
    return (1 - dt / tau).astype(dtype)


def _decode(data: bytes) -> Graph:
    """Return the network in the bytes of a NIR file."""
    return graph_of(network_of(data))


def network_of(data: bytes, *, type_check: bool = True) -> Any:
    """Return the nir.NIRGraph in the bytes of a NIR file, with our node types; nir checks shapes, or nobody does."""
    nir, types = import_extra("nir", extra="export"), gated_nodes()._asdict()
    with hdf5_file(data) as file:
        content = nir.serialization.hdf2dict(file["node"])
    if content["type"] != "NIRGraph":
        fail("type", "NIRGraph", repr(content["type"]))

    # nir.read knows our types only once they are entered in a private list of nir, for everybody in the process, who
    # would then take gated networks unasked. So the nodes are made here, ours by us and the others by nir.
    def node_of(node: dict[str, Any]) -> Any:
        if node["type"] in types:
            return types[node["type"]].from_dict(node)
        return graph(node) if node["type"] == "NIRGraph" else nir.dict2NIRNode(node)

    def graph(content: dict[str, Any]) -> Any:
        nodes = {name: node_of(node) for name, node in content["nodes"].items()}
        edges = [(a.decode(), b.decode()) for a, b in content["edges"]]
        return nir.NIRGraph(nodes, edges, content.get("metadata", {}), type_check=type_check)

    return graph(content)


def written_here(network: Any) -> bool:
    """Return whether a nir.NIRGraph is one of `to_nir`."""
    return "suspike_format" in network.metadata


def graph_of(network: Any) -> Graph:
    """Return the Graph of a nir.NIRGraph made by `to_nir`; raises ValueError for any other."""
    meta = network.metadata
    if not written_here(network):
        fail("metadata", "that of write_nir", f"keys {sorted(meta)}")
    if int(meta["suspike_format"]) != FORMAT:
        fail("format", str(FORMAT), str(meta["suspike_format"]))
    dt_ms, nodes = require_dt(float(meta["suspike_dt_ms"])), dict(network.nodes)
    layers = []
    for head in json.loads(meta["suspike_layers"]):
        weight, neuron, recurrent = (nodes.get(key) for key in _keys(head["name"]))
        if weight is None or neuron is None:
            fail("nodes", f"those of layer {head['name']!r} too", ", ".join(nodes))
        layers.append(
            Layer(
                head["name"],
                weight=np.ascontiguousarray(weight.weight.T),
                bias=weight.bias,
                neuron=_neuron(neuron, np.dtype(head["dtype"]), dt_ms / 1000),
                recurrent=None if recurrent is None else np.ascontiguousarray(recurrent.weight.T),
            )
        )
    graph = Graph(tuple(layers), dt_ms, int(meta["suspike_max_count"]))
    # Whatever else the file says (an edge, a node, r, v_leak) has to be what writing this graph says.
    again = to_nir(graph)
    if set(again.nodes) != set(nodes) or sorted(again.edges) != sorted(map(tuple, network.edges)):
        found = f"{len(nodes)} nodes and {len(network.edges)} edges of another kind"
        fail("nodes and edges", "a chain of layers", found)
    for name, node in again.nodes.items():
        _require_same_node(name, node, nodes[name])
    return graph


def _neuron(node: Any, dtype: Any, dt: float) -> LIF | LI:
    tau = getattr(node, "tau", None)
    beta = np.ones(node.r.shape, dtype) if tau is None else _beta(tau, dt, dtype)
    if not hasattr(node, "v_threshold"):
        return LI(beta)
    gate = {name: getattr(node, f"gate_{name}") for name in _GATE if hasattr(node, f"gate_{name}")}
    return LIF(beta, node.v_threshold, "zero", Rhythm(**gate) if gate else None)


def _require_same_node(name: str, ours: Any, theirs: Any) -> None:
    mine, found = ours.to_dict(), theirs.to_dict()
    if mine.pop("type") != found.pop("type") or set(mine) != set(found):
        fail(f"node {name}", type(ours).__name__, type(theirs).__name__)
    for key, value in mine.items():
        if not np.array_equal(value, found[key]):
            fail(f"{key} of node {name}", f"{value} beside the rest of the network", f"{found[key]}")


def _difference(one: Graph, other: Graph) -> str:
    """Return the name of the first thing in which two graphs differ, by their bits, or ""."""
    a, b = _parts(one), _parts(other)
    different = [key for key in a if key not in b or a[key] != b[key]] + [key for key in b if key not in a]
    return different[0] if different else ""


def _parts(graph: Graph) -> dict[str, Any]:
    """Return every part of a graph as something that compares by its bits."""
    parts: dict[str, Any] = {"dt_ms": graph.dt_ms, "layers": tuple(layer.name for layer in graph.layers)}
    parts["max_count"] = graph.max_count
    for layer in graph.neurons:
        neuron = layer.neuron
        arrays = {"weight": layer.weight, "bias": layer.bias, "recurrent": layer.recurrent, "beta": neuron.beta}
        parts[f"neuron of layer {layer.name!r}"] = type(neuron).__name__
        if isinstance(neuron, LIF):
            arrays["threshold"] = neuron.threshold
            parts[f"reset of layer {layer.name!r}"] = neuron.reset
            arrays |= {f"gate.{key}": getattr(neuron.gate, key, None) for key in _GATE}
        for key, array in arrays.items():
            bits = None if array is None else (array.dtype.str, array.shape, np.ascontiguousarray(array).tobytes())
            parts[f"{key} of layer {layer.name!r}"] = bits
    return parts
