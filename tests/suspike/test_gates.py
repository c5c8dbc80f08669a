"""Gates: how often they open to begin with, how a loss moves them, what a record and a summary say of them."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from suspike_testing.comparing import assert_close
from suspike_testing.nets import dense_of
from suspike_testing.zoo import GATES, KINDS, N_IN, N, input_for, make_counts, make_layer, on_path, to_grid
from torch import Tensor

import suspike as su
from suspike import losses, nn
from suspike.inspect import record, summary

DATA_GATES = ("input", "recurrent", "drive")


def use_of(layer: nn.Dense, x: Any) -> nn.GateUse:
    """What a data gate did in a call of its layer."""
    with record(layer) as rec:
        layer(x)
    use = rec[""].gate
    assert isinstance(use, nn.GateUse)
    return use


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_an_input_gate_begins_near_its_share(share: float, rate: float) -> None:
    torch.manual_seed(0)
    gate = nn.InputGate(200, 400, open=share, rate=rate, group_size=2)
    assert gate.n_gates == 200
    layer = nn.Dense(200, 400, nn.LI(400, beta=0.5, gate=gate))
    x = (torch.rand(40, 3, 200) < rate).float()
    assert use_of(layer, x).share.mean().item() == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
@pytest.mark.parametrize("spread", [0.1, 2.0])
def test_a_drive_gate_begins_near_its_share(share: float, spread: float) -> None:
    torch.manual_seed(0)
    gate = nn.DriveGate(100, open=share, spread=spread)
    opened = gate.steps(20, 0, None)
    found = torch.stack([opened(t, torch.randn(20, 100) * spread, None) for t in range(20)])
    assert found.mean().item() == pytest.approx(share, abs=0.02)
    assert (gate.kappa > 0).all()
    optimizer = torch.optim.Adam(gate.parameters(), lr=20.0)
    for direction in (1, -1, -1):
        for _ in range(20):
            optimizer.zero_grad()
            (direction * gate.log_kappa.sum()).backward()
            optimizer.step()
        assert ((gate.kappa > 0) & gate.kappa.isfinite()).all()


@pytest.mark.parametrize(("period", "n_open", "together"), [(3, 1, False), (5, 2, False), (4, 3, True)])
def test_a_periodic_gate_opens_exactly(period: int, n_open: int, together: bool) -> None:
    gate = nn.PeriodicGate(10, period=period, n_open=n_open, together=together)
    for start in (0, 7):
        table = gate(4 * period, start=start).open
        for t in range(4 * period):
            for i in range(10):
                offset = 0 if together else i * period // 10
                assert table[t, i] == ((start + t + offset) % period < n_open)
    assert (table.sum(0) == 4 * n_open).all()
    assert not gate(9).near.any()
    assert not list(gate.parameters())
    assert gate.open == n_open / period
    if not together:  # the work is spread over the steps, and neighbours open together
        assert (table[:period].sum(1) - 10 * n_open / period).abs().max() <= n_open
    with pytest.raises(ValueError, match=r"^`n_open` must be from 1 to period - 1 = 2, got 3\.$"):
        nn.PeriodicGate(10, period=3, n_open=3)


def test_a_random_gate_is_a_frozen_rhythm() -> None:
    layer, rhythm = make_layer("LIF", "random"), nn.RhythmGate(N, open=0.5)
    gate = layer.neuron.gate
    assert {k: p.shape for k, p in gate.named_parameters()} == {k: p.shape for k, p in rhythm.named_parameters()}
    assert not any(p.requires_grad for p in gate.parameters())
    assert not gate(30).near.any()
    before = gate(60).open.clone()
    assert (before.mean(0) - 0.5).abs().max() < 0.05
    layer(make_counts())[0].sum().backward()
    assert all(p.grad is None for p in gate.parameters())
    torch.optim.SGD([p for p in layer.parameters() if p.requires_grad], lr=10.0).step()
    assert torch.equal(gate(60).open, before)


@pytest.mark.parametrize("name", ["grouped", "input", "recurrent"])
def test_neighbours_share_a_gate(name: str) -> None:
    gate = GATES[name]()
    assert gate is not None
    size = gate.group_size
    assert gate.n_gates == N // size
    each = torch.arange(2.0 * gate.n_gates).reshape(2, -1)
    assert torch.equal(gate.spread(each), each[:, torch.arange(N) // size])
    layer = make_layer("LIF", name)
    with record(layer) as rec:
        layer(make_counts())
    found = rec[""].gate
    share = found.share if isinstance(found, nn.GateUse) else gate.spread(found.open)
    assert torch.equal(share, share[:, torch.arange(N) // size * size])
    assert share.unique().numel() > 1
    for bad in (0, 5, 2 * N):
        message = re.escape(f"`group_size` must be a divisor of n_units = {N}, got {bad}.")
        with pytest.raises(ValueError, match=f"^{message}$"):
            nn.RhythmGate(N, open=0.5, group_size=bad)


def test_sorted_phases_open_in_blocks() -> None:
    """With one period, each gate's open stretch begins where its phase says: those open together are neighbours."""
    torch.manual_seed(0)
    gate = nn.RhythmGate(64, open=0.25, periods=(40.0,), n_steps=400)
    assert (gate.phase[1:] >= gate.phase[:-1]).all()
    assert (gate.amplitude > 0).all()
    table = gate(40).open
    assert (table - table.roll(1, 1)).abs().sum(1).max() <= 4, "at most a block, cut by the edge and by rounding"
    mixed = nn.RhythmGate(64, open=0.25, periods=(40.0, 7.0))
    assert (mixed.phase[1:, 0] < mixed.phase[:-1, 0]).any()


def test_a_soft_gate_opens_by_degrees() -> None:
    torch.manual_seed(0)
    gate = nn.SoftGate(3, open=0.4, periods=(5.0, 9.0), n_steps=40).double()
    layer = nn.Dense(4, 3, nn.LI(3, beta=0.8, gate=gate)).double()
    table = gate(30).open
    assert ((table > 0) & (table < 1)).all()
    assert table.min() < 0.1
    assert table.max() > 0.9
    assert torch.equal(table > 0.5, gate.rhythm(30) > 0)
    x = torch.rand(8, 2, 4, dtype=torch.float64)
    # the state moves by g of the way
    out, _ = layer(x)
    v, cur = torch.zeros(2, 3, dtype=torch.float64), x @ layer.weight + layer.bias
    for t in range(8):
        v = v + table[t] * (0.8 * v + cur[t] - v)
        assert_close(out[t].detach().numpy(), v.detach().numpy(), 1e-7)
    parts = [layer.weight, gate.bias, gate.phase]

    def run(*given: Tensor) -> Tensor:
        names = ("weight", "neuron.gate.bias", "neuron.gate.phase")
        found, _ = torch.func.functional_call(layer, dict(zip(names, given, strict=True)), (x,))
        return found

    assert torch.autograd.gradcheck(run, [p.detach().clone().requires_grad_() for p in parts])
    with pytest.raises(ValueError, match=r"^`x` must be a dense tensor: a SoftGate skips nothing, got Spikes\."):
        layer(su.Spikes.from_dense((x > 0.5).float()))
    for name in ("event", "fused"):
        with nn.path(name), pytest.raises(ValueError, match=f"^`x` must be fit for the {name} path, got one that"):
            layer(x)


def test_the_share_of_a_rhythm_is_hard_and_its_gradient_reaches_dead_gates() -> None:
    torch.manual_seed(0)
    gate = nn.RhythmGate(6, open=0.3, group_size=2, n_steps=50)
    share = gate.share(50, start=3)
    assert torch.equal(share, gate.spread(gate(50, start=3).open))
    with torch.no_grad():  # gate 0 never comes near opening; gate 1 has no swing at all
        gate.bias[0] -= gate.rhythm(50)[:, 0].max() + 0.6 * gate.swing()[0]
        gate.amplitude[1] = 0
    (hard,) = torch.autograd.grad(gate(50).open.sum(), gate.bias)
    (by,) = torch.autograd.grad(gate.share(50).sum(), gate.bias)
    assert not gate(50).open[:, 0].any()
    assert hard[0] == hard[1] == by[1] == 0
    assert by[0] > 0
    a, scale = gate.rhythm(50).detach(), gate.swing()
    by_hand = ((a.abs() < scale) / (2 * scale.clamp_min(1e-9))).sum(0) * 2  # slope 1 / (2 swing), for two neurons each
    assert_close(by.double().numpy(), by_hand.numpy(), 1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DATA_GATES)
def test_the_share_of_a_data_gate_reaches_dead_ones(name: str, kind: str) -> None:
    layer, x = make_layer("LIF", name, seed=3), make_counts(20, 3)
    gate: Any = layer.neuron.gate
    offset = gate.log_kappa if name == "drive" else gate.bias
    with torch.no_grad():  # the largest activation is 0.85 scales below opening: gate_width is 0.7 of them
        away = 0.85 * gate.get_buffer("scale")
        if name == "drive":
            offset.copy_(((x @ layer.weight + layer.bias).abs().amax((0, 1)) + away).log())
        else:
            offset.copy_(-((x @ gate.weight).amax((0, 1)) + away))
    with on_path(kind), record(layer) as rec:
        out, end = layer(input_for(kind, x))
    share = rec[""].gate.share
    assert share.shape == (3, N)
    assert not share.any()
    loss = end.v.square().sum() + (out if isinstance(out, Tensor) else out.dense()).sum()
    if loss.requires_grad:
        (hard,) = torch.autograd.grad(loss, offset, retain_graph=True, allow_unused=True)
        assert hard is None or not hard.any()
    (by,) = torch.autograd.grad(share.sum(), offset)
    assert ((-by if name == "drive" else by) > 0).all()


@pytest.mark.parametrize("name", ["input", "recurrent", "drive", "none"])
def test_records_are_equal_on_all_paths(name: str) -> None:
    layer, x, found = make_layer("AdLIF", name), make_counts(15, 3), {}
    for kind in KINDS:
        with on_path(kind), record(layer) as rec:
            layer(input_for(kind, x))
        found[kind] = rec[""].gate
    if name == "none":
        assert found == dict.fromkeys(KINDS)
        return
    gate, wanted = layer.neuron.gate, found["torch"]
    parts = [*gate.parameters(), layer.weight]
    weights = torch.rand(3, N, dtype=torch.float64)
    by = torch.autograd.grad((wanted.share * weights).sum(), parts, allow_unused=True)
    assert any(g is not None and g.abs().sum() > 0 for g in by)
    # what the neurons do depends on the gate alone: open_at is the same count
    assert torch.equal(wanted.open_at.double().sum(1), (wanted.share.detach() * 15).sum(1).round())
    for kind in KINDS[:-1]:
        use = found[kind]
        torch.testing.assert_close(use.share, wanted.share, rtol=0, atol=1e-12)
        assert torch.equal(use.open_at, wanted.open_at)
        grads = torch.autograd.grad((use.share * weights).sum(), parts, allow_unused=True)
        for g, w in zip(grads, by, strict=True):
            assert (g is None or not g.any()) if w is None else g is not None
            if w is not None:
                assert_close(g.numpy(), w.numpy(), 1e-9)


@pytest.mark.parametrize("start", [0.15, 0.6])
@pytest.mark.parametrize("name", ["rhythm", "input", "recurrent", "drive"])
def test_a_budget_brings_every_gate_to_its_target(name: str, start: float) -> None:
    torch.manual_seed(0)
    n_in, n, target = 20, 16, 0.35
    gate: Any = {
        "rhythm": lambda: nn.RhythmGate(n, open=start, n_steps=100),
        "input": lambda: nn.InputGate(n_in, n, open=start, rate=0.2, group_size=2),
        "recurrent": lambda: nn.InputGate(n_in, n, open=start, rate=0.2, group_size=2, recurrent=True),
        "drive": lambda: nn.DriveGate(n, open=start, spread=0.4),
    }[name]()
    layer = nn.Dense(n_in, n, nn.LIF(n, beta=0.9, gate=gate), recurrent=True)
    to_grid(layer)
    x = su.Spikes.from_dense((torch.rand(50, 4, n_in) < 0.2).float())
    optimizer = torch.optim.Adam(nn.gate_parameters(layer), lr=0.05)

    def share() -> Tensor:
        return gate.share(50) if name == "rhythm" else use_of(layer, x).share

    assert abs(share().mean().item() - target) > 0.1
    for _ in range(60):
        optimizer.zero_grad()
        losses.update_budget(share(), target).backward()
        optimizer.step()
    assert share().mean().item() == pytest.approx(target, abs=0.02)


def test_gate_parameters_are_those_of_all_kinds() -> None:
    net = nn.Stack(*[make_layer("LIF", name) for name in GATES])
    wanted = {
        "rhythm": {"log_period", "amplitude", "phase", "bias"}, "grouped": {"amplitude", "phase", "bias"},
        "input": {"weight", "bias"}, "recurrent": {"weight", "recurrent", "bias"}, "drive": {"log_kappa"},
        "random": {"amplitude", "phase", "bias"},
    }  # fmt: skip
    names = {id(p): k for k, p in net.named_parameters()}
    found = sorted(names[id(p)] for p in nn.gate_parameters(net))
    positions = {name: i for i, name in enumerate(GATES)}
    assert found == sorted(f"{positions[g]}.neuron.gate.{p}" for g, parts in wanted.items() for p in parts)


@pytest.mark.parametrize("kind", ["event", "torch"])
@pytest.mark.parametrize("name", DATA_GATES)
def test_a_summary_counts_what_a_data_gate_did(name: str, kind: str) -> None:
    layer, counts = make_layer("LIF", name), make_counts(15, 3)
    with on_path(kind), record(layer) as rec, torch.no_grad():
        layer(input_for(kind, counts))
    call = rec[""]
    spk, use = torch.from_numpy(dense_of(call.spikes)), call.gate
    arrivals = counts.sum(-1) + torch.cat([torch.zeros(1, 3), spk.sum(-1)[:-1]])  # [T, B]
    everywhere = arrivals.sum().item() * N
    done = (arrivals * use.open_at.T).sum().item()
    with on_path(kind):
        (row,) = summary(layer, input_for(kind, counts)).rows
    assert row.gated
    assert row.open_fraction == pytest.approx(use.open_at.double().mean().item() / N)
    assert row.synops_done is not None
    assert row.synops_skipped is not None
    if name == "drive":  # it sees every current: it spares updates, but no synaptic operation
        assert (row.synops_done * 3, row.synops_skipped) == (pytest.approx(everywhere), 0)
    else:
        n_gates = layer.neuron.gate.n_gates
        heard = arrivals if name == "recurrent" else counts.sum(-1)  # U_g takes the layer's own spikes too
        assert row.synops_skipped * 3 == pytest.approx(everywhere - done)
        assert row.synops_done * 3 == pytest.approx(done + heard.sum().item() * n_gates)
    n_spikes, n_open = spk.sum().item(), use.open_at.sum().item()
    assert row.rate_open == pytest.approx(n_spikes / n_open)
    assert N_IN == counts.shape[2]
