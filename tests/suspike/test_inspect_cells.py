"""What `record` and `summary` tell of recurrent cells."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import suspike as su

T, B, I, H = 12, 3, 2, 8


class Net(nn.Module):
    """A cell between a layer and a readout of torch's; `by_final` takes the state alone."""

    def __init__(self, cell: Any, by_final: bool = False) -> None:
        super().__init__()
        self.first, self.cell, self.by_final = su.nn.Dense(I, I, su.nn.LIF(I, beta=0.5)), cell, by_final

    def forward(self, x: Tensor, n_steps: Tensor | None = None) -> Any:
        spk, _ = self.first(x, n_steps=n_steps)
        return self.cell.final(spk, n_steps=n_steps) if self.by_final else self.cell(spk, n_steps=n_steps)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("path", [None, "torch"])
def test_a_record_holds_a_cells_calls(path: str | None) -> None:
    gates = [su.nn.RhythmGate(H, open=0.3, n_steps=T), None, su.nn.PeriodicGate(H, period=3)]
    net, x, n_steps = Net(su.nn.LSTM(I, H, 3, gate=gates)), torch.rand(T, B, I), torch.tensor([T, 5, 0])
    with su.record(net) as rec, su.nn.path(path) if path else torch.enable_grad():
        out, state = net(x, n_steps)
        net.cell(rec["first"].spikes[:4], state)  # type: ignore[index]
        last = net.cell.final(x, (state.h, state.c))
    net(x)  # is not recorded
    first, second, third = rec.calls["cell"]
    assert list(rec) == ["first", "cell"]
    assert first.h is out
    assert torch.equal(first.x, rec["first"].spikes)  # type: ignore[arg-type]
    assert first.before is None
    assert second.before is state
    assert first.n_steps is not None
    assert first.n_steps.tolist() == n_steps.tolist()
    assert second.n_steps is None
    assert third.h is None
    assert last.t == T
    assert first.spikes is first.membrane is first.gate is None
    for call, start, n in ((first, 0, T), (second, T, 4), (third, 0, T)):
        assert call.gates[1] is None
        for k in (0, 2):
            assert torch.equal(call.gates[k].open, gates[k](n, start=start).open)  # type: ignore[union-attr,misc]


def test_layers_that_share_a_gate_have_a_record_each() -> None:
    gate = su.nn.InputGate(H, H, open=0.5, rate=0.5, group_size=2)
    cell = su.nn.GRU(H, H, 2, batch_first=True, gate=gate_twice(gate))
    x = torch.rand(B, T, H)
    with su.record(cell) as rec:
        out, _ = cell(x)
    assert torch.equal(rec[""].x, x.transpose(0, 1))
    assert torch.equal(rec[""].h, out.transpose(0, 1))  # type: ignore[arg-type]
    low, high = rec[""].gates
    alone = su.nn.GRU(H, H, gate=gate)
    alone.load_state_dict({k: v for k, v in cell.state_dict().items() if k.endswith("_l0")}, strict=False)
    with su.record(alone) as one:
        alone(x.transpose(0, 1))
    assert torch.equal(low.open_at, one[""].gates[0].open_at)  # type: ignore[union-attr]
    assert not torch.equal(low.open_at, high.open_at)  # type: ignore[union-attr]


def gate_twice(gate: su.nn.Gate) -> list[su.nn.Gate]:
    return [gate, gate]


@pytest.mark.parametrize("by_final", [False, True])
@pytest.mark.parametrize(("kind", "chunks"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
def test_a_summary_counts_multiply_accumulates(kind: str, chunks: int, by_final: bool) -> None:
    gate = su.nn.PeriodicGate(H, period=4, n_open=1)
    net = Net(getattr(su.nn, kind)(I, H, 2, gate=[gate, None]), by_final)
    found = su.summary(net, torch.rand(T, B, I))
    assert [row.name for row in found.rows] == ["first", "cell.l0", "cell.l1"]
    _, low, high = found.rows
    assert (low.kind, low.n_in, low.n_out, low.gated, high.gated) == (kind, I, H, True, False)
    assert low.parameters == chunks * H * (I + H + 2)
    assert high.parameters == chunks * H * (H + H + 2)
    assert (low.open_fraction, high.open_fraction) == (0.25, 1)
    assert low.synops_done == chunks * H * (I + H) * T / 4
    assert low.synops_skipped == chunks * H * (I + H) * T * 3 / 4
    assert (high.synops_done, high.synops_skipped) == (chunks * H * (H + H) * T, 0)
    assert low.rate is low.active_share is low.silent is None
    assert "cell.l0" in str(found)


def test_a_summary_of_a_cell_that_takes_samples_first() -> None:
    torch.manual_seed(0)
    x, gate = torch.rand(T, B, I), su.nn.PeriodicGate(H, period=4, n_open=1)
    one, other = su.nn.GRU(I, H, gate=gate), su.nn.GRU(I, H, batch_first=True, gate=gate)
    n_steps = torch.tensor([T, 5, 2])
    assert su.summary(other, x.transpose(0, 1)) == su.summary(one, x)
    assert su.summary(other, x.transpose(0, 1), n_steps) == su.summary(one, x, n_steps)
    assert f"samples: {B}, steps: {T}," in su.summary(other, x.transpose(0, 1)).title


def test_a_summary_counts_true_steps() -> None:
    gate, n_steps = su.nn.RhythmGate(H, open=0.3, n_steps=T), torch.tensor([T, 5, 0])
    (row,) = su.summary(su.nn.GRU(I, H, gate=gate), torch.rand(T, B, I), n_steps).rows
    n_open = sum(int(gate(n).open.sum()) for n in n_steps.tolist())
    assert row.open_fraction == n_open / (17 * H)
    assert row.name == ""
    assert row.parameters == 3 * H * (I + H + 2) + sum(p.numel() for p in gate.parameters())


def test_a_summary_knows_what_gates_that_data_open_cost() -> None:
    x = torch.randn(T, B, I)
    by_input = su.nn.InputGate(I, H, open=0.3, rate=0.5, group_size=2, recurrent=True)
    cell = su.nn.GRU(I, H, gate=by_input)
    with su.record(cell) as rec:
        cell(x)
    n_open = int(rec[""].gates[0].open_at.sum())  # type: ignore[union-attr]
    (row,) = su.summary(cell, x).rows
    assert 0 < n_open < T * B * H
    assert row.open_fraction == n_open / (T * B * H)
    own = T * B * 4 * (I + H)
    assert row.synops_done == pytest.approx((n_open * 3 * (I + H) + own) / B)
    assert row.synops_skipped == pytest.approx((T * B * H - n_open) * 3 * (I + H) / B)
    (drive,) = su.summary(su.nn.GRU(I, H, gate=su.nn.DriveGate(H, open=0.3)), x).rows
    assert drive.open_fraction is not None
    assert 0 < drive.open_fraction < 1
    assert (drive.synops_done, drive.synops_skipped) == (T * H * 3 * (I + H), 0)
    (soft,) = su.summary(su.nn.GRU(I, H, gate=su.nn.SoftGate(H, open=0.3)), x).rows
    assert (soft.open_fraction, soft.synops_skipped) == (1, 0)


def test_a_cell_that_was_not_called_has_a_row_without_figures() -> None:
    net = Net(su.nn.GRU(I, H))
    net.forward = lambda x: net.first(x)  # type: ignore[method-assign,assignment,misc]
    row = su.summary(net, torch.rand(T, B, I)).rows[1]
    assert (row.open_fraction, row.synops_done) == (None, None)


def test_a_gate_changed_inside_of_a_record_is_refused() -> None:
    cell = su.nn.GRU(I, H, gate=su.nn.PeriodicGate(H, period=3))
    with su.record(cell):
        cell.gates[0] = su.nn.PeriodicGate(H, period=4)
        with pytest.raises(
            ValueError, match="`net` must be left as it is while recorded, got another gate in layer ''"
        ):
            cell(torch.rand(T, B, I))
