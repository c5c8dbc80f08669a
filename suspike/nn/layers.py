"""Layers and the Stack: synapses with neurons behind them, for spike trains (lists) and dense tensors alike."""

from __future__ import annotations

import inspect
import math
from typing import Any, overload

import torch
from torch import Tensor, nn

from suspike._validate import fail
from suspike.nn import event, paths
from suspike.nn.gates import DataGate, InputGate
from suspike.nn.neuron import Neuron
from suspike.nn.neurons import Firing
from suspike.nn.rhythms import SoftGate
from suspike.nn.states import State
from suspike.spikes import Spikes


class Dense(nn.Module):
    r"""A fully connected layer: :math:`I_t = W^\top x_t + V^\top s_{t-1} + b`, and neurons behind it.

    Spikes in, Spikes out; dense in, dense out. On the CPU, event-driven kernels do the work wherever it is sparse, else
    a product and a fused kernel; plain torch does it on any other device. All give the same spikes and gradients
    (`suspike.nn.path` forces one).

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
        super().__init__()
        if neuron.n_units != n_out:
            fail("neuron", f"of n_out = {n_out} units", f"{neuron.n_units} units")
        if recurrent and not neuron.fires:
            fail("recurrent", "False for a readout, which never fires", "True")
        if isinstance(neuron.gate, InputGate):
            if neuron.gate.n_in != n_in:
                fail("gate", f"of n_in = {n_in} units like its layer", f"{neuron.gate.n_in}")
            if neuron.gate.recurrent is not None and not neuron.fires:
                fail("gate", "without a recurrent term for a readout, which never fires", "one with it")
        self.n_in, self.n_out, self.neuron = n_in, n_out, neuron
        self.weight = nn.Parameter(torch.randn(n_in, n_out) / n_in**0.5)
        self.recurrent = nn.Parameter(torch.randn(n_out, n_out) * 0.1 / n_out**0.5) if recurrent else None
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None

    @overload
    def forward(self, x: Spikes, state: Any = None) -> tuple[Spikes | Tensor, State]: ...
    @overload
    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, State]: ...
    def forward(self, x: Spikes | Tensor, state: Any = None) -> tuple[Spikes | Tensor, State]:
        """Run over time.

        Parameters
        ----------
        x : Spikes or Tensor [T, B, n_in]
        state : state of the layer's neurons, optional
            At rest without one.

        Returns
        -------
        out : Spikes (neurons that fire, on Spikes) or Tensor [T, B, n_out]
            Spikes, or the membrane of a readout.
        state : state
        """
        if len(x.shape) != 3 or x.shape[-1] != self.n_in:
            fail("x", f"of shape [T, B, {self.n_in}]", f"shape {list(x.shape)}")
        state = self._checked(state, x.shape[1])
        lists, (chosen, x) = isinstance(x, Spikes), self._choose(x)
        if isinstance(x, Spikes) and chosen == "event":
            out, state = event.run_layer(x, self.weight, self.recurrent, self.bias, self.neuron, state)
            return out if lists or isinstance(out, Tensor) else out.dense(), state
        dense = x.dense().to(self.weight.dtype) if isinstance(x, Spikes) else x
        cur = (dense @ self.weight).to(self.weight.dtype)  # under autocast a product is of lower precision
        cur = cur if self.bias is None else cur + self.bias
        feeds_back = self.recurrent is not None or isinstance(self.neuron.gate, InputGate)
        if chosen == "fused" and (feeds_back or lists):
            out, state = self._run_current(dense, cur, state)
            return out if lists or isinstance(out, Tensor) else out.dense(), state
        seen = dense if isinstance(self.neuron.gate, DataGate) else None
        return self.neuron(cur, state, recurrent=self.recurrent, x=seen)  # type: ignore[no-any-return]

    def _run_current(self, x: Tensor, cur: Tensor, state: Any) -> tuple[Spikes | Tensor, Any]:
        """Run the neurons on the product of the input, with what they feed back as events."""
        gate, activation = self.neuron.gate, None
        if isinstance(gate, InputGate):
            activation = (x @ gate.weight).to(cur.dtype) + gate.bias
        nothing = Spikes.silence(len(x), x.shape[1], self.n_in)
        return event.run_layer(
            nothing, self.weight, self.recurrent, None, self.neuron, state, current=cur, activation=activation
        )

    def _choose(self, x: Spikes | Tensor) -> tuple[str, Spikes | Tensor]:
        """Return the path to take and the input for it."""
        forced, why_not = paths.forced(), self._no_kernel()
        if isinstance(x, Spikes):
            if why_not or forced == "torch":
                fail("x", f"a dense tensor: {why_not or 'the torch path is forced'}", "Spikes", "Pass spikes.dense().")
            density = len(x.events.idx) / max(math.prod(x.shape), 1)
            chosen = forced or ("event" if density <= self.crossover else "fused")
            if not forced:
                reason = f"{density:.2g} events a unit and step, crossover {self.crossover}"
                paths.tell(self, chosen, x.shape, reason)
            return chosen, x
        x = x if x.is_floating_point() else x.to(self.weight.dtype)  # counts and masks are as good as floats
        why_not = why_not or paths.on_cpu(x)
        if forced in ("event", "fused") and why_not:
            fail("x", f"fit for the {forced} path", f"one that is not: {why_not}")
        if forced == "torch" or why_not:
            if not forced:
                paths.tell(self, "torch", x.shape, why_not)
            return "torch", x
        if forced != "fused" and not x.requires_grad:
            counts = Spikes.of_counts(x, most=None if forced else self.crossover)
            if counts is not None:
                if not forced:
                    paths.tell(self, "event", x.shape, "its input is sparse counts")
                return "event", counts
        if forced == "event":
            rule = "whole counts without gradient for the event path"
            fail("x", rule, "a tensor that requires one" if x.requires_grad else "others")
        if not forced:
            paths.tell(self, "fused", x.shape, "its input is not sparse counts")
        return "fused", x

    def _no_kernel(self) -> str:
        """Say why the CPU's kernels cannot run this layer, or return an empty string."""
        if isinstance(self.neuron.gate, SoftGate):
            return "a SoftGate skips nothing"
        if isinstance(self.neuron, Firing) and not self.neuron.surrogate.compact:
            return f"the gradient of {type(self.neuron.surrogate).__name__} reaches every place"
        where = paths.on_cpu(self.weight)
        return f"of the layer's weights, {where}" if where else ""

    def _checked(self, state: Any, batch: int) -> Any:
        """Return the state, at rest if it is None; kernels trust its shapes."""
        if state is None:
            return self.neuron.initial_state(batch)
        tensors = [s for s in state if isinstance(s, Tensor)]
        if not isinstance(state, self.neuron.state):
            fail("state", f"a {self.neuron.state.__name__}", f"a {type(state).__name__}")
        if any(s.shape != (batch, self.n_out) for s in tensors):
            got = " and ".join(str(list(s.shape)) for s in tensors)
            fail("state", f"of shape [{batch}, {self.n_out}]", got, "Another batch size needs a state of its own.")
        if any(s.dtype != self.weight.dtype for s in tensors):
            got = " and ".join(str(s.dtype) for s in tensors)
            fail("state", f"of the layer's {self.weight.dtype}", got, "Start from None after a change of type.")
        return state

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"{self.n_in}, {self.n_out}, recurrent={self.recurrent is not None}, bias={self.bias is not None}"


class Stack(nn.Sequential):
    """Layers one behind the other; the state is the tuple of theirs, None for a module that keeps none.

    A module whose forward takes its input alone, as pooling or ``torch.nn.Flatten``, keeps none and returns its output
    alone.
    """

    def forward(self, x: Any, state: tuple[State | None, ...] | None = None) -> tuple[Any, tuple[State | None, ...]]:
        """Run over time: the last layer's output, and the state to pass in with the next stretch of time."""
        if state is not None and len(state) != len(self):
            fail("state", f"of {len(self)} layers", f"{len(state)}")
        states = []
        for i, layer in enumerate(self):
            x, after = call(layer, x, None if state is None else state[i])
            states.append(after)
        return x, tuple(states)


def call(module: nn.Module, x: Any, state: Any) -> tuple[Any, Any]:
    """Return a module's output and its state after, None where it keeps none."""
    kinds = [p.kind for p in inspect.signature(module.forward).parameters.values()]
    if kinds == [inspect.Parameter.POSITIONAL_OR_KEYWORD]:
        return module(x), None
    out, after = module(x, state)
    return out, after
