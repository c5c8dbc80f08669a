"""Small networks of every kind, their inputs, and one loss that touches all that a network hands out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

import suspike as su
from suspike_testing.cases import on_grid, random_events


def make_net(
    *,
    n_in: int = 11,
    n_hidden: int = 9,
    gate: bool = True,
    learn_periods: bool = False,
    reset: str = "zero",
    recurrent: bool = True,
    dtype: Any = torch.float32,
    seed: int = 0,
) -> su.nn.Stack:
    """Two LIF layers and a readout, with weights on the grid 2^-8 and every parameter learned."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)

    def lif(n: int, gated: bool) -> su.nn.LIF:
        rhythm = su.nn.RhythmGate(
            n, open=0.6, periods=(2.5, 7.0, 20.0), n_steps=60, gate_width=0.75, learn_periods=learn_periods
        )
        return su.nn.LIF(
            n,
            beta=0.9,
            threshold=0.6,
            reset=reset,
            gate=rhythm if gated else None,
            learn_beta=True,
            learn_threshold=True,
        )

    net = su.nn.Stack(
        su.nn.Dense(n_in, n_hidden, lif(n_hidden, gate), recurrent=recurrent),
        su.nn.Dense(n_hidden, 6, lif(6, gate), recurrent=recurrent, bias=recurrent),
        su.nn.Dense(6, 3, su.nn.LI(3, beta=0.8, learn_beta=True)),
    )
    with torch.no_grad():
        for layer, scale in zip(net, (0.35, 0.7, 0.5), strict=True):
            for name in ("weight", "recurrent", "bias"):
                parameter = getattr(layer, name)
                if parameter is not None:
                    shrink = {"weight": scale, "recurrent": 0.3, "bias": 0.1}[name]
                    parameter.copy_(torch.from_numpy(on_grid(rng.standard_normal(parameter.shape) * shrink + 0.03)))
    return net.to(dtype) if dtype == torch.float32 else net.double()


def make_input(
    n_steps: int = 20, n_samples: int = 4, n_in: int = 11, *, density: float = 0.15, seed: int = 0
) -> su.Events:
    return random_events(np.random.default_rng([seed, n_steps]), n_steps, n_samples, n_in, density)


def make_state(net: su.nn.Stack, n_samples: int, *, seed: int = 0) -> tuple[Any, ...]:
    """A state away from rest, whose tensors take gradients."""
    generator = torch.Generator().manual_seed(seed)
    states: list[Any] = []
    for layer in net:
        shape, dtype = (n_samples, layer.n_out), layer.weight.dtype
        v = (torch.randn(shape, generator=generator, dtype=dtype) * 0.3).requires_grad_()
        if isinstance(layer.neuron, su.nn.LI):
            states.append(su.nn.LIState(v))
        else:
            spk = (torch.rand(shape, generator=generator, dtype=dtype) < 0.3).to(dtype).requires_grad_()
            states.append(su.nn.LIFState(v, spk, 5))
    return tuple(states)


def run_layers(net: su.nn.Stack, x: Any, state: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
    """Every layer's output and state after."""
    outs, after = [], []
    for layer, before in zip(net, state, strict=True):
        x, new = layer(x, before)
        outs.append(x)
        after.append(new)
    return outs, after


def loss_of(outs: list[Any], state: list[Any], seed: int = 0) -> Tensor:
    """A loss that depends on every output, on every final state, and on spikes by place and by count."""
    generator = torch.Generator().manual_seed(seed)

    def weigh(x: Tensor) -> Tensor:
        return (x * torch.randn(x.shape, generator=generator, dtype=x.dtype)).sum()

    total = torch.zeros((), dtype=state[0].v.dtype)
    for out, after in zip(outs, state, strict=True):
        dense = out if isinstance(out, Tensor) else out.dense()
        counts = out.sum(0) if isinstance(out, Tensor) else out.counts()
        total = total + weigh(dense) + (counts**2).mean() + weigh(after.v)
        if isinstance(after, su.nn.LIFState):
            total = total + weigh(after.spk)
    return total


def gradients(net: su.nn.Stack, x: Any, state: tuple[Any, ...]) -> tuple[list[Any], list[Any], dict[str, np.ndarray]]:
    """Outputs, final states, and the gradient of `loss_of` by every parameter and every tensor of the initial state."""
    leaves = dict(net.named_parameters())
    for i, before in enumerate(state):
        leaves |= {f"{name}{i}": getattr(before, name) for name in before._fields if name != "t"}
    outs, after = run_layers(net, x, state)
    found = torch.autograd.grad(loss_of(outs, after), list(leaves.values()), allow_unused=True)
    zero = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    return (
        outs,
        after,
        {k: (zero[k] if g is None else g).numpy() for (k, _), g in zip(leaves.items(), found, strict=True)},
    )


def dense_of(out: Any) -> np.ndarray:
    return (out if isinstance(out, Tensor) else out.dense()).detach().numpy()


KINDS = ("event", "fused", "torch")
"""The paths of a layer; "event" is given lists, the others dense tensors."""


def on_path(kind: str) -> Any:
    """A context in which layers take the path `kind`, at any density."""
    return su.nn.path(kind)


def input_for(kind: str, counts: Tensor) -> Any:
    return su.Spikes.from_dense(counts) if kind == "event" else counts
