"""Recurrent cells by name and gates for them, and all that a run on one of their paths gives, with gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from suspike import nn
from suspike.nn import paths
from suspike_testing.zoo import Found, found_of, tensors_of

N_IN, N = 5, 12

CELLS: dict[str, Callable[..., nn.RNN | nn.GRU | nn.LSTM]] = {
    "tanh": nn.RNN,
    "relu": lambda *a, **kw: nn.RNN(*a, nonlinearity="relu", **kw),
    "gru": nn.GRU,
    "lstm": nn.LSTM,
}
TORCH: dict[str, Callable[..., torch.nn.RNNBase]] = {
    "tanh": torch.nn.RNN,
    "relu": lambda *a, **kw: torch.nn.RNN(*a, nonlinearity="relu", **kw),
    "gru": torch.nn.GRU,
    "lstm": torch.nn.LSTM,
}
GATES: dict[str, Callable[[int], nn.Gate | None]] = {
    "none": lambda n_in: None,
    "rhythm": lambda n_in: nn.RhythmGate(N, open=0.4, gate_width=0.5, n_steps=60, learn_periods=True),
    "grouped": lambda n_in: nn.RhythmGate(N, open=0.4, gate_width=0.5, n_steps=60, periods=(7.3,), group_size=4),
    "random": lambda n_in: nn.RandomGate(N, open=0.3, n_steps=60),
    "periodic": lambda n_in: nn.PeriodicGate(N, period=3),
    "together": lambda n_in: nn.PeriodicGate(N, period=3, together=True),
    "soft": lambda n_in: nn.SoftGate(N, open=0.4, n_steps=60),
    "input": lambda n_in: nn.InputGate(n_in, N, open=0.6, rate=0.6, group_size=4, gate_width=0.7),
    "recurrent": lambda n_in: nn.InputGate(n_in, N, open=0.6, rate=0.6, group_size=4, recurrent=True, gate_width=0.7),
    "drive": lambda n_in: nn.DriveGate(N, open=0.5, spread=0.5, gate_width=0.7),
}
BY_TIME = ("none", "rhythm", "grouped", "random", "periodic", "together")
"""Gates for which the open units alone are computed."""


@contextmanager
def on_path(kind: str) -> Iterator[None]:
    """Run on the "torch" path, on that of open units ("free"), or on that as other devices than the CPU take it."""
    if kind == "torch":
        with nn.path("torch"):
            yield
    elif kind == "index":
        with mock.patch.object(paths, "on_cpu", return_value="it is asked for"):
            yield
    else:
        assert kind == "free"
        yield


def make_cell(
    cell: str, gate: str, *, num_layers: int = 1, dtype: torch.dtype = torch.float64, seed: int = 0, **options: Any
) -> Any:
    torch.manual_seed(seed)
    gates = [GATES[gate](N if layer else N_IN) for layer in range(num_layers)]
    for each in gates:
        if isinstance(each, nn.InputGate) and each.recurrent is not None:
            torch.nn.init.normal_(each.recurrent, std=0.4)
    return CELLS[cell](N_IN, N, num_layers, gate=gates, **options).to(dtype)


def make_input(n_time: int = 9, batch: int = 3, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_time, batch, N_IN, generator=generator, dtype=torch.float64).to(dtype)


def make_state(net: Any, batch: int = 3, *, t: int = 5, seed: int = 0) -> Any:
    """A state away from rest, whose tensors take gradients."""
    generator, dtype = torch.Generator().manual_seed(seed), net.weight_hh_l0.dtype
    shape = (net.num_layers, batch, net.hidden_size)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in net.state._fields[:-1]]
    return net.state(*(x.mul(0.5).requires_grad_() for x in made), t)


def run_all(net: Any, kind: str, x: Tensor, *, n_steps: Tensor | None = None, final: bool = False) -> Found:
    """Run on a path from a state away from rest; gradients by all parameters, that state and the input."""
    start, x = make_state(net, x.shape[1]), x.detach().clone().requires_grad_()
    leaves = {k: p for k, p in net.named_parameters() if p.requires_grad} | tensors_of(start) | {"x": x}
    with on_path(kind):
        if final:
            end = net.final(x, start, n_steps=n_steps)
            return found_of(leaves, x.new_zeros(0), end)
        out, end = net(x, start, n_steps=n_steps)
    return found_of(leaves, out, end)
