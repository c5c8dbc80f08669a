"""What layers share: synapses with neurons behind them, and the choice of a path for spike trains and dense tensors."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, overload

import torch
from torch import Tensor, nn

from suspike._lengths import require_whole, unpadded
from suspike._validate import fail
from suspike.nn import paths
from suspike.nn.gates import DataGate, InputGate
from suspike.nn.neuron import Neuron
from suspike.nn.neurons import Firing
from suspike.nn.rhythms import SoftGate
from suspike.nn.states import State
from suspike.spikes import Spikes


class Layer(nn.Module):
    """Synapses with neurons behind them; the synapses are those of a subclass.

    Spikes in, Spikes out; dense in, dense out. On the CPU, event-driven kernels do the work wherever it is sparse, else
    a product and a fused kernel; plain torch does it on any other device. All give the same spikes and gradients
    (`suspike.nn.path` forces one).

    Attributes
    ----------
    n_in, n_out : int
        Units in and out.
    neuron : Neuron
    weight : Parameter
    recurrent : Parameter [n_out, n_out] or None
        Row i is what unit i's spike adds one step later.
    crossover : float
        Events per input unit and step above which a dense product is faster than the events.
    """

    crossover: float
    shape_cure = ""
    """What brings an input of another shape into this layer's."""

    weight: nn.Parameter
    recurrent: nn.Parameter | None

    def __init__(self, n_in: int, n_out: int, neuron: Neuron) -> None:
        super().__init__()
        if isinstance(neuron.gate, InputGate):
            if neuron.gate.n_in != n_in:
                fail("gate", f"of n_in = {n_in} units like its layer", f"{neuron.gate.n_in}")
            if neuron.gate.recurrent is not None and not neuron.fires:
                fail("gate", "without a recurrent term for a readout, which never fires", "one with it")
        self.n_in, self.n_out, self.neuron = n_in, n_out, neuron

    def current(self, x: Tensor) -> Tensor:
        """Return what a dense input [T, B, n_in] brings, with the bias: a current [T, B, n_out]."""
        raise NotImplementedError

    def run_events(
        self, x: Spikes, state: Any, *, current: Tensor | None = None, activation: Tensor | None = None
    ) -> tuple[Spikes | Tensor, Any]:
        """Run on a spike train by `event.run_layer`; given a `current`, that holds the bias."""
        raise NotImplementedError

    @overload
    def forward(self, x: Spikes, state: Any = None) -> tuple[Spikes | Tensor, State]: ...
    @overload
    def forward(self, x: Tensor, state: Any = None, *, n_steps: Tensor | None = None) -> tuple[Tensor, State]: ...
    def forward(
        self, x: Spikes | Tensor, state: Any = None, *, n_steps: Tensor | None = None
    ) -> tuple[Spikes | Tensor, State]:
        """Run over time.

        Parameters
        ----------
        x : Spikes or Tensor [T, B, n_in]
        state : state of the layer's neurons, optional
            At rest without one.
        n_steps : int Tensor [B], optional
            Of a tensor: true length of each sample, 0 to T; T without it. From there on its neurons are closed. Spikes
            hold their own.

        Returns
        -------
        out : Spikes (neurons that fire, on Spikes) or Tensor [T, B, n_out]
            Spikes, or the membrane of a readout.
        state : state
            After each sample's last true step; its t is that of the batch.
        """
        if len(x.shape) != 3 or x.shape[-1] != self.n_in:
            fail("x", f"of shape [T, B, {self.n_in}]", f"shape {list(x.shape)}", self.shape_cure)
        state = self.neuron.started(state, x.shape[1], self.weight.dtype)
        n_steps = lengths(x, n_steps)
        if isinstance(x, Tensor):
            x = unpadded(x, n_steps, least=0)
        lists, (chosen, x) = isinstance(x, Spikes), self._choose(x)
        if isinstance(x, Spikes) and chosen == "event":
            out, state = self.run_events(replace(x, n_steps=n_steps), state)
            return out if lists or isinstance(out, Tensor) else out.dense(), state
        dense = x.dense().to(self.weight.dtype) if isinstance(x, Spikes) else x
        cur, gate = self.current(dense).to(self.weight.dtype), self.neuron.gate  # autocast makes it less precise
        # neurons that feed themselves, whose gate sees the input, or that end early run on the current beside no events
        alone = self.recurrent is None and not isinstance(gate, InputGate) and n_steps is None
        if chosen == "fused" and (lists or not alone):
            seen = (dense @ gate.weight).to(cur.dtype) + gate.bias if isinstance(gate, InputGate) else None
            nothing = replace(Spikes.silence(len(dense), dense.shape[1], self.n_in), n_steps=n_steps)
            out, state = self.run_events(nothing, state, current=cur, activation=seen)
            return out if lists or isinstance(out, Tensor) else out.dense(), state
        seen = dense if isinstance(gate, DataGate) else None
        return self.neuron(cur, state, recurrent=self.recurrent, x=seen, n_steps=n_steps)  # type: ignore[no-any-return]

    def _choose(self, x: Spikes | Tensor) -> tuple[str, Spikes | Tensor]:
        """Return the path to take and the input for it."""
        forced, why_not = paths.forced(), self._no_kernel()
        if isinstance(x, Spikes):
            if why_not or forced == "torch":
                fail(
                    "x",
                    f"a dense tensor: {why_not or 'the torch path is forced'}",
                    "Spikes",
                    "Pass spikes.dense() and n_steps=spikes.n_steps.",
                )
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


def lengths(x: Spikes | Tensor, n_steps: Tensor | None = None) -> Tensor | None:
    """Return the true lengths of an input's samples, int64 on the CPU for lists; None where all are of one length."""
    if isinstance(x, Spikes):
        if n_steps is not None:
            fail("n_steps", "left out beside Spikes, which hold their own", "lengths", "Spikes.from_events takes them.")
        return x.n_steps
    if n_steps is not None:
        require_whole("n_steps", n_steps, x.shape[1], 0, x.shape[0], f"T = {x.shape[0]}")
        # a copy: a caller may fill a buffer anew before the backward pass
        n_steps = n_steps.to(x.device, torch.int64, copy=True, memory_format=torch.contiguous_format)
    return n_steps
