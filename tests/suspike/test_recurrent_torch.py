"""Cells that are always open are torch.nn's: weights drawn, state_dict, outputs, gradients, layouts, dropout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from suspike_testing.comparing import assert_close
from suspike_testing.recurrent import CELLS, N_IN, TORCH, N, make_cell, make_input, make_state, on_path
from suspike_testing.zoo import tensors_of, weigh

from suspike import nn

EPSILON = {torch.float32: 2e-5, torch.float64: 1e-12}
KINDS = ("free", "torch", "index")


def pair(cell: str, dtype: torch.dtype = torch.float64, *, seed: int = 0, **options: Any) -> tuple[Any, Any]:
    """A cell of ours that is always open and torch's, from the same seed."""
    torch.manual_seed(seed)
    theirs = TORCH[cell](N_IN, N, **options).to(dtype)
    torch.manual_seed(seed)
    return CELLS[cell](N_IN, N, **options).to(dtype), theirs


def as_torch(state: Any) -> Any:
    """A state in the form that torch's modules take and give."""
    return state.variables if len(state.variables) > 1 else state.h


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_a_seed_draws_torchs_weights(cell: str, bias: bool) -> None:
    for size in (1, 3, 12, 50):
        torch.manual_seed(4)
        theirs = TORCH[cell](7, size, 3, bias=bias).state_dict()
        torch.manual_seed(4)
        ours = CELLS[cell](7, size, 3, bias=bias).state_dict()
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[k], v) for k, v in theirs.items())


@pytest.mark.parametrize("gate", ["none", "rhythm", "input"])
@pytest.mark.parametrize("cell", CELLS)
def test_torchs_state_dict_loads(cell: str, gate: str) -> None:
    net = make_cell(cell, gate, num_layers=2)
    torch.manual_seed(9)
    given = TORCH[cell](N_IN, N, 2).double().state_dict()
    missing, unexpected = net.load_state_dict(given, strict=gate == "none")
    assert unexpected == []
    assert all(name.startswith("gates.") for name in missing)
    assert bool(missing) == (gate != "none")
    assert all(torch.equal(net.state_dict()[k], v) for k, v in given.items())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
def test_always_open_it_is_torchs(cell: str, kind: str) -> None:
    for dtype, epsilon in EPSILON.items():
        for options in ({}, {"num_layers": 2, "bias": False}, {"num_layers": 3, "batch_first": True}):
            ours, theirs = pair(cell, dtype, **options)
            x, start = make_input(dtype=dtype).requires_grad_(), make_state(ours, t=0)
            x_theirs = x.transpose(0, 1) if options.get("batch_first") else x
            wanted, ends = theirs(x_theirs, as_torch(start))
            ends = ends if isinstance(ends, tuple) else (ends,)
            loss = weigh([wanted, *ends])
            leaves = [x, *tensors_of(start).values()]
            by = torch.autograd.grad(loss, [*leaves, *theirs.parameters()])
            with on_path(kind):
                for state in (start, as_torch(start)):
                    out, end = ours(x_theirs, state)
                    found = torch.autograd.grad(weigh([out, *end.variables]), [*leaves, *ours.parameters()])
                    for a, b in zip((out, *end.variables, *found), (wanted, *ends, *by), strict=True):
                        assert_close(a.detach().numpy(), b.detach().numpy(), epsilon)
                    assert end.t == len(x)
                with torch.no_grad():
                    again, _ = ours(x_theirs)
                    assert_close(again.numpy(), theirs(x_theirs)[0].numpy(), epsilon)


@pytest.mark.parametrize("cell", CELLS)
def test_a_gate_that_never_shuts_changes_nothing(cell: str) -> None:
    """The paths of open units, with all of them open: no table of ours, but a rhythm far above 0."""
    ours, theirs = pair(cell)
    gate = nn.RhythmGate(N, open=0.5).double()
    torch.nn.init.constant_(gate.bias, 100.0)
    ours.gates[0] = gate
    x = make_input(9, 11)
    wanted = theirs(x)[0]
    by = torch.autograd.grad(weigh([wanted]), list(theirs.parameters()))
    for kind in KINDS:
        with on_path(kind):
            out, _ = ours(x)
            weights = [p for k, p in ours.named_parameters() if not k.startswith("gates.")]
            for a, b in zip((out, *torch.autograd.grad(weigh([out]), weights)), (wanted, *by), strict=True):
                assert_close(a.detach().numpy(), b.detach().numpy(), 1e-12)
            with torch.no_grad():
                for batch in (slice(0, 11), slice(0, 3)):
                    assert_close(ours(x[:, batch])[0].numpy(), wanted[:, batch].detach().numpy(), 1e-12)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_a_single_sample_has_torchs_shapes(cell: str, batch_first: bool) -> None:
    ours, theirs = pair(cell, num_layers=2, batch_first=batch_first)
    x, start = make_input()[:, 1], make_state(ours, t=0)
    given = tuple(v[:, 1].detach() for v in start.variables)
    given = given if len(given) > 1 else given[0]
    for state in (None, given):
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                wanted, ends = theirs(x, state)
                out, end = ours(x, state)
            assert_close(out.detach().numpy(), wanted.detach().numpy(), 1e-12)
            for a, b in zip(end.variables, ends if isinstance(ends, tuple) else (ends,), strict=True):
                assert_close(a.detach().numpy(), b.detach().numpy(), 1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_dropout_stands_between_layers_in_training_alone(cell: str) -> None:
    """A seed draws what it draws for torch's modules."""
    ours, theirs = pair(cell, num_layers=3, dropout=0.4)
    plain, _ = pair(cell, num_layers=3)
    x = make_input(9, 11)
    found = []
    for seed in (3, 3, 4):
        outs = []
        for net in (ours, theirs):
            torch.manual_seed(seed)
            outs.append(net(x)[0])
        assert_close(outs[0].detach().numpy(), outs[1].detach().numpy(), 1e-12)
        found.append(outs[0])
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])
    wanted = plain(x)[0]
    assert torch.equal(ours.eval()(x)[0], wanted)
    assert not torch.allclose(found[0], wanted)
    single, _ = pair(cell)
    torch.manual_seed(0)
    dropped = CELLS[cell](N_IN, N, dropout=0.9).double()
    dropped.load_state_dict(single.state_dict())
    assert torch.equal(dropped(x)[0], single(x)[0])


@pytest.mark.parametrize("cell", CELLS)
def test_in_bfloat16_it_is_torchs_too(cell: str) -> None:
    """Which kernels of ours have none of."""
    ours, theirs = pair(cell, torch.bfloat16)
    for batch in (2, 11):
        x = make_input(9, batch, dtype=torch.bfloat16)
        with torch.no_grad():
            assert torch.equal(ours(x)[0], theirs.eval()(x)[0])
    gated = make_cell(cell, "rhythm", dtype=torch.bfloat16)
    wanted = gated(x)[0].float()
    assert wanted.dtype == torch.float32
    single = make_cell(cell, "rhythm", dtype=torch.float32)(x.float())[0]
    assert_close(wanted.detach().numpy(), single.detach().numpy(), 0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_reaches_the_next_layers_input_and_gate(kind: str) -> None:
    net = make_cell("gru", "rhythm", num_layers=2, dropout=0.5)
    x = make_input()
    with on_path(kind):
        torch.manual_seed(1)
        out, end = net(x)
        plain, last = net.eval()(x)
    assert torch.equal(end.h[0], last.h[0])
    assert not torch.allclose(out, plain)
    assert out.shape == plain.shape
    with on_path("torch"):
        torch.manual_seed(1)
        wanted, _ = net.train()(x)
    assert_close(out.detach().numpy(), wanted.detach().numpy(), 1e-12)


@pytest.mark.parametrize("gate", ["none", "rhythm", "drive"])
@pytest.mark.parametrize("cell", CELLS)
def test_autocast_leaves_states_in_float32(cell: str, gate: str) -> None:
    """Products in bfloat16, as torch.nn's, round by 2^-8; what is handed on keeps its type."""
    net, x = make_cell(cell, gate, num_layers=2, dtype=torch.float32), make_input(dtype=torch.float32)
    with torch.no_grad():
        wanted = net(x)[0]
    for kind in ("free", "torch", "index") if gate != "drive" else ("torch",):
        for grad in (True, False):
            net.zero_grad()
            with on_path(kind), torch.set_grad_enabled(grad), torch.autocast("cpu", dtype=torch.bfloat16):
                out, state = net(x[:5])
                late, end = net(x[5:].bfloat16(), state)
            assert {v.dtype for v in (out, late, *state.variables, *end.variables)} == {torch.float32}
            if gate != "drive":
                assert_close(torch.cat([out, late]).detach().numpy(), wanted.numpy(), 0.03)
            if grad:
                (out.sum() + late.sum()).backward()
                assert all(p.grad.dtype == torch.float32 for p in net.parameters() if p.requires_grad)
