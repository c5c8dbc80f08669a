"""Fully connected layers, and the Stack of layers."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from suspike._validate import fail
from suspike.nn import event, paths
from suspike.nn.layer import Layer, lengths
from suspike.nn.neuron import Neuron
from suspike.nn.states import State
from suspike.spikes import Spikes


class Dense(Layer):
    r"""A fully connected layer: :math:`I_t = W^\top x_t + V^\top s_{t-1} + b`, and neurons behind it (see `Layer`).

    Parameters
    ----------
    n_in, n_out : int
    neuron : Neuron
        With `n_out` units.
    recurrent : bool
        The layer's spikes come back to it one step later, through V.
    bias : bool
        Learn b.

    Attributes
    ----------
    weight : Parameter [n_in, n_out]
        Row i holds the weights of source i, so an event gathers one row (torch.nn.Linear's is the transpose).
    """

    crossover = paths.CROSSOVER

    def __init__(self, n_in: int, n_out: int, neuron: Neuron, *, recurrent: bool = False, bias: bool = True) -> None:
        if neuron.n_units != n_out:
            fail("neuron", f"of n_out = {n_out} units", f"{neuron.n_units} units")
        if recurrent and not neuron.fires:
            fail("recurrent", "False for a readout, which never fires", "True")
        super().__init__(n_in, n_out, neuron)
        self.weight = nn.Parameter(torch.randn(n_in, n_out) / n_in**0.5)
        self.recurrent = nn.Parameter(torch.randn(n_out, n_out) * 0.1 / n_out**0.5) if recurrent else None
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None

    def current(self, x: Tensor) -> Tensor:
        """Return the product of a dense input, and the bias: [T, B, n_out]."""
        cur = x @ self.weight
        return cur if self.bias is None else cur + self.bias

    def run_events(
        self, x: Spikes, state: Any, *, current: Tensor | None = None, activation: Tensor | None = None
    ) -> tuple[Spikes | Tensor, Any]:
        """Run on a spike train, by the rows of its events."""
        return event.run_layer(
            x, self.weight, self.recurrent, self.bias if current is None else None, self.neuron, state,
            current=current, activation=activation,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"{self.n_in}, {self.n_out}, recurrent={self.recurrent is not None}, bias={self.bias is not None}"


class Stack(nn.Sequential):
    """Layers one behind the other; the state is the tuple of theirs, None for a module that keeps none.

    A module whose forward takes its input alone, as pooling or ``torch.nn.Flatten``, keeps none and returns its output
    alone.
    """

    def forward(
        self, x: Any, state: tuple[State | None, ...] | None = None, *, n_steps: Tensor | None = None
    ) -> tuple[Any, tuple[State | None, ...]]:
        """Run over time: the last layer's output, and the state to pass in with the next stretch of time.

        `n_steps` [B] holds the true lengths of a tensor's samples; Spikes hold their own.
        """
        if state is not None and len(state) != len(self):
            fail("state", f"of {len(self)} layers", f"{len(state)}")
        states, n_steps = [], lengths(x, n_steps)
        for i, layer in enumerate(self):
            x, after = call(layer, x, None if state is None else state[i], n_steps)
            states.append(after)
        return x, tuple(states)


def call(module: nn.Module, x: Any, state: Any, n_steps: Tensor | None = None) -> tuple[Any, Any]:
    """Return a module's output and its state after, None where it keeps none; lengths go to those that take them."""
    parameters = inspect.signature(module.forward).parameters
    if [p.kind for p in parameters.values()] == [inspect.Parameter.POSITIONAL_OR_KEYWORD]:
        return module(x), None
    if n_steps is None or isinstance(x, Spikes):
        out, after = module(x, state)
        return out, after
    if "n_steps" not in parameters and all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        cure = "Give its forward n_steps=, or pass Spikes."
        fail("n_steps", "taken by every module that keeps a state", f"a {type(module).__name__} without", cure)
    out, after = module(x, state, n_steps=n_steps)
    return out, after
