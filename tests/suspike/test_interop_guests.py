"""Networks of suspike, snnTorch and Norse, read from their NIR files: they spike here as they do at home."""

from __future__ import annotations

import dataclasses

import nir
import numpy as np
import pytest
from suspike_testing.nir_nets import bits

from suspike.export import read_nir, to_nir, write_nir
from suspike.graph import LI, LIF, Graph, Layer, Rhythm
from suspike.interop import from_nir
from suspike.simulate import simulate
from suspike_kernels.layout import events_from_dense


def own_graph(*, gated, dtype=np.float32, seed=3):
    """A network of ours as `write_nir` takes it: cycles, leaks and thresholds of each neuron, a readout."""
    rng, layers = np.random.default_rng(seed), []
    for i, (n_in, n) in enumerate([(4, 6), (6, 5)]):
        gate = Rhythm(rng.normal(size=n), rng.normal(size=(n, 2)), rng.normal(size=(n, 2)), np.array([3.0, 7.5]))
        neuron = LIF(*(rng.uniform(low, 1, n).astype(dtype) for low in (0.1, 0.5)), gate=gate if gated else None)
        arrays = (rng.normal(size=shape).astype(dtype) for shape in ((n_in, n), n, (n, n)))
        weight, bias, recurrent = arrays
        layers.append(Layer(f"l{i}", weight, bias, neuron, recurrent if i else None))
    layers.append(Layer("y", *(rng.normal(size=s).astype(dtype) for s in ((5, 2), 2)), LI(np.full(2, 0.9, dtype))))
    return Graph(tuple(layers), 0.1, 3)


@pytest.mark.parametrize("gated", [False, True])
def test_what_suspike_wrote_comes_back(tmp_path, gated):
    graph, path = own_graph(gated=gated), tmp_path / "n.nir"
    write_nir(path, graph)
    assert bits(from_nir(path)) == bits(from_nir(str(path), dt_ms=0.1)) == bits(read_nir(path)) == bits(graph)
    assert bits(from_nir(to_nir(graph))) == bits(graph)
    with pytest.raises(ValueError, match=r"`dt_ms` must be 0\.1, as the network says, or left out, got 1\.0\."):
        from_nir(path, dt_ms=1.0)


def test_a_plain_network_of_ours_reads_the_same_without_our_metadata():
    """Bit for bit, but for the names: its nodes are called ``l0.neuron``."""
    for seed in range(5):
        graph = own_graph(gated=False, seed=seed)
        plain = to_nir(graph)
        plain.metadata = {}
        found = from_nir(plain, dt_ms=0.1)
        renamed = tuple(dataclasses.replace(layer, name=f"{layer.name}.neuron") for layer in graph.layers)
        assert bits(found) == bits(Graph(renamed, 0.1))


def test_a_gated_node_without_our_metadata_is_refused():
    gated = to_nir(own_graph(gated=True))
    gated.metadata = {}
    with pytest.raises(ValueError, match=r"`node 'l0.neuron'` must be one of Affine, .*, got SuspikeSelectiveLIF"):
        from_nir(gated, dt_ms=0.1)


def torch_on_grid(net, scale=1.0):
    """Weights and biases that are multiples of 2^-8, so that float32 sums are exact in every order."""
    import torch

    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "weight" in name or "bias" in name:
                p.copy_(torch.from_numpy(np.round(rng.normal(size=p.shape) * 128 * scale + 6) / 256))
    return net


def snntorch_nets():
    snn = pytest.importorskip("snntorch", reason="snntorch is not installed")
    import torch
    from torch.nn import AvgPool2d, Conv2d, Flatten, Linear, Sequential

    def options(*shape):
        return {
            "beta": torch.linspace(0.7, 0.95, int(np.prod(shape))).reshape(shape), "init_hidden": True,
            "threshold": torch.full(shape, 1 + 1 / 1024), "reset_mechanism": "zero",
        }  # fmt: skip

    end = Linear(8, 5), snn.Leaky(**options(5), output=True)
    alpha = torch.linspace(0.3, 0.6, 8)
    late = {"reset_delay": False}
    return {
        "Leaky": ((6,), Sequential(Linear(6, 8), snn.Leaky(**options(8)), *end)),
        "Synaptic": ((6,), Sequential(Linear(6, 8), snn.Synaptic(alpha=alpha, **options(8), **late), *end)),
        "RLeaky": ((6,), Sequential(Linear(6, 8), snn.RLeaky(linear_features=8, **options(8), **late), *end)),
        "RLeaky, own": ((6,), Sequential(Linear(6, 8), snn.RLeaky(
            V=torch.linspace(-0.5, 0.5, 9)[:8], all_to_all=False, **options(8), **late), *end)),
        "Conv2d": ((2, 6, 6), Sequential(
            Conv2d(2, 3, 3, padding=1), snn.Leaky(**options(3, 6, 6)), AvgPool2d(2), Flatten(), Linear(27, 5),
            snn.Leaky(**options(5), output=True))),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["Leaky", "Synaptic", "RLeaky", "RLeaky, own", "Conv2d"])
def test_snntorch_networks_spike_alike(tmp_path, name):
    shape, net = snntorch_nets()[name]
    import torch
    from snntorch import utils
    from snntorch.export_nir import export_to_nir

    network = export_to_nir(torch_on_grid(net, 0.7), torch.zeros(1, *shape), ignore_dims=[0])
    nir.write(tmp_path / "n.nir", network)
    graph = from_nir(tmp_path / "n.nir", dt_ms=0.1)
    assert bits(from_nir(network, dt_ms=0.1)) == bits(graph)
    assert graph.dtype == np.float32
    x = (np.random.default_rng(0).random((100, 1, *shape)) < 0.5).astype(np.float32)
    utils.reset(net)
    with torch.no_grad():
        theirs = np.stack([net(row)[0].numpy() for row in torch.from_numpy(x)])
    ours = simulate(graph, events_from_dense(x.reshape(len(x), 1, -1))).spikes[-1].dense()
    assert 20 < ours.sum() < 0.8 * ours.size
    np.testing.assert_array_equal(theirs.reshape(ours.shape), ours)


def test_norse_networks_spike_alike(tmp_path):
    """Norse divides by 1/tau times the dt it is given: with dt=1 its file holds tau in s."""
    norse = pytest.importorskip("norse.torch", reason="norse is not installed")
    import torch

    def box(n):
        full = {"tau_mem_inv": torch.linspace(80, 220, n), "v_leak": torch.zeros(n), "v_th": torch.full((n,), 0.35)}
        return norse.LIFBoxCell(norse.LIFBoxParameters(**{key: value.double() for key, value in full.items()}))

    net = norse.SequentialState(torch.nn.Linear(5, 8), box(8), torch.nn.Linear(8, 3), box(3)).double()
    network = norse.to_nir(torch_on_grid(net, 4.0), torch.zeros(1, 5, dtype=torch.float64), dt=1.0)
    nir.write(tmp_path / "n.nir", network)
    graph = from_nir(tmp_path / "n.nir", dt_ms=1)
    assert bits(from_nir(network, dt_ms=1)) == bits(graph)
    x = (np.random.default_rng(0).random((80, 1, 5)) < 0.4).astype(np.float64)
    theirs, state = [], None
    with torch.no_grad():
        for row in torch.from_numpy(x):
            out, state = net(row, state)
            theirs.append(out.numpy())
    ours = simulate(graph, events_from_dense(x)).spikes[-1].dense()
    assert 20 < ours.sum() < 0.8 * ours.size
    np.testing.assert_array_equal(np.stack(theirs), ours)
    assert {type(node).__name__ for node in nir.read(tmp_path / "n.nir", type_check=False).nodes.values()} >= {"LIF"}
