"""Gates that time alone opens: learned rhythms, and the plain ones to compare them with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from suspike._validate import fail
from suspike.nn.gates import Gate, GateTable, Opened, ramp
from suspike.surrogate import triangle
from suspike_kernels.rhythm import RhythmGrads, rhythm, rhythm_backward, rhythm_near, rhythm_table, spread

PIECE = 4096
"""Steps whose rhythm the backward pass of a table holds at once, in float64."""


class TableGate(Gate):
    """A gate that time alone opens: ``gate(n_steps, start=t)`` is its `GateTable`, the same for every sample."""

    sees_data = False

    def forward(self, n_steps: int, *, start: int = 0) -> GateTable:
        """Return the gate at the steps `start` to ``start + n_steps - 1``."""
        raise NotImplementedError

    def steps(self, n_steps: int, start: int, x: Tensor | None, running: Tensor | None = None) -> Opened:
        """Return what opens the neurons at the steps from `start` on."""
        return _Tabled(self.spread(self(n_steps, start=start).open), running)


class _Tabled:
    def __init__(self, table: Tensor, running: Tensor | None) -> None:
        self.table, self.running = table, running

    def __call__(self, t: int, cur: Tensor, spk: Tensor | None) -> Tensor:
        is_open = self.table[t].to(cur.dtype)
        return is_open if self.running is None else is_open * self.running[t]

    def finish(self, batch: int) -> None:
        pass


class RhythmGate(TableGate):
    r"""The paper's gate: each neuron updates in its own learned rhythm, a function of time alone.

    .. math:: a_{t,i} = b_i + \sum_k \alpha_{i,k} \sin(2\pi t/P_k + \varphi_{i,k}),\qquad g_{t,i} = [a_{t,i} > 0]

    Its gradient is straight-through with compact support: :math:`\partial g/\partial a := \max(0, w - |a|)/w^2` with
    :math:`w` = `gate_width` times the root mean square of the neuron's swing. t counts from the state's start.

    Parameters
    ----------
    n_units : int
        Neurons N.
    open : float
        Share of steps at which a neuron is open to begin with, above 0 and below 1: b starts at minus the (1 - open)
        quantile of the neuron's own table.
    periods : sequence of float [K]
        Periods P of the layer's sines in steps, each above 2. With a single one, phases are sorted: neurons that open
        together are neighbours, and the work of closed ones is skipped in whole blocks.
    n_steps : int
        Length of that table in steps, at least 2: about a recording's.
    gate_width : float
        Half the support of the gradient, in units of the neuron's swing.
    learn_periods : bool
        Learn the periods too, through ``log(period - 2)``.
    group_size : int
        Neighbouring neurons that share a rhythm.

    References
    ----------
    arXiv:2603.02226 (selective-update RNNs).
    """

    def __init__(
        self,
        n_units: int,
        *,
        open: float,
        periods: Sequence[float] = (2.53, 5.47, 12.1, 29.3),  # no small common multiple: no pattern comes again soon
        n_steps: int = 1000,
        gate_width: float = 0.25,
        learn_periods: bool = False,
        group_size: int = 1,
    ) -> None:
        super().__init__(n_units, group_size, open)
        if not periods or min(periods) <= 2:
            fail("periods", "above 2 steps each", repr(tuple(periods)))
        if not gate_width > 0:
            fail("gate_width", "above 0", repr(gate_width))
        if n_steps < 2:
            fail("n_steps", "at least 2", repr(n_steps))
        self.gate_width, self.learn_periods = gate_width, learn_periods
        period = torch.tensor(periods, dtype=torch.get_default_dtype())
        if learn_periods:
            self.log_period = nn.Parameter(torch.log(period - 2))
        else:
            self.register_buffer("fixed_period", period)
        self.amplitude = nn.Parameter(torch.randn(self.n_gates, len(periods)) / math.sqrt(len(periods)))
        phase = torch.rand(self.n_gates, len(periods)) * 2 * math.pi
        if len(periods) == 1:
            self.amplitude.data.abs_()  # a negative one is half a period of phase, and would break their order
            phase = phase.sort(dim=0).values
        self.phase = nn.Parameter(phase)
        self.bias = nn.Parameter(torch.zeros(self.n_gates))
        with torch.no_grad():
            swing = self.rhythm(n_steps).sort(dim=0).values
            n_closed = min(max(round((1 - open) * n_steps), 1), n_steps - 1)
            # midway between two values, so that rounding b opens or shuts no step
            self.bias.copy_(-(swing[n_closed - 1] + swing[n_closed]) / 2)

    @property
    def period(self) -> Tensor:
        """Periods [K] in steps, float64, on the CPU."""
        if self.learn_periods:
            return 2 + torch.exp(self.log_period.cpu().double())
        return self.get_buffer("fixed_period").cpu().double()

    def rhythm(self, n_steps: int, *, start: int = 0) -> Tensor:
        """Return a [T, G], float64, on the CPU, for the steps `start` to ``start + n_steps - 1``; differentiable."""
        parts = (p.cpu().double() for p in (self.bias, self.amplitude, self.phase))
        a: Tensor = _Rhythm.apply(*parts, 2 * math.pi / self.period, start, n_steps)  # type: ignore[no-untyped-call]
        return a

    def swing(self) -> Tensor:
        """Return the root mean square of each gate's swing [G], float64, on the CPU, without gradient."""
        return torch.from_numpy(spread(self.amplitude.detach().cpu().double().numpy()))

    def forward(self, n_steps: int, *, start: int = 0) -> GateTable:
        """Return the gate at the steps `start` to ``start + n_steps - 1``."""
        parts = [p.cpu().double() for p in (self.bias, self.amplitude, self.phase)] + [2 * math.pi / self.period]
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in parts)
        width, dtype = self.gate_width * self.swing() if learns else None, self.bias.dtype
        table, near = _Table.apply(*parts, width, start, n_steps, dtype)  # type: ignore[no-untyped-call]
        return GateTable(table.to(self.bias.device), near)

    def share(self, n_steps: int, *, start: int = 0) -> Tensor:
        """Return who is open, [T, N], with the gradient of a ramp that also reaches a gate far from opening.

        The ramp is ``clip((a / swing + 1) / 2, 0, 1)``. For `losses.update_budget`, which holds the share to a target.
        """
        a = self.rhythm(n_steps, start=start)
        soft = ramp(a, self.swing())
        share = (a.detach() > 0).to(a.dtype) + (soft - soft.detach())
        return self.spread(share.to(self.bias.device, self.bias.dtype))

    def extra_repr(self) -> str:
        """Show the size and the frequencies."""
        size = "" if self.group_size == 1 else f", group_size={self.group_size}"
        return f"{self.n_units}, K={self.amplitude.shape[1]}, gate_width={self.gate_width}{size}"


class RandomGate(RhythmGate):
    """A rhythm that is drawn and never learned: the paper's ablation. Parameters as of `RhythmGate`."""

    def __init__(self, n_units: int, *, open: float, **options: Any) -> None:
        super().__init__(n_units, open=open, **options)
        self.requires_grad_(False)


class SoftGate(RhythmGate):
    r"""A rhythm that opens by degrees: :math:`g = \sigma(a / (w \cdot \text{rms}))`, w = `gate_width`.

    The paper's ablation: the state moves by g of the way. Nothing is skipped, so it runs on the plain torch path alone,
    and has no Graph. Parameters as of `RhythmGate`.
    """

    def forward(self, n_steps: int, *, start: int = 0) -> GateTable:
        """Return the gate, between 0 and 1, at the steps `start` to ``start + n_steps - 1``."""
        a = self.rhythm(n_steps, start=start)
        table = torch.sigmoid(a / (self.gate_width * self.swing()))
        return GateTable(table.to(self.bias.device, self.bias.dtype), torch.ones_like(a, dtype=torch.bool))


class PeriodicGate(TableGate):
    r"""Opens every few steps: :math:`g_{t,i} = [(t + o_i) \bmod P < n]`, fixed; the paper's ablation.

    Parameters
    ----------
    n_units : int
        Neurons N.
    period : int
        P, in steps, above `n_open`.
    n_open : int
        n, the open steps of a period, at least 1.
    together : bool
        All neurons open at the same steps; else their offsets o spread evenly over the period, neighbours close.
    """

    def __init__(self, n_units: int, *, period: int, n_open: int = 1, together: bool = False) -> None:
        if not 1 <= n_open < period:
            fail("n_open", f"from 1 to period - 1 = {period - 1}", repr(n_open))
        super().__init__(n_units, 1, n_open / period)
        self.period, self.n_open = period, n_open
        offset = torch.zeros(n_units) if together else torch.arange(n_units) * period // n_units
        self.register_buffer("offset", offset.to(torch.int64))

    def forward(self, n_steps: int, *, start: int = 0) -> GateTable:
        """Return the gate at the steps `start` to ``start + n_steps - 1``."""
        offset = self.get_buffer("offset")
        t = torch.arange(start, start + n_steps, device=offset.device)
        table = (t[:, None] + offset) % self.period < self.n_open
        return GateTable(table.to(torch.get_default_dtype()), torch.zeros(n_steps, self.n_units, dtype=torch.bool))

    def extra_repr(self) -> str:
        """Show the size and the period."""
        return f"{self.n_units}, period={self.period}, n_open={self.n_open}"


class _Rhythm(torch.autograd.Function):
    """`suspike_kernels.rhythm` as a torch function of float64 tensors on the CPU: one evaluation of the bits."""

    @staticmethod
    def forward(
        ctx: Any, bias: Tensor, amplitude: Tensor, phase: Tensor, omega: Tensor, start: int, n_steps: int
    ) -> Tensor:
        ctx.save_for_backward(amplitude, phase, omega)
        ctx.span = {"start": start, "n_steps": n_steps}
        parts = (p.detach().numpy() for p in (bias, amplitude, phase, omega))
        return torch.from_numpy(rhythm(*parts, **ctx.span))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        parts = (p.detach().numpy() for p in ctx.saved_tensors)
        by = rhythm_backward(grads[0].numpy(), *parts, **ctx.span)
        return *(torch.from_numpy(g) for g in by), None, None


class _Table(torch.autograd.Function):
    """Who is open, and who is near if a `width` [N] is given, without the rhythm's T x N numbers."""

    @staticmethod
    def forward(
        ctx: Any, bias: Tensor, amplitude: Tensor, phase: Tensor, omega: Tensor, width: Tensor | None, start: int,
        n_steps: int, dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        given = (p.detach().numpy() for p in (bias, amplitude, phase, omega, width) if p is not None)
        if width is None:
            table = torch.from_numpy(rhythm_table(*given, start=start, n_steps=n_steps))
            near = torch.zeros(table.shape, dtype=torch.bool)
        else:
            table, near = map(torch.from_numpy, rhythm_near(*given, start=start, n_steps=n_steps))
            near = near.view(torch.bool)
            ctx.save_for_backward(bias, amplitude, phase, omega, width)
        ctx.start = start
        ctx.mark_non_differentiable(near)
        return table.to(dtype), near

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, width = ctx.saved_tensors
        parts = [p.detach().numpy() for p in tensors]
        total = RhythmGrads(*(np.zeros_like(p) for p in parts))
        for low in range(0, len(grads[0]), PIECE):
            by_table = grads[0][low : low + PIECE]
            span = {"start": ctx.start + low, "n_steps": len(by_table)}
            by = by_table.double() * triangle(torch.from_numpy(rhythm(*parts, **span)), width)
            for all_of_it, piece in zip(total, rhythm_backward(by.numpy(), *parts[1:], **span), strict=True):
                all_of_it += piece
        return *(torch.from_numpy(g) for g in total), None, None, None, None
