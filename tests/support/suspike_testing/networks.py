"""Networks of any neuron, gate and layer to be turned into a Graph, and events for them."""

from __future__ import annotations

import numpy as np
import torch

import suspike as su
from suspike import nn
from suspike_testing.cases import random_events
from suspike_testing.zoo import FIRING, N, make_layer, to_grid


def make(neuron: str, gate: str) -> nn.Stack:
    """A layer of any neuron and gate; behind one that fires, another with the same gate's kind, and a readout."""
    torch.manual_seed(0)
    first = make_layer(neuron, gate, dtype=torch.float32)
    if neuron not in FIRING:
        return nn.Stack(first)
    second = nn.Dense(N, 9, nn.LIF(9, beta=0.9, threshold=0.5, reset="subtract"), recurrent=True)
    net = nn.Stack(first, second, nn.Dense(9, 3, nn.LI(3, beta=0.8)))
    torch.nn.init.normal_(second.weight, 0.1, 0.5)
    to_grid(net)
    return net


def make_conv(gate: str = "none") -> nn.Stack:
    """Events of a camera, convolutions with a skip connection, pooling by averages and sums, a readout."""
    torch.manual_seed(0)
    n = 4 * 6 * 4
    made = {
        "none": lambda: None,
        "rhythm": lambda: nn.RhythmGate(n, open=0.5, group_size=4, n_steps=60),
        "input": lambda: nn.InputGate(48, n, open=0.5, rate=0.2, group_size=4, recurrent=True),
        "drive": lambda: nn.DriveGate(n, open=0.5),
    }[gate]()
    if isinstance(made, nn.InputGate) and made.recurrent is not None:
        torch.nn.init.normal_(made.recurrent, std=0.2)
    net = nn.Stack(
        nn.ChannelsLast((4, 6), 2),
        nn.Conv2d((4, 6), 2, 4, 3, nn.LIF(n, beta=0.9, threshold=0.5, gate=made), padding=1),
        nn.Skip(nn.Conv2d((4, 6), 4, 4, 3, nn.CubaLIF(n, beta=0.8, alpha=0.5, threshold=0.8), padding=1)),
        nn.Pool2d((4, 6), 4, 2, mode="avg"),
        nn.EventDropout(0.5),
        nn.Conv2d((2, 3), 4, 3, 2, nn.AdLIF(6, beta=0.5, rho=0.5, threshold=0.05)),
        nn.Pool2d((1, 2), 3, (1, 2)),
        nn.Stack(nn.Skip(nn.Dense(3, 3, nn.IF(3, threshold=0.25))), nn.Dense(3, 2, nn.CubaLI(2, beta=0.75, alpha=0.5))),
    ).eval()
    for layer in (m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Dense))):
        torch.nn.init.normal_(layer.weight, 0.1, 0.5)
        torch.nn.init.constant_(layer.bias, 0.0625)
    to_grid(net)
    return net


def events_for(n_in: int, *, n_steps: int = 40, n_samples: int = 3, density: float = 0.3) -> su.Events:
    return random_events(np.random.default_rng(n_in), n_steps, n_samples, n_in, density)
