"""Between torch modules and the Graph; the only file that knows both."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from suspike import graph as graphs
from suspike._validate import fail
from suspike.graph import INPUT, Graph, Layer, Route
from suspike.graph.quantising import as_float
from suspike.graph.rounding import Rounding as Rounding
from suspike.graph.rounding import rounded
from suspike.nn import conv, gates, layers, neurons, readouts, rhythms, stateless
from suspike.nn.layer import Layer as NNLayer
from suspike.nn.neuron import Neuron

log = logging.getLogger(__name__)


def to_graph(net: layers.Stack, *, dt_ms: float, max_count: int = 1) -> tuple[Graph, tuple[Rounding, ...]]:
    r"""Turn a trained network into a Graph that spikes identically on every machine.

    Weights and biases are rounded to the finest grid :math:`2^{-k}`, chosen per layer, for which

    .. math:: \sum_j c_j |w_{ij}| + |b_i| < 2^{24-k}

    over all sources of each neuron i (c: the largest count one source can have in a step). Every partial sum of a
    current is then exact in float32, in whatever order it is summed.

    Parameters
    ----------
    net : Stack
        Of Dense, Conv2d, Pool2d, ChannelsLast, Skip, EventDropout (nothing, as in evaluation) and ``torch.nn.Flatten``
        (nothing: spikes are flat), in Stacks of Stacks. An average's factor goes into the weights behind it.
    dt_ms : float
        Length of a step in ms.
    max_count : int
        The largest number of events that one input unit has in one step (`Events.max_count`).

    Returns
    -------
    graph : Graph
    roundings : tuple of Rounding
        One for each layer, and for each input gate.
    """
    graph, roundings = rounded(keep_floats(net, dt_ms=dt_ms), max_count=max_count)
    for rounding in roundings:
        log.info("Layer %s: weights on the grid 2^-%d, moved by at most %.2g.", *rounding)
    return graph, roundings


def keep_floats(net: layers.Stack, *, dt_ms: float) -> Graph:
    """Turn a network into a Graph with its weights as they are: sums then depend on their order in the last bits."""
    nodes: list[Layer | Route] = []
    end = _add(nodes, net, "", _Source(INPUT, 1.0))
    if end.scale != 1:
        fail("net", "with a layer behind its last average", "an average at its end")
    return Graph(tuple(nodes), dt_ms)


def to_nn(graph: Graph) -> layers.Stack:
    """Make torch modules of a Graph, with the same numbers bit for bit.

    What a Graph does not hold is as by default: surrogate and gate widths, and leaks, thresholds and periods are fixed.
    A drive gate's kappa is learned through its logarithm: it may come back off by a unit in its last place. Int8
    weights become the floats that they stand for.

    Raises
    ------
    ValueError
        For a graph that is no chain of layers, or has fan-out lists: no gradient runs through those.
    """
    graph, before = as_float(graph), INPUT
    for node, sources in zip(graph.layers, graph.sources, strict=True):
        if isinstance(node, Route) or sources != (before,):
            got = "a Route" if isinstance(node, Route) else f"one on {', '.join(sources)}"
            fail(f"layer {node.name!r}", f"a layer on {before!r}, in a chain", got)
        for part in ("weight", "recurrent"):
            if isinstance(getattr(node, part), graphs.Sparse):
                cure = f"Replace it by its `dense()`, if that is small: {getattr(node, part).shape}."
                fail(f"{part} of layer {node.name!r}", "a matrix in a module", "fan-out lists", cure)
        before = node.name
    with torch.random.fork_rng(devices=[]):  # weights are drawn before they are replaced
        return layers.Stack(*(_module(layer) for layer in graph.neurons))


class _Source(NamedTuple):
    """Where spikes come from, and what one counts."""

    name: str
    scale: float


def _add(nodes: list[Layer | Route], module: torch.nn.Module, name: str, source: _Source) -> _Source:
    """Add what a module does to the nodes; return where its output comes from."""
    before = nodes[-1].name if nodes else INPUT
    inputs = () if source.name == before else (source.name,)
    if isinstance(module, layers.Stack):
        for i, each in enumerate(module):
            source = _add(nodes, each, f"{name}_" * bool(name) + f"{type(each).__name__.lower()}{i}", source)
        return source
    if isinstance(module, (layers.Dense, conv.Conv2d)):
        nodes.append(_layer(name, module, source.scale, inputs))
        return _Source(name, 1.0)
    if isinstance(module, stateless.Skip):
        end = _add(nodes, module.body, f"{name}_{type(module.body).__name__.lower()}", source)
        if end.scale != source.scale:
            rule = f"of events that count as much as its input's, {source.scale:g}"
            fail(f"body of {name!r}", rule, f"{end.scale:g}")
        units = np.arange(next(node.n_units for node in nodes if node.name == end.name))
        nodes.append(Route(name, units, len(units), (end.name, source.name)))
        return _Source(name, source.scale)
    if isinstance(module, (stateless.Pool2d, stateless.ChannelsLast)):
        nodes.append(Route(name, module.units(), module.n_out, inputs))
        return _Source(name, source.scale * getattr(module, "factor", 1.0))
    if isinstance(module, (stateless.EventDropout, torch.nn.Flatten)):
        return source
    fail("net", "a Stack of Dense, Conv2d, Pool2d, ChannelsLast, Skip and their like", f"a {type(module).__name__}")


def _layer(name: str, module: NNLayer, scale: float, inputs: tuple[str, ...]) -> Layer:
    assert isinstance(module, (layers.Dense, conv.Conv2d)), "layers are of these kinds"
    geometry = None
    bias: Tensor | None = module.bias
    if isinstance(module, conv.Conv2d):
        geometry = module.geometry
        bias = None if bias is None else bias.repeat(geometry.out_height * geometry.out_width)
    wide = module.weight.new_zeros(module.n_out) if bias is None else bias
    recurrent = None if module.recurrent is None else _array(module.recurrent)
    weight, neuron = _array(module.weight if scale == 1 else module.weight * scale), _neuron(name, module, scale)
    return Layer(name, weight, _array(wide), neuron, recurrent, geometry, inputs)


def _neuron(name: str, module: NNLayer, scale: float) -> graphs.Neuron:
    neuron, gate = module.neuron, _gate(name, module, scale)
    if isinstance(neuron, readouts.CubaLI):
        return graphs.CubaLI(_array(neuron.beta), _array(neuron.alpha), gate)
    if isinstance(neuron, readouts.LI):
        return graphs.LI(_array(neuron.beta), gate)
    if not isinstance(neuron, neurons.Firing):
        fail(f"neuron of layer {name!r}", "IF, LIF, CubaLIF, AdLIF, LI or CubaLI", type(neuron).__name__)
    end = {"threshold": _array(neuron.threshold), "reset": neuron.reset, "gate": gate}
    if isinstance(neuron, neurons.CubaLIF):
        return graphs.CubaLIF(_array(neuron.beta), _array(neuron.alpha), **end)
    if isinstance(neuron, neurons.AdLIF):
        return graphs.AdLIF(_array(neuron.beta), _array(neuron.rho), _array(neuron.a), _array(neuron.b), **end)
    return graphs.LIF(_array(neuron.beta), **end)


def _gate(name: str, module: NNLayer, scale: float) -> graphs.Gate | None:
    gate = module.neuron.gate
    if isinstance(gate, rhythms.RhythmGate) and not isinstance(gate, rhythms.SoftGate):
        bias, amplitude, phase = (
            np.repeat(_array(p).astype(np.float64), gate.group_size, axis=0)
            for p in (gate.bias, gate.amplitude, gate.phase)
        )
        return graphs.Rhythm(bias, amplitude, phase, _array(gate.period).astype(np.float64))
    if isinstance(gate, rhythms.PeriodicGate):
        return graphs.Periodic(_array(gate.get_buffer("offset")), gate.period, gate.n_open)
    if isinstance(gate, gates.InputGate):
        weight = gate.weight if scale == 1 else gate.weight * scale
        recurrent = None if gate.recurrent is None else _array(gate.recurrent)
        return graphs.InputGate(_array(weight), _array(gate.bias), gate.n_units, recurrent)
    if isinstance(gate, gates.DriveGate):
        return graphs.DriveGate(_array(gate.kappa))
    if gate is not None:
        fail(f"gate of layer {name!r}", "one that is open or shut: a Graph holds no other", f"a {type(gate).__name__}")
    return None


def _module(layer: Layer) -> NNLayer:
    neuron, g = _nn_neuron(layer), layer.geometry
    arrays: dict[str, Any] = {
        "weight": layer.weight, "bias": layer.bias, "recurrent": layer.recurrent
    }  # fmt: skip
    made: NNLayer
    if g is None:
        made = layers.Dense(layer.n_in, layer.n_units, neuron, recurrent=layer.recurrent is not None)
    else:
        bias = layer.bias.reshape(-1, g.out_channels)
        if (bias != bias[:1]).any():
            fail(f"bias of layer {layer.name!r}", "one for each output channel in a Conv2d", "one for each unit")
        made = conv.Conv2d(
            (g.height, g.width), g.channels, g.out_channels, (g.kernel_h, g.kernel_w), neuron,
            stride=(g.stride_y, g.stride_x), padding=(g.pad_y, g.pad_x),
        )  # fmt: skip
        arrays["bias"] = bias[0]
    for name, array in arrays.items():
        if array is not None:
            setattr(made, name, torch.nn.Parameter(torch.from_numpy(array.copy())))
    return made


def _nn_neuron(layer: Layer) -> Neuron:
    n, neuron = layer.n_units, layer.neuron
    gate: Any = {} if neuron.gate is None else {"gate": _nn_gate(layer, neuron.gate)}
    made: Any
    if isinstance(neuron, graphs.CubaLI):
        made = readouts.CubaLI(n, beta=0.5, alpha=0.5, **gate)
    elif isinstance(neuron, graphs.LI):
        made = readouts.LI(n, beta=0.5, **gate)
    elif isinstance(neuron, graphs.CubaLIF):
        made = neurons.CubaLIF(n, beta=0.5, alpha=0.5, reset=neuron.reset, **gate)
    elif isinstance(neuron, graphs.AdLIF):
        made = neurons.AdLIF(n, beta=0.5, rho=0.5, reset=neuron.reset, **gate)
    else:
        made = neurons.LIF(n, beta=0.5, reset=neuron.reset, **gate)
    places = {"beta": "leak", "alpha": "decay", "rho": "decay", "a": "coupling", "b": "jump", "threshold": "level"}
    for name, array in graphs.neurons.arrays_of(neuron).items():
        getattr(made, places[name]).fixed = torch.from_numpy(array.copy())
    return made  # type: ignore[no-any-return]


def _nn_gate(layer: Layer, gate: graphs.Gate) -> gates.Gate:
    made: gates.Gate
    if isinstance(gate, graphs.Rhythm):
        made = rhythms.RhythmGate(gate.n_units, open=0.5, periods=[3.0] * len(gate.period))
        made.fixed_period = torch.from_numpy(gate.period.copy())
        learned: tuple[str, ...] = ("bias", "amplitude", "phase")
    elif isinstance(gate, graphs.Periodic):
        made, learned = rhythms.PeriodicGate(gate.n_units, period=gate.period, n_open=gate.n_open), ()
        made.offset = torch.from_numpy(gate.offset.astype(np.int64))
    elif isinstance(gate, graphs.DriveGate):
        made, learned = gates.DriveGate(gate.n_units, open=0.5), ()
        made.log_kappa = torch.nn.Parameter(torch.from_numpy(gate.kappa.copy()).log())
    else:
        size, own = gate.n_units // len(gate.bias), gate.recurrent is not None
        made = gates.InputGate(layer.n_in, gate.n_units, open=0.5, group_size=size, recurrent=own)
        learned = ("weight", "bias", "recurrent") if own else ("weight", "bias")
    for name in learned:
        setattr(made, name, torch.nn.Parameter(torch.from_numpy(getattr(gate, name).copy())))
    return made


def _array(x: Tensor) -> Any:
    return x.detach().cpu().numpy().copy()
