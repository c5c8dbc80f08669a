"""The examples of selective-update cells run, in a tiny setting."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "sequence"


@pytest.fixture
def gradient_norm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXAMPLES)
    import gradient_norm  # type: ignore[import-not-found]

    return gradient_norm  # type: ignore[no-any-return]


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(EXAMPLES)
    import digits  # type: ignore[import-not-found]

    return digits  # type: ignore[no-any-return]


def test_a_gate_keeps_the_gradient(
    gradient_norm: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    found: dict[Any, np.ndarray] = gradient_norm.main(seeds=2, n_time=200, hidden=16, picture=tmp_path / "norms.png")
    assert (tmp_path / "norms.png").read_bytes().startswith(b"\x89PNG")
    assert torch.get_default_dtype() == torch.float32
    assert [curves.shape for curves in found.values()] == [(2, 200)] * 8
    assert all(np.allclose(curves[:, 0], 1) for curves in found.values())
    ends = {(s.weights, s.title): np.log10(curves[:, -1]) for s, curves in found.items()}
    for weights in ("uniform", "orthogonal"):
        always, some, few = (ends[weights, title] for title in ("always open", "17 % open", "2 % open"))
        assert (always < some).all()
        assert (some < few).all()
    assert "orthogonal   leak of 2 %" in capsys.readouterr().out


def test_the_control_loses_what_it_is_told_to(gradient_norm: ModuleType) -> None:
    """The fit of a decay, and the control whose weights are scaled to one."""
    curve = np.array([0.5**lag for lag in range(20)])
    assert gradient_norm.decades_an_update(curve, 1.0) == pytest.approx(np.log10(0.5))
    assert gradient_norm.decades_an_update(curve, 0.25) == pytest.approx(4 * np.log10(0.5))
    setting = gradient_norm.Setting("always open", "orthogonal")
    full, half = (
        gradient_norm.norms_against_lag(setting, seed=0, n_time=30, hidden=16, scale=scale) for scale in (1.0, 0.5)
    )
    scale = gradient_norm.scale_for(np.log10(0.3), setting, 60, seed=0, hidden=16)
    found = gradient_norm.norms_against_lag(setting, seed=0, n_time=60, hidden=16, scale=scale)
    assert gradient_norm.decades_an_update(found, 1.0) == pytest.approx(np.log10(0.3), rel=0.02)
    assert full[0] == pytest.approx(1)
    assert (half[5:] < full[5:] * 0.1).all()


def test_digits_are_read_by_every_network(digits: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    data, held_out = digits.read()
    assert (data.x.shape, held_out.x.shape) == ((256, 1437, 1), (256, 360, 1))
    assert torch.bincount(held_out.labels).tolist() == [36] * 10
    parts = (data.take(torch.arange(48)), held_out.take(torch.arange(40)))
    small = digits.Settings(hidden=8, batch=16, epochs=1)
    rows = digits.main(seeds=2, chosen=small, out=tmp_path / "rows.json", picture=tmp_path / "moved.png", parts=parts)
    assert (tmp_path / "moved.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "rows.json").read_text())["rows"] == rows
    assert [row["network"] for row in rows] == ["learned rhythm", "frozen rhythm", "always open"] * 2
    for row in rows:
        assert 0 <= row["accuracy_trained_on"] <= 1
        assert row["updates_an_image"] == round(row["open_fraction"] * 256 * 8)
    assert all(row["open_fraction"] == 1 for row in rows[2::3])
    assert all(0.1 < row["open_fraction"] < 0.3 for row in rows[0::3] + rows[1::3])
    # the seed alone decides
    again = digits.main(seeds=1, chosen=small, parts=parts)
    assert [{**row, "cpu_s": 0} for row in again] == [{**row, "cpu_s": 0} for row in rows[:3]]


def test_ink_and_background_are_told_apart(digits: ModuleType) -> None:
    """A GRU whose state can only move when ink comes moves nowhere else, whatever its gate does."""
    net = digits.Reader(digits.NETWORKS["frozen rhythm"], digits.Settings(hidden=8))
    with torch.no_grad():
        for p in net.gru.weights(0):
            p.zero_()
        net.gru.weight_ih_l0[8:16], net.gru.weight_ih_l0[16:] = -1e3, 10.0  # z is 0 and n is 1 on ink, else z is 1/2
        net.gru.bias_ih_l0[8:16] = 100.0  # but 1 on black
    x = torch.zeros(256, 1, 1)
    x[100:150] = 1.0
    found = digits.on_strokes(net, digits.Images(x, torch.zeros(1)))
    table = net.gru.gates[0](256).open.mean(1)
    ink = x[:, 0, 0] > 0
    assert found["open_on_ink"] == pytest.approx(table[ink].mean().item(), rel=1e-5)
    assert found["open_on_background"] == pytest.approx(table[~ink].mean().item(), rel=1e-5)
    assert found["increments_on_background"] == 0 < found["increments_on_ink"]


def test_a_frozen_rhythm_stays_and_a_learned_one_moves(digits: ModuleType) -> None:
    data, _ = digits.read()
    some, small = data.take(torch.arange(32)), digits.Settings(hidden=8, batch=16, epochs=1)
    for title, moves in (("learned rhythm", True), ("frozen rhythm", False)):
        torch.manual_seed(0)
        before = digits.Reader(digits.NETWORKS[title], small).gru.gates[0].bias.detach().clone()
        net = digits.train(some, digits.NETWORKS[title], seed=0, chosen=small)
        assert torch.equal(net.gru.gates[0].bias, before) != moves
