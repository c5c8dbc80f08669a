"""Conv2d: events against torch's own convolution, the same spikes bit for bit, the same gradients; what it refuses."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
from suspike_testing.cases import on_grid, random_events
from suspike_testing.comparing import assert_close, assert_same_bits
from suspike_testing.nets import KINDS, dense_of, input_for, on_path
from torch.nn.functional import conv2d

import suspike as su

SIZES: dict[str, dict[str, Any]] = {
    "plain": {"in_size": (5, 6), "in_channels": 2, "out_channels": 3, "kernel_size": 3},
    "padded": {"in_size": (4, 3), "in_channels": 1, "out_channels": 2, "kernel_size": 3, "padding": 1},
    "strided": {
        "in_size": (7, 6), "in_channels": 2, "out_channels": 4, "kernel_size": (3, 2), "stride": (2, 3),
        "padding": (1, 0),
    },
    "vectors": {
        "in_size": (3, 4), "in_channels": 2, "out_channels": 17, "kernel_size": (2, 3), "stride": (1, 2), "padding": 1,
    },
}  # fmt: skip

GATES = {
    "none": lambda n_in, n, c: None,
    "rhythm": lambda n_in, n, c: su.nn.RhythmGate(n, open=0.5, periods=(2.5, 7.0), n_steps=60, gate_width=0.75),
    "grouped rhythm": lambda n_in, n, c: su.nn.RhythmGate(n, open=0.5, n_steps=60, gate_width=0.75, group_size=c),
    "periodic": lambda n_in, n, c: su.nn.PeriodicGate(n, period=3),
    "input": lambda n_in, n, c: su.nn.InputGate(n_in, n, open=0.5, rate=0.2, group_size=c, recurrent=True),
    "drive": lambda n_in, n, c: su.nn.DriveGate(n, open=0.5, spread=0.6),
}


def make_conv(
    name: str = "plain", *, gate: str = "none", neuron: Any = su.nn.LIF, dtype: Any = torch.float64, seed: int = 0,
    bias: bool = True, **options: Any,
) -> su.nn.Conv2d:  # fmt: skip
    """A layer whose weights are on the grid."""
    torch.manual_seed(seed)
    sizes = {"stride": 1, "padding": 0} | SIZES[name]
    (h, w), c_in, c = sizes["in_size"], sizes["in_channels"], sizes["out_channels"]
    height, width = su.nn.conv_size((h, w), sizes["kernel_size"], stride=sizes["stride"], padding=sizes["padding"])
    n = height * width * c
    options = {"beta": 0.9, "learn_beta": True} | options
    if neuron is su.nn.LIF:
        options = {"threshold": 0.6, "learn_threshold": True} | options
    layer = su.nn.Conv2d(neuron=neuron(n, gate=GATES[gate](h * w * c_in, n, c), **options), bias=bias, **sizes)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(on_grid(rng.standard_normal(layer.weight.shape) * 0.4 + 0.1)))
        if layer.bias is not None:
            layer.bias.copy_(torch.from_numpy(on_grid(rng.uniform(0, 0.1, layer.bias.shape))))
        gate_ = layer.neuron.gate
        if isinstance(gate_, su.nn.InputGate):
            for p in gate_.parameters():
                p.copy_(torch.from_numpy(on_grid(rng.standard_normal(p.shape) * 0.2)))
    return layer.to(dtype)


def make_counts(layer: su.nn.Conv2d, n_steps: int = 12, n_samples: int = 3, density: float = 0.15) -> torch.Tensor:
    events = random_events(np.random.default_rng(n_steps), n_steps, n_samples, layer.n_in, density)
    return torch.from_numpy(events.dense()).to(layer.weight.dtype)


def run(layer: su.nn.Conv2d, kind: str, counts: torch.Tensor) -> tuple[Any, ...]:
    """Output, state, and gradients by every parameter and by the input (of the torch path)."""
    if kind != "event":
        counts = counts.clone().requires_grad_(kind == "torch")
    with on_path(kind):
        out, state = layer(input_for(kind, counts))
    dense = out if isinstance(out, torch.Tensor) else out.dense()
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(dense.shape, generator=generator, dtype=torch.float64).to(dense.dtype)
    loss = (dense * weights).sum() + (state.v**2).sum() + dense.sum(0).square().mean()
    by = torch.autograd.grad(loss, list(layer.parameters()), allow_unused=True)
    names = [name for name, _ in layer.named_parameters()]
    return dense_of(out), state, {n: None if g is None else g.numpy() for n, g in zip(names, by, strict=True)}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("gate", GATES)
def test_paths_agree(name: str, gate: str) -> None:
    for dtype, close in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        layer = make_conv(name, gate=gate, dtype=dtype)
        counts = make_counts(layer)
        wanted, state, by = run(layer, "torch", counts)
        assert wanted.sum() > 20
        for kind in ("event", "fused"):
            out, after, found = run(layer, kind, counts)
            assert_same_bits(out, wanted)
            for field in ("v", "spk"):
                assert_same_bits(getattr(after, field).detach().numpy(), getattr(state, field).detach().numpy())
            floor = 1e-7 if dtype == torch.float64 else 1e-4
            for key, gradient in by.items():
                if gradient is not None:
                    assert_close(found[key], gradient, close, key, floor=close * floor)
        for key in ("weight", "bias"):
            assert np.abs(by[key]).max() > 0.1


@pytest.mark.parametrize("neuron", [su.nn.CubaLIF, su.nn.AdLIF, su.nn.LI])
def test_every_neuron(neuron: Any) -> None:
    options = {su.nn.CubaLIF: {"alpha": 0.5}, su.nn.AdLIF: {"rho": 0.8, "threshold": 0.2, "beta": 0.6}}.get(neuron, {})
    layer = make_conv(neuron=neuron, **options)
    counts = make_counts(layer)
    wanted, _, by = run(layer, "torch", counts)
    assert wanted.any()
    for kind in ("event", "fused"):
        out, _, found = run(layer, kind, counts)
        assert_same_bits(out, wanted)
        for key, gradient in by.items():
            assert_close(found[key], gradient, 1e-9, key)


@pytest.mark.parametrize("name", SIZES)
def test_the_current_is_torchs_convolution(name: str) -> None:
    """Of a readout that remembers nothing: kernel [out, in, h, w], images [C, H, W], their channels first."""
    layer = make_conv(name, neuron=su.nn.LI, beta=1e-9, learn_beta=False)
    (h, w), c = layer.in_size, SIZES[name]["in_channels"]
    images = torch.randint(0, 3, (4, 2, c, h, w), generator=torch.Generator().manual_seed(0)).double()
    x = su.nn.ChannelsLast((h, w), c)(images)
    options = {key: SIZES[name].get(key, default) for key, default in (("stride", 1), ("padding", 0))}
    wanted = conv2d(images.flatten(0, 1), layer.weight.permute(3, 2, 0, 1), layer.bias, **options)
    assert wanted.shape[2:] == layer.out_size
    for kind in KINDS:
        with on_path(kind):
            out, _ = layer(input_for(kind, x))
        maps = out.reshape(8, *layer.out_size, -1).permute(0, 3, 1, 2)
        assert_close(maps.detach().numpy(), wanted.detach().numpy(), 1e-7)


def test_finite_differences() -> None:
    """A readout is smooth in its weights: its gradient is that of numbers."""
    layer = make_conv("strided", neuron=su.nn.LI)
    x = su.Spikes.from_dense(make_counts(layer, 6, 2))

    def loss(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        given = {"weight": weight, "bias": bias}
        out: torch.Tensor = torch.func.functional_call(layer, given, (x,))[0]
        return (out**2).sum()

    leaves = tuple(p.detach().clone().requires_grad_() for p in (layer.weight, layer.bias))
    assert torch.autograd.gradcheck(loss, leaves)


def test_layers_behind_one_another() -> None:
    """The gradient reaches the first layer through the active places of the second's input."""
    first, second = make_conv("plain"), None
    height, width = first.out_size
    neuron = su.nn.LIF(2 * (height + 1) * width, beta=0.8, threshold=0.5)
    second = su.nn.Conv2d((height, width), 3, 2, (2, 3), neuron, padding=(1, 1)).double()
    with torch.no_grad():
        second.weight.copy_(torch.from_numpy(on_grid(second.weight.numpy())))
    net, counts = su.nn.Stack(first, second), make_counts(first)
    found = {}
    for kind in ("event", "torch"):
        with on_path(kind):
            out, state = net(input_for(kind, counts))
        dense = out if isinstance(out, torch.Tensor) else out.dense()
        weights = torch.randn(dense.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        by = torch.autograd.grad((dense * weights).sum() + state[0].v.sum(), list(net.parameters()))
        found[kind] = dense_of(out), [g.numpy() for g in by]
    assert found["torch"][0].sum() > 20
    assert_same_bits(found["event"][0], found["torch"][0])
    for a, b in zip(found["event"][1], found["torch"][1], strict=True):
        assert np.abs(b).max() > 0.01
        assert_close(a, b, 1e-9)


@pytest.mark.parametrize("shape", [(0, 2), (3, 0), (0, 0)])
def test_no_step_and_no_sample(shape: tuple[int, int]) -> None:
    layer = make_conv()
    counts = torch.zeros(*shape, layer.n_in, dtype=torch.float64)
    for kind in KINDS:
        with on_path(kind):
            out, state = layer(input_for(kind, counts))
        assert out.shape == (*shape, layer.n_out)
        assert state.v.shape == (shape[1], layer.n_out)


def test_two_stretches_equal_one() -> None:
    layer = make_conv("strided", gate="rhythm")
    counts = make_counts(layer, 20)
    for kind in KINDS:
        with on_path(kind):
            whole, end = layer(input_for(kind, counts))
            first, middle = layer(input_for(kind, counts[:7]))
            second, end_of_both = layer(input_for(kind, counts[7:]), middle)
        both = np.concatenate([dense_of(first), dense_of(second)])
        assert_same_bits(both, dense_of(whole))
        assert_same_bits(end_of_both.v.detach().numpy(), end.v.detach().numpy())
        assert end_of_both.t == end.t == 20


def test_counts_take_the_event_path_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    layer = make_conv()
    with caplog.at_level("INFO"):
        out, _ = layer(make_counts(layer, density=0.05))
    assert isinstance(out, torch.Tensor)
    assert "Conv2d takes the event path" in caplog.text
    with torch.no_grad():
        assert isinstance(layer(su.Spikes.from_dense(make_counts(layer, density=0.05)))[0], su.Spikes)


def test_a_citizen_of_torch() -> None:
    layer = make_conv("strided", gate="grouped rhythm")
    x = su.Spikes.from_dense(make_counts(layer))
    wanted = dense_of(layer(x)[0])
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert_same_bits(dense_of(other(x)[0]), wanted)
    other = make_conv("strided", gate="grouped rhythm", seed=1)
    assert (dense_of(other(x)[0]) != wanted).any()
    other.load_state_dict(layer.state_dict())
    assert_same_bits(dense_of(other(x)[0]), wanted)
    assert "kernel_size=(3, 2), stride=(2, 3), padding=(1, 0)" in repr(layer)


def test_record_and_summary() -> None:
    first = make_conv("strided", gate="rhythm", dtype=torch.float32)
    second = su.nn.Dense(first.n_out, 3, su.nn.LI(3, beta=0.9))
    net, counts = su.nn.Stack(first, second), make_counts(first)
    spikes = su.Spikes.from_dense(counts)
    with su.record(net) as rec:
        net(spikes)
    assert list(rec) == ["0", "1"]
    row = su.summary(net, spikes).rows[0]
    assert row.kind == "Conv2d LIF"
    assert (row.n_in, row.n_out) == (first.n_in, first.n_out)
    reached = conv2d(  # a kernel of ones tells how many events reach each pixel, through all channels
        counts.reshape(-1, 7, 6, 2).permute(0, 3, 1, 2), torch.ones(1, 2, 3, 2), stride=(2, 3), padding=(1, 0)
    ).reshape(*counts.shape[:2], -1, 1).expand(-1, -1, -1, 4).flatten(2)  # fmt: skip
    is_open = first.neuron.gate(len(counts)).open[:, None]
    assert row.synops_done == pytest.approx(float((reached * is_open.detach()).sum()) / counts.shape[1])
    assert row.synops_done + row.synops_skipped == pytest.approx(float(reached.sum()) / counts.shape[1])
    assert row.active_share > 0.01
    gated = make_conv("plain", gate="input", dtype=torch.float32)
    assert su.summary(gated, su.Spikes.from_dense(make_counts(gated))).rows[0].synops_done is None
    driven = make_conv("plain", gate="drive", dtype=torch.float32)
    row = su.summary(driven, su.Spikes.from_dense(make_counts(driven))).rows[0]
    assert row.synops_done > 0
    assert row.synops_skipped == 0


def test_a_graph_holds_its_geometry_and_its_weights() -> None:
    conv = make_conv(dtype=torch.float32)
    (layer,) = su.convert.keep_floats(su.nn.Stack(conv), dt_ms=1.0).neurons
    assert layer.geometry == conv.geometry
    np.testing.assert_array_equal(layer.weight, conv.weight.detach())
    np.testing.assert_array_equal(layer.bias.reshape(-1, conv.geometry.out_channels)[0], conv.bias.detach())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neuron": su.nn.IF(12)}, "`neuron` must be of 3 x 4 pixels x 2 = 24 units, got 12 units."),
        ({"in_size": [5, 6]}, "`in_size` must be one or two whole numbers from 1, got [5, 6]."),
        ({"in_size": (5, 0)}, "`in_size` must be one or two whole numbers from 1, got (5, 0)."),
        ({"kernel_size": 7}, "`kernel_size` must be within the padded input of 5 x 6, got 7 x 7."),
        ({"kernel_size": (3, 3, 3)}, "`kernel_size` must be one or two whole numbers from 1, got (3, 3, 3)."),
        ({"kernel_size": 2.5}, "`kernel_size` must be one or two whole numbers from 1, got 2.5."),
        ({"stride": 0}, "`stride` must be one or two whole numbers from 1, got 0."),
        ({"padding": -1}, "`padding` must be one or two whole numbers from 0, got -1."),
        ({"in_channels": 0}, "`in_channels` must be at least 1, got 0."),
        ({"out_channels": 0}, "`out_channels` must be at least 1, got 0."),
        (
            {"neuron": su.nn.LIF(24, beta=0.9, gate=su.nn.InputGate(7, 24, open=0.5, group_size=2))},
            "`gate` must be of n_in = 60 units like its layer, got 7.",
        ),
    ],
)
def test_bad_sizes(options: dict[str, Any], message: str) -> None:
    good = {"in_size": (5, 6), "in_channels": 2, "out_channels": 2, "kernel_size": 3, "neuron": su.nn.IF(24)}
    su.nn.Conv2d(**good)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=re.escape(message)):
        su.nn.Conv2d(**good | options)  # type: ignore[arg-type]


def test_bad_input() -> None:
    layer = make_conv()
    with pytest.raises(ValueError, match=r"`x` must be of shape \[T, B, 60\], got shape \[2, 1, 2, 5, 6\]. Images"):
        layer(torch.zeros(2, 1, 2, 5, 6))
    with pytest.raises(ValueError, match=r"`x` must be of shape \[T, B, 60\], got shape \[2, 1, 7\]"):
        layer(su.Spikes.silence(2, 1, 7))
    with pytest.raises(ValueError, match=r"`state` must be of shape \[3, 36\], got"):
        layer(su.Spikes.silence(2, 3, 60), layer.neuron.initial_state(4))
    with pytest.raises(ValueError, match="`state` must be a LIFState, got a LIState"):
        layer(su.Spikes.silence(2, 3, 60), su.nn.LIState(torch.zeros(3, 36)))
