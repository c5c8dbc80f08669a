"""Gates: what decides at which steps a neuron updates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from suspike._validate import fail
from suspike.surrogate import TriangleStep
from suspike_kernels.rhythm import rhythm, rhythm_backward, spread


class GateTable(NamedTuple):
    """A gate over some steps, the same for every sample.

    Attributes
    ----------
    open : Tensor [T, N]
        1 where the neuron updates, else 0; carries the straight-through gradient.
    near : bool Tensor [T, N], on the CPU
        Where that gradient is not 0; all False when none is wanted.
    """

    open: Tensor
    near: Tensor


class RhythmGate(nn.Module):
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
        Periods P of the layer's sines in steps, each above 2.
    n_steps : int
        Length of that table in steps, at least 2: about a recording's.
    gate_width : float
        Half the support of the gradient, in units of the neuron's swing.
    learn_periods : bool
        Learn the periods too, through ``log(period - 2)``.

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
    ) -> None:
        super().__init__()
        if not 0 < open < 1:
            fail("open", "above 0 and below 1", repr(open), "A neuron without a gate is always open.")
        if not periods or min(periods) <= 2:
            fail("periods", "above 2 steps each", repr(tuple(periods)))
        if not gate_width > 0:
            fail("gate_width", "above 0", repr(gate_width))
        if n_steps < 2:
            fail("n_steps", "at least 2", repr(n_steps))
        self.n_units, self.gate_width, self.learn_periods = n_units, gate_width, learn_periods
        period = torch.tensor(periods, dtype=torch.get_default_dtype())
        if learn_periods:
            self.log_period = nn.Parameter(torch.log(period - 2))
        else:
            self.register_buffer("fixed_period", period)
        self.amplitude = nn.Parameter(torch.randn(n_units, len(periods)) / math.sqrt(len(periods)))
        self.phase = nn.Parameter(torch.rand(n_units, len(periods)) * 2 * math.pi)
        self.bias = nn.Parameter(torch.zeros(n_units))
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
        """Return a [T, N], float64, on the CPU, for the steps `start` to ``start + n_steps - 1``; differentiable."""
        parts = (p.cpu().double() for p in (self.bias, self.amplitude, self.phase))
        a: Tensor = _Rhythm.apply(*parts, 2 * math.pi / self.period, start, n_steps)  # type: ignore[no-untyped-call]
        return a

    def forward(self, n_steps: int, *, start: int = 0) -> GateTable:
        """Return the gate at the steps `start` to ``start + n_steps - 1``."""
        a = self.rhythm(n_steps, start=start)
        width = self.gate_width * torch.from_numpy(spread(self.amplitude.detach().cpu().double().numpy()))
        table: Tensor = TriangleStep.apply(a, width)  # type: ignore[no-untyped-call]
        near = (a.detach().abs() < width) if a.requires_grad else torch.zeros_like(a, dtype=torch.bool)
        return GateTable(table.to(self.bias.device, self.bias.dtype), near)

    def extra_repr(self) -> str:
        """Show the size and the frequencies."""
        return f"{self.n_units}, K={self.amplitude.shape[1]}, gate_width={self.gate_width}"


def gate_parameters(net: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of all gates in `net`, shared ones once, for a learning rate or a decay of their own.

    Parameters
    ----------
    net : module
        Gates may stand anywhere in its tree.

    Examples
    --------
    >>> gates = gate_parameters(net)
    >>> others = [p for p in net.parameters() if all(p is not g for g in gates)]
    >>> torch.optim.Adam([{"params": gates, "lr": 1e-2}, {"params": others}], lr=1e-3)
    """
    return list({id(p): p for m in net.modules() if isinstance(m, RhythmGate) for p in m.parameters()}.values())


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
