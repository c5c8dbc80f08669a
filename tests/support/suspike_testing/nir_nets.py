"""NIR networks to read, on grids, and the comparison of what is read with Euler's steps of the network itself."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import nir
import numpy as np

from suspike.interop import from_nir
from suspike.simulate import simulate
from suspike_kernels.layout import events_from_dense
from suspike_testing.nir_euler import run, unnest

DT = 2.0**-10
DT_MS = DT * 1000
ROOT = np.sqrt(2) / 2
"""A threshold that no sum of weights on a grid hits."""


def grid(rng, *shape, scale=1.0):
    return np.round(rng.normal(size=shape) * 64 * scale) / 64


def lif(shape, *, tau=8.0, r=None, v_leak=0.0, v_threshold=ROOT, v_reset=0.0):
    """tau in steps; the gain is 1 unless r is given."""
    full = [np.broadcast_to(np.asarray(x, float), shape).copy() for x in (tau, v_leak, v_threshold, v_reset)]
    full[0] *= DT
    r = full[0] / DT if r is None else np.broadcast_to(np.asarray(r, float), shape).copy()
    return nir.LIF(tau=full[0], r=r, v_leak=full[1], v_threshold=full[2], v_reset=full[3])


def net(nodes, edges):
    return nir.NIRGraph(nodes, [tuple(edge.split(">")) for edge in edges.split()], type_check=False)


def chain(shape, *nodes):
    """Input, the nodes n0, n1, ..., and Output, one behind the other."""
    names = ["in", *(f"n{i}" for i in range(len(nodes))), "out"]
    every = dict(zip(names, [nir.Input(np.array(shape)), *nodes, nir.Output(np.array([1]))], strict=True))
    return net(every, " ".join(f"{a}>{b}" for a, b in pairwise(names)))


def spikes_in(network, *, n_steps=25, density=0.4, seed=0):
    """Events with repeats, [T, *shape of the Input]."""
    shape = next(node for node in network.nodes.values() if isinstance(node, nir.Input)).input_type["input"]
    rng = np.random.default_rng(seed)
    return (rng.integers(1, 3, (n_steps, *shape)) * (rng.random((n_steps, *shape)) < density)).astype(float)


def in_nir_order(layer, rows):
    """[T, B, N] of a layer in the order of NIR: channel by channel."""
    g = layer.geometry
    rows = rows[:, 0]
    return rows if g is None else rows.reshape(len(rows), -1, g.out_channels).swapaxes(1, 2).reshape(rows.shape)


def assert_alike(network, *, least=2, dt_ms=DT_MS, **options):
    """Every population fires alike, and every readout and linear end is alike; returns the Graph."""
    graph, x = from_nir(network, dt_ms=dt_ms), spikes_in(network, **options)
    wanted = run(network, x, dt_ms / 1000)
    events = events_from_dense(x.reshape(len(x), 1, -1).astype(np.int64))
    found = simulate(graph, events)
    firing = [layer for layer in graph.neurons if layer.neuron.fires]
    names = {k for k, n in unnest(network)[0].items() if hasattr(n, "v_threshold") or isinstance(n, nir.Threshold)}
    assert {layer.name for layer in firing} == names
    for layer, spk in zip(firing, found.spikes, strict=True):
        mine, theirs = in_nir_order(layer, spk.dense(np.float64)), wanted.spk[layer.name].reshape(len(x), -1)
        assert np.array_equal(mine, theirs), f"{layer.name}: {np.argwhere(mine != theirs)[:3]}"
        assert least <= mine.sum() < mine.size, f"{layer.name}: {mine.sum()} of {mine.size}: nothing is shown"
    if found.output is not None:
        mine, last = in_nir_order(graph.neurons[-1], found.output), graph.layers[-1].name
        theirs = wanted.v[last] if last in wanted.v else next(iter(wanted.out.values()))
        np.testing.assert_allclose(mine, theirs.reshape(len(x), -1), rtol=1e-10, atol=1e-12)
        assert np.abs(mine).max() > 0.1
    reference = simulate(graph, events, target="reference")
    for one, other in zip(found.spikes, reference.spikes, strict=True):
        assert np.array_equal(one.dense(), other.dense())
    return graph


_RNG = np.random.default_rng(0)
LINEAR = nir.Linear(grid(_RNG, 5, 6))
AFFINE = nir.Affine(grid(_RNG, 5, 6), grid(_RNG, 5, scale=0.2))
UNEVEN = np.array([0.5, 1.0, 1.5, 2.0, 0.75])


def cuba(shape, *, tau_syn=3.0, tau_mem=6.0, r=4.0, w_in=2.0, rest=0.0):
    full = [np.broadcast_to(np.asarray(x, float), shape).copy() for x in (tau_syn, tau_mem, r, rest, ROOT + rest, w_in)]
    return nir.CubaLIF(
        tau_syn=full[0] * DT, tau_mem=full[1] * DT, r=full[2], v_leak=full[3], v_threshold=full[4],
        v_reset=full[3].copy(), w_in=full[5],
    )  # fmt: skip


def conv(weight, *, size=None, stride=1, padding=0, dilation=1, groups=1, bias=0.0):
    make = nir.Conv2d if weight.ndim == 4 else nir.Conv1d
    bias = np.broadcast_to(np.asarray(bias, float), len(weight)).copy()
    return make(size, weight, stride, padding, dilation, groups, bias)


def bits(thing):
    """Everything in a graph, arrays as type, shape and bytes."""
    if isinstance(thing, np.ndarray):
        return str(thing.dtype), thing.shape, thing.tobytes()
    if dataclasses.is_dataclass(thing):
        return type(thing).__name__, *(bits(getattr(thing, f.name)) for f in dataclasses.fields(thing))
    return tuple(map(bits, thing)) if isinstance(thing, tuple) else thing
