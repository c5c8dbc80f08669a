"""A GRU's gates as inputs that saturate z: one library call, close to the exact hold, for inference alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import suspike as su

H = 12


def gru(gate: Any = None, **options: Any) -> su.nn.GRU:
    torch.manual_seed(0)
    gate = su.nn.RhythmGate(H, open=0.3) if gate is None else gate
    return su.nn.GRU(3, H, gate=gate, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_steps", [None, torch.tensor([40, 0, 7])])
@pytest.mark.parametrize("batch_first", [False, True])
def test_it_is_close_to_the_exact_hold(dtype: torch.dtype, n_steps: torch.Tensor | None, batch_first: bool) -> None:
    net = gru([su.nn.RhythmGate(H, open=0.3), None], num_layers=2, batch_first=batch_first).to(dtype)
    x = torch.randn(3, 40, 3, dtype=dtype) if batch_first else torch.randn(40, 3, 3, dtype=dtype)
    with torch.no_grad():
        exact, after = net(x, n_steps=n_steps)
        close, ended = net(x, n_steps=n_steps, exact_hold=False)
    tolerance = 40 * torch.finfo(dtype).eps
    torch.testing.assert_close(close, exact, rtol=0, atol=tolerance)
    torch.testing.assert_close(ended.h, after.h, rtol=0, atol=tolerance)
    assert ended.t == after.t == 40


def test_the_rhythm_goes_on_with_the_state() -> None:
    net, x = gru(), torch.randn(40, 3, 3)
    with torch.no_grad():
        whole, _ = net(x, exact_hold=False)
        first, state = net(x[:17], exact_hold=False)
        rest, _ = net(x[17:], state, exact_hold=False)
    torch.testing.assert_close(torch.cat([first, rest]), whole, rtol=0, atol=1e-6)


def test_a_shut_unit_drifts_by_rounding_alone() -> None:
    net, h = gru(su.nn.PeriodicGate(H, period=10_000)), torch.linspace(-0.9, 0.9, H).expand(1, 3, H)
    net.gates[0].offset.fill_(1)  # type: ignore[union-attr, operator]
    with torch.no_grad():
        _, state = net(torch.randn(2000, 3, 3), h, exact_hold=False)
        _, exact = net(torch.randn(2000, 3, 3), h)
    assert torch.equal(exact.h, h)
    assert 0 < (state.h - h).abs().max() < 1e-5


@pytest.mark.parametrize("gate", [su.nn.SoftGate(H, open=0.3), su.nn.InputGate(3, H, open=0.3, group_size=4)])
def test_only_gates_of_time(gate: su.nn.Gate) -> None:
    with torch.no_grad(), pytest.raises(ValueError, match=r"`exact_hold` must be True .* no function of time"):
        gru(gate)(torch.randn(5, 2, 3), exact_hold=False)


def test_not_for_training() -> None:
    with pytest.raises(ValueError, match=r"got False\. Call it under torch\.no_grad"):
        gru()(torch.randn(5, 2, 3), exact_hold=False)
