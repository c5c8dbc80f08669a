"""Neurons as torch modules: the readable definition, a plain loop over time on any device."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from suspike._validate import fail
from suspike.nn.gates import GateTable, RhythmGate
from suspike.surrogate import Triangle
from suspike_kernels.layout import RESETS


class LIFState(NamedTuple):
    """What a LIF layer hands from one stretch of time to the next.

    Attributes
    ----------
    v : Tensor [B, N]
    spk : Tensor [B, N]
        Its spikes at the last step, 0 or 1.
    t : int
        Steps since the start; a rhythm counts from there.
    """

    v: Tensor
    spk: Tensor
    t: int

    def detach(self) -> LIFState:
        """Return the state without its past: truncated backpropagation through time passes it on so."""
        return LIFState(self.v.detach(), self.spk.detach(), self.t)


class LIState(NamedTuple):
    """What a readout hands on: its membrane `v` [B, N]."""

    v: Tensor

    def detach(self) -> LIState:
        """Return the state without its past."""
        return LIState(self.v.detach())


class LIF(nn.Module):
    r"""Leaky integrate-and-fire neurons that update only at the steps where their gate is open.

    .. math::
        u_t = \beta v_{t-1} + I_t,\quad \tilde v_t = u_t \text{ if } g_t \text{ else } v_{t-1},\quad
        s_t = g_t \wedge (\tilde v_t > \theta),\quad v_t = \text{reset}(\tilde v_t) \text{ where } s_t

    A closed neuron keeps its state bit for bit, and what reaches it at that step is not integrated.

    Parameters
    ----------
    n_units : int
        Neurons N.
    beta : float
        Leak a step, above 0 and below 1: ``exp(-dt_ms / tau_ms)``.
    threshold : float
        Above 0.
    reset : "zero", "subtract" or "none"
        What a spike does to v in the same step. Its gradient is detached.
    gate : RhythmGate, optional
        Always open without one.
    surrogate : Triangle
        Stands for the derivative of a spike.
    learn_beta, learn_threshold : bool
        Learn them per neuron, beta through a sigmoid and the threshold through an exponential.
    """

    def __init__(
        self,
        n_units: int,
        *,
        beta: float,
        threshold: float = 1.0,
        reset: str = "zero",
        gate: RhythmGate | None = None,
        surrogate: Triangle | None = None,
        learn_beta: bool = False,
        learn_threshold: bool = False,
    ) -> None:
        super().__init__()
        if reset not in RESETS:
            fail("reset", f"one of {', '.join(RESETS)}", repr(reset))
        if gate is not None and gate.n_units != n_units:
            fail("gate", f"of {n_units} units like its neurons", f"{gate.n_units} units")
        if not threshold > 0:
            fail("threshold", "above 0", repr(threshold))
        self.n_units, self.reset = n_units, reset
        self.surrogate = Triangle() if surrogate is None else surrogate
        self.gate = gate
        self.leak = _Leak(n_units, beta, learn=learn_beta)
        log_threshold = torch.full((n_units,), float(threshold))
        if learn_threshold:
            self.log_threshold = nn.Parameter(log_threshold.log())
        else:
            self.register_buffer("fixed_threshold", log_threshold)
        self.learn_threshold = learn_threshold

    @property
    def beta(self) -> Tensor:
        """Leak a step [N]."""
        beta: Tensor = self.leak()
        return beta

    @property
    def threshold(self) -> Tensor:
        """Threshold [N]."""
        threshold: Tensor = self.log_threshold.exp() if self.learn_threshold else self.get_buffer("fixed_threshold")
        return threshold

    def initial_state(self, batch: int) -> LIFState:
        """Return the state at rest: v = 0, no spikes, t = 0."""
        zero = torch.zeros(batch, self.n_units, dtype=self.threshold.dtype, device=self.threshold.device)
        return LIFState(zero, zero, 0)

    def gate_table(self, n_steps: int, start: int) -> GateTable | None:
        """Return the gate at the steps from `start` on, or None when always open."""
        if self.gate is None:
            return None
        table = self.gate(n_steps, start=start)
        return GateTable(table.open.to(self.threshold.dtype), table.near)

    def step(self, cur: Tensor, state: LIFState) -> tuple[Tensor, LIFState]:
        """Advance by one step: current [B, N] in, spikes [B, N] and the new state out."""
        table = self.gate_table(1, state.t)
        return self._step(cur, state, None if table is None else table.open[0])

    def _step(self, cur: Tensor, state: LIFState, is_open: Tensor | None) -> tuple[Tensor, LIFState]:
        threshold = self.threshold
        v = self.beta * state.v + cur
        if is_open is not None:
            v = _Select.apply(is_open, v, state.v)  # type: ignore[no-untyped-call]
        spk = self.surrogate(v - threshold)
        if is_open is not None:
            spk = is_open.detach() * spk
        fired = spk.detach() > 0
        if self.reset == "zero":
            v = torch.where(fired, torch.zeros_like(v), v)
        elif self.reset == "subtract":
            v = torch.where(fired, v - threshold, v)
        return spk, LIFState(v, spk, state.t + 1)

    def forward(
        self, cur: Tensor, state: LIFState | None = None, *, recurrent: Tensor | None = None
    ) -> tuple[Tensor, LIFState]:
        """Run over time.

        Parameters
        ----------
        cur : Tensor [T, B, N]
            Input current, in units of the threshold.
        state : LIFState, optional
            At rest without one.
        recurrent : Tensor [N, N], optional
            Row i is what unit i's spike adds to the current one step later.

        Returns
        -------
        spk : Tensor [T, B, N]
        state : LIFState
        """
        _require_current(cur, self.n_units)
        state = self.initial_state(cur.shape[1]) if state is None else state
        table = self.gate_table(len(cur), state.t)
        spikes = []
        for t, cur_t in enumerate(cur.unbind(0)):
            total = cur_t if recurrent is None else cur_t + state.spk @ recurrent
            spk, state = self._step(total, state, None if table is None else table.open[t])
            spikes.append(spk)
        return (torch.stack(spikes) if spikes else torch.zeros_like(cur)), state

    def extra_repr(self) -> str:
        """Show what the constructor was told."""
        return f"{self.n_units}, reset={self.reset!r}, surrogate={self.surrogate}"


class LI(nn.Module):
    r"""A leaky readout that never fires: :math:`v_t = \beta v_{t-1} + I_t`.

    Parameters
    ----------
    n_units : int
    beta : float
        Leak a step, above 0 and below 1.
    learn_beta : bool
        Learn it per neuron, through a sigmoid.
    """

    def __init__(self, n_units: int, *, beta: float, learn_beta: bool = False) -> None:
        super().__init__()
        self.n_units = n_units
        self.leak = _Leak(n_units, beta, learn=learn_beta)

    @property
    def beta(self) -> Tensor:
        """Leak a step [N]."""
        beta: Tensor = self.leak()
        return beta

    def initial_state(self, batch: int) -> LIState:
        """Return the state at rest: v = 0."""
        return LIState(torch.zeros(batch, self.n_units, dtype=self.beta.dtype, device=self.beta.device))

    def step(self, cur: Tensor, state: LIState) -> tuple[Tensor, LIState]:
        """Advance by one step: current [B, N] in, membrane [B, N] and the new state out."""
        v = self.beta * state.v + cur
        return v, LIState(v)

    def forward(self, cur: Tensor, state: LIState | None = None) -> tuple[Tensor, LIState]:
        """Run over time: current [T, B, N] in, membrane [T, B, N] and the state out."""
        _require_current(cur, self.n_units)
        state = self.initial_state(cur.shape[1]) if state is None else state
        out = []
        for cur_t in cur.unbind(0):
            v, state = self.step(cur_t, state)
            out.append(v)
        return (torch.stack(out) if out else torch.zeros_like(cur)), state

    def extra_repr(self) -> str:
        """Show the size."""
        return f"{self.n_units}"


class _Leak(nn.Module):
    """A leak per neuron, fixed or learned: the one place where beta is made from what is stored."""

    def __init__(self, n_units: int, beta: float, *, learn: bool) -> None:
        super().__init__()
        if not 0 < beta < 1:
            fail("beta", "above 0 and below 1", repr(beta), "It is exp(-dt_ms / tau_ms).")
        if learn:
            self.raw = nn.Parameter(torch.full((n_units,), math.log(beta / (1 - beta))))
        else:
            self.register_buffer("fixed", torch.full((n_units,), float(beta)))
        self.learn = learn

    def forward(self) -> Tensor:
        return torch.sigmoid(self.raw) if self.learn else self.get_buffer("fixed")


class _Select(torch.autograd.Function):
    """``u if g else v``, elementwise and bit for bit, with the gradient of ``v + g (u - v)``."""

    @staticmethod
    def forward(ctx: Any, is_open: Tensor, u: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(is_open, u, v)
        return torch.where(is_open > 0, u, v)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        is_open, u, v = ctx.saved_tensors
        by_gate = (grads[0] * (u - v)).sum_to_size(is_open.shape)
        return by_gate, grads[0] * is_open, grads[0] * (1 - is_open)


def _require_current(cur: Tensor, n_units: int) -> None:
    if cur.dim() != 3 or cur.shape[-1] != n_units:
        fail("cur", f"of shape [T, B, {n_units}]", f"shape {list(cur.shape)}")
