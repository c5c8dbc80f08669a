"""NIR graphs without an exact form as a Graph: refused by name."""

from __future__ import annotations

import dataclasses
import sys

import h5py
import nir
import numpy as np
import pytest
from suspike_testing.nir_nets import DT, DT_MS, LINEAR, ROOT, UNEVEN, chain, conv, cuba, lif, net

from suspike.interop import from_nir

IN, OUT = nir.Input(np.array([6])), nir.Output(np.array([5]))
LIFS = {"in": IN, "w": LINEAR, "a": lif(5), "b": lif(5), "out": OUT}
LEAKY = nir.LI(tau=np.full(5, 8 * DT), r=np.full(5, 8.0), v_leak=np.zeros(5))
INNER = net({"i": nir.Input(np.array([5])), "j": nir.Input(np.array([5])), "o": OUT}, "i>o j>o")
W5 = nir.Linear(np.eye(5))
REFUSED = {
    "Delay": (chain([6], nir.Delay(np.zeros(6)), LINEAR, lif(5)), "node 'n0'", "one of Affine, .*, got Delay"),
    "two Inputs": (
        net({**LIFS, "in2": IN, "w2": LINEAR}, "in>w w>a in2>w2 w2>b a>out"),
        "Input",
        "one node, got 'in', 'in2'",
    ),
    "no Input": (net({"w": LINEAR, "a": lif(5)}, "w>a"), "Input", "one node, got none"),
    "cycle of two": (
        net({**LIFS, "w2": W5}, "in>w w>a a>b b>w2 w2>a b>out"),
        "node '[ab]'",
        "in a cycle with itself alone.*got the cycle [ab] -> [ab] -> [ab]",
    ),
    "loop of matrices": (
        net({**LIFS, "w2": W5}, "in>w w>a w2>w2 w2>a a>out"),
        "node 'w2'",
        "without neurons between them, got the cycle",
    ),
    "a readout that is heard": (
        chain([6], LINEAR, LEAKY, W5, lif(5)),
        "node 'n1'",
        "in front of an Output alone, as it never fires, got one that 'n3' hears",
    ),
    "a readout in a cycle": (net({**LIFS, "a": LEAKY}, "in>w w>a a>a a>out"), "node 'a'", "got one that 'a' hears"),
    "a readout, scaled": (chain([6], LINEAR, LEAKY, nir.Scale(UNEVEN)), "node 'n1'", "right in front of the Output"),
    "two readouts": (
        net({**LIFS, "a": LEAKY, "b": LEAKY}, "in>w w>a w>b a>out"),
        "Output",
        "one readout.*got 'a', 'b'",
    ),
    "a readout and a linear end": (
        net({"in": IN, "w": LINEAR, "a": LEAKY, "out": OUT, "o2": OUT}, "in>w w>a a>out w>o2"),
        "Output",
        "got 'a', 'w'",
    ),
    "itself alone": (
        net({"in": IN, "w": LINEAR, "a": lif(5), "b": lif(5)}, "in>w w>a b>b"),
        "node 'b'",
        "fed by others too, got one that hears itself alone",
    ),
    "nothing": (net({"in": IN, "w": LINEAR, "a": lif(5), "b": lif(5)}, "in>w w>a"), "node 'b'", "behind the Input"),
    "long step": (
        chain([6], LINEAR, lif(5, tau=0.9)),
        "dt_ms",
        "at most tau of node 'n1', 0.87.* ms, got 0.97.*Choose a shorter step; tau is in seconds",
    ),
    "long step of a synapse": (chain([6], LINEAR, cuba(5, tau_syn=0.5)), "dt_ms", "at most tau_syn of node 'n1'"),
    "tau 0": (chain([6], LINEAR, lif(5, tau=0.0, r=1.0)), "tau of node 'n1'", r"above 0 s, got 0\.0"),
    "tau without end": (
        chain([6], LINEAR, lif(5, tau=np.inf, r=1.0)),
        "tau of node 'n1'",
        r"finite, got inf\. IF and I are",
    ),
    "leak behind a synapse": (
        chain([6], LINEAR, dataclasses.replace(cuba(5), v_leak=np.ones(5))),
        "v_leak of node 'n1'",
        "v_reset behind a synaptic current.*as an Affine's bias",
    ),
    "readout's leak behind a synapse": (
        chain([6], LINEAR, nir.CubaLI(*np.ones((3, 5)), v_leak=np.ones(5))),
        "v_leak of node 'n1'",
        "0 behind a synaptic current",
    ),
    "threshold 0": (chain([6], LINEAR, lif(5, v_threshold=0.0)), "v_threshold of node 'n1'", r"above 0, got 0\.0"),
    "threshold at the reset": (
        chain([6], LINEAR, lif(5, v_reset=ROOT)),
        "v_threshold of node 'n1'",
        "above v_reset, got 0.7",
    ),
    "Threshold 0": (chain([6], LINEAR, nir.Threshold(np.zeros(5))), "threshold of node 'n1'", "above 0"),
    "sizes": (
        chain([7], LINEAR, lif(5)),
        "weight of node 'n0'",
        r"\[out, 7\] behind a signal of shape \[7\], got shape \[5, 6\]",
    ),
    "a stack of matrices": (chain([6], nir.Linear(np.ones((2, 5, 6))), lif(5)), "weight of node 'n0'", r"\[out, 6\]"),
    "NaN": (chain([6], nir.Linear(np.full((5, 6), np.nan)), lif(5)), "weight of node 'n0'", "finite, got nan"),
    "neurons' shape": (
        chain([6], LINEAR, lif(4)),
        "v_reset of node 'n1'",
        r"of shape \[5\] like its input, got shape \[4\]",
    ),
    "shapes that meet": (
        net({**LIFS, "s": nir.Flatten(np.array([5]), 0), "w2": nir.Linear(np.ones((4, 6)))}, "in>w w>a in>w2 w2>a"),
        "node 'a'",
        r"fed by signals of one shape, got \[4\], \[5\]",
    ),
    "an image for a list": (
        chain([6], conv(np.ones((1, 1, 2, 2))), lif(5)),
        "node 'n0'",
        r"fed by a signal of shape \[C, H, W\], got shape \[6\]",
    ),
    "channels": (
        chain([3, 5, 5], conv(np.ones((2, 2, 2, 2))), lif(5)),
        "weight of node 'n0'",
        r"3 / groups.*got shape \[2, 2, 2, 2\]",
    ),
    "groups": (
        chain([4, 5, 5], conv(np.ones((3, 2, 2, 2)), groups=2), lif(5)),
        "weight of node 'n0'",
        "a multiple of groups = 2",
    ),
    "axes of a kernel": (
        chain([4, 5, 5], nir.Conv2d(None, np.ones((3, 2)), 1, 0, 1, 1, np.ones(3)), lif(5)),
        "weight of node 'n0'",
        "of 4 axes",
    ),
    "bias of a kernel": (
        chain([1, 5, 5], nir.Conv2d(None, np.ones((3, 1, 2, 2)), 1, 0, 1, 1, np.ones(2)), lif(5)),
        "bias of node 'n0'",
        r"of shape \[3\]",
    ),
    "stride beside same": (
        chain([1, 5, 5], conv(np.ones((1, 1, 3, 3)), stride=2, padding="same"), lif(5)),
        "stride of node 'n0'",
        "1 beside padding 'same'",
    ),
    "stride 0": (
        chain([1, 5, 5], conv(np.ones((1, 1, 3, 3)), stride=0), lif(5)),
        "stride of node 'n0'",
        "one or two whole numbers of at least 1",
    ),
    "padding below 0": (
        chain([1, 5], conv(np.ones((1, 1, 3)), padding=-1), lif(5)),
        "padding of node 'n0'",
        "a whole number of at least 0, got -1",
    ),
    "a large kernel": (
        chain([1, 5, 5], conv(np.ones((1, 1, 3, 6))), lif(5)),
        "node 'n0'",
        "of a kernel within its input of 5 x 5, got 3 x 6",
    ),
    "axes of Flatten": (
        chain([6], nir.Flatten(np.array([6]), 0, 1), LINEAR, lif(5)),
        "axes of node 'n0'",
        r"among the 1 of shape \[6\], got 0 to 1",
    ),
    "a shape that is none": (
        net({**LIFS, "in": nir.Input(np.array([6.0]))}, "in>w w>a a>b"),
        "shape of node 'in'",
        r"one or more sizes of at least 1, got \[6\.0\]",
    ),
    "complex weights": (chain([6], nir.Linear(1j * np.ones((5, 6))), lif(5)), "weight of node 'n0'", "real numbers"),
    "groups of a half": (
        chain([1, 5, 5], conv(np.ones((1, 1, 3, 3)), groups=0.5), lif(5)),
        "groups of node 'n0'",
        r"a whole number, got 0\.5",
    ),
    "an edge twice": (net(LIFS, "in>w w>a in>w"), "edges", "there once, got 'in' to 'w' twice"),
    "an edge to nowhere": (net(LIFS, "in>w w>c"), "edges", "between nodes among in, w, a, b, out, got 'c'"),
    "nested Inputs": (
        net({**LIFS, "g": INNER}, "in>w w>g g>a"),
        "graph 'g'",
        "of one Input and one Output, got 2 and 1",
    ),
    "neurons called input": (net({"x": IN, "w": LINEAR, "input": lif(5)}, "x>w w>input"), "node 'input'", "Rename it"),
    "no neurons at all": (net({"in": IN}, ""), "layers", "at least one layer"),
}


@pytest.mark.parametrize(("network", "name", "match"), REFUSED.values(), ids=REFUSED.keys())
def test_what_has_no_exact_form_is_refused_by_name(network, name, match):
    with pytest.raises(ValueError, match=f"^`{name}` must be .*{match}"):
        from_nir(network, dt_ms=DT_MS)


def test_arguments_are_refused(tmp_path):
    network = chain([6], LINEAR, lif(5))
    with pytest.raises(ValueError, match=r"`dt_ms` must be given, since NIR holds no step, got None\. snnTorch"):
        from_nir(network)
    for dt_ms in (0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="`dt_ms` must be above 0"):
            from_nir(network, dt_ms=dt_ms)
    with pytest.raises(ValueError, match=r"`network` must be a nir.NIRGraph, or the path of a .nir file, got a LIF\."):
        from_nir(lif(5), dt_ms=1.0)
    with pytest.raises(FileNotFoundError):
        from_nir(tmp_path / "none.nir", dt_ms=1.0)
    for data in (b"", b"no HDF5", b"\x89HDF\r\n\x1a\n"):
        (tmp_path / "n.nir").write_bytes(data)
        with pytest.raises(ValueError, match=r"`n.nir` must be a NIR file, got one that fails"):
            from_nir(tmp_path / "n.nir", dt_ms=1.0)


ODD = ("text", np.zeros(0), np.array([b"x"]), np.inf, None, np.array([[1 + 2j]]))


def test_an_edited_file_is_refused_or_harmless(tmp_path):
    """Any field replaced by something else, or gone: one kind of error."""
    network = chain([2, 4, 4], conv(np.ones((2, 2, 3, 3)), size=(4, 4)), lif((2, 2, 2)), nir.AvgPool2d(2, 2, 0),
                    nir.Flatten(np.array([2, 1, 1]), 0), nir.Linear(np.ones((5, 2))), nir.Scale(UNEVEN), cuba(5),
                    nir.Threshold(UNEVEN))  # fmt: skip
    path, fields, refused = tmp_path / "n.nir", [], 0
    nir.write(path, network)
    whole = path.read_bytes()
    with h5py.File(path) as file:
        file["node"].visititems(lambda key, item: fields.append(key) if isinstance(item, h5py.Dataset) else None)
    for key in fields:
        for odd in ODD:
            path.write_bytes(whole)
            with h5py.File(path, "a") as file:
                del file["node"][key]
                if odd is not None:
                    file["node"][key] = odd
            try:
                assert from_nir(path, dt_ms=DT_MS).n_in == 32
            except ValueError:
                refused += 1
    assert len(fields) > 40
    assert refused > 0.5 * len(fields) * len(ODD)


def test_a_matrix_too_large_is_refused(monkeypatch):
    network = chain([2, 5, 5], conv(np.ones((3, 2, 3, 3))), nir.Linear(np.ones((4, 27))), lif(4))
    monkeypatch.setattr("suspike.interop._maps.LARGEST", 50 * 27)
    from_nir(network, dt_ms=DT_MS)
    monkeypatch.setattr("suspike.interop._maps.LARGEST", 50 * 27 - 1)
    with pytest.raises(
        ValueError, match=r"written out as a matrix` must be of at most 1349 weights, got 50 x 27\. Put"
    ):
        from_nir(network, dt_ms=DT_MS)


def test_without_nir_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(ImportError, match=r"suspike\[export\]"):
        from_nir("n.nir", dt_ms=1.0)
