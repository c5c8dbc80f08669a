r"""Networks in NIR (Neuromorphic Intermediate Representation) as a Graph, step by step as NIR's simulators run them.

NIR holds differential equations; Euler's rule at step dt makes of them, for input S and time constants in s,

.. math::
    v_t = \beta v_{t-1} + \frac{r\,dt}{\tau} S_t + \frac{dt}{\tau} v_{leak}, \qquad \beta = 1 - \frac{dt}{\tau}

Source: Pedersen et al. 2024, https://doi.org/10.1038/s41467-024-52259-9
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

import numpy as np

from suspike._files import PathLike, read_bytes, reading
from suspike._validate import fail, import_extra
from suspike.export.nir import graph_of, network_of, written_here
from suspike.graph import INPUT, Graph
from suspike.interop._cells import FIRING, READOUTS, Cell, cell
from suspike.interop._maps import Gain, Signal, Term, added
from suspike.interop._nodes import STATELESS, passed
from suspike.interop._wiring import Nodes, add_layer, in_chain


def from_nir(network: Any, *, dt_ms: float | None = None) -> Graph:
    r"""Read a NIR network into a Graph that spikes as its Euler steps do.

    .. math::
        \text{LIF, LI:}\quad & u_t = \beta v_{t-1} + g S_t + \tfrac{dt}{\tau}(v_{leak} - v_{reset}),
            \quad \beta = 1 - \tfrac{dt}{\tau},\; g = \tfrac{r\,dt}{\tau} \\
        \text{IF, I:}\quad & u_t = v_{t-1} + g S_t, \quad g = r\,dt \\
        \text{CubaLIF, CubaLI:}\quad & i_t = \alpha i_{t-1} + g S_t,\; u_t = \beta v_{t-1} + i_t,
            \quad \alpha = 1 - \tfrac{dt}{\tau_{syn}},\; g = \tfrac{w_{in}\,dt}{\tau_{syn}} \tfrac{r\,dt}{\tau_{mem}} \\
        \text{Threshold:}\quad & u_t = S_t

    firing where :math:`u_t > v_{threshold} - v_{reset}`. The gains g go into weights and biases, and v counts from
    v_reset (0 for LI, I and CubaLI).

    Parameters
    ----------
    network : nir.NIRGraph, or path of a .nir file
    dt_ms : float
        Length of a step in ms: NIR holds none. What suspike wrote holds its own, and is read as by
        `export.read_nir`, gates and all.

    Returns
    -------
    graph : Graph
        A layer for each population, with the name of its neurons' node. A linear end in front of the Output is a
        readout that forgets everything (LI, beta 0), so that its v is that current. Floats are those of the weights:
        float64 if any of them are. Input events are numbered as NIR and torch flatten, ``(c * H + y) * W + x``; units
        of an image behind a convolution are numbered pixel by pixel, ``(y * W + x) * C + c``.

    Raises
    ------
    ValueError
        If the file is no NIR file, or naming the node that has no exact form: Delay, a cycle over several
        populations, a second Input or readout, a readout that something hears, dt above a time constant, a v_leak
        other than v_reset behind a synaptic current, a threshold not above the reset.
    ImportError
        Without the package nir.
    OSError
        If the file cannot be read.

    Notes
    -----
    NIR leaves open what follows; here it is so:

    - v starts at v_reset (0 for readouts), the synaptic current at 0.
    - A membrane sees the synaptic current of the same step, as in snnTorch's, Norse's and Rockpool's readers.
    - Connections add no delay, but in a cycle from a population to itself its spikes arrive one step later, as in
      nirtorch. What is constant in it (an Affine's bias) is there from the first step on.
    - Linear takes its input flattened. Zero padding counts in an average.
    - A gain within four roundings of 1 (of the file's floats) is 1, and such a leak near 0 is 0: r = tau/dt and
      tau = dt say so.

    A NIR neuron resets to v_reset. snnTorch's ``reset_mechanism="subtract"``, its default, is not in the file.
    """
    nir = import_extra("nir", extra="export")
    if isinstance(network, (str, os.PathLike)):
        network = _read(network)
    elif not isinstance(network, nir.NIRGraph):
        fail("network", "a nir.NIRGraph, or the path of a .nir file", f"a {type(network).__name__}")
    if written_here(network):
        graph = graph_of(network)
        if dt_ms not in (None, graph.dt_ms):
            fail("dt_ms", f"{graph.dt_ms:g}, as the network says, or left out", f"{dt_ms}")
        return graph
    if dt_ms is None:
        fail("dt_ms", "given, since NIR holds no step", "None", "snnTorch's networks have dt_ms=0.1.")
    if not (np.isfinite(dt_ms) and dt_ms > 0):
        fail("dt_ms", "above 0", repr(dt_ms))
    return Graph(tuple(in_chain(_layers(_flat(network), dt_ms / 1000))), float(dt_ms))


def _read(path: PathLike) -> Any:
    data = read_bytes(path)
    with reading(path, "a NIR file"):
        return network_of(data, type_check=False)  # shapes are checked here, with their nodes' names


class _Net(NamedTuple):
    """A NIR graph without graphs in it: its nodes, and what leads to each."""

    nodes: dict[str, Any]
    sources: dict[str, list[str]]

    def kind(self, name: str) -> str:
        return type(self.nodes[name]).__name__

    def populations(self) -> list[str]:
        return [name for name in self.nodes if self.kind(name) in FIRING + READOUTS]

    def before(self, name: str) -> set[str]:
        """Return the populations whose spikes reach a node without passing others."""
        found, seen, left = set(), set(), list(self.sources[name])
        while left:
            source = left.pop()
            if self.kind(source) in FIRING + READOUTS:
                found.add(source)
            elif source not in seen:
                seen.add(source)
                left += self.sources[source]
        return found


def _flat(network: Any) -> _Net:
    nodes, edges = _unnested(network, "")
    twice = [edge for i, edge in enumerate(edges) if edge in edges[:i]]
    if twice:
        fail("edges", "there once", f"{twice[0][0]!r} to {twice[0][1]!r} twice")
    sources: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in edges:
        for name in (source, target):
            if name not in nodes:
                fail("edges", f"between nodes among {', '.join(nodes)}", repr(name))
        sources[target].append(source)
    net = _Net(nodes, sources)
    if INPUT in nodes and net.kind(INPUT) != "Input":
        fail(f"node {INPUT!r}", "the network's Input, as it is called in a Graph", f"a {net.kind(INPUT)}", "Rename it.")
    for name, node in nodes.items():
        if net.kind(name) not in STATELESS + FIRING + READOUTS:
            known = ", ".join(sorted((*STATELESS, *FIRING, *READOUTS)))
            fail(f"node {name!r}", f"one of {known}", type(node).__name__)
    return net


def _unnested(network: Any, prefix: str) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return nodes and edges with those of nested graphs, whose names they carry in front of their own."""
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    ends: dict[str, tuple[str, str]] = {}
    for name, node in network.nodes.items():
        full = prefix + name
        if type(node).__name__ != "NIRGraph":
            nodes[full] = node
            continue
        inner, links = _unnested(node, f"{full}.")
        own = [[k for k, n in node.nodes.items() if type(n).__name__ == kind] for kind in ("Input", "Output")]
        if [len(names) for names in own] != [1, 1]:
            found = f"{len(own[0])} and {len(own[1])}"
            fail(f"graph {full!r}", "of one Input and one Output", found)
        ends[full] = f"{full}.{own[0][0]}", f"{full}.{own[1][0]}"
        nodes |= inner
        edges += links
    for source, target in network.edges:
        source, target = prefix + str(source), prefix + str(target)
        edges.append((ends[source][1] if source in ends else source, ends[target][0] if target in ends else target))
    return nodes, edges


def _order(net: _Net) -> list[str]:
    """Return the populations in an order of computation, the readout last."""
    linear = {name: sources for name, sources in net.sources.items() if net.kind(name) in STATELESS}
    inner = {name: [s for s in sources if s in linear] for name, sources in linear.items()}
    _sorted(inner, "behind no node that hears it without neurons between them")
    populations = net.populations()
    hears = {name: net.before(name) for name in populations}
    readouts = [name for name in populations if net.kind(name) in READOUTS]
    for name in populations:
        for source in hears[name]:
            if source in readouts:
                fail(f"node {source!r}", "in front of an Output alone, as it never fires", f"one that {name!r} hears")
    outer = {name: hears[name] - {name} for name in populations}
    order = _sorted(outer, "in a cycle with itself alone, since NIR says of no other which connection is late")
    return [name for name in order if name not in readouts] + readouts


def _sorted(before: dict[str, Any], rule: str) -> list[str]:
    try:
        return list(TopologicalSorter({name: sorted(names) for name, names in before.items()}).static_order())
    except CycleError as error:
        cycle = error.args[1][::-1]
        fail(f"node {cycle[0]!r}", rule, f"the cycle {' -> '.join(cycle)}")


def _layers(net: _Net, dt: float) -> Nodes:
    known = {_input(net): _start(net)}
    dtype = _dtype(net.nodes.values())
    nodes: Nodes = []
    for name in _order(net):
        signal = _driving(name, net, known)
        order = add_layer(nodes, name, signal, cell(name, net.nodes[name], signal.shape, dt), dtype)
        known[name] = _spikes(name, order, signal.shape)
    _add_linear_end(nodes, net, known, dtype)
    return nodes


def _driving(name: str, net: _Net, known: dict[str, Signal]) -> Signal:
    """Return all that comes into a population, its own spikes in NIR's order."""
    early = [source for source in net.sources[name] if source != name and name not in net.before(source)]
    if len(early) == len(net.sources[name]):
        return added(name, [_signal(source, net, known) for source in early])
    if early:
        shape = added(name, [_signal(source, net, known) for source in early]).shape
    else:
        node = net.nodes[name]
        shape = np.shape(getattr(node, "threshold" if net.kind(name) == "Threshold" else "v_threshold"))
    # what is found on the way holds for this cycle alone: its units may be ordered otherwise afterwards
    inside = known | {name: _spikes(name, np.arange(int(np.prod(shape))), shape)}
    return added(name, [_signal(source, net, inside) for source in net.sources[name]])


def _input(net: _Net) -> str:
    found = [name for name in net.nodes if net.kind(name) == "Input" and not net.sources[name]]
    if len(found) != 1:
        fail("Input", "one node", ", ".join(map(repr, found)) or "none", "Join inputs into one, and cut it by Linear.")
    return found[0]


def _start(net: _Net) -> Signal:
    name = _input(net)
    shape = np.asarray(net.nodes[name].input_type["input"])
    if shape.ndim != 1 or shape.dtype.kind not in "iu" or not len(shape) or (shape < 1).any():
        fail(f"shape of node {name!r}", "one or more sizes of at least 1", str(shape.tolist()))
    return _spikes(INPUT, np.arange(np.prod(shape)), tuple(shape.tolist()))


def _spikes(name: str, order: Any, shape: tuple[int, ...]) -> Signal:
    n = len(order)
    return Signal(shape, (Term(name, order, Gain(np.ones(n))),), np.zeros(n))


def _signal(name: str, net: _Net, known: dict[str, Signal]) -> Signal:
    """Return what a node sends; `known` has the populations before it, and keeps what is found."""
    if name not in known:
        incoming = added(name, [_signal(source, net, known) for source in net.sources[name]])
        known[name] = passed(name, net.nodes[name], incoming)
    return known[name]


def _add_linear_end(nodes: Nodes, net: _Net, known: dict[str, Signal], dtype: Any) -> None:
    """Append a readout for an Output in front of which there are no neurons."""
    hears = {source for sources in net.sources.values() for source in sources}
    populations = net.populations()
    readouts = [name for name in populations if net.kind(name) in READOUTS]
    for name in (name for name in net.nodes if net.kind(name) == "Output" and name not in hears):
        signal = added(name, [_signal(source, net, known) for source in net.sources[name]])
        if any(signal is known[population] for population in populations):
            continue
        for each in signal.terms:
            if each.source in readouts:
                fail(f"node {each.source!r}", "right in front of the Output", "one with others behind it")
        end = net.sources[name][0] if len(net.sources[name]) == 1 else name
        n = len(signal.constant)
        add_layer(nodes, end, signal, Cell(np.zeros(n), None, None, np.ones(n), np.zeros(n)), dtype)
        readouts.append(end)
    if len(readouts) > 1:
        fail("Output", "fed by one readout, the last node of a Graph", ", ".join(map(repr, readouts)))


def _dtype(nodes: Iterable[Any]) -> Any:
    """Return the float type of the weights: float32 unless some have more."""
    fields = (getattr(node, key, None) for node in nodes for key in ("weight", "scale"))
    kinds = (np.asarray(value).dtype for value in fields if value is not None)
    found = np.result_type(np.float32, *(kind for kind in kinds if kind.kind in "biuf"))
    return found if found == np.float32 else np.dtype(np.float64)
