"""The modules as citizens of torch on each of their paths: copied, cast, compiled, cut and checked."""

from __future__ import annotations

import copy
import pickle
import shutil
from typing import Any

import pytest
import torch
from suspike_testing.comparing import assert_close, assert_same_bits
from suspike_testing.nets import dense_of
from suspike_testing.zoo import (
    KINDS,
    PAIRS,
    N,
    input_for,
    make_counts,
    make_layer,
    make_start,
    on_path,
    tensors_of,
    to_grid,
)
from torch import Tensor

import suspike as su
from suspike import nn

FIRED = [p for p in PAIRS if p in [("LIF", "none"), ("AdLIF", "recurrent"), ("CubaLIF", "rhythm"), ("CubaLI", "input")]]


def small_net(dtype: torch.dtype = torch.float32) -> nn.Stack:
    """A data gate, a rhythm and a readout, of three kinds of neurons."""
    torch.manual_seed(2)
    net = nn.Stack(
        make_layer("AdLIF", "recurrent"),
        nn.Dense(N, 8, nn.CubaLIF(8, beta=0.9, alpha=0.7, threshold=0.5, gate=nn.RhythmGate(8, open=0.5))),
        nn.Dense(8, 3, nn.CubaLI(3, beta=0.8, alpha=0.5)),
    ).to(dtype)
    to_grid(net)
    return net


def output(net: torch.nn.Module, kind: str = "event", seed: int = 0) -> Any:
    dtype = next(net.parameters()).dtype
    with torch.no_grad(), on_path(kind):
        return dense_of(net(input_for(kind, make_counts(dtype=dtype, seed=seed)))[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("duplicate", ["deepcopy", "pickle", "state_dict", "double"])
def test_a_copy_computes_the_same(duplicate: str, kind: str) -> None:
    net = small_net()
    wanted = output(net, kind)
    if duplicate == "state_dict":
        other = small_net()
        with torch.no_grad():
            for x in [*other.parameters(), *other.buffers()]:
                x.add_(1)
        assert (output(other, kind) != wanted).any()
        assert not other.load_state_dict(net.state_dict()).missing_keys
    else:
        other = {"deepcopy": copy.deepcopy, "pickle": lambda x: pickle.loads(pickle.dumps(x)),
                 "double": lambda x: copy.deepcopy(x).double().float()}[duplicate](net)  # fmt: skip
    assert_same_bits(output(other, kind), wanted)
    assert wanted.any()


def test_a_double_network_equals_a_float_one_on_all_paths() -> None:
    double, single = small_net().double(), small_net()
    spk = double[0](make_counts())[0]
    assert torch.equal(spk, single[0](make_counts().float())[0].double())
    wanted = output(double, "torch")
    assert wanted.dtype == "float64"
    for kind in KINDS:
        assert_same_bits(output(double, kind), wanted)
        assert_close(output(single, kind).astype("float64"), wanted, 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_leaves_states_and_spikes_alone(kind: str) -> None:
    """A product in bfloat16 rounds its sums, but neither the type of what is kept nor the event path's own sums."""
    net, x = small_net(), make_counts(dtype=torch.float32)
    with on_path(kind):
        wanted, ends = net(input_for(kind, x))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out, states = net(input_for(kind, x))
            first = net[0](input_for(kind, x))[0]
    assert out.dtype == torch.float32
    assert all(v.dtype == torch.float32 for s in states for v in tensors_of(s).values())
    assert set(dense_of(first).ravel()) == {0.0, 1.0}
    assert dense_of(first).dtype == "float32"
    if kind == "event":
        assert_same_bits(out.detach().numpy(), wanted.detach().numpy())
        for a, b in zip(states, ends, strict=True):
            assert_same_bits(a.v.detach().numpy(), b.v.detach().numpy())
    out.sum().backward()
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in net.parameters())
    assert net[0].weight.grad is not None


def test_autocast_changes_nothing_where_bfloat16_holds_every_sum() -> None:
    """Weights of a few bits: every product and sum is exact in bfloat16, and all paths give the same spikes."""
    layer = nn.Dense(6, 5, nn.LIF(5, beta=0.9, threshold=0.7), bias=False)
    torch.manual_seed(0)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-4, 8, (6, 5)) / 16)
    x = make_counts(30, 3, dtype=torch.float32)
    wanted, _ = layer(x)
    assert wanted.sum() > 30
    for kind in KINDS:
        with on_path(kind), torch.autocast("cpu", dtype=torch.bfloat16):
            assert_same_bits(dense_of(layer(input_for(kind, x))[0]), wanted.detach().numpy())


def test_without_gradient_there_are_no_active_lists() -> None:
    for path in ("event", "fused"):
        layer, spikes = make_layer("CubaLIF", "input"), su.Spikes.from_dense(make_counts())
        with nn.path(path):
            with torch.no_grad():
                out, _ = layer(spikes)
            assert len(out.events.idx) > 10
            assert not len(out.active.idx)
            assert len(layer(spikes)[0].active.idx) > 10


@pytest.mark.parametrize("kind", KINDS)
def test_batches_and_threads_may_change(kind: str) -> None:
    net, n_threads = small_net(), torch.get_num_threads()
    x = make_counts(20, 5, dtype=torch.float32)
    try:
        with on_path(kind):
            wanted, _ = net(input_for(kind, x))
            for n in (1, 2):
                torch.set_num_threads(n)
                for batch in (slice(0, 5), slice(1, 3), slice(4, 5), slice(0, 0)):
                    out, states = net(input_for(kind, x[:, batch]))
                    assert out.shape == (20, len(x[0, batch]), 3)
                    assert_same_bits(out.detach().numpy(), wanted[:, batch].detach().numpy())
                    assert {s.t for s in states} == {20}
    finally:
        torch.set_num_threads(n_threads)


@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("g++")), reason="torch.compile needs a C++ compiler here")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["event", "torch"])
def test_a_compiled_network_gives_the_same(kind: str) -> None:
    torch.compiler.reset()
    net, x = small_net()[:1] if kind == "torch" else small_net(), make_counts(6, 2, dtype=torch.float32)
    compiled = torch.compile(net, backend="aot_eager")
    found = []
    for module in (net, compiled):
        net.zero_grad()
        with on_path(kind):
            out, _ = module(input_for(kind, x))
        (out.dense() if isinstance(out, su.Spikes) else out).square().sum().backward()
        found.append((out.detach(), {k: p.grad for k, p in net.named_parameters()}))
    assert found[0][0].any()
    assert_same_bits(found[1][0].numpy(), found[0][0].numpy())
    for name, g in found[0][1].items():
        assert (g is None) == (found[1][1][name] is None), name
        if g is not None:
            assert_close(found[1][1][name].numpy(), g.numpy(), 1e-5, name, floor=1e-6)
    torch.compiler.reset()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("neuron", "gate"), FIRED)
def test_truncated_backpropagation_stops_at_the_cut(neuron: str, gate: str, kind: str) -> None:
    """A detached state has the same bits and sends nothing back: the gradient is that of the last stretch alone."""
    layer, x = make_layer(neuron, gate), make_counts()
    weights = [p for p in layer.parameters() if p.requires_grad]
    start = make_start(layer.neuron)

    def run(part: Tensor, state: Any) -> Any:
        with on_path(kind):
            out, state = layer(input_for(kind, part), state)
        return (out if isinstance(out, Tensor) else out.dense()), state

    _, middle = run(x[:6], start)
    cut = middle.detach()
    assert type(cut) is type(middle)
    assert cut.t == middle.t == 11
    for name, v in tensors_of(cut).items():
        assert not v.requires_grad
        assert_same_bits(v.numpy(), getattr(middle, name).detach().numpy())
    alone = type(cut)(*[v.clone() for v in tensors_of(cut).values()], cut.t)
    by = []
    for state in (cut, alone):
        out, end = run(x[6:], state)
        by.append(torch.autograd.grad(out.sum() + end.v.square().sum(), weights, allow_unused=True))
    for a, b in zip(*by, strict=True):
        assert a is b is None or torch.equal(a, b)
    out, _ = run(x[6:], cut)
    (by_start,) = torch.autograd.grad(out.sum(), start.v, allow_unused=True)
    assert by_start is None


@pytest.mark.parametrize("path", ["event", "fused", "torch"])
@pytest.mark.parametrize("neuron", ["LI", "CubaLI"])
def test_gradients_of_a_readout_are_derivatives(neuron: str, path: str) -> None:
    """Nothing in a readout is a surrogate: weights, bias, leaks and state by finite differences."""
    layer, x = make_layer(neuron, "none"), make_counts(5)
    names, start = [k for k, _ in layer.named_parameters()], make_start(layer.neuron)

    def run(*given: Tensor) -> tuple[Tensor, ...]:
        state = layer.neuron.state(*given[: len(start) - 1], 5)
        parameters = dict(zip(names, given[len(start) - 1 :], strict=True))
        with nn.path(path):
            out, end = torch.func.functional_call(layer, parameters, (x, state))
        return out, *tensors_of(end).values()

    given = [*start[:-1], *(p.detach().clone().requires_grad_() for p in layer.parameters())]
    assert torch.autograd.gradcheck(run, given, fast_mode=True)
