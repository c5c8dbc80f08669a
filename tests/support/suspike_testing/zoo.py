"""Every neuron and every gate by name, a layer of any two, and all that a run of it gives, with gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

import suspike as su
from suspike import nn
from suspike_testing.cases import GRID

N_IN, N = 6, 24

NEURONS: dict[str, Callable[..., nn.Neuron]] = {
    "IF": lambda **kw: nn.IF(N, learn_threshold=True, threshold=0.9, **kw),
    "LIF": lambda **kw: nn.LIF(N, beta=0.9, threshold=0.6, learn_beta=True, learn_threshold=True, **kw),
    "CubaLIF": lambda **kw: nn.CubaLIF(
        N, beta=0.8, alpha=0.7, threshold=0.9, learn_beta=True, learn_alpha=True, learn_threshold=True, **kw
    ),
    "AdLIF": lambda **kw: nn.AdLIF(
        N, beta=0.8, rho=0.9, a=1.5, b=0.7, threshold=0.2, learn_beta=True, learn_rho=True, learn_a=True, learn_b=True,
        learn_threshold=True, **kw,
    ),
    "LI": lambda **kw: nn.LI(N, beta=0.9, learn_beta=True, **kw),
    "CubaLI": lambda **kw: nn.CubaLI(N, beta=0.9, alpha=0.6, learn_beta=True, learn_alpha=True, **kw),
}  # fmt: skip
FIRING = ("IF", "LIF", "CubaLIF", "AdLIF")

GATES: dict[str, Callable[[], nn.Gate | None]] = {
    "none": lambda: None,
    "rhythm": lambda: nn.RhythmGate(N, open=0.5, gate_width=0.5, n_steps=60, learn_periods=True),
    "grouped": lambda: nn.RhythmGate(N, open=0.5, gate_width=0.5, n_steps=60, periods=(7.3,), group_size=8),
    "input": lambda: nn.InputGate(N_IN, N, open=0.5, rate=0.4, group_size=8, gate_width=0.7),
    "recurrent": lambda: nn.InputGate(N_IN, N, open=0.5, rate=0.4, group_size=4, recurrent=True, gate_width=0.7),
    "drive": lambda: nn.DriveGate(N, open=0.5, spread=0.4, gate_width=0.7),
    "periodic": lambda: nn.PeriodicGate(N, period=3),
    "random": lambda: nn.RandomGate(N, open=0.5, n_steps=60),
}
PAIRS = [(n, g) for n in NEURONS for g in GATES if n in FIRING or g != "recurrent"]


KINDS = ("event", "fused", "lists", "torch")
"""Paths of a layer and what it is given: lists, a dense tensor, lists (made dense inside), a dense tensor."""


def on_path(kind: str) -> Any:
    """A context in which layers take the path of `kind`, at any density."""
    return nn.path("fused" if kind == "lists" else kind)


def input_for(kind: str, counts: Tensor, n_steps: Tensor | None = None) -> Any:
    return su.Spikes.from_dense(counts, n_steps) if kind in ("event", "lists") else counts


def to_grid(module: torch.nn.Module) -> None:
    """Round all that is summed into currents and activations to multiples of 2^-8: sums are equal in every order."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.split(".")[-1] in ("weight", "recurrent", "bias"):
                parameter.copy_((parameter / GRID).round() * GRID)


def make_layer(
    neuron: str, gate: str, *, dtype: torch.dtype = torch.float64, seed: int = 0, **options: Any
) -> nn.Dense:
    """A layer of N neurons, recurrent where they fire, with all parameters learned and summed ones on the grid."""
    torch.manual_seed(seed)
    made = GATES[gate]()
    if isinstance(made, nn.InputGate) and made.recurrent is not None:
        torch.nn.init.normal_(made.recurrent, std=0.3)
    layer = nn.Dense(N_IN, N, NEURONS[neuron](gate=made, **options), recurrent=neuron in FIRING)
    if layer.recurrent is not None:
        torch.nn.init.normal_(layer.recurrent, std=0.2)
    torch.nn.init.normal_(layer.bias, std=0.05)
    to_grid(layer)
    return layer.to(dtype)


def make_front(dtype: torch.dtype = torch.float64) -> nn.Dense:
    """A layer to put before another, which sends it a gradient by its spikes."""
    torch.manual_seed(1)
    front = nn.Dense(N_IN, N_IN, nn.LIF(N_IN, beta=0.8, threshold=0.4))
    to_grid(front)
    return front.to(dtype)


def make_counts(n_steps: int = 12, n_samples: int = 2, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.poisson(torch.full((n_steps, n_samples, N_IN), 0.4), generator=generator).to(dtype)


def make_start(neuron: nn.Neuron, n_samples: int = 2, *, t: int = 5, seed: int = 0) -> Any:
    """A state away from rest, whose tensors take gradients."""
    generator, dtype = torch.Generator().manual_seed(seed), neuron.beta.dtype
    shape = (n_samples, neuron.n_units)
    made = [
        ((torch.rand(shape, generator=generator) < 0.3).to(dtype) if name == "spk" else
         torch.randn(shape, generator=generator).to(dtype) * 0.3).requires_grad_()
        for name in neuron.state._fields[:-1]
    ]  # fmt: skip
    return neuron.state(*made, t)


class Found(NamedTuple):
    """What a run gives: arrays by name, and the gradient of a loss that depends on all of them."""

    out: Tensor
    end: dict[str, Tensor]
    by: dict[str, Tensor]


def weigh(tensors: Any) -> Tensor:
    """A loss: the sum of all tensors, each entry with a weight of its own."""
    generator = torch.Generator().manual_seed(7)
    weights = [(x, torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)) for x in tensors]
    return sum(((x * w).sum() for x, w in weights), torch.zeros(()))


def tensors_of(state: Any) -> dict[str, Tensor]:
    return {name: x for name, x in zip(state._fields, state, strict=True) if isinstance(x, Tensor)}


def found_of(leaves: dict[str, Tensor], out: Tensor, end: Any) -> Found:
    """Gradients by `leaves` of a loss that depends on every output and every variable of the final state."""
    by = torch.autograd.grad(weigh([out, *tensors_of(end).values()]), list(leaves.values()), allow_unused=True)
    grads = {k: torch.zeros_like(x) if g is None else g for (k, x), g in zip(leaves.items(), by, strict=True)}
    return Found(out.detach(), {k: x.detach() for k, x in tensors_of(end).items()}, grads)


def run_all(
    layer: nn.Dense, kind: str, counts: Tensor, *, front: nn.Dense | None = None, n_steps: Tensor | None = None
) -> Found:
    """Run a layer, behind `front` if there is one, on a path; gradients by all parameters and its initial state."""
    start = make_start(layer.neuron, counts.shape[1])
    leaves = {k: p for k, p in layer.named_parameters() if p.requires_grad} | tensors_of(start)
    with on_path(kind):
        x = input_for(kind, counts, n_steps)
        given = {"n_steps": n_steps} if isinstance(x, Tensor) else {}
        if front is not None:
            leaves |= {f"front.{k}": p for k, p in front.named_parameters()}
            x, _ = front(x, **given)
        out, end = layer(x, start, **given)
    return found_of(leaves, out.dense() if isinstance(out, su.Spikes) else out, end)
