"""The selective-update cells: every cell with every gate, on every path the same outputs, states and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from suspike_testing.comparing import assert_close, assert_same_bits
from suspike_testing.recurrent import (
    BY_TIME,
    CELLS,
    GATES,
    N_IN,
    N,
    make_cell,
    make_input,
    make_state,
    on_path,
    run_all,
)
from suspike_testing.zoo import Found, found_of, tensors_of, weigh
from torch import Tensor

import suspike as su
from suspike import nn

EPSILON = {torch.float32: 2e-5, torch.float64: 1e-11}
LENGTHS = torch.tensor([4, 9, 0, 7])


def assert_close_runs(found: Found, wanted: Found, what: str) -> None:
    epsilon = EPSILON[wanted.out.dtype]
    assert_close(found.out.numpy(), wanted.out.numpy(), epsilon, f"{what}: out")
    for name, x in wanted.end.items():
        assert_close(found.end[name].numpy(), x.numpy(), epsilon, f"{what}: {name}")
    floor = epsilon / 10 * max(float(g.norm()) for g in wanted.by.values())
    for name, g in wanted.by.items():
        assert_close(found.by[name].numpy(), g.numpy(), epsilon, f"{what}: by {name}", floor=floor)


@pytest.mark.parametrize("gate", BY_TIME)
@pytest.mark.parametrize("cell", CELLS)
def test_paths_agree(cell: str, gate: str) -> None:
    x = make_input(9, 4)
    for num_layers in (1, 2):
        for bias in (True, False):
            net = make_cell(cell, gate, num_layers=num_layers, bias=bias)
            for n_steps in (None, LENGTHS):
                wanted = run_all(net, "torch", x, n_steps=n_steps)
                for kind in ("free", "index"):
                    what = f"{kind}, {num_layers} layers, bias {bias}, {n_steps}"
                    assert_close_runs(run_all(net, kind, x, n_steps=n_steps), wanted, what)
                assert all(g.abs().max() > 1e-9 for g in wanted.by.values()), "each takes a gradient"
                last = run_all(net, "free", x, n_steps=n_steps, final=True)
                assert last.end.keys() == wanted.end.keys()
                for name, v in last.end.items():
                    assert_close(v.numpy(), wanted.end[name].numpy(), 1e-12, f"final {name}")
                assert_close_runs(last, run_all(net, "torch", x, n_steps=n_steps, final=True), "final")


@pytest.mark.parametrize("gate", BY_TIME)
@pytest.mark.parametrize("cell", CELLS)
def test_paths_agree_in_float32(cell: str, gate: str) -> None:
    x = make_input(9, 4, dtype=torch.float32, seed=1)
    net = make_cell(cell, gate, dtype=torch.float32, num_layers=2, seed=1)
    for n_steps in (None, LENGTHS):
        wanted = run_all(net, "torch", x, n_steps=n_steps)
        for kind in ("free", "index"):
            assert_close_runs(run_all(net, kind, x, n_steps=n_steps), wanted, f"{kind} {n_steps}")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("gate", BY_TIME)
@pytest.mark.parametrize("cell", CELLS)
def test_without_gradient_few_samples_and_many_agree(cell: str, gate: str, dtype: torch.dtype) -> None:
    """Up to eight stream one by one; more run together."""
    n_steps = torch.tensor([4, 9, 0, 7, 1, 9, 8, 2, 9, 3])
    for bias in (True, False):
        net, x = make_cell(cell, gate, num_layers=2, bias=bias, dtype=dtype), make_input(9, 10, dtype=dtype)
        start = make_state(net, 10)
        for lasts in (None, n_steps):
            with on_path("torch"), torch.no_grad():
                wanted, ends = net(x, start, n_steps=lasts)
            for batch in (slice(0, 10), slice(2, 5), slice(3, 4), slice(0, 8), slice(0, 0)):
                some = None if lasts is None else lasts[batch]
                cut = net.state(*(v[:, batch] for v in tensors_of(start).values()), start.t)
                with torch.inference_mode():
                    out, end = net(x[:, batch], cut, n_steps=some)
                    alone = net.final(x[:, batch], cut, n_steps=some)
                assert_close(out.numpy(), wanted[:, batch].numpy(), EPSILON[dtype] / 4, "out")
                for name, v in tensors_of(end).items():
                    assert_close(v.numpy(), getattr(ends, name)[:, batch].numpy(), EPSILON[dtype] / 4, name)
                    assert_same_bits(getattr(alone, name).numpy(), v.numpy(), "final")
                assert end.t == alone.t == 14


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("gate", [g for g in GATES if g not in ("none", "soft")])
@pytest.mark.parametrize("cell", CELLS)
def test_a_shut_unit_holds_its_bits(cell: str, gate: str, dtype: torch.dtype) -> None:
    """h and c, step by step and over the whole, by every path; and it does move where it is open."""
    n_time, held, moved = 7, 0, 0
    net = make_cell(cell, gate, dtype=dtype)
    for batch in (2, 9):
        x, start = make_input(n_time, batch, dtype=dtype), make_state(net, batch, t=0)
        for kind in ("torch", "free", "index") if gate in BY_TIME else ("torch",):
            for grad in (True, False):
                state: Any = start
                with torch.set_grad_enabled(grad), on_path(kind):
                    outs = net(x, start)[0].detach()
                    for t in range(n_time):
                        before, (out, state) = state, net(x[t : t + 1], state)
                        is_open = _who_moves(net, x[t : t + 1], before, t)
                        for name, v in tensors_of(state).items():
                            now, then = v[0].detach(), getattr(before, name)[0].detach()
                            assert_same_bits(now[~is_open].numpy(), then[~is_open].numpy(), f"{kind} {name}")
                            moved += int((now != then)[is_open].sum())
                        held += int((~is_open).sum())
                        assert_same_bits(out[0].detach().numpy(), state.h[0].detach().numpy())
                        if gate in BY_TIME:
                            last = outs[t - 1] if t else start.h[0].detach()
                            assert_same_bits(outs[t][~is_open].numpy(), last[~is_open].numpy())
    assert held > 50
    assert moved > 50


def _who_moves(net: Any, x: Tensor, state: Any, t: int) -> Tensor:
    """Whose gate is open at a step, bool [B, N]: as its table says, or by what the layer would have done."""
    gate = net.gates[0]
    with torch.no_grad():
        if not gate.sees_data:
            table = gate.spread(gate(1, start=t).open)[0] > 0
            return table.expand(x.shape[1], -1)
        found = []
        hook = gate.register_forward_hook(lambda module, given, use: found.append(use.share > 0))
        with nn.path("torch"):
            net(x, state)
        hook.remove()
        return found[0]


@pytest.mark.parametrize("kind", ["free", "torch", "index"])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])
def test_two_stretches_equal_one(cell: str, gate: str, kind: str) -> None:
    net, x = make_cell(cell, gate, num_layers=2), make_input()
    start = make_state(net)
    leaves = {k: p for k, p in net.named_parameters() if p.requires_grad} | tensors_of(start)
    with on_path(kind):
        whole, end = net(x, start)
        wanted = found_of(leaves, whole, end)
        outs, state = [], start
        for part in (x[:4], x[4:4], x[4:5], x[5:]):
            out, state = net(part, state)
            outs.append(out)
        assert state.t == end.t == 14
        assert_close_runs(found_of(leaves, torch.cat(outs), state), wanted, kind)
        if gate != "none":  # torch's own kernel may order its sums by the number of steps
            for a, b in zip((torch.cat(outs), *state[:-1]), (whole, *end[:-1]), strict=True):
                assert_same_bits(a.detach().numpy(), b.detach().numpy())


@pytest.mark.parametrize("gate", BY_TIME)
@pytest.mark.parametrize("cell", CELLS)
def test_a_stream_of_single_steps_equals_one_pass(cell: str, gate: str) -> None:
    net, x = make_cell(cell, gate, num_layers=2, dtype=torch.float32), make_input(20, 2, dtype=torch.float32)
    with torch.no_grad():
        wanted, end = net(x)
        state, outs = None, []
        for row in x:
            out, state = net(row[None], state)
            outs.append(out[0])
    assert_same_bits(torch.stack(outs).numpy(), wanted.numpy())
    for name, v in tensors_of(end).items():
        assert_same_bits(getattr(state, name).numpy(), v.numpy())
    assert state is not None
    assert state.t == end.t == 20


@pytest.mark.parametrize("kind", ["free", "torch", "index"])
@pytest.mark.parametrize("gate", ["none", "rhythm", "periodic"])
@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])
def test_a_detached_state_cuts_the_gradient(cell: str, gate: str, kind: str) -> None:
    net, x = make_cell(cell, gate), make_input()
    start = make_state(net)
    with on_path(kind):
        _, middle = net(x[:5], start)
        cut = middle.detach()
        assert cut.t == middle.t == 10
        alone = type(cut)(*(v.clone() for v in tensors_of(cut).values()), cut.t)
        losses = [weigh([out, *tensors_of(end).values()]) for out, end in (net(x[5:], cut), net(x[5:], alone))]
    a, b = (torch.autograd.grad(loss, list(net.parameters())) for loss in losses)
    assert all(torch.equal(g, h) for g, h in zip(a, b, strict=True))
    assert torch.autograd.grad(net(x[5:], cut)[0].sum(), start.h, allow_unused=True) == (None,)


@pytest.mark.parametrize("cell", CELLS)
def test_padding_counts_for_nothing(cell: str) -> None:
    net, n_steps = make_cell(cell, "rhythm"), LENGTHS
    x = make_input(9, 4)
    for kind in ("free", "torch", "index"):
        wanted = run_all(net, kind, x, n_steps=n_steps)
        dirty = x.masked_fill(torch.arange(9)[:, None, None] >= n_steps[:, None], float("nan"))
        found = run_all(net, kind, dirty, n_steps=n_steps)
        assert_same_bits(found.out.numpy(), wanted.out.numpy())
        for name, g in wanted.by.items():
            assert_same_bits(found.by[name].numpy(), g.numpy(), name)
        for b, last in enumerate(n_steps.tolist()):
            assert (wanted.by["x"][last:, b] == 0).all()
            start = make_state(net, 4)
            with on_path(kind):
                _, one = net(x[:last, b : b + 1], net.state(*(v[:, b : b + 1] for v in start[:-1]), 5))
            for name, v in tensors_of(one).items():
                assert_close(wanted.end[name][:, b].numpy(), v[:, 0].detach().numpy(), 1e-12, name)


@pytest.mark.parametrize("cell", CELLS)
def test_spikes_come_in(cell: str) -> None:
    net = make_cell(cell, "rhythm")
    counts = (make_input(9, 4) > 0.8).double()
    for n_steps in (None, LENGTHS):
        if n_steps is not None:
            counts = counts * (torch.arange(9)[:, None, None] < n_steps[:, None])
        wanted, end = net(counts, n_steps=n_steps)
        out, last = net(su.Spikes.from_dense(counts, n_steps))
        assert_same_bits(out.detach().numpy(), wanted.detach().numpy())
        assert_same_bits(last.h.detach().numpy(), end.h.detach().numpy())
    assert counts.sum() > 10


@pytest.mark.parametrize("gate", ["none", "rhythm", "input", "soft"])
def test_shapes_in_and_out(gate: str) -> None:
    x = make_input(9, 3)
    for cell in ("gru", "lstm"):
        net, first = make_cell(cell, gate, num_layers=2), make_cell(cell, gate, num_layers=2, batch_first=True)
        start = make_state(net)
        wanted, end = net(x, start)
        out, last = first(x.transpose(0, 1), start)
        assert_same_bits(out.transpose(0, 1).detach().numpy(), wanted.detach().numpy())
        for name, v in tensors_of(end).items():
            assert_same_bits(getattr(last, name).detach().numpy(), v.detach().numpy())
            assert v.shape == (2, 3, N)
        wanted, end = net(x[:, 1:2], net.state(*(v[:, 1:2] for v in start[:-1]), 5))
        for each in (net, first):
            out, last = each(x[:, 1], net.state(*(v[:, 1] for v in start[:-1]), 5))
            assert_close(out.detach().numpy(), wanted[:, 0].detach().numpy(), 1e-12)
            for name, v in tensors_of(end).items():
                assert getattr(last, name).shape == (2, N)
                assert_close(getattr(last, name).detach().numpy(), v[:, 0].detach().numpy(), 1e-12)
        nothing, same = net(x[:0], start)
        assert nothing.shape == (0, 3, N)
        assert same.t == start.t
        for name, v in tensors_of(same).items():
            assert_same_bits(v.detach().numpy(), getattr(start, name).detach().numpy())
        for n in (3, 12):
            with torch.no_grad():
                assert net(torch.zeros(0, n, N_IN))[0].shape == (0, n, N)
        empty, none = net(x[:, :0])
        assert empty.shape == (9, 0, N)
        assert none.h.shape == (2, 0, N)


def test_a_cell_stands_in_a_stack() -> None:
    """Behind neurons that fire and before a readout; lengths and states reach it."""
    front, back = nn.Dense(N_IN, N_IN, nn.LIF(N_IN, beta=0.8, threshold=0.3)), nn.Dense(N, 3, nn.LI(3, beta=0.9))
    net = nn.Stack(front, make_cell("lstm", "rhythm"), back).double()
    counts = (make_input(9, 4) > 0.3).double()
    for n_steps in (None, LENGTHS + 1):
        x = counts if n_steps is None else counts * (torch.arange(9)[:, None, None] < n_steps[:, None])
        n_steps = None if n_steps is None else n_steps.clamp(max=9)
        spk, _ = front(x, n_steps=n_steps)
        wanted, end = net[1](spk, n_steps=n_steps)
        wanted, _ = back(wanted, n_steps=n_steps)
        out, states = net(x, n_steps=n_steps)
        assert_same_bits(out.detach().numpy(), wanted.detach().numpy())
        assert_same_bits(states[1].c.detach().numpy(), end.c.detach().numpy())
        assert_same_bits(net(su.Spikes.from_dense(x, n_steps))[0].detach().numpy(), wanted.detach().numpy())
    first, states = net(counts[:4])
    second, _ = net(counts[4:], states)
    assert_same_bits(torch.cat([first, second]).detach().numpy(), net(counts)[0].detach().numpy())
