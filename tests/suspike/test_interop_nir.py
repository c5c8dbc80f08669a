"""NIR graphs read into a Graph: spike for spike what Euler's rule makes of their nodes."""

from __future__ import annotations

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suspike_testing import nir_nets
from suspike_testing.nir_euler import run
from suspike_testing.nir_nets import DT, DT_MS, ROOT, UNEVEN, assert_alike, bits, chain, conv, cuba, grid, lif, net

from suspike.graph import LI, CubaLI, CubaLIF, Route
from suspike.interop import from_nir
from suspike.simulate import simulate
from suspike_kernels.layout import events_from_dense

RNG = np.random.default_rng(0)
LINEAR, AFFINE = nir_nets.LINEAR, nir_nets.AFFINE


@pytest.fixture
def rng():
    return np.random.default_rng(1)


NEURONS = {
    "LIF": lif(5),
    "a gain for each neuron": lif(5, r=8 * UNEVEN),
    "tau for each neuron": lif(5, tau=8 * UNEVEN, r=7.0),
    "tau of one step": lif(5, tau=1.0),
    "leak potential": lif(5, v_leak=0.3, r=6.0),
    "reset below 0": lif(5, v_reset=-0.4, v_leak=-0.4),
    "reset and leak apart": lif(5, v_reset=0.2 * UNEVEN - 0.3, v_leak=0.15),
    "threshold below 0": lif(5, v_reset=-1.0, v_leak=-1.0, v_threshold=-0.3),
    "IF": nir.IF(r=np.full(5, 1 / DT), v_threshold=np.full(5, 3 * ROOT)),
    "IF of gain 0.3": nir.IF(r=0.3 * UNEVEN / DT, v_threshold=UNEVEN * ROOT, v_reset=np.full(5, -0.1)),
    "CubaLIF": cuba(5),
    "CubaLIF of uneven neurons": cuba(5, tau_syn=2 + UNEVEN, tau_mem=9 * UNEVEN, r=5 * UNEVEN, w_in=3 - UNEVEN),
    "CubaLIF at another rest": cuba(5, rest=0.4),
    "Threshold": nir.Threshold(ROOT * UNEVEN),
}  # fmt: skip


@pytest.mark.parametrize("linear", [LINEAR, AFFINE], ids=["Linear", "Affine"])
@pytest.mark.parametrize("neuron", NEURONS.values(), ids=NEURONS.keys())
def test_neurons(rng, neuron, linear):
    graph = assert_alike(chain([6], linear, neuron, nir.Linear(grid(rng, 3, 5)), lif(3)))
    assert [layer.name for layer in graph.layers] == ["n1", "n3"]
    assert all(layer.inputs == () for layer in graph.layers)


@pytest.mark.parametrize(
    "neuron",
    [
        nir.LI(tau=8 * DT * UNEVEN, r=5 * UNEVEN, v_leak=np.full(5, 0.3)),
        nir.I(r=0.2 * UNEVEN / DT),
        nir.CubaLI(tau_syn=3 * DT * UNEVEN, tau_mem=5 * DT * UNEVEN, r=UNEVEN, v_leak=np.zeros(5), w_in=UNEVEN),
    ],
    ids=["LI", "I", "CubaLI"],
)
def test_readouts(rng, neuron):
    graph = assert_alike(chain([6], nir.Linear(grid(rng, 6, 6)), lif(6), AFFINE, neuron))
    assert isinstance(graph.neurons[-1].neuron, CubaLI if isinstance(neuron, nir.CubaLI) else LI)


def test_numbers_of_the_layers():
    """beta = 1 - dt/tau, the gain in weight and bias, the leak potential in the bias; r = tau/dt leaves bits alone."""
    tau, r = 8 * UNEVEN, 3 * UNEVEN
    graph = from_nir(chain([6], AFFINE, lif(5, tau=tau, r=r, v_leak=0.25, v_reset=-0.5)), dt_ms=DT_MS)
    layer = graph.neurons[0]
    np.testing.assert_allclose(layer.neuron.beta, 1 - 1 / tau, rtol=1e-15)
    np.testing.assert_allclose(layer.weight, AFFINE.weight.T * r / tau, rtol=1e-15)
    np.testing.assert_allclose(layer.bias, AFFINE.bias * r / tau + (0.25 + 0.5) / tau, rtol=1e-15)
    np.testing.assert_allclose(layer.neuron.threshold, ROOT + 0.5, rtol=1e-15)
    assert layer.weight.dtype == np.float64
    third = [np.float32(x) for x in (1e-4 / (1 - 0.9), 1e-4 / (1 - 0.9) / 1e-4)]
    lif32 = nir.LIF(*(np.full(5, x, np.float32) for x in (third[0], third[1], 0, 1, 0)))
    weight = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    layer = from_nir(chain([6], nir.Linear(weight), lif32), dt_ms=0.1).neurons[0]
    assert layer.weight.dtype == np.float32
    assert np.array_equal(layer.weight, weight.T)
    assert (layer.neuron.beta == np.float32(0.9)).all()
    cuba_layer = from_nir(chain([6], AFFINE, cuba(5, tau_syn=4.0, tau_mem=8.0, r=4.0, w_in=3.0)), dt_ms=DT_MS)
    cuba_layer = cuba_layer.neurons[0]
    assert isinstance(cuba_layer.neuron, CubaLIF)
    np.testing.assert_allclose(cuba_layer.neuron.alpha, 0.75, rtol=1e-15)
    np.testing.assert_allclose(cuba_layer.weight, AFFINE.weight.T * (3 / 4) * (4 / 8), rtol=1e-15)


CONVOLUTIONS = {
    "plain": ((2, 5, 6), conv(grid(RNG, 3, 2, 3, 3))),
    "one channel": ((1, 5, 4), conv(grid(RNG, 2, 1, 2, 2))),
    "oblong": ((2, 6, 5), conv(grid(RNG, 3, 2, 2, 3), stride=(2, 1), padding=(0, 2), bias=[0.1, -0.05, 0.0])),
    "padding of strings": ((2, 5, 5), conv(grid(RNG, 3, 2, 2, 4), padding="same")),
    "padding same, dilated": ((1, 6, 5), conv(grid(RNG, 2, 1, 3, 2), padding="same", dilation=(1, 3))),
    "valid": ((2, 5, 5), conv(grid(RNG, 3, 2, 3, 3), padding="valid", stride=2)),
    "groups": ((4, 5, 5), conv(grid(RNG, 6, 2, 3, 3), groups=2, bias=0.1)),
    "depthwise, dilated": ((3, 7, 6), conv(grid(RNG, 3, 1, 2, 2), groups=3, dilation=(2, 3), padding=1)),
    "stride over the kernel": ((2, 7, 7), conv(grid(RNG, 4, 2, 2, 2), stride=3)),
}


@pytest.mark.parametrize(("shape", "node"), CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
def test_convolutions(rng, shape, node):
    probe = run(chain(shape, node), np.zeros((1, *shape)), DT).out["out"][0]
    graph = assert_alike(chain(shape, node, lif(probe.shape), nir.Flatten(np.array(probe.shape), 0),
                               nir.Linear(grid(rng, 4, probe.size) + 0.25), lif(4, v_threshold=0.3)))  # fmt: skip
    assert graph.neurons[0].geometry is not None
    assert graph.neurons[1].geometry is None
    expected = ["n1.input", "n1", "n4"] if shape[0] > 1 else ["n1", "n4"]
    assert [node.name for node in graph.layers] == expected


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"padding": "same", "dilation": 2}])
def test_conv1d(rng, options):
    node = conv(grid(rng, 4, 2, 3), bias=0.05, **options)
    shape = run(chain([2, 9], node), np.zeros((1, 2, 9)), DT).out["out"][0].shape
    graph = assert_alike(
        chain([2, 9], node, lif(shape), nir.Linear(grid(rng, 3, int(np.prod(shape)), scale=0.5)), lif(3))
    )
    assert graph.neurons[0].geometry.height == 1


def test_two_convolutions_and_their_neurons_gains(rng):
    """Behind another, a convolution needs no new order of units; a gain of each channel stays in the kernel."""
    gain = np.broadcast_to(np.array([4.0, 9.0, 6.0])[:, None, None], (3, 4, 4))
    graph = assert_alike(chain([2, 6, 6], conv(grid(rng, 3, 2, 3, 3)), lif((3, 4, 4), r=gain),
                               conv(grid(rng, 2, 3, 3, 3), padding=1, bias=0.1), lif((2, 4, 4))))  # fmt: skip
    assert [type(node).__name__ for node in graph.layers] == ["Route", "Layer", "Layer"]
    assert graph.layers[2].geometry.channels == 3


def test_gains_that_differ_within_a_channel_make_a_matrix(rng):
    gain = rng.uniform(4, 12, (3, 3, 3))
    graph = assert_alike(chain([2, 5, 5], conv(grid(rng, 3, 2, 3, 3)), lif((3, 3, 3), r=gain)))
    assert graph.neurons[0].geometry is None


POOLS = {
    "sum": (nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])), True),
    "average of ints": (nir.AvgPool2d(2, 2, 0), True),
    "oblong, with a rest": (nir.AvgPool2d(np.array([4, 3]), np.array([4, 3]), np.array([0, 0])), True),
    "gaps between patches": (nir.SumPool2d(np.array([1, 2]), np.array([2, 3]), np.array([0, 0])), True),
    "padded": (nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([1, 1])), True),
    "overlapping": (nir.AvgPool2d(np.array([3, 3]), np.array([2, 2]), np.array([0, 0])), False),
    "overlapping, padded": (nir.SumPool2d(np.array([3, 2]), np.array([1, 1]), np.array([1, 1])), False),
}


@pytest.mark.parametrize("then", ["Linear", "Conv2d", "LIF"])
@pytest.mark.parametrize(("pool", "routes"), POOLS.values(), ids=POOLS.keys())
def test_pooling_of_spikes(rng, pool, routes, then):
    shape = run(chain([3, 7, 6], pool), np.zeros((1, 3, 7, 6)), DT).out["out"][0].shape
    behind = {
        "Linear": [nir.Flatten(np.array(shape), 0), nir.Linear(grid(rng, 4, int(np.prod(shape)))),
                   lif(4, v_threshold=0.3 * ROOT)],
        "Conv2d": [conv(grid(rng, 2, 3, 1, 2)), lif((2, shape[1], shape[2] - 1), v_threshold=0.5 * ROOT)],
        "LIF": [lif(shape)],
    }[then]  # fmt: skip
    first = [conv(grid(rng, 3, 2, 3, 3, scale=0.7), padding=1), lif((3, 7, 6))]
    graph = assert_alike(chain([2, 7, 6], *first, pool, *behind))
    assert len([node for node in graph.layers if isinstance(node, Route)]) == 1 + routes
    if then == "Conv2d" and routes:
        assert graph.neurons[1].geometry.channels == 3


def test_pooling_of_currents_is_one_convolution(rng):
    first, pool = conv(grid(rng, 3, 2, 3, 2), stride=(1, 2), padding=1, bias=0.1), nir.AvgPool2d(2, 2, 0)
    graph = assert_alike(chain([2, 7, 8], first, pool, lif((3, 3, 2))))
    g = graph.neurons[0].geometry
    assert (g.kernel_h, g.kernel_w, g.stride_y, g.stride_x) == (4, 4, 2, 4)
    padded = nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([1, 1]))
    graph = assert_alike(chain([2, 7, 8], first, padded, lif((3, 4, 3))))
    assert graph.neurons[0].geometry is None


def test_a_kernel_that_reaches_over_the_edge_stays_behind_the_other(rng):
    """Padding "same" of an even kernel lies behind the image alone."""
    graph = assert_alike(chain([2, 6, 6], conv(grid(rng, 3, 2, 3, 3), bias=0.2),
                               conv(grid(rng, 2, 3, 2, 2), padding="same"), lif((2, 4, 4))))  # fmt: skip
    assert graph.neurons[0].geometry is None


def test_pooling_of_what_is_pooled(rng):
    """Pixels that fill no patch stay left out."""
    graph = assert_alike(chain([2, 7, 7], nir.SumPool2d(2, 2, 0), nir.AvgPool2d(3, 3, 0), conv(grid(rng, 3, 2, 1, 1)),
                               lif((3, 1, 1))), density=0.1)  # fmt: skip
    assert (graph.layers[0].units < 0).sum() == 2 * 13


def test_linear_nodes_in_a_row_are_multiplied_out(rng):
    nodes = [nir.Affine(grid(rng, 7, 6), grid(rng, 7)), nir.Scale(grid(rng, 7)), nir.Linear(grid(rng, 5, 7)),
             nir.Affine(grid(rng, 4, 5), grid(rng, 4)), nir.Scale(np.array([0.5, 1, 0.25, 1])), lif(4)]  # fmt: skip
    graph = assert_alike(chain([6], nir.Scale(grid(rng, 6)), *nodes))
    assert [layer.weight.shape for layer in graph.neurons] == [(6, 4)]


@pytest.mark.parametrize("scale", [(2,), (3, 1, 1), (3, 5, 5)], ids=["one", "channels", "pixels"])
def test_scales_around_a_convolution(rng, scale):
    before, after = (rng.uniform(0.5, 1.5, scale if i or len(scale) == 1 else (2, 7, 7)) for i in (0, 1))
    before = before[:1] if len(scale) == 1 else np.broadcast_to(before[:, :1, :1], (2, 7, 7))
    after = after[:1] if len(scale) == 1 else after
    graph = assert_alike(chain([2, 7, 7], nir.Scale(before), conv(grid(rng, 3, 2, 3, 3), bias=0.1), nir.Scale(after),
                               lif((3, 5, 5))))  # fmt: skip
    assert (graph.neurons[0].geometry is None) == (scale == (3, 5, 5))


def test_neurons_right_behind_others(rng):
    uniform = assert_alike(chain([6], lif(6), lif(6, tau=4.0, r=3.0, v_threshold=0.1 * ROOT)))
    assert [layer.weight.size for layer in uniform.neurons] == [1, 1]  # one weight that all pairs share
    assert [layer.n_synapses for layer in uniform.neurons] == [6, 6]
    uneven = assert_alike(chain([6], lif(6), nir.Scale(rng.uniform(0.5, 1, 6)), lif(6, v_threshold=0.1 * ROOT)))
    assert uneven.neurons[1].weight.shape == (6, 6)


def test_flatten_keeps_the_order_of_what_follows(rng):
    """Each weight meets the pixel it was made for: rows all differ, channels, rows and columns too."""
    shape = (2, 3, 4)
    weight = grid(rng, 5, 24, scale=0.5)
    for start, end in ((0, -1), (0, 1), (1, 2), (1, -1)):
        nodes = [conv(np.eye(2)[:, :, None, None]), lif(shape), nir.Flatten(np.array(shape), start, end)]
        assert_alike(chain(shape, *nodes, nir.Linear(weight), lif(5)))
    assert_alike(chain(shape, nir.Flatten(np.array(shape), 0), nir.Linear(weight), lif(5)))


RECURRENT = nir.Affine(grid(RNG, 5, 5, scale=0.5), grid(RNG, 5, scale=0.1))


@pytest.mark.parametrize("neuron", [lif(5), lif(5, r=8 * UNEVEN), cuba(5)], ids=["LIF", "uneven", "CubaLIF"])
@pytest.mark.parametrize(
    ("more", "edges"),
    [
        ({"rec": nir.Linear(RECURRENT.weight)}, "lif>rec rec>lif"),
        ({"rec": RECURRENT}, "lif>rec rec>lif"),
        ({}, "lif>lif"),
        ({"rec": RECURRENT, "s": nir.Scale(UNEVEN), "b": nir.Linear(RECURRENT.weight)},
         "lif>rec rec>s s>lif lif>b b>lif"),
    ],
    ids=["Linear", "Affine", "bare", "two paths"],
)  # fmt: skip
def test_recurrent(more, edges, neuron):
    nodes = {"in": nir.Input(np.array([6])), "w": AFFINE, "lif": neuron, "out": nir.Output(np.array([5])), **more}
    graph = assert_alike(net(nodes, f"in>w w>lif lif>out {edges}"))
    assert graph.neurons[0].recurrent.shape == (5, 5)


def test_one_matrix_over_input_and_own_spikes():
    """What a cycle hears is cut into the input's part and the population's own."""
    nodes = {"in": nir.Input(np.array([5])), "w": RECURRENT, "lif": lif(5), "out": nir.Output(np.array([5]))}
    graph = assert_alike(net(nodes, "in>w lif>w w>lif lif>out"), density=0.6)
    np.testing.assert_array_equal(graph.neurons[0].weight, graph.neurons[0].recurrent)


def test_recurrent_image(rng):
    """Own spikes come back through a convolution, and the same map goes on to another population."""
    nodes = {"in": nir.Input(np.array([2, 4, 4])), "c": conv(grid(rng, 3, 2, 3, 3), padding=1), "lif": lif((3, 4, 4)),
             "rec": conv(grid(rng, 3, 3, 3, 3, scale=0.3), padding=1, bias=0.05), "next": lif((3, 4, 4)),
             "out": nir.Output(np.array([3, 4, 4]))}  # fmt: skip
    graph = assert_alike(net(nodes, "in>c c>lif lif>rec rec>lif rec>next next>out"))
    assert graph.neurons[0].recurrent.shape == (48, 48)
    assert graph.neurons[1].geometry.channels == 3


@pytest.mark.parametrize("name", ["through one matrix", "through two", "the input too", "a bare one", "pooled"])
def test_skip_connections(rng, name):
    a, b, w = nir.Linear(grid(rng, 5, 6)), nir.Linear(grid(rng, 5, 6)), nir.Affine(grid(rng, 5, 5), grid(rng, 5))
    nodes = {"in": nir.Input(np.array([6])), "a": a, "la": lif(5), "b": b, "lb": lif(5, tau=3.0), "w": w, "l": lif(5),
             "out": nir.Output(np.array([5]))}  # fmt: skip
    edges = "in>a a>la in>b b>lb l>out "
    if name == "through one matrix":
        graph = assert_alike(net(nodes, edges + "la>w lb>w w>l"))
        assert len(graph.layers) == 3
        assert set(graph.layers[-1].inputs) == {"la", "lb"}
        scaled = nodes | {"s": nir.Scale(UNEVEN), "l": lif(5, r=8 * UNEVEN)}
        graph = assert_alike(net(scaled, edges + "la>w lb>w w>s s>l"))
        assert [layer.weight.shape for layer in graph.layers] == [(6, 5), (6, 5), (5, 5)]
    elif name == "through two":
        w2 = nir.Linear(grid(rng, 5, 5))
        graph = assert_alike(net(nodes | {"w2": w2}, edges + "la>w lb>w2 w2>l w>l"))
        assert graph.layers[-1].weight.shape == (10, 5)
    elif name == "the input too":
        graph = assert_alike(net(nodes | {"w2": nir.Linear(grid(rng, 5, 6))}, edges + "la>w lb>w in>w2 w2>l w>l"))
        assert graph.layers[-1].weight.shape == (11, 5)
    elif name == "a bare one":
        assert_alike(net(nodes, edges + "la>w w>l lb>l"))
    else:
        nodes |= {"in": nir.Input(np.array([1, 2, 3])), "p": nir.SumPool2d(2, 1, 0), "w2": nir.Linear(grid(rng, 5, 2))}
        assert_alike(net(nodes, edges + "la>w w>l in>p p>w2 w2>l"))


@pytest.mark.parametrize("strides", [(1, 1), (1, 2)])
def test_skip_connections_of_images(rng, strides):
    """A residual block: two kernels of other sizes, and the input itself, side by side as channels."""
    size = {1: (1, 1), 2: (2, 1)}[strides[1]]
    nodes = {"in": nir.Input(np.array([3, 6, 6])), "c1": conv(grid(rng, 3, 3, 3, 3), padding=1), "l1": lif((3, 6, 6)),
             "c2": conv(grid(rng, 3, 3, 5, 3), padding=(2, 1)),
             "c3": conv(grid(rng, 3, 3, *size), stride=strides[0], bias=0.1) if strides[1] == 1 else
             conv(grid(rng, 3, 3, 1, 1)), "l": lif((3, 6, 6)), "out": nir.Output(np.array([3, 6, 6]))}  # fmt: skip
    edges = "in>c1 c1>l1 l1>c2 c2>l in>c3 c3>l l>out"
    graph = assert_alike(net(nodes, edges + (" in>l" if strides[1] == 1 else "")))
    assert graph.neurons[1].geometry.channels == (9 if strides[1] == 1 else 6)
    # of another stride: a matrix
    nodes |= {"c2": conv(grid(rng, 3, 3, 2, 2), stride=2), "c3": conv(grid(rng, 3, 3, 4, 4)), "l": lif((3, 3, 3))}
    assert assert_alike(net(nodes, edges)).neurons[1].geometry is None


def test_a_linear_end_is_a_readout_without_memory(rng):
    graph = assert_alike(chain([6], LINEAR, lif(5), nir.Affine(grid(rng, 3, 5), grid(rng, 3))))
    assert [layer.name for layer in graph.layers] == ["n1", "n2"]
    assert not graph.neurons[-1].neuron.beta.any()


def test_readouts_of_images(rng):
    """Their output is numbered pixel by pixel, like spikes; a batch of one in the Input's shape changes nothing."""
    first, last = conv(grid(rng, 3, 2, 3, 3)), conv(grid(rng, 4, 3, 2, 2), bias=0.1)
    tau = DT * rng.uniform(2, 9, (4, 3, 3))
    leaky = nir.LI(tau=tau, r=tau / DT, v_leak=rng.normal(size=(4, 3, 3)))
    for shape in ([2, 6, 6], [1, 2, 6, 6]):
        for ends in ([leaky], []):
            graph = from_nir(chain(shape, first, lif((3, 4, 4)), last, *ends), dt_ms=DT_MS)
            assert graph.neurons[-1].geometry.out_channels == 4
            if len(shape) == 3:
                assert_alike(chain(shape, first, lif((3, 4, 4)), last, *ends))
                plain = graph
        assert bits(graph) == bits(plain)


def test_nested_graphs(rng):
    inner = net({"i": nir.Input(np.array([5])), "lif": lif(5), "rec": RECURRENT, "o": nir.Output(np.array([5]))},
                "i>lif lif>rec rec>lif lif>o")  # fmt: skip
    outer = net({"i": nir.Input(np.array([6])), "w": LINEAR, "cell": inner, "o": nir.Output(np.array([5]))},
                "i>w w>cell cell>o")  # fmt: skip
    graph = assert_alike(chain([6], outer, nir.Linear(grid(rng, 3, 5)), lif(3)))
    assert [layer.name for layer in graph.layers] == ["n0.cell.lif", "n2"]


def test_every_node_is_read_from_a_file_as_it_is(tmp_path):
    rec = nir.Affine(np.eye(5), np.ones(5))
    inner = net({"i": nir.Input(np.array([5])), "lif": lif(5), "rec": rec, "o": nir.Output(np.array([5]))},
                "i>lif lif>rec rec>lif lif>o")  # fmt: skip
    image = [conv(grid(RNG, 3, 2, 3, 3), size=(6, 6), padding="same"), lif((3, 6, 6)), nir.AvgPool2d(2, 2, 0),
             nir.Flatten(np.array([3, 3, 3]), 0), nir.Linear(grid(RNG, 5, 27)), inner, cuba(5)]  # fmt: skip
    line = [conv(grid(RNG, 3, 2, 3), size=8, stride=2, padding=1), lif((3, 4)), nir.Linear(grid(RNG, 5, 12)),
            nir.Scale(UNEVEN), nir.Threshold(UNEVEN)]  # fmt: skip
    for network in (chain([2, 6, 6], *image), chain([2, 8], *line)):
        nir.write(tmp_path / "n.nir", network)
        assert bits(from_nir(tmp_path / "n.nir", dt_ms=DT_MS)) == bits(from_nir(network, dt_ms=DT_MS))


@st.composite
def networks(draw):
    """Chains of images and lists with skips and cycles, whose sizes are few and whose numbers are seeded."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.sampled_from([(2, 6, 5), (1, 5, 7), (6,)]))
    nodes, edges = {"in": nir.Input(np.array(shape))}, []
    last = "in"

    def put(name, node):
        nonlocal last
        nodes[name] = node
        edges.append(f"{last}>{name}")
        last = name

    for i in range(draw(st.integers(1, 3))):
        linear = draw(
            st.sampled_from(["conv", "pool", "linear"] if len(shape) == 3 and min(shape[1:]) > 2 else ["linear"])
        )
        if linear == "pool":
            size = draw(st.sampled_from([1, 2]))
            put(f"p{i}", draw(st.sampled_from([nir.SumPool2d, nir.AvgPool2d]))(size, draw(st.sampled_from([1, 2])), 0))
            shape = run(chain(shape, nodes[last]), np.zeros((1, *shape)), DT).out["out"][0].shape
        if linear == "conv":
            groups = draw(st.sampled_from([1, shape[0]]))
            put(f"c{i}", conv(grid(rng, 2 * groups, shape[0] // groups, 2, 2), groups=groups, size=shape[1:],
                              stride=draw(st.sampled_from([1, 2])), padding=draw(st.sampled_from([0, 1]))))  # fmt: skip
            shape = run(chain(shape, nodes[last]), np.zeros((1, *shape)), DT).out["out"][0].shape
        else:
            put(f"w{i}", nir.Affine(grid(rng, 5, int(np.prod(shape))), grid(rng, 5, scale=0.2)))
            shape = (5,)
        if draw(st.booleans()):
            put(f"s{i}", nir.Scale(rng.uniform(0.5, 2, shape)))
        neuron = draw(st.sampled_from([
            lif(shape), lif(shape, r=rng.uniform(4, 12, shape)), cuba(shape), lif(shape, v_reset=-0.2, v_leak=0.1),
        ]))  # fmt: skip
        put(f"l{i}", neuron)
        n = int(np.prod(shape))
        if len(shape) == 1 and draw(st.booleans()):
            nodes[f"r{i}"] = nir.Affine(grid(rng, n, n, scale=0.3), grid(rng, n, scale=0.1))
            edges += [f"l{i}>r{i}", f"r{i}>l{i}"]
        if draw(st.booleans()):
            inputs = int(np.prod(nodes["in"].input_type["input"]))
            if len(shape) == 1:
                nodes[f"k{i}"] = nir.Linear(grid(rng, n, inputs, scale=0.5))
                edges += [f"in>k{i}", f"k{i}>l{i}"]
    if draw(st.booleans()):
        put("y", nir.Linear(grid(rng, 3, int(np.prod(shape)))))
    nodes["out"] = nir.Output(np.array([1]))
    return net(nodes, " ".join([*edges, f"{last}>out"]))


@settings(deadline=None, derandomize=True, database=None, max_examples=60)
@given(networks())
def test_drawn_networks(tmp_path_factory, network):
    graph, x = from_nir(network, dt_ms=DT_MS), nir_nets.spikes_in(network, n_steps=12)
    wanted = run(network, x, DT)
    found = simulate(graph, events_from_dense(x.reshape(len(x), 1, -1).astype(np.int64)))
    firing = [layer for layer in graph.neurons if layer.neuron.fires]
    for layer, spk in zip(firing, found.spikes, strict=True):
        assert np.array_equal(
            nir_nets.in_nir_order(layer, spk.dense(float)), wanted.spk[layer.name].reshape(len(x), -1)
        )
    if found.output is not None:
        np.testing.assert_allclose(nir_nets.in_nir_order(graph.neurons[-1], found.output),
                                   wanted.out["out"].reshape(len(x), -1), rtol=1e-10, atol=1e-12)  # fmt: skip
    path = tmp_path_factory.getbasetemp() / "drawn.nir"
    nir.write(path, network)
    assert bits(from_nir(str(path), dt_ms=DT_MS)) == bits(graph)
