"""Samples of different lengths in one batch: padding reaches no output, state, gradient, loss, gate or count."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from suspike_testing.comparing import assert_close
from suspike_testing.zoo import (
    FIRING,
    KINDS,
    N_IN,
    PAIRS,
    N,
    input_for,
    make_counts,
    make_front,
    make_layer,
    make_start,
    on_path,
    run_all,
    tensors_of,
)
from torch import Tensor

import suspike as su
from suspike import losses, nn
from suspike.train import evaluate, open_fraction
from suspike_kernels.layout import Events

N_TIME = 12
LENGTHS = torch.tensor([12, 5, 0, 1])
EPSILON = 1e-9


def running(n_steps: Tensor = LENGTHS, n_time: int = N_TIME) -> Tensor:
    return torch.arange(n_time)[:, None, None] < n_steps[:, None]


def given(kind: str, counts: Tensor) -> tuple[Any, dict[str, Tensor]]:
    """An input with lengths; a dense one holds NaN behind them, which may do nothing."""
    if kind in ("event", "lists"):
        return input_for(kind, counts * running(), LENGTHS), {}
    return torch.where(running(), counts, torch.nan), {"n_steps": LENGTHS}


def dense(out: Any) -> Tensor:
    return out.dense() if isinstance(out, su.Spikes) else out


def sample(state: Any, b: int) -> Any:
    return type(state)(*(x[[b]] for x in state[:-1]), state.t)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("neuron", "gate"), PAIRS)
def test_a_sample_has_what_it_would_have_alone(neuron: str, gate: str, kind: str) -> None:
    layer, counts = make_layer(neuron, gate), make_counts(N_TIME, len(LENGTHS))
    start = make_start(layer.neuron, len(LENGTHS))
    leaves = [*(p for p in layer.parameters() if p.requires_grad), *tensors_of(start).values()]
    weights = torch.randn((N_TIME, len(LENGTHS), N), generator=torch.Generator().manual_seed(0)).double()
    x, options = given(kind, counts)
    with on_path(kind):
        out, end = layer(x, start, **options)
    assert end.t == start.t + N_TIME
    if isinstance(out, su.Spikes):
        assert out.n_steps.tolist() == LENGTHS.tolist()
    out = dense(out)
    loss = (out * weights * running()).sum()
    alone = []
    for b, length in enumerate(LENGTHS.tolist()):
        with on_path("torch"):
            found, after = layer(counts[:length, [b]], sample(start, b))
        assert (out[:length, b] == found[:, 0]).all()
        held = torch.zeros(N) if neuron in FIRING else end.v[b]
        assert (out[length:, b] == held).all()
        for name, value in tensors_of(after).items():
            assert (getattr(end, name)[b] == value[0]).all(), name
        alone.append((found * weights[:length, [b]]).sum() + sum(3 * x.sum() for x in tensors_of(after).values()))
    loss = loss + sum(3 * x.sum() for x in tensors_of(end).values())
    by, wanted = (torch.autograd.grad(x, leaves, allow_unused=True) for x in (loss, sum(alone)))
    floor = EPSILON * max(float(g.norm()) for g in wanted if g is not None)
    for g, w, leaf in zip(by, wanted, leaves, strict=True):
        found, hoped = (torch.zeros_like(leaf) if x is None else x for x in (g, w))
        assert_close(found.numpy(), hoped.numpy(), EPSILON, floor=floor)


@pytest.mark.parametrize(("neuron", "gate"), PAIRS)
def test_paths_agree_in_all_gradients(neuron: str, gate: str) -> None:
    """Those by a readout's membrane behind the end too, which stays, and by the spikes of a layer before."""
    counts, front = make_counts(N_TIME, len(LENGTHS)) * running(), make_front()
    layer = make_layer(neuron, gate)
    wanted = run_all(layer, "torch", counts, front=front, n_steps=LENGTHS)
    floor = EPSILON / 10 * max(float(g.norm()) for g in wanted.by.values())
    for kind in KINDS[:-1]:
        found = run_all(layer, kind, counts, front=front, n_steps=LENGTHS)
        assert (found.out == wanted.out).all()
        for name, g in wanted.by.items():
            assert_close(found.by[name].numpy(), g.numpy(), EPSILON, f"{kind} {name}", floor=floor)


@pytest.mark.parametrize("surrogate", [su.surrogate.Triangle(0.4), su.surrogate.ATan()])
@pytest.mark.parametrize("gate", ["none", "rhythm", "grouped", "drive", "periodic"])
def test_a_neuron_alone(gate: str, surrogate: Any) -> None:
    neuron = make_layer("CubaLIF", gate, surrogate=surrogate).neuron
    cur = torch.randn((N_TIME, len(LENGTHS), N), generator=torch.Generator().manual_seed(0)).double()
    cur = torch.where(running(), cur, torch.nan).requires_grad_()
    start = make_start(neuron, len(LENGTHS))
    out, end = neuron(cur, start, n_steps=LENGTHS)
    (by,) = torch.autograd.grad(out.sum() + end.v.sum(), cur)
    with nn.path("torch"):
        same, after = neuron(cur, start, n_steps=LENGTHS)
    (also,) = torch.autograd.grad(same.sum() + after.v.sum(), cur)
    assert (out == same).all()
    assert (end.spk == after.spk).all()
    assert_close(by.numpy(), also.numpy(), EPSILON)
    assert not by[~running()[..., 0]].any()
    assert out.sum() > 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gate", ["input", "recurrent", "drive"])
def test_what_a_gate_did_is_told_of_true_steps(gate: str, kind: str) -> None:
    layer, counts = make_layer("LIF", gate), make_counts(N_TIME, len(LENGTHS))
    x, options = given(kind, counts)
    with on_path(kind), su.record(layer) as rec:
        layer(x, **options)
    use = rec[""].gate
    assert rec[""].n_steps.tolist() == LENGTHS.tolist()
    n_open = 0.0
    for b, length in enumerate(LENGTHS.tolist()):
        with on_path("torch"), su.record(layer) as single:
            layer(counts[:length, [b]])
        assert (use.open_at[b, :length] == single[""].gate.open_at[0]).all()
        assert not use.open_at[b, length:].any()
        assert_close(use.share[b].detach().numpy(), single[""].gate.share[0].detach().numpy(), 1e-12)
        n_open += float(single[""].gate.share[0].detach().sum()) * length
    budget = losses.update_budget(use, 0.0)
    assert float(budget.detach()) == pytest.approx((n_open / (N * int(LENGTHS.sum()))) ** 2, rel=1e-12)
    (by,) = torch.autograd.grad(budget, [layer.neuron.gate.bias if gate != "drive" else layer.neuron.gate.log_kappa])
    assert by.any()


def camera_net() -> nn.Stack:
    torch.manual_seed(0)
    net = nn.Stack(
        nn.ChannelsLast((6, 6), 2),
        nn.Conv2d((6, 6), 2, 3, 3, nn.LIF(4 * 4 * 3, beta=0.9, threshold=0.5)),
        nn.Pool2d((4, 4), 3, 2, mode="sum"),
        nn.EventDropout(0.3),
        nn.Skip(nn.Dense(12, 12, nn.LIF(12, beta=0.9, threshold=0.5, gate=nn.RhythmGate(12, open=0.5, n_steps=20)))),
        nn.Dense(12, 4, nn.LI(4, beta=0.9)),
    )
    return net.eval()


def camera_events(n_steps: Tensor, *, seed: int = 0, density: float = 0.1) -> Tensor:
    drawn = torch.rand((N_TIME, len(n_steps), 72), generator=torch.Generator().manual_seed(seed))
    return (drawn < density).float() * running(n_steps)


@pytest.mark.parametrize("kind", ["event", "dense"])
def test_lengths_go_through_a_whole_network(kind: str) -> None:
    net, counts = camera_net(), camera_events(LENGTHS)
    out, _ = net(su.Spikes.from_dense(counts, LENGTHS)) if kind == "event" else net(counts, n_steps=LENGTHS)
    for b, length in enumerate(LENGTHS.tolist()):
        alone, _ = net(su.Spikes.from_dense(counts[:length, [b]]))
        assert_close(out[:length, b].detach().numpy(), alone[:, 0].detach().numpy(), 1e-5)
        assert (out[length:, b] == out[max(length - 1, 0), b]).all() or not length


def padded(more: int = 7) -> tuple[su.Spikes, su.Spikes]:
    """A batch, and the same with padding behind it."""
    counts = camera_events(torch.full((4,), N_TIME))
    longer = torch.cat([counts, torch.zeros(more, *counts.shape[1:])])
    return su.Spikes.from_dense(counts), su.Spikes.from_dense(longer, torch.full((4,), N_TIME))


def test_padding_changes_no_figure() -> None:
    net = camera_net()
    batch, longer = padded()
    rows, same = su.summary(net, batch).rows, su.summary(net, longer).rows
    assert rows == same
    noisy = torch.where(running(longer.n_steps, longer.shape[0]), longer.dense(), 1.0)
    assert su.summary(net, noisy, longer.n_steps).rows == rows
    assert rows[0].rate > 0.01
    assert open_fraction(net, batch) == pytest.approx(open_fraction(net, longer), rel=1e-6)
    with su.record(net) as rec:
        net(batch)
        spikes = rec["1"].spikes
        net(longer)
        late = rec["1"].spikes
    for loss in (losses.spike_counts, losses.first_spike_times, losses.rate_penalty):
        options = {"upper": 0.01} if loss is losses.rate_penalty else {}
        np.testing.assert_allclose(loss(late, **options).detach(), loss(spikes, **options).detach(), rtol=1e-6)


def test_padding_changes_no_start() -> None:
    found = []
    for batch in padded():
        torch.manual_seed(0)
        gates = [nn.InputGate(72, 32, open=0.4), nn.DriveGate(32, open=0.4)]
        net = nn.Stack(
            nn.Dense(72, 32, nn.LIF(32, beta=0.9, gate=gates[0])),
            nn.Dense(32, 32, nn.LIF(32, beta=0.9, gate=gates[1])),
        )
        found.append((su.nn.start_at_rate(net, batch, rate=0.1), gates[0].bias, gates[1].log_kappa))
    assert found[0][0] == found[1][0]
    assert (found[0][1] == found[1][1]).all()
    assert (found[0][2] == found[1][2]).all()


def test_padding_changes_no_score() -> None:
    net, labels = camera_net(), torch.tensor([0, 1, 2, 3])
    (plain, long) = ([(batch, labels)] for batch in padded())
    found, wanted = evaluate(net, long), evaluate(net, plain)
    assert found.loss == pytest.approx(wanted.loss, rel=1e-6)
    assert (found.predictions == wanted.predictions).all()


def test_padding_changes_no_bill() -> None:
    torch.manual_seed(0)
    gate = nn.RhythmGate(20, open=0.5, n_steps=N_TIME)
    net = nn.Stack(
        nn.Dense(72, 20, nn.LIF(20, beta=0.9, gate=gate), recurrent=True), nn.Dense(20, 4, nn.LI(4, beta=0.9))
    )
    graph, _ = su.convert.to_graph(net, dt_ms=1.0)
    batch, longer = padded()
    lengths = longer.n_steps.numpy()
    for target in ("cpu", "reference"):
        wanted = su.simulate.simulate(graph, batch.events, target=target)
        found = su.simulate.simulate(graph, longer.events, n_steps=lengths, target=target)
        assert found.counts == wanted.counts
        np.testing.assert_array_equal(found.output[:N_TIME], wanted.output)
        np.testing.assert_array_equal(found.output[N_TIME:], np.broadcast_to(wanted.output[-1], (7, 4, 4)))
    with pytest.raises(ValueError, match=r"`n_steps` must be from 0 to T = 19, got 20 at sample 0"):
        su.simulate.simulate(graph, longer.events, n_steps=lengths + 8)
    with pytest.raises(ValueError, match=r"`n_steps` must be whole numbers of shape \[4\], got int64 of shape \[1\]"):
        su.simulate.simulate(graph, longer.events, n_steps=lengths[:1])
    with pytest.raises(ValueError, match=r"`events` must be before the end of their sample, `n_steps`, got"):
        su.simulate.simulate(graph, longer.events, n_steps=lengths - 3)


def test_lengths_are_kept_and_compared() -> None:
    counts = (torch.rand(5, 2, 3) < 0.5).float() * running(torch.tensor([5, 2]), 5)
    spikes = su.Spikes.from_dense(counts, torch.tensor([5, 2], dtype=torch.int32))
    assert spikes.n_steps.dtype == torch.int64
    assert (spikes + spikes).n_steps.tolist() == [5, 2]
    for others in (None, torch.tensor([5, 3])):
        with pytest.raises(ValueError, match="`other` must be of the same lengths `n_steps`, got others"):
            spikes + replace(spikes, n_steps=others)
    for again in (pickle.loads(pickle.dumps(spikes)), copy.deepcopy(spikes), spikes.to("cpu")):
        assert again.n_steps.tolist() == [5, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_may_change_before_the_backward_pass(kind: str) -> None:
    """A buffer of lengths that is filled anew for each batch: what a layer was given stays."""
    found = []
    for refill in (False, True):
        layer, buffer = make_layer("LIF", "rhythm"), torch.stack([LENGTHS, LENGTHS], 1).int()
        counts, lengths = make_counts(N_TIME, len(LENGTHS)) * running(), buffer[:, 1]  # not contiguous, not int64
        with on_path(kind):
            x = input_for(kind, counts, lengths)
            out, _ = layer(x) if isinstance(x, su.Spikes) else layer(x, n_steps=lengths)
        if refill:
            buffer.fill_(10**6)
        dense(out).sum().backward()
        found.append([p.grad for p in layer.parameters() if p.grad is not None])
    assert len(found[0]) > 4
    assert all((a == b).all() for a, b in zip(*found, strict=True))


def test_wrong_lengths_put_into_spikes_are_found() -> None:
    layer, spikes = make_layer("LIF", "none", dtype=torch.float32), su.Spikes.silence(3, 2, N_IN)
    with pytest.raises(ValueError, match="`n_steps` must be from 0 to T = 3, got 4 at sample 1"):
        layer(replace(spikes, n_steps=torch.tensor([3, 4])))


def test_a_module_that_keeps_a_state_takes_lengths_or_is_named() -> None:
    class Deaf(torch.nn.Module):
        def __init__(self, body: nn.Dense) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: Any, state: Any = None) -> Any:
            return self.body(x, state)

    class Open(Deaf):
        def forward(self, x: Any, state: Any = None, **options: Any) -> Any:  # type: ignore[override]
            return self.body(x, state, **options)

    layer, counts = make_layer("LIF", "none"), make_counts(N_TIME, len(LENGTHS))
    wanted, _ = layer(counts, n_steps=LENGTHS)
    assert (nn.Stack(Open(layer))(counts, n_steps=LENGTHS)[0] == wanted).all()
    with pytest.raises(ValueError, match="`n_steps` must be taken by every module that keeps a state, got a Deaf"):
        nn.Stack(Deaf(layer))(counts, n_steps=LENGTHS)
    spikes = su.Spikes.from_dense(counts * running(), LENGTHS)
    assert (nn.Stack(Deaf(layer))(spikes)[0].dense() == wanted).all(), "lists bring theirs along"


def test_a_soft_gate() -> None:
    torch.manual_seed(0)
    layer = nn.Dense(N_IN, N, nn.LIF(N, beta=0.9, threshold=0.3, gate=nn.SoftGate(N, open=0.5, n_steps=20))).double()
    counts = make_counts(N_TIME, len(LENGTHS))
    out, end = layer(torch.where(running(), counts, torch.nan), n_steps=LENGTHS)
    assert out.sum() > 10
    for b, length in enumerate(LENGTHS.tolist()):
        alone, after = layer(counts[:length, [b]])
        assert (out[:length, b] == alone[:, 0]).all()
        assert not out[length:, b].any()
        assert (end.v[b] == after.v[0]).all()


@pytest.mark.parametrize("kind", ["event", "fused", "lists"])
def test_a_convolution(kind: str) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d((6, 6), 2, 3, 3, nn.LIF(4 * 4 * 3, beta=0.9, threshold=0.5)).double()
    counts = camera_events(LENGTHS).double()
    by = []
    for path in (kind, "torch"):
        with on_path(path):
            x = input_for(path, counts, LENGTHS)
            out, end = layer(x) if isinstance(x, su.Spikes) else layer(x, n_steps=LENGTHS)
        out = dense(out)
        by.append([out.detach(), *torch.autograd.grad(out.sum() + end.v.sum(), list(layer.parameters()))])
    assert (by[0][0] == by[1][0]).all()
    for found, wanted in zip(by[0][1:], by[1][1:], strict=True):
        assert_close(found.numpy(), wanted.numpy(), EPSILON)


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_stretch(kind: str) -> None:
    """A sample that is over in the first stretch has no step in the second: its state stays."""
    layer, counts = make_layer("CubaLIF", "recurrent"), make_counts(N_TIME, len(LENGTHS)) * running()
    whole, end = layer(counts, n_steps=LENGTHS)
    state, parts = None, []
    for low, high in ((0, 5), (5, N_TIME)):
        left = (LENGTHS - low).clamp(0, high - low)
        with on_path(kind):
            x = input_for(kind, counts[low:high], left)
            out, state = layer(x, state) if isinstance(x, su.Spikes) else layer(x, state, n_steps=left)
        parts.append(dense(out))
    assert (torch.cat(parts) == whole).all()
    for name, value in tensors_of(end).items():
        assert (getattr(state, name) == value).all(), name


def test_losses_take_the_lengths_that_spikes_hold() -> None:
    counts = make_counts(N_TIME, len(LENGTHS), dtype=torch.float32) * running()
    spikes = su.Spikes.from_dense(counts, LENGTHS)
    assert (losses.spike_counts(spikes) == counts.sum(0)).all()
    rate = counts.sum((0, 1)) / LENGTHS.sum()
    assert_close(losses.rate_penalty(spikes, lower=1.0).numpy(), ((1 - rate).clamp_min(0) ** 2).mean().numpy(), 1e-6)
    first = torch.where(counts > 0, torch.arange(N_TIME)[:, None, None], LENGTHS[:, None]).amin(0)
    assert (losses.first_spike_times(spikes) == first).all()
    assert (losses.spike_counts(spikes, LENGTHS) == counts.sum(0)).all()
    with pytest.raises(ValueError, match="`n_steps` must be left out beside Spikes, which hold their own, got others"):
        losses.spike_counts(spikes, LENGTHS.flip(0))


def test_bad_lengths() -> None:
    events = Events(np.array([[0, 1, 1, 2]]), np.array([0, 1], np.int32), 2)
    with pytest.raises(ValueError, match="`events` must be before the end of their sample, `n_steps`, got 1 behind it"):
        su.Spikes.from_events(events, torch.tensor([2]))
    with pytest.raises(ValueError, match=r"`n_steps` must be from 0 to T = 3, got 4 at sample 0"):
        su.Spikes.from_events(events, torch.tensor([4]))
    layer = make_layer("LIF", "none", dtype=torch.float32)
    spikes, counts = su.Spikes.silence(3, 2, N_IN), torch.zeros(3, 2, N_IN)
    with pytest.raises(ValueError, match=r"`n_steps` must be left out beside Spikes, which hold their own"):
        layer(spikes, n_steps=torch.tensor([3, 3]))
    with pytest.raises(ValueError, match=r"`n_steps` must be left out beside Spikes, which hold their own"):
        nn.Stack(layer)(spikes, n_steps=torch.tensor([3, 3]))
    with pytest.raises(ValueError, match=r"`n_steps` must be a Tensor of 2 whole numbers, got a list"):
        layer(counts, n_steps=[3, 3])
    for bad, rule in ((torch.tensor([3.0, 2.0]), "whole numbers"), (torch.tensor([3]), "whole numbers"),
                      (torch.tensor([-1, 3]), "from 0 to T = 3")):  # fmt: skip
        for run in (layer, nn.Stack(layer)):
            with pytest.raises(ValueError, match=f"`n_steps` must be {rule}"):
                run(counts, n_steps=bad)
        with pytest.raises(ValueError, match=f"`n_steps` must be {rule}"):
            layer.neuron(torch.zeros(3, 2, N), n_steps=bad)
