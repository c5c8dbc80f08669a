"""NIR files: bit for bit there and back, read by others where they can run them, refused where they cannot."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from itertools import pairwise

import h5py
import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suspike.export import nir as export_nir
from suspike.export import read_nir, to_nir, write_nir
from suspike.graph import LI, LIF, Graph, Layer, Rhythm
from suspike.simulate import simulate
from suspike_kernels.layout import events_from_dense

BETAS = st.one_of(st.just(0.0), st.floats(2**-26, 1, width=32, exclude_max=True))


def grid(rng, *shape):
    return (rng.integers(-128, 129, size=shape) / 256).astype(np.float32)


def rhythm(rng, n, k=2):
    return Rhythm(rng.normal(size=n), rng.normal(size=(n, k)), rng.normal(size=(n, k)), rng.uniform(2, 40, k))


def make_graph(*, seed=0, sizes=(3, 5), gated=True, recurrent=True, readout=2, beta=0.9375, dt_ms=0.1, threshold=1.0):
    rng, layers = np.random.default_rng(seed), []
    for i, (n_in, n) in enumerate(pairwise(sizes)):
        neuron = LIF(
            np.full(n, beta, np.float32), np.full(n, threshold, np.float32), gate=rhythm(rng, n) if gated else None
        )
        layers.append(
            Layer(f"z{9 - i}", grid(rng, n_in, n), grid(rng, n), neuron, grid(rng, n, n) if recurrent else None)
        )
    if readout:
        layers.append(
            Layer("output", grid(rng, sizes[-1], readout), grid(rng, readout), LI(np.full(readout, beta, np.float32)))
        )
    return Graph(tuple(layers), dt_ms)


@st.composite
def graphs(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes, layers = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4)), []
    readout_last = draw(st.booleans())
    for i, (n_in, n) in enumerate(pairwise(sizes)):
        beta = np.array(draw(st.one_of(st.lists(BETAS, min_size=n, max_size=n), st.just([1.0] * n))), np.float32)
        weight, bias = rng.normal(size=(n_in, n)).astype(np.float32), rng.normal(size=n).astype(np.float32)
        if readout_last and i == len(sizes) - 2:
            layers.append(Layer(f"l{i}", weight, bias, LI(beta)))
            break
        gate = rhythm(rng, n, draw(st.integers(1, 3))) if draw(st.booleans()) else None
        neuron = LIF(beta, rng.uniform(0.5, 2, n).astype(np.float32), gate=gate)
        recurrent = rng.normal(size=(n, n)).astype(np.float32) if draw(st.booleans()) else None
        layers.append(Layer(f"l{i}", weight, bias, neuron, recurrent))
    return Graph(tuple(layers), draw(st.floats(1e-3, 1e3)), draw(st.integers(0, 5)))


def bits(thing):
    """Everything in a graph, arrays as type, shape and bytes."""
    if isinstance(thing, np.ndarray):
        return str(thing.dtype), thing.shape, thing.tobytes()
    if dataclasses.is_dataclass(thing):
        return type(thing).__name__, *(bits(getattr(thing, f.name)) for f in dataclasses.fields(thing))
    return tuple(map(bits, thing)) if isinstance(thing, tuple) else thing


def test_bits_see_one_bit():
    graph = make_graph()
    weight = graph.layers[0].weight.copy()
    weight.view(np.uint32)[1, 2] ^= 1
    other = Graph((dataclasses.replace(graph.layers[0], weight=weight), *graph.layers[1:]), graph.dt_ms)
    assert bits(graph) == bits(make_graph())
    assert bits(graph) != bits(other)
    assert bits(graph) != bits(Graph(graph.layers, np.nextafter(graph.dt_ms, 1)))
    assert export_nir._difference(graph, dataclasses.replace(graph, max_count=7)) == "max_count"
    assert export_nir._difference(graph, other) == "weight of layer 'z9'"
    assert "gate" in export_nir._difference(graph, replaced(graph, gate=None))
    feed_forward = Graph((dataclasses.replace(graph.layers[0], recurrent=None), *graph.layers[1:]), graph.dt_ms)
    assert "recurrent" in export_nir._difference(graph, feed_forward)


@settings(deadline=None, max_examples=40)
@given(graphs())
def test_round_trip_is_bit_for_bit(tmp_path_factory, graph):
    path = tmp_path_factory.getbasetemp() / "round.nir"
    write_nir(path, graph)
    assert bits(read_nir(path)) == bits(graph)


def test_every_float32_beta_of_a_learned_range_comes_back(tmp_path):
    beta = np.random.default_rng(0).uniform(0, 1, 20_000).astype(np.float32)
    beta[:2] = 2**-26, np.nextafter(np.float32(1), np.float32(0))
    for dt in (1e-4, 1e-3, 0.25e-3, 7.3):
        layer = Layer("a", np.zeros((1, len(beta)), np.float32), np.zeros(len(beta), np.float32), LI(beta))
        assert (export_nir._beta(export_nir._tau(layer, dt), dt, beta.dtype) == beta).all()


def test_the_same_graph_gives_the_same_bytes(tmp_path):
    write_nir(tmp_path / "a", make_graph())
    write_nir(tmp_path / "b", make_graph())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_plain_layers_are_standard_nodes_with_unit_gain(tmp_path):
    graph = make_graph(gated=False)
    write_nir(tmp_path / "n.nir", graph)
    nodes = nir.read(tmp_path / "n.nir").nodes
    assert {key: type(node).__name__ for key, node in nodes.items()} == {
        "input": "Input", "z9.weight": "Affine", "z9.neuron": "LIF", "z9.recurrent": "Linear",
        "output.weight": "Affine", "output.neuron": "LI", "output": "Output",
    }  # fmt: skip
    lif = nodes["z9.neuron"]
    np.testing.assert_allclose(lif.r * 1e-4 / lif.tau, 1, rtol=1e-15)
    assert not lif.v_leak.any()
    assert not lif.v_reset.any()
    assert (nodes["z9.weight"].weight == graph.layers[0].weight.T).all()


@pytest.mark.parametrize(("gated", "readout", "types"), [(False, 2, ("IF", "I")), (True, 0, ("SuspikeSelectiveIF",))])
def test_beta_1_is_an_integrator(tmp_path, gated, readout, types):
    graph = make_graph(beta=1.0, gated=gated, readout=readout)
    nodes = to_nir(graph).nodes
    assert tuple(type(nodes[f"{layer.name}.neuron"]).__name__ for layer in graph.layers) == types
    np.testing.assert_allclose(nodes["z9.neuron"].r, 1e4, rtol=1e-15)
    write_nir(tmp_path / "n.nir", graph)
    assert bits(read_nir(tmp_path / "n.nir")) == bits(graph)


def replaced(graph, **neuron):
    layer = graph.layers[0]
    first = dataclasses.replace(layer, neuron=dataclasses.replace(layer.neuron, **neuron))
    return Graph((first, *graph.layers[1:]), graph.dt_ms)


def betas(*values):
    return np.array([*values, *[0.5] * (5 - len(values))], np.float32)


@pytest.mark.parametrize(
    ("graph", "match"),
    [
        (
            replaced(make_graph(), reset="subtract"),
            "`reset of layer 'z9'` must be 'zero' in a NIR file, got 'subtract'. NIR",
        ),
        (replaced(make_graph(), reset="none"), "got 'none'. NIR resets to a value"),
        (
            replaced(make_graph(), beta=betas(1.0)),
            "1 for all of its neurons or for none in a NIR file, got 1 for 1 of 5",
        ),
        (replaced(make_graph(), beta=betas(0.5, 1e-12)), r"0 or at least 2\*\*-26 .* got np.float32\(1e-12\)"),
        (replaced(make_graph(), beta=betas(-0.0)), "got np.float32.-0.0"),
    ],
)
def test_what_nir_cannot_say_is_refused(tmp_path, graph, match):
    with pytest.raises(ValueError, match=match):
        write_nir(tmp_path / "n.nir", graph)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a/b", "..", "", "a b", "é", "a\n"])
def test_names_that_do_not_fit_are_refused(tmp_path, name):
    graph = make_graph(readout=0)
    with pytest.raises(ValueError, match="`layer name` must be of letters"):
        write_nir(tmp_path / "n.nir", Graph((dataclasses.replace(graph.layers[0], name=name),), 1.0))


def test_a_file_that_reads_differently_is_not_left(tmp_path, monkeypatch):
    (tmp_path / "n.nir").write_text("old")
    monkeypatch.setattr(export_nir, "_decode", lambda data: make_graph(seed=1))
    with pytest.raises(ValueError, match="bit for bit, got another weight of layer 'z9'"):
        write_nir(tmp_path / "n.nir", make_graph())
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_gated_layers_are_refused_by_others(tmp_path):
    write_nir(tmp_path / "n.nir", make_graph())
    for _ in range(2):  # before and after our reader: it leaves nothing behind in nir
        with pytest.raises(AssertionError):
            nir.read(tmp_path / "n.nir")
        read_nir(tmp_path / "n.nir")


def test_snntorch_refuses_the_gate_and_runs_the_rest_alike(tmp_path):
    snntorch = pytest.importorskip("snntorch")
    import torch
    from snntorch.import_nir import import_from_nir

    with pytest.raises(ValueError, match="Unknown node type"):
        import_from_nir(to_nir(make_graph(recurrent=False, readout=0)))
    graph = make_graph(
        sizes=(12, 20, 6), gated=False, recurrent=False, readout=0, threshold=1 + 1 / 1024, seed=3
    )  # a threshold off the grid: no ties
    write_nir(tmp_path / "n.nir", graph)
    net, state, spikes = import_from_nir(nir.read(tmp_path / "n.nir")), None, []
    x = (np.random.default_rng(0).random((150, 1, 12)) < 0.3).astype(np.float32)
    with torch.no_grad():
        for row in torch.from_numpy(x):
            out, state = net(row, state) if state is not None else net(row)
            spikes.append((out[0] if isinstance(out, tuple) else out).numpy())
    ours = simulate(graph, events_from_dense(x)).spikes[-1].dense()
    assert snntorch.__version__
    assert 50 < ours.sum() < 800
    np.testing.assert_array_equal(np.stack(spikes), ours)


def edit(path, change):
    with h5py.File(path, "a") as file:
        change(file["node"])


def put(key, value):
    def change(node):
        del node[key]
        node[key] = value

    return change


def drop(key):
    def change(node):
        del node[key]

    return change


def bump(key):
    def change(node):
        node[key][...] = node[key][...] * 1.5

    return change


EDGES = [(b"input", b"z9.weight"), (b"z9.weight", b"z9.neuron"), (b"z9.neuron", b"output.weight"),
         (b"output.weight", b"output.neuron"), (b"output.neuron", b"output")]  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        bump("metadata/suspike_dt_ms"),
        put("metadata/suspike_dt_ms", -1.0),
        put("metadata/suspike_format", 2),
        put("metadata/suspike_layers", "not json"),
        put("metadata/suspike_layers", "[]"),
        drop("metadata"),
        bump("nodes/z9.neuron/r"),
        bump("nodes/z9.neuron/tau"),
        put("nodes/z9.neuron/v_leak", np.ones(5)),
        put("nodes/z9.neuron/v_threshold", np.ones(4)),
        put("nodes/z9.weight/weight", np.full((5, 3), np.nan)),
        put("nodes/z9.neuron/type", "LIF"),
        put("nodes/z9.neuron/type", "Other"),
        drop("nodes/z9.neuron"),
        drop("nodes/z9.neuron/gate_bias"),
        put("nodes/z9.neuron/gate_period", np.ones(3)),
        drop("nodes"),
        drop("edges"),
        put("edges", EDGES),
        put("edges", [*EDGES, (b"x", b"y")]),
        put("type", "LIF"),
        put("nodes/output.neuron/type", "I"),
    ],
)
def test_an_edited_file_is_refused_by_one_error(tmp_path, change):
    path = tmp_path / "n.nir"
    write_nir(path, make_graph())
    edit(path, change)
    with pytest.raises(ValueError, match=r"`n.nir` must be a NIR file written by suspike, got one that fails"):
        read_nir(path)


def test_damaged_bytes_are_refused_or_harmless(tmp_path):
    path, graph = tmp_path / "n.nir", make_graph()
    write_nir(path, graph)
    whole, refused = path.read_bytes(), 0
    rng = np.random.default_rng(0)
    damaged = [whole[: len(whole) // 2], b"", b"\x89HDF\r\n\x1a\n", whole[:-1]]
    for place in rng.integers(0, len(whole), 60):
        damaged.append(whole[:place] + bytes([whole[place] ^ (1 << rng.integers(8))]) + whole[place + 1 :])
    for data in damaged:
        path.write_bytes(data)
        try:
            assert bits(read_nir(path))[0] == "Graph"
        except ValueError as error:
            refused += str(error).startswith("`n.nir` must be a NIR file")
    assert refused > 4


def test_a_foreign_nir_file_is_refused(tmp_path):
    one = np.ones(1)
    nir.write(tmp_path / "f.nir", nir.NIRGraph.from_list(nir.LIF(tau=one, r=one, v_leak=one, v_threshold=one)))
    with pytest.raises(ValueError, match="that of write_nir"):
        read_nir(tmp_path / "f.nir")
    with pytest.raises(FileNotFoundError):
        read_nir(tmp_path / "none.nir")


def test_without_nir_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nir", None)
    for call in (lambda: write_nir(tmp_path / "n", make_graph()), lambda: read_nir(tmp_path / "n")):
        with pytest.raises(ImportError, match=r"suspike\[export\]"):
            call()


def test_importing_export_loads_nothing_optional():
    code = "import suspike.export, sys; assert not {'torch', 'nir', 'h5py'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
