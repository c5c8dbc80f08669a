"""What the probes of recurrent cells tell: gradients by the state, increments, how often a gate was open."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from suspike_testing.comparing import assert_close
from torch import Tensor

import suspike as su
from suspike.nn import cell_paths
from suspike.probes import gate_activity, increments

T, B, I, H = 14, 3, 2, 6
CELLS: dict[str, Callable[..., Any]] = {"RNN": su.nn.RNN, "GRU": su.nn.GRU, "LSTM": su.nn.LSTM}
GATES: dict[str, Callable[[int], su.nn.Gate | None]] = {
    "none": lambda n_in: None,
    "rhythm": lambda n_in: su.nn.RhythmGate(H, open=0.3, n_steps=T),
    "every third": lambda n_in: su.nn.PeriodicGate(H, period=3, together=True),
    "input": lambda n_in: su.nn.InputGate(n_in, H, open=0.4, rate=0.5, group_size=2),
    "soft": lambda n_in: su.nn.SoftGate(H, open=0.3, n_steps=T),
}


@pytest.fixture(autouse=True)
def _exact() -> Any:
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def loss_of(out: Tensor, state: Any) -> Tensor:
    """Every step and every state counts, each with a weight of its own."""
    parts = [out, *state.variables]
    return sum((p * torch.linspace(-1, 2, p.numel()).view_as(p)).sum() for p in parts)  # type: ignore[return-value]


def by_perturbing(cell: Any, x: Tensor, n_steps: Tensor | None) -> list[Tensor]:
    """Norms [num_layers, T, B] of each state: the gradient by a 0 that is added to it, step by step in plain torch."""
    added: list[Tensor] = []
    after = []
    for layer in range(cell.num_layers):
        alone = type(cell)(x.shape[2], H, gate=cell.gates[layer])
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        alone.load_state_dict({f"{n}_l0": getattr(cell, f"{n}_l{layer}").detach() for n in names}, strict=False)
        zeros = torch.zeros(len(cell.state._fields) - 1, T, B, H, requires_grad=True)
        state, outs = None, []
        for t in range(T):
            runs = None if n_steps is None else (n_steps > t).long()
            _, state = alone(x[t : t + 1], state, n_steps=runs)
            moved = (s + e[None] for s, e in zip(state.variables, zeros[:, t], strict=True))
            state = type(state)(*moved, state.t)
            outs.append(state.h[0])
        x = torch.stack(outs)
        added.append(zeros)
        after.append(state)
    joined = (torch.cat(each) for each in zip(*(s.variables for s in after), strict=True))
    loss_of(x, cell.state(*joined, T)).backward()
    return list(torch.stack([zeros.grad.norm(dim=-1) for zeros in added], 1))  # type: ignore[union-attr]


@pytest.mark.parametrize("lengths", [None, (5, 0, T)])
@pytest.mark.parametrize("path", ["free", "torch", "by index"])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("kind", CELLS)
def test_the_norms_are_those_of_the_whole_gradient(
    kind: str, gate: str, path: str, lengths: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = CELLS[kind](I, H, 2, gate=[GATES[gate](I), GATES[gate](H)])
    x, n_steps = torch.randn(T, B, I), None if lengths is None else torch.tensor(lengths)
    with su.nn.path("torch"):
        wanted = by_perturbing(cell, x, n_steps)
    if path == "by index":
        monkeypatch.setattr(cell_paths.paths, "on_cpu", lambda x: "told so")
    with su.nn.path("torch") if path == "torch" else nullcontext(), su.probe_gradients(cell) as norms:
        loss_of(*cell(x, n_steps=n_steps)).backward()
    assert_close(norms.h.numpy(), wanted[0].numpy(), 1e-10)
    assert wanted[0].min() > 0
    if kind == "LSTM":
        assert_close(norms.c.numpy(), wanted[1].numpy(), 1e-10)
    else:
        with pytest.raises(AttributeError, match=r"^`cell` must be an LSTM to have c, got one that has h alone\.$"):
            norms.c  # noqa: B018


@pytest.mark.parametrize("path", ["free", "torch"])
@pytest.mark.parametrize("gate", ["none", "rhythm"])
@pytest.mark.parametrize("kind", CELLS)
def test_a_probe_changes_no_gradient(kind: str, gate: str, path: str) -> None:
    cell = CELLS[kind](I, H, gate=GATES[gate](I))
    x = torch.randn(T, B, I, requires_grad=True)
    leaves = [x, *cell.parameters()]
    with su.nn.path("torch") if path == "torch" else nullcontext():
        wanted = torch.autograd.grad(loss_of(*cell(x)), leaves)
        with su.probe_gradients(cell):
            found = torch.autograd.grad(loss_of(*cell(x)), leaves)
    for a, b in zip(found, wanted, strict=True):
        assert_close(a.numpy(), b.numpy(), 0 if gate == "rhythm" or path == "torch" else 1e-12)


def test_a_held_step_passes_the_gradient_on_as_it_is() -> None:
    gru = su.nn.GRU(I, H, gate=su.nn.PeriodicGate(H, period=4, together=True))
    with su.probe_gradients(gru) as norms:
        gru(torch.randn(13, B, I))[0][-1].sum().backward()
    h = norms.h[0]
    for t in range(12):  # open at 0, 4, 8 and 12: the update at t + 1 stands between the gradients by h_t and h_{t+1}
        assert (h[t] == h[t + 1]).all() if (t + 1) % 4 else (h[t] != h[t + 1]).all(), t


def test_a_probe_sees_the_calls_inside_of_it_alone_and_final_too() -> None:
    torch.manual_seed(1)
    gru, other, x = su.nn.GRU(I, H, gate=GATES["rhythm"](I)), su.nn.GRU(I, H), torch.randn(T, B, I)
    before = gru(x)[0].sum()
    with su.probe_gradients(gru) as norms, su.probe_gradients(other) as others, su.probe_gradients(gru) as twice:
        _, state = gru(x)
        second = gru.final(x[:5], state)
        with torch.no_grad():
            gru(x)
        other(x)
    after = gru(x)[0].sum()
    assert [c.shape for c in norms.calls] == [(1, 1, T, B), (1, 1, 5, B)]
    assert [c.shape for c in others.calls] == [(1, 1, T, B)]
    (before + after).backward()
    assert not any(c.any() for c in norms.calls + others.calls)
    second.h.sum().backward()  # truncated nowhere: it goes through both calls
    assert (norms.calls[0] > 0).all()
    assert torch.equal(norms.h, norms.calls[1][0])
    assert torch.equal(norms.h[0, -1], torch.full((B,), H**0.5))
    assert all(torch.equal(a, b) for a, b in zip(norms.calls, twice.calls, strict=True))


def test_a_small_gradient_in_float32_is_no_zero() -> None:
    torch.set_default_dtype(torch.float32)
    rnn = su.nn.RNN(I, H)
    for path in ("free", "torch"):
        with su.nn.path("torch") if path == "torch" else nullcontext(), su.probe_gradients(rnn) as norms:
            (rnn(torch.randn(1, B, I))[0].sum() * 1e-30).backward()
        assert_close(norms.h.numpy(), np.full((1, 1, B), 1e-30 * H**0.5), 1e-6)


def test_what_is_no_cell_or_was_not_called_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^`cell` must be an RNN, GRU or LSTM of suspike\.nn, got a GRU\. Probe"):
        su.probe_gradients(torch.nn.GRU(1, 1)).__enter__()  # type: ignore[arg-type]
    with su.probe_gradients(su.nn.GRU(1, 1)) as norms:
        pass
    with pytest.raises(ValueError, match=r"^`calls` must be one or more, with gradient, got none\. Run the cell"):
        norms.h  # noqa: B018


@given(seed=st.integers(0, 99), period=st.integers(2, 5))
@settings(deadline=None, derandomize=True, database=None, max_examples=10)
def test_increments_are_signed_add_up_and_are_0_where_a_unit_was_shut(seed: int, period: int) -> None:
    torch.manual_seed(seed)
    gate = su.nn.PeriodicGate(H, period=period)
    x, start = torch.randn(T, B, I), torch.randn(1, B, H)
    out, state = su.nn.GRU(I, H, gate=gate)(x, start)
    moved = increments(out, start[0])
    shut = gate(T).open == 0
    assert not moved.movedim(1, -1)[shut].any()
    assert (moved.movedim(1, -1)[~shut] != 0).all()
    assert_close((start[0] + moved.sum(0)).detach().numpy(), state.h[0].detach().numpy(), 1e-12)
    assert torch.equal(increments(out)[0], out[0])
    assert torch.equal(increments(out)[1:], moved[1:])


def test_increments_refuse_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"^`out` must be of shape \[T, B, H\], got shape \[3, 2\]\.$"):
        increments(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"^`before` must be of shape \[2, 4\], got shape \[1, 2, 4\]\.$"):
        increments(torch.zeros(3, 2, 4), torch.zeros(1, 2, 4))


def test_the_gate_activity_of_a_table_and_of_what_data_opened() -> None:
    table = su.nn.PeriodicGate(4, period=4, n_open=2)(6)
    by_unit, by_step = gate_activity(table)
    assert by_unit.tolist() == (table.open.sum(0) / 6).tolist()
    assert by_step.tolist() == [0.5] * 6
    # sample 0 of 2 steps, sample 1 of 4: unit 0 open at (1 of 2) and (3 of 4), unit 1 at (0 of 2) and (1 of 4)
    share = torch.tensor([[0.5, 0.0], [0.75, 0.25]], requires_grad=True)
    use = su.nn.GateUse(share, torch.tensor([[1, 0, 0, 0], [1, 2, 1, 0]]), torch.tensor([2, 4]))
    by_unit, by_step = gate_activity(use)
    assert_close(by_unit.numpy(), np.array([4 / 6, 1 / 6]), 1e-12)
    assert_close(by_step.numpy(), np.array([2 / 4, 2 / 4, 1 / 2, 0]), 1e-12)
    assert not by_unit.requires_grad
    even = gate_activity(use._replace(n_steps=None))
    assert_close(even.by_unit.numpy(), np.array([0.625, 0.125]), 1e-12)
    assert_close(even.by_step.numpy(), np.array([0.5, 0.5, 0.25, 0]), 1e-12)
    for empty in (su.nn.PeriodicGate(4, period=4)(0), su.nn.GateUse(share[:0], torch.zeros(0, 3), None)):
        with pytest.raises(ValueError, match=r"^`gate` must be of one "):
            gate_activity(empty)
