"""The event path against plain torch: the same spikes bit for bit, the same gradients."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from suspike_testing.comparing import assert_close, assert_same_bits
from suspike_testing.nets import (
    KINDS,
    dense_of,
    gradients,
    input_for,
    make_input,
    make_net,
    make_state,
    on_path,
    run_layers,
)

import suspike as su

EPSILON = {torch.float32: 1e-5, torch.float64: 1e-12}


def both_paths(events: su.Events, dtype: torch.dtype) -> tuple[su.Spikes, torch.Tensor]:
    return su.Spikes.from_events(events), torch.from_numpy(events.dense()).to(dtype)


def compare(net: su.nn.Stack, events: su.Events, dtype: torch.dtype) -> tuple[list[Any], dict[str, np.ndarray]]:
    """Run all paths from a state away from rest; return the event path's outputs and torch's gradients."""
    spikes, dense = both_paths(events, dtype)
    with on_path("torch"):
        wanted = gradients(net, dense, make_state(net, events.n_samples))
    outs, after, by = gradients(net, spikes, make_state(net, events.n_samples))
    compare_runs((outs, after, by), wanted, dtype)
    with on_path("fused"):
        compare_runs(gradients(net, dense, make_state(net, events.n_samples)), wanted, dtype)
    return outs, wanted[2]


def compare_runs(found: Any, wanted_run: Any, dtype: torch.dtype) -> None:
    """Equal outputs and states, gradients close: each of a run is what `gradients` returns."""
    (outs, after, by), (wanted_outs, wanted_after, wanted_by) = found, wanted_run
    for i, (out, wanted) in enumerate(zip(outs, wanted_outs, strict=True)):
        assert_same_bits(dense_of(out), dense_of(wanted), f"output {i}")
    for i, (state, wanted) in enumerate(zip(after, wanted_after, strict=True)):
        for name in state._fields:
            a, b = getattr(state, name), getattr(wanted, name)
            assert a == b if name == "t" else (a.detach() == b.detach()).all(), f"{name} of layer {i}"
    floor = 10 * torch.finfo(dtype).eps * max(np.linalg.norm(g) for g in wanted_by.values())
    for name, wanted in wanted_by.items():
        assert_close(by[name], wanted, EPSILON[dtype], name, floor=floor)


def test_paths_agree() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(
        n_steps=st.sampled_from([20, 5, 1, 0]),
        n_samples=st.sampled_from([4, 3, 1]),
        density=st.sampled_from([0.15, 0.5, 0.0]),
        gate=st.booleans(),
        learn_periods=st.booleans(),
        recurrent=st.booleans(),
        reset=st.sampled_from(["zero", "subtract", "none"]),
        dtype=st.sampled_from([torch.float32, torch.float64]),
        seed=st.integers(0, 2**16),
    )
    def check(n_steps: int, n_samples: int, density: float, seed: int, dtype: torch.dtype, **kind: Any) -> None:
        net = make_net(dtype=dtype, seed=seed, **kind)
        outs, _ = compare(net, make_input(n_steps, n_samples, density=density, seed=seed), dtype)
        for i in (0, 1):
            seen[f"spikes {i}"] += len(outs[i].events.idx)
            seen[f"active {i}"] += len(outs[i].active.idx)

    check()
    assert min(seen.values()) > 1000, seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
def test_every_parameter_takes_a_gradient(reset: str, dtype: torch.dtype) -> None:
    net = make_net(reset=reset, learn_periods=True, dtype=dtype)
    outs, by = compare(net, make_input(40, 6), dtype)
    assert min(len(out.events.idx) for out in outs[:2]) > 50
    names = {name.split(".", 1)[1] for name in by if "." in name}
    assert names == {
        "weight", "recurrent", "bias", "neuron.leak.raw", "neuron.level.log",
        "neuron.gate.bias", "neuron.gate.amplitude", "neuron.gate.phase", "neuron.gate.log_period",
    }  # fmt: skip
    for name, gradient in by.items():
        assert np.abs(gradient).max() > 1e-4, name


def test_a_batch_size_that_changes() -> None:
    net = make_net()
    for n_samples in (4, 1, 3, 0):
        spikes, dense = both_paths(make_input(10, n_samples), torch.float32)
        (out, state), (wanted, _) = net(spikes), net(dense)
        assert out.shape == (10, n_samples, 3)
        assert_same_bits(out.detach().numpy(), wanted.detach().numpy())
        assert state[0].t == 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", [0, 1, 8, 20])
def test_two_stretches_equal_one(kind: str, cut: int) -> None:
    net = make_net(dtype=torch.float64)
    counts = torch.from_numpy(make_input(20).dense()).double()

    def run(x: torch.Tensor, state: Any) -> Any:
        with on_path(kind):
            return run_layers(net, input_for(kind, x), state)

    def leaves(state: Any) -> list[torch.Tensor]:
        return [*net.parameters(), *(x for s in state for x in s if isinstance(x, torch.Tensor))]

    def total(outs: list[torch.Tensor], state: Any) -> torch.Tensor:
        weights = [
            torch.randn(o.shape, generator=torch.Generator().manual_seed(i)).double() for i, o in enumerate(outs)
        ]
        ends = sum(s.v.sum() for s in state) + sum(s.spk.square().sum() for s in state[:2])
        return sum(((o * w).sum() for o, w in zip(outs, weights, strict=True)), ends)

    def to_dense(outs: list[Any]) -> list[torch.Tensor]:
        return [o if isinstance(o, torch.Tensor) else o.dense() for o in outs]

    start = make_state(net, 4)
    outs, end = run(counts, start)
    whole = to_dense(outs)
    by = torch.autograd.grad(total(whole, end), leaves(start))
    first, middle = run(counts[:cut], start)
    second, end_of_both = run(counts[cut:], middle)
    both = [torch.cat(pair) for pair in zip(to_dense(first), to_dense(second), strict=True)]
    by_both = torch.autograd.grad(total(both, end_of_both), leaves(start))
    assert whole[0].sum() > 50
    for a, b in zip(both, whole, strict=True):
        assert_same_bits(a.detach().numpy(), b.detach().numpy())
    for a, b in zip(end_of_both, end, strict=True):
        assert_same_bits(a.v.detach().numpy(), b.v.detach().numpy())
        assert a[2:] == b[2:]
    assert end[0].t == 25
    for a, b in zip(by_both, by, strict=True):
        assert_close(a.numpy(), b.numpy(), 1e-11)


def test_two_runs_are_equal_to_the_last_bit() -> None:
    net = make_net()
    spikes = su.Spikes.from_events(make_input(30, 5))
    first = gradients(net, spikes, make_state(net, 5))
    again = gradients(net, spikes, make_state(net, 5))
    for a, b in zip(first[0], again[0], strict=True):
        assert_same_bits(dense_of(a), dense_of(b))
    for name, gradient in first[2].items():
        assert_same_bits(again[2][name], gradient, name)


def test_the_number_of_threads_changes_no_spike() -> None:
    net = make_net()
    spikes = su.Spikes.from_events(make_input(30, 5))
    n_threads, found = torch.get_num_threads(), []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            found.append(gradients(net, spikes, make_state(net, 5)))
    finally:
        torch.set_num_threads(n_threads)
    for other in found[1:]:
        for a, b in zip(other[0], found[0][0], strict=True):
            assert_same_bits(dense_of(a), dense_of(b))
        for name, gradient in found[0][2].items():
            assert_close(other[2][name], gradient, 1e-5, name)


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_samples_is_free(kind: str) -> None:
    net, order = make_net(), torch.tensor([3, 0, 4, 1, 2])
    counts = torch.from_numpy(make_input(20, 5).dense())
    with on_path(kind):
        outs, moved = (run_layers(net, input_for(kind, x), (None,) * 3)[0] for x in (counts, counts[:, order]))
    for a, b in zip(outs, moved, strict=True):
        assert_same_bits(dense_of(a)[:, order], dense_of(b))


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_neuron_keeps_state_and_gradient(kind: str) -> None:
    extremes = torch.tensor([-0.0, 0.0, 1e-45, -1e-40, 3e38, -3e38, 1.5])
    layer = su.nn.Dense(4, 7, su.nn.LIF(7, beta=0.9, gate=su.nn.RhythmGate(7, open=0.5)), recurrent=True)
    with torch.no_grad():
        layer.neuron.gate.bias.fill_(-1e3)
    v = extremes.repeat(2, 1).requires_grad_()
    spk = torch.ones(2, 7, requires_grad=True)
    counts = torch.full((9, 2, 4), 3.0)
    with on_path(kind):
        out, state = layer(input_for(kind, counts), su.nn.LIFState(v, spk, 0))
    assert not dense_of(out).any()
    assert_same_bits(state.v.detach().numpy(), v.detach().numpy())
    weights = torch.randn(2, 7)
    (state.v * weights).sum().backward()
    assert v.grad is not None
    assert_same_bits(v.grad.numpy(), weights.numpy())
    for name, parameter in layer.named_parameters():
        assert parameter.grad is None or not parameter.grad.any(), name


def test_a_neuron_alone_steps_as_it_runs() -> None:
    torch.manual_seed(0)
    neuron = su.nn.LIF(6, beta=0.9, gate=su.nn.RhythmGate(6, open=0.5), reset="subtract")
    cur = torch.rand(15, 2, 6)
    spk, end = neuron(cur)
    state, steps = neuron.initial_state(2), []
    for cur_t in cur:
        one, state = neuron.step(cur_t, state)
        steps.append(one)
    assert spk.sum() > 10
    assert_same_bits(torch.stack(steps).detach().numpy(), spk.detach().numpy())
    assert_same_bits(state.v.detach().numpy(), end.v.detach().numpy())
    assert state.t == end.t == 15
    readout = su.nn.LI(6, beta=0.8)
    out, last = readout(cur)
    assert_same_bits(last.v.numpy(), out[-1].numpy())
    assert_close(out[1].numpy(), (0.8 * cur[0] + cur[1]).numpy(), 1e-6)


def test_the_definition_written_out() -> None:
    """One neuron by hand: beta 1/2, threshold 1, steps of current 1, 1, 0, 1 with the gate shut at the third."""
    neuron = su.nn.LIF(1, beta=0.5, reset="subtract")
    cur = torch.tensor([1.0, 1.0, 0.0, 1.0]).reshape(4, 1, 1)
    spk, state = neuron(cur)
    # v~: 1 (not above threshold), 1.5 (fires, leaves 0.5), 0.25, 1.125 (fires, leaves 0.125)
    assert spk.flatten().tolist() == [0, 1, 0, 1]
    assert state.v.item() == 0.125
    assert state.spk.item() == 1
    zero, _ = su.nn.LIF(1, beta=0.5)(cur)
    assert zero.flatten().tolist() == [0, 1, 0, 0]
    none, end = su.nn.LIF(1, beta=0.5, reset="none")(cur)
    assert none.flatten().tolist() == [0, 1, 0, 1]
    assert end.v.item() == 1.375
