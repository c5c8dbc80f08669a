"""A network is started at a firing rate and its gates at their share, on the data's own statistics."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
import torch
from suspike_testing.comparing import assert_same_bits

import suspike as su
from suspike import nn
from suspike.inspect import record, summary

N_IN, N, T, B = 30, 40, 40, 6
GATES: dict[str, Any] = {
    "none": lambda: None,
    "rhythm": lambda: nn.RhythmGate(N, open=0.4, n_steps=T),
    "input": lambda: nn.InputGate(N_IN, N, open=0.3, rate=0.9, group_size=4),  # a rate far from the data's
    "recurrent": lambda: nn.InputGate(N_IN, N, open=0.3, rate=0.01, group_size=4, recurrent=True),
    "drive": lambda: nn.DriveGate(N, open=0.3, spread=20.0),
    "periodic": lambda: nn.PeriodicGate(N, period=4),
    "random": lambda: nn.RandomGate(N, open=0.5, n_steps=T),
}


LEAKS: dict[str, dict[str, float]] = {
    "IF": {},
    "LIF": {"beta": 0.9},
    "CubaLIF": {"beta": 0.9, "alpha": 0.7},
    "AdLIF": {"beta": 0.9, "rho": 0.95},
}
CASES = [*((g, "LIF") for g in GATES), *(("none", n) for n in LEAKS if n != "LIF")]


def batch(rate: float = 0.08, seed: int = 0) -> su.Spikes:
    generator = torch.Generator().manual_seed(seed)
    return su.Spikes.from_dense((torch.rand(T, B, N_IN, generator=generator) < rate).float())


def make(gate: str = "none", neuron: str = "LIF", scale: float = 1.0) -> nn.Stack:
    """A hidden layer whose weights are `scale` times too large, and a readout."""
    torch.manual_seed(0)
    hidden = getattr(nn, neuron)(N, gate=GATES[gate](), **LEAKS[neuron])
    net = nn.Stack(nn.Dense(N_IN, N, hidden, recurrent=True), nn.Dense(N, 4, nn.LI(4, beta=0.9)))
    with torch.no_grad():
        net[0].weight.mul_(scale)
    return net


@pytest.mark.parametrize(("gate", "neuron"), CASES)
@pytest.mark.parametrize("scale", [0.02, 50.0])
def test_a_layer_reaches_its_rate(gate: str, neuron: str, scale: float, caplog: pytest.LogCaptureFixture) -> None:
    net, spikes, rate = make(gate, neuron, scale), batch(), 0.06
    (start,) = nn.start_at_rate(net, spikes, rate=rate)
    assert not caplog.records
    assert start.name == "0"
    assert start.rate == pytest.approx(rate, rel=0.25)
    (row, _) = summary(net, spikes).rows
    share = 1.0 if gate == "none" else net[0].neuron.gate.open
    assert row.rate == pytest.approx(start.rate * share, rel=1e-6)
    assert row.open_fraction == pytest.approx(share, abs=0.05)
    assert row.rate_open == pytest.approx(rate, rel=0.3)
    other = summary(net, batch(seed=1)).rows[0]
    assert other.rate_open == pytest.approx(rate, rel=0.5), "other data of the same kind"


def test_every_layer_is_fitted_behind_those_before_it() -> None:
    torch.manual_seed(0)
    hidden = [nn.Dense(n, 40, nn.LIF(40, beta=0.9)) for n in (N_IN, 40, 40)]
    net = nn.Stack(*hidden, nn.Dense(40, 3, nn.LI(3, beta=0.9)))
    assert summary(net, batch()).rows[2].rate < 0.02
    starts = nn.start_at_rate(net, batch(), rate=0.1)
    assert [s.name for s in starts] == ["0", "1", "2"]
    for start, row in zip(starts, summary(net, batch()).rows, strict=False):
        assert row.rate == pytest.approx(0.1, rel=0.25)
        assert row.rate == pytest.approx(start.rate, rel=1e-6)


@pytest.mark.parametrize("gate", GATES)
def test_nothing_but_what_is_told_of_changes(gate: str) -> None:
    net = make(gate)
    before = {k: x.clone() for k, x in net.state_dict().items()}
    ids = {k: id(p) for k, p in net.named_parameters()}
    training, hooks, rng = net.training, [len(m._forward_pre_hooks) for m in net.modules()], torch.get_rng_state()
    (start,) = nn.start_at_rate(net, batch())
    changed = {k for k, x in net.state_dict().items() if not torch.equal(x, before[k])}
    offsets = {"input": "bias", "recurrent": "bias", "drive": "log_kappa"}
    fitted = {offsets[gate], "scale"} if gate in offsets else set()
    assert changed == {"0.weight"} | {f"0.neuron.gate.{k}" for k in fitted}
    assert_same_bits(net[0].weight.detach().numpy(), (before["0.weight"] * start.scale).numpy())
    assert {k: id(p) for k, p in net.named_parameters()} == ids
    for name, parameter in net.named_parameters():
        assert parameter.grad is None
        assert parameter.requires_grad == (gate != "random" or "gate" not in name)
    assert net.training == training
    assert [len(m._forward_pre_hooks) for m in net.modules()] == hooks
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.is_grad_enabled()


def test_a_fitted_gate_measures_what_it_sees() -> None:
    """`scale` is the standard deviation of the activation, and the straight-through width follows it."""
    net, spikes = make("input"), batch()
    nn.start_at_rate(net, spikes)
    gate = net[0].neuron.gate
    seen = spikes.dense() @ gate.weight
    torch.testing.assert_close(gate.scale, seen.flatten(0, 1).std(0), rtol=1e-4, atol=0)
    torch.testing.assert_close(gate.width, gate.gate_width * gate.scale)
    share = (seen + gate.bias > 0).float().mean((0, 1))  # less where the quantile falls among silent steps: all 0
    assert share.max() < 0.31
    assert share.median() > 0.29
    net = make("drive")
    nn.start_at_rate(net, spikes)
    with record(net) as rec:
        net(spikes)
    use = rec["0"].gate
    assert isinstance(use, nn.GateUse)
    assert use.share.mean().item() == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("what", ["weights", "gate", "bias"])
def test_a_layer_that_cannot_be_fitted_is_named(what: str, caplog: pytest.LogCaptureFixture) -> None:
    net = nn.Stack(make()[0], nn.Dense(N, N, nn.LIF(N, beta=0.9, gate=nn.RhythmGate(N, open=0.4))))
    with torch.no_grad():
        if what == "weights":
            net[1].weight.zero_()
        elif what == "gate":
            net[1].neuron.gate.bias.fill_(-1e3)
        else:
            net[1].bias.fill_(5.0)
    with caplog.at_level(logging.WARNING, "suspike"):
        first, second = nn.start_at_rate(net, batch(), rate=0.05)
    assert first.rate == pytest.approx(0.05, rel=0.25)
    assert second.rate == (pytest.approx(1, abs=0.2) if what == "bias" else 0)
    (warning,) = caplog.records
    assert warning.getMessage().startswith(f"Layer 1 fires at {second.rate:.2g}, not at 0.05: ")
    assert net[1].weight.isfinite().all()


def test_a_dead_first_layer_leaves_the_next_to_be_named_too(caplog: pytest.LogCaptureFixture) -> None:
    net = nn.Stack(make()[0], nn.Dense(N, 5, nn.LIF(5, beta=0.9)))
    with torch.no_grad():
        net[0].weight.zero_()
    nn.start_at_rate(net, batch())
    assert [re.sub(" fires.*", "", r.getMessage()) for r in caplog.records] == ["Layer 0", "Layer 1"]


def test_bad_arguments_are_refused() -> None:
    net = make()
    before = net[0].weight.clone()
    silence = su.Spikes.silence(T, B, N_IN)
    with pytest.raises(ValueError, match=r"^`spikes` must be a batch with events, got none\. A silent input tells"):
        nn.start_at_rate(net, silence)
    for rate in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match=rf"^`rate` must be above 0 and below 1, got {rate}\."):
            nn.start_at_rate(net, batch(), rate=rate)
    assert torch.equal(net[0].weight, before)
    assert nn.start_at_rate(net[1], su.Spikes.from_dense(torch.ones(2, 1, N))) == [], "a readout has no rate"
