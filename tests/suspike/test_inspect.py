"""Recording what layers put out, the summary of a network, and the parameters of its gates."""

import gc
import logging
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields
from io import StringIO
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from suspike_testing.cases import random_events
from suspike_testing.nets import (
    KINDS,
    dense_of,
    gradients,
    loss_of,
    make_input,
    make_net,
    make_state,
    on_path,
    run_layers,
)
from torch import nn

import suspike as su
from suspike import inspect
from suspike.convert import keep_floats
from suspike.inspect import record, summary

PATHS = KINDS


@pytest.fixture(autouse=True)
def _taken(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests with a `path` take it."""
    params = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    with on_path(params["path"]) if "path" in params else nullcontext():
        yield


def as_input(events: su.Events, path: str) -> Any:
    return su.Spikes.from_events(events) if path == "event" else torch.from_numpy(events.dense())


def part(x: Any, low: int, high: int) -> Any:
    """The steps `low` to `high` of an input."""
    if isinstance(x, torch.Tensor):
        return x[low:high]
    return su.Spikes.from_dense(x.dense()[low:high])


def n_hooks(net: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks", "_forward_hooks_always_called")
    return sum(len(getattr(m, kind)) for m in net.modules() for kind in kinds)


def attributes(net: nn.Module) -> list[set[str]]:
    return [set(vars(m)) for m in net.modules()]


class Chunked(nn.Module):
    """A user's module: runs its layers in stretches of time, passing the state on by keyword."""

    def __init__(self, net: su.nn.Stack, *cuts: int) -> None:
        super().__init__()
        self.inner, self.cuts = nn.ModuleDict({"net": net}), cuts

    def forward(self, x: Any) -> Any:
        state, bounds = None, [0, *self.cuts, x.shape[0]]
        for low, high in pairwise(bounds):
            now, after = part(x, low, high), []
            for i, layer in enumerate(self.inner["net"]):
                now, s = layer(x=now, state=None if state is None else state[i])
                after.append(s)
            state = tuple(after)
        return now, state


def outputs(rec: inspect.Record) -> list[Any]:
    return [call.membrane if call.spikes is None else call.spikes for call in rec.values()]


@pytest.mark.parametrize("path", PATHS)
def test_a_record_holds_the_very_tensors_of_every_layer(path: str) -> None:
    net, x = make_net(), as_input(make_input(), path)
    state = make_state(net, 4)
    with record(net) as rec:
        outs, _ = run_layers(net, x, state)
    assert list(rec) == ["0", "1", "2"]
    assert len(rec) == 3
    assert all(found is out for found, out in zip(outputs(rec), outs, strict=True))
    assert [call.before for call in rec.values()] == list(state)
    assert [rec["0"].x, rec["1"].x, rec["2"].x] == [x, *outs[:2]]
    assert rec["0"].membrane is None
    assert rec["2"].spikes is rec["2"].gate is None
    assert isinstance(rec["0"].spikes, su.Spikes if path == "event" else torch.Tensor)
    assert dense_of(rec["0"].spikes).sum() > 0


@pytest.mark.parametrize("path", PATHS)
def test_gradients_through_a_record_are_those_by_hand(path: str) -> None:
    net, x = make_net(), as_input(make_input(), path)
    state = make_state(net, 4)
    *_, by_hand = gradients(net, x, state)
    with record(net) as rec:
        _, after = net(x, state)
    leaves = dict(net.named_parameters())
    found = torch.autograd.grad(loss_of(outputs(rec), list(after)), list(leaves.values()))
    for (name, _), grad in zip(leaves.items(), found, strict=True):
        np.testing.assert_array_equal(grad.numpy(), by_hand[name], err_msg=name)
        if "weight" in name or "gate" in name:
            assert grad.abs().sum() > 0, name


@pytest.mark.parametrize("path", PATHS)
def test_gradients_through_a_recorded_gate_are_those_of_the_gate_itself(path: str) -> None:
    net, x = make_net(), as_input(make_input(), path)
    with record(net) as rec:
        net(x, make_state(net, 4))
    gate = net[1].neuron.gate
    weigh = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    parts = list(gate.parameters())
    found = torch.autograd.grad((rec["1"].gate.open * weigh).sum(), parts)
    wanted = torch.autograd.grad((gate(20, start=5).open * weigh).sum(), parts)  # make_state starts at t = 5
    assert all(torch.equal(a, b) and a.abs().sum() > 0 for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("path", PATHS)
def test_calls_are_kept_in_order_each_with_the_gate_of_its_steps(path: str) -> None:
    net, x = make_net(), as_input(make_input(20), path)
    with record(net) as rec:
        _, state = net(part(x, 0, 7))
        _, state = net(part(x, 7, 20), state)
        net(part(x, 0, 7))
    for name in ("0", "1"):
        gate = net[int(name)].neuron.gate
        tables = [call.gate.open for call in rec.calls[name]]
        assert len(tables) == 3
        assert not torch.equal(tables[0], tables[1][:7])  # so that the right steps can be told from wrong ones
        assert torch.equal(tables[0], gate(7).open)
        assert torch.equal(tables[1], gate(13, start=7).open)
        assert torch.equal(tables[2], tables[0])
        assert rec[name] is rec.calls[name][-1]
        assert rec.calls[name][1].before.t == 7


def test_a_gate_is_evaluated_once_a_call_and_shared_gates_stay_apart() -> None:
    gate = su.nn.RhythmGate(5, open=0.5)
    one, two = (su.nn.Dense(5, 5, su.nn.LIF(5, beta=0.9, gate=gate)) for _ in range(2))
    net, made = su.nn.Stack(one, two), []
    gate.register_forward_hook(lambda module, args, table: made.append(table))
    state = (one.neuron.initial_state(2)._replace(t=3), two.neuron.initial_state(2)._replace(t=11))
    with record(net) as rec:
        gate(9, start=100)  # a look at the gate that is no layer's
        net(torch.ones(4, 2, 5), state)
    assert len(made) == 3
    assert rec["0"].gate is made[1]
    assert rec["1"].gate is made[2]
    assert torch.equal(made[1].open, gate(4, start=3).open)
    assert not torch.equal(made[1].open, made[2].open)


def test_layers_of_users_modules_are_named_by_their_path_and_nothing_else_is_recorded() -> None:
    net = make_net(gate=False)
    user = nn.Sequential(Chunked(net, 5), nn.Identity(), su.nn.LIF(3, beta=0.9))
    with record(user) as rec:
        user[0](as_input(make_input(), "event"))
        user[2](torch.ones(4, 2, 3))
    assert list(rec) == [f"0.inner.net.{i}" for i in range(3)]
    assert [len(calls) for calls in rec.calls.values()] == [2, 2, 2]
    assert rec["0.inner.net.0"].gate is None
    with record(net[0]) as alone:
        out, _ = net[0](as_input(make_input(), "event"))
    assert alone[""].spikes is out


@pytest.mark.parametrize("raises", [False, True])
def test_nothing_stays_in_the_modules(raises: bool) -> None:
    net = make_net()
    before = attributes(net)
    expected = pytest.raises(ValueError, match="`x` must be") if raises else nullcontext()
    with expected, record(net) as rec:
        assert n_hooks(net) >= 5
        net(as_input(make_input(), "event"))
        if raises:
            net(torch.ones(3))
    assert n_hooks(net) == 0
    assert attributes(net) == before
    net(as_input(make_input(), "event"))
    assert [len(calls) for calls in rec.calls.values()] == [1, 1, 1]


def test_records_may_overlap_and_free_their_memory() -> None:
    net, x = make_net(), as_input(make_input(), "dense")
    with record(net) as outer:
        net(x)
        with record(net) as inner:
            net(x)
        net(x)
    assert len(outer.calls["0"]) == 3
    assert len(inner.calls["0"]) == 1
    assert inner["0"] is not outer.calls["0"][1]
    assert inner["0"].spikes is outer.calls["0"][1].spikes
    held = weakref.ref(outer.calls["0"][0].spikes)
    gc.collect()
    assert held() is not None
    del outer
    gc.collect()
    assert held() is None


def test_record_says_what_it_cannot_do() -> None:
    with pytest.raises(
        ValueError, match=r"`net` must be a module with at least one Dense or Conv2d layer, got a Linear without"
    ):
        record(nn.Linear(2, 2)).__enter__()
    net = make_net()
    with record(net) as rec:
        net[2](torch.ones(3, 1, 6))
        assert "0" not in rec
        with pytest.raises(KeyError, match=r"`name` must be a layer that was called, of \['2'\], got '0'"):
            rec["0"]
        net[0].neuron.gate = su.nn.RhythmGate(9, open=0.5)
        with pytest.raises(ValueError, match="`net` must be left as it is while recorded, got another gate in layer"):
            net[0](torch.ones(3, 1, 11))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("gate", "recurrent"), [(True, True), (False, False), (True, False)])
def test_a_summary_counts_what_the_simulator_counts(path: str, gate: bool, recurrent: bool) -> None:
    net, events = make_net(gate=gate, recurrent=recurrent), make_input(30, 5)
    result = su.simulate.simulate(keep_floats(net, dt_ms=1.0), events)
    found = summary(net, as_input(events, path))
    assert [row.name for row in found.rows] == ["0", "1", "2"]
    for row, counts in zip(found.rows, result.counts, strict=True):
        assert row.synops_done == counts.synops_done / 5
        assert row.synops_skipped == counts.synops_skipped / 5
        assert row.open_fraction == counts.updates_done / (counts.updates_done + counts.updates_skipped)
        if row.name != "2":
            assert row.rate == counts.spikes / (30 * 5 * row.n_out)
            assert row.rate_open == counts.spikes / counts.updates_done
            fired = result.spikes[int(row.name)].dense().any((0, 1))
            assert row.silent == (~fired).mean()
    assert (found.rows[0].synops_skipped > 0) == gate
    assert found.rows[2].rate is found.rows[2].silent is found.rows[2].active_share is None


@pytest.mark.parametrize("path", PATHS)
def test_rate_open_fraction_and_active_share_are_the_literal_ones(path: str) -> None:
    net, events = make_net(), make_input(30, 5)
    first = summary(net, as_input(events, path)).rows[0]
    layer, v, spk, inside, fired = net[0], torch.zeros(5, 9), torch.zeros(5, 9), 0, 0
    is_open = layer.neuron.gate(30).open
    for x, g in zip(torch.from_numpy(events.dense()), is_open, strict=True):
        u = layer.neuron.beta * v + (x @ layer.weight + layer.bias + spk @ layer.recurrent)
        v = torch.where(g > 0, u, v)
        distance = v - layer.neuron.threshold
        inside += int(((distance.abs() < 0.5) & (g > 0)).sum())
        spk = g * (distance > 0)
        fired += int(spk.sum())
        v = torch.where(spk > 0, 0.0, v).detach()
        spk = spk.detach()
    assert 0 < fired < inside < 30 * 5 * 9
    assert first.open_fraction == pytest.approx(is_open.mean().item())
    assert first.rate == fired / (30 * 5 * 9)
    assert first.active_share == inside / (30 * 5 * 9)


def test_a_summary_knows_active_places_of_a_network_that_does_not_learn() -> None:
    net, x = make_net(), as_input(make_input(), "event")
    learning = summary(net, x)
    assert learning.rows[0].active_share > 0
    assert summary(net.requires_grad_(False), x) == learning


@pytest.mark.parametrize("path", PATHS)
def test_layers_called_in_stretches_sum_up_to_one_run(path: str) -> None:
    net, x = make_net(), as_input(make_input(), path)
    whole, cut = summary(net, x), summary(Chunked(net, 6, 13), x)
    for row, other in zip(whole.rows, cut.rows, strict=True):
        assert other.name == f"inner.net.{row.name}"
        for field in fields(row)[1:]:
            assert getattr(other, field.name) == getattr(row, field.name), field.name


def test_layers_that_are_not_called_and_currents_have_no_counts() -> None:
    class Bypass(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = make_net(), make_net()

        def forward(self, x: Any) -> Any:
            return self.used(x)

    found = summary(Bypass(), torch.rand(20, 4, 11, generator=torch.Generator().manual_seed(0)))
    first, second, _, unused, _, readout = found.rows
    assert first.rate > 0
    assert first.synops_done is first.synops_skipped is first.active_share is None
    assert second.synops_done > 0
    assert unused.name == "unused.0"
    assert unused.rate is unused.open_fraction is unused.silent is readout.synops_done is None
    assert not found.dead
    assert str(found).splitlines()[-4].split()[-5:] == ["-"] * 5  # the last layer's


class Restless(nn.Module):
    """Draws random numbers, counts its calls in buffers, and fails where it is told to."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.layer, self.fails, self.seen = make_net()[0], fails, []
        self.register_buffer("written", torch.zeros(1))
        self.register_buffer("replaced", torch.zeros(1), persistent=False)

    def forward(self, x: Any) -> Any:
        self.seen.append((self.training, self.layer.training, torch.is_grad_enabled(), torch.rand(1).item()))
        self.written += 1
        self.replaced = self.replaced + 1
        if self.fails:
            raise RuntimeError("told to")
        return self.layer(x)


@pytest.mark.parametrize("fails", [False, True])
def test_a_summary_leaves_the_network_as_it_was(fails: bool) -> None:
    net, x = Restless(fails), as_input(make_input(), "event")
    net.layer.neuron.eval()
    modes, rng, buffers = [m.training for m in net.modules()], torch.get_rng_state(), dict(net.named_buffers())
    assert {True, False} == set(modes)
    with pytest.raises(RuntimeError, match="told to") if fails else nullcontext():
        summary(net, x)
    assert len(net.seen) == 1
    assert net.seen[0][:3] == (False, False, False)
    assert [m.training for m in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), rng)
    assert {k: id(b) for k, b in net.named_buffers()} == {k: id(b) for k, b in buffers.items()}
    assert net.written.item() == net.replaced.item() == 0
    assert n_hooks(net) == 0
    assert all(p.grad is None for p in net.parameters())


def with_current(n: int, firing: int, *, open: float | None = None) -> su.nn.Dense:
    """A layer without input of which `firing` units fire at every open step and the rest never."""
    gate = None if open is None else su.nn.RhythmGate(n, open=open, n_steps=20)
    layer = su.nn.Dense(4, n, su.nn.LIF(n, beta=0.5, gate=gate))
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(2.0 * (torch.arange(n) < firing))
    return layer


@pytest.mark.parametrize(
    ("n", "firing", "open", "dead", "saturated"),
    [
        (10, 0, None, True, False),
        (11, 1, None, True, False),
        (10, 1, None, False, False),  # nine tenths silent: at the bound, not above
        (10, 5, None, False, False),  # half of all neuron-steps: at the bound
        (10, 6, None, False, True),
        (8, 8, 0.25, False, True),  # at every open step, though at a quarter of all
        (8, 2, 0.25, False, False),
    ],
)
def test_dead_and_saturated_layers_are_named(
    n: int, firing: int, open: float | None, dead: bool, saturated: bool, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    net = nn.ModuleDict({"hidden": with_current(n, firing, open=open)})
    net.forward = lambda x: net["hidden"](x)  # type: ignore[method-assign]
    with caplog.at_level(logging.INFO, "suspike"):
        found = summary(net, torch.zeros(20, 3, 4))
    assert found.dead == ("hidden",) * dead
    assert found.saturated == ("hidden",) * saturated
    records = [r for r in caplog.records if r.name == "suspike.inspect"]  # layers tell of their path too
    assert [r.levelname for r in records] == ["WARNING"] * (dead + saturated)
    messages = [r.getMessage() for r in records]
    assert [m.startswith("Dead layers: hidden. ") for m in messages] == [True] * dead + [False] * saturated
    assert [m.startswith("Saturated layers: hidden. ") for m in messages] == [False] * dead + [True] * saturated


def test_only_the_sick_layers_are_named(caplog: pytest.LogCaptureFixture) -> None:
    sick, x = make_net(), as_input(make_input(), "event")
    summary(sick, x)
    assert not caplog.records
    with torch.no_grad():
        sick[1].weight.zero_()
        sick[1].recurrent.zero_()
        sick[1].bias.zero_()
    summary(sick, x)
    summary(with_current(4, 0), torch.zeros(2, 1, 4))
    dead, net = (r.getMessage() for r in caplog.records)
    assert dead.startswith("Dead layers: 1. ")
    assert net.startswith("Dead layers: (net). ")


def test_the_table_is_aligned_and_fits_100_columns() -> None:
    wide = su.nn.Stack(
        su.nn.Dense(30_000, 300, su.nn.LIF(300, beta=0.9, gate=su.nn.RhythmGate(300, open=0.3)), recurrent=True),
        su.nn.Dense(300, 2, su.nn.LI(2, beta=0.9)),
    )
    events = random_events(np.random.default_rng(0), 3, 2, 30_000, 0.3)
    found = summary(nn.Sequential(nn.Sequential(wide))[0], as_input(events, "event"))
    long = inspect.Summary(
        "t", tuple(inspect.Row("encoder.block" * 9, *list(vars(r).values())[1:]) for r in found.rows)
    )
    for text in (str(found), str(long)):
        lines = text.splitlines()
        assert max(map(len, lines)) <= 100
        assert len({len(line) for line in lines[1:5]}) == 1
        assert lines[1].split() == [
            "layer",
            "kind",
            "in",
            "out",
            "params",
            "rate",
            "open",
            "active",
            "synops",
            "skipped",
        ]
        assert "9.093M" in lines[3]
    assert str(long).splitlines()[3].startswith("..")
    assert "samples: 2, steps: 3, parameters: 9093602" in str(found)
    console = Console(width=140, record=True, file=StringIO())
    console.print(found.table())
    for row in found.rows:
        for cell in row.cells():
            assert cell in console.export_text(clear=False)


def test_a_name_in_brackets_is_no_markup() -> None:
    table = inspect.Summary("t", (inspect.Row("[red]", "Dense LI", 1, 1, 1, False),)).table()
    console = Console(width=120, record=True, file=StringIO())
    console.print(table)
    assert "[red]" in console.export_text()


@pytest.mark.parametrize("shape", [(0, 2, 11), (3, 0, 11)])
def test_a_summary_of_nothing_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"`spikes` must be of at least one step and one sample, got shape \["):
        summary(make_net(), torch.zeros(shape))


def test_gate_parameters_are_complete_and_unique() -> None:
    net = make_net(learn_periods=True)
    shared = su.nn.RhythmGate(4, open=0.5)
    user = nn.ModuleDict(
        {"net": net, "a": su.nn.LIF(4, beta=0.9, gate=shared), "b": su.nn.LIF(4, beta=0.9, gate=shared)}
    )
    tied = su.nn.RhythmGate(4, open=0.5)
    tied.bias = shared.bias
    user["tied"] = tied
    found = su.nn.gate_parameters(user)
    wanted = {id(p) for name, p in user.named_parameters() if ".gate." in name or name.startswith("tied.")}
    assert len(found) == len(wanted) == 4 + 4 + 3 + 2
    assert {id(p) for p in found} == wanted
    assert su.nn.gate_parameters(make_net(gate=False)) == []
    assert [id(p) for p in su.nn.gate_parameters(shared)] == [id(p) for p in shared.parameters()]


def test_gates_may_have_a_learning_rate_of_their_own() -> None:
    net = make_net()
    gates = su.nn.gate_parameters(net)
    others = [p for p in net.parameters() if all(p is not g for g in gates)]
    optimizer = torch.optim.SGD([{"params": gates, "lr": 0.0}, {"params": others}], lr=0.1)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    net(as_input(make_input(), "event"))[0].square().sum().backward()
    optimizer.step()
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert "0.weight" in moved
    assert not [name for name in moved if "gate" in name]
