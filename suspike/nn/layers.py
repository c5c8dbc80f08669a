"""Layers and the Stack: synapses with neurons behind them, for spike trains (lists) and dense tensors alike."""

from __future__ import annotations

from typing import Any, overload

import torch
from torch import Tensor, nn

from suspike._validate import fail
from suspike.nn import event
from suspike.nn.neurons import LI, LIF, LIFState, LIState
from suspike.spikes import Spikes

State = LIFState | LIState


class Dense(nn.Module):
    r"""A fully connected layer: :math:`I_t = W^\top x_t + V^\top s_{t-1} + b`, and neurons behind it.

    Spikes in, Spikes out, by event-driven kernels on the CPU whose work follows the events; dense in, dense out, by
    plain torch on any device. Both give the same spikes and gradients.

    Parameters
    ----------
    n_in, n_out : int
    neuron : LIF or LI
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

    def __init__(self, n_in: int, n_out: int, neuron: LIF | LI, *, recurrent: bool = False, bias: bool = True) -> None:
        super().__init__()
        if neuron.n_units != n_out:
            fail("neuron", f"of n_out = {n_out} units", f"{neuron.n_units} units")
        if recurrent and isinstance(neuron, LI):
            fail("recurrent", "False for a readout, which never fires", "True")
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
        state : LIFState or LIState, optional
            At rest without one.

        Returns
        -------
        out : Spikes (LIF on Spikes) or Tensor [T, B, n_out]
            Spikes of a LIF, membrane of an LI.
        state : LIFState or LIState
        """
        if len(x.shape) != 3 or x.shape[-1] != self.n_in:
            fail("x", f"of shape [T, B, {self.n_in}]", f"shape {list(x.shape)}")
        if state is None:
            state = self.neuron.initial_state(x.shape[1])
        elif any(s.shape != (x.shape[1], self.n_out) for s in state[:2]):  # kernels trust their shapes
            got = " and ".join(str(list(s.shape)) for s in state[:2])
            fail("state", f"of shape [{x.shape[1]}, {self.n_out}]", got, "Another batch size needs a state of its own.")
        elif any(s.dtype != self.weight.dtype for s in state[:2]):
            got = " and ".join(str(s.dtype) for s in state[:2])
            fail("state", f"of the layer's {self.weight.dtype}", got, "Start from None after a change of type.")
        if isinstance(x, Spikes):
            self._require_event_path()
            if isinstance(self.neuron, LI):
                return event.li_dense(x, self.weight, self.bias, self.neuron, state)
            return event.lif_dense(x, self.weight, self.recurrent, self.bias, self.neuron, state)
        x = x if x.is_floating_point() else x.to(self.weight.dtype)  # counts and masks are as good as floats
        cur = x @ self.weight
        cur = cur if self.bias is None else cur + self.bias
        if isinstance(self.neuron, LI):
            return self.neuron(cur, state)  # type: ignore[no-any-return]
        return self.neuron(cur, state, recurrent=self.recurrent)  # type: ignore[no-any-return]

    def _require_event_path(self) -> None:
        if self.weight.device.type != "cpu":
            fail("x", f"a dense tensor on {self.weight.device}", "Spikes", "Pass spikes.dense().to(device).")
        if self.weight.dtype not in (torch.float32, torch.float64):
            fail(
                "x",
                f"a dense tensor for {self.weight.dtype} weights",
                "Spikes",
                "Event kernels are float32 or float64.",
            )

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"{self.n_in}, {self.n_out}, recurrent={self.recurrent is not None}, bias={self.bias is not None}"


class Stack(nn.Sequential):
    """Layers one behind the other; the state is the tuple of theirs."""

    def forward(self, x: Any, state: tuple[State, ...] | None = None) -> tuple[Any, tuple[State, ...]]:
        """Run over time: the last layer's output, and the state to pass in with the next stretch of time."""
        if state is not None and len(state) != len(self):
            fail("state", f"of {len(self)} layers", f"{len(state)}")
        states = []
        for i, layer in enumerate(self):
            x, after = layer(x, None if state is None else state[i])
            states.append(after)
        return x, tuple(states)
