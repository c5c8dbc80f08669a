"""What every gate shares, and the gates that data open; those that time alone opens are in `suspike.nn.rhythms`."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from suspike._validate import fail
from suspike.surrogate import TriangleStep


class Opened(Protocol):
    """What opens the neurons, step by step."""

    def __call__(self, t: int, cur: Tensor, spk: Tensor | None) -> Tensor:
        """Return the gates of step t, [N] or [B, N], given its current and the spikes before, [B, N]."""

    def finish(self, batch: int) -> None:
        """Hear that all steps are done."""


class GateTable(NamedTuple):
    """A gate over some steps, the same for every sample.

    Attributes
    ----------
    open : Tensor [T, G]
        1 where the neurons of the gate update, else 0; carries the straight-through gradient.
    near : bool Tensor [T, G], on the CPU
        Where that gradient is not 0; all False when none is wanted.
    """

    open: Tensor
    near: Tensor


class Gate(nn.Module):
    """Decides which of N neurons update at a step; ``group_size`` neighbours share a gate, so there are G = N / that.

    Attributes
    ----------
    n_units, group_size, n_gates : int
    open : float
        The share of steps at which it was wanted open to begin with.
    sees_data : bool
        False where it is a function of time alone, a table.
    """

    sees_data: bool

    def __init__(self, n_units: int, group_size: int, open: float) -> None:
        super().__init__()
        if group_size < 1 or n_units % group_size:
            fail("group_size", f"a divisor of n_units = {n_units}", repr(group_size))
        if not 0 < open < 1:
            fail("open", "above 0 and below 1", repr(open), "A neuron without a gate is always open.")
        self.n_units, self.group_size, self.n_gates, self.open = n_units, group_size, n_units // group_size, open

    def steps(self, n_steps: int, start: int, x: Tensor | None, running: Tensor | None = None) -> Opened:
        """Return what opens the neurons at the steps from `start` on.

        Given the layer's input `x` [T, B, n_in], and where samples are not yet over, `running` [T, B, 1], if they end.
        """
        raise NotImplementedError

    def spread(self, each: Tensor) -> Tensor:
        """Repeat [..., G] for each gate's neurons: [..., N]."""
        return each if self.group_size == 1 else each.repeat_interleave(self.group_size, -1)


class GateUse(NamedTuple):
    """What a gate that data open did in one call of its layer.

    Attributes
    ----------
    share : Tensor [B, N]
        The share of its sample's steps at which each neuron was open, for `losses.update_budget`. Its gradient is that
        of the ramp
        ``clip((a / scale + 1) / 2, 0, 1)``, which also reaches a gate that is far from opening.
    open_at : int64 Tensor [B, T], on the CPU
        How many neurons were open at each step.
    n_steps : int64 Tensor [B] or None
        True length of each sample; None where all last T steps.
    """

    share: Tensor
    open_at: Tensor
    n_steps: Tensor | None


def ramp(activation: Tensor, scale: Tensor) -> Tensor:
    """Return ``clip((activation / scale + 1) / 2, 0, 1)``, without slope on its edges; a scale of 0 makes it a step."""
    inside = activation.abs() < scale  # not a clamp: its gradient counts the edges in, and 0 / 0 is NaN
    slope = 0.5 / torch.where(scale > 0, scale, 1)
    return torch.where(inside, slope * activation + 0.5, (activation > 0).to(activation.dtype))


class DataGate(Gate):
    """A gate that data open: an activation per gate, whose swing `scale` gives the measure for the widths.

    The straight-through gradient reaches over ``gate_width * scale``, the ramp of `GateUse` over ``scale``.
    """

    sees_data = True

    def __init__(self, n_units: int, group_size: int, open: float, gate_width: float, scale: float) -> None:
        super().__init__(n_units, group_size, open)
        if not gate_width > 0:
            fail("gate_width", "above 0", repr(gate_width))
        self.gate_width = gate_width
        self.register_buffer("scale", torch.full((self.n_gates,), float(scale)))

    @property
    def width(self) -> Tensor:
        """Half the support of the straight-through gradient [G], in units of the activation."""
        return self.gate_width * self.get_buffer("scale")

    def opened(self, activation: Tensor) -> Tensor:
        """Return the gates [..., N] at an activation [..., G], with the straight-through gradient."""
        table: Tensor = TriangleStep.apply(activation, self.width)  # type: ignore[no-untyped-call]
        return self.spread(table)

    def use(self, n_open: Tensor, ramp: Tensor, open_at: Tensor, n_steps: Tensor | None) -> GateUse:
        """Return what the gate did, from sums over the steps: how often it was open and its ramp [B, G]."""
        share = n_open + (ramp - ramp.detach())
        if n_steps is None:
            share = share / max(open_at.shape[1], 1)
        else:
            share = share / n_steps.to(share.device).clamp_min(1)[:, None]
        return GateUse(self.spread(share), open_at, n_steps)

    def forward(self, use: GateUse) -> GateUse:
        """Pass on what the gate did in a call of its layer: here a hook, or `suspike.record`, can see it."""
        return use


class _Collected:
    """Opens a data gate step by step and adds up what it did."""

    def __init__(
        self, gate: DataGate, activation: Callable[[int, Tensor, Tensor | None], Tensor], running: Tensor | None
    ) -> None:
        self.gate, self.activation, self.running = gate, activation, running
        self.n_open: Any = 0
        self.ramp: Any = 0
        self.open_at: list[Tensor] = []

    def __call__(self, t: int, cur: Tensor, spk: Tensor | None) -> Tensor:
        a = self.activation(t, cur, spk)
        if self.running is not None:
            a = torch.where(self.running[t], a, -torch.inf)  # shut, and far from opening
        is_open = self.gate.opened(a)
        self.n_open = self.n_open + (a.detach() > 0).to(a.dtype)
        self.ramp = self.ramp + ramp(a, self.gate.get_buffer("scale"))
        self.open_at.append((is_open.detach() > 0).sum(-1).cpu())
        return is_open

    def finish(self, batch: int) -> None:
        empty = self.gate.get_buffer("scale").new_zeros(batch, self.gate.n_gates)
        open_at = torch.stack(self.open_at, 1) if self.open_at else torch.zeros(batch, 0, dtype=torch.int64)
        n_steps = None if self.running is None else self.running.sum((0, 2))
        self.gate(self.gate.use(self.n_open + empty, self.ramp + empty, open_at, n_steps))


class InputGate(DataGate):
    r"""Opens on informative events: :math:`a_t = W_g^\top x_t + U_g^\top s_{t-1} + b`, open where a > 0.

    With b < 0 a silent step keeps it shut for free. A gate costs a row of G weights for every event, so `group_size`
    neighbouring neurons share one.

    Parameters
    ----------
    n_in : int
        Units of the layer's input.
    n_units : int
        Neurons N.
    open : float
        Wanted share of steps at which a gate is open to begin with, above 0 and below 1. The weights are drawn for
        inputs that are active at the rate `rate`, so that a has a standard deviation of 1.
    rate : float
        Expected share of active input units a step, above 0.
    group_size : int
        Neighbouring neurons that share a gate.
    recurrent : bool
        Let the layer's own spikes of the step before enter, through U_g.
    gate_width : float
        Half the support of the gradient, in units of the activation's standard deviation.
    """

    def __init__(
        self,
        n_in: int,
        n_units: int,
        *,
        open: float,
        rate: float = 0.05,
        group_size: int = 16,
        recurrent: bool = False,
        gate_width: float = 0.25,
    ) -> None:
        super().__init__(n_units, group_size, open, gate_width, 1.0)
        if not 0 < rate <= 1:
            fail("rate", "above 0 and at most 1", repr(rate))
        self.n_in = n_in
        self.weight = nn.Parameter(torch.randn(n_in, self.n_gates) / (n_in * rate) ** 0.5)
        self.recurrent = nn.Parameter(torch.zeros(n_units, self.n_gates)) if recurrent else None
        self.bias = nn.Parameter(torch.full((self.n_gates,), -NormalDist().inv_cdf(1 - open)))

    def steps(self, n_steps: int, start: int, x: Tensor | None, running: Tensor | None = None) -> Opened:
        """Return what opens the neurons, given the layer's input `x` [T, B, n_in]."""
        if x is None:
            fail("x", f"the layer's input [T, B, {self.n_in}] for an InputGate", "None", "Pass it as x=.")
        driven = x @ self.weight + self.bias

        def activation(t: int, cur: Tensor, spk: Tensor | None) -> Tensor:
            return driven[t] if self.recurrent is None or spk is None else driven[t] + spk @ self.recurrent

        return _Collected(self, activation, running)

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"{self.n_in}, {self.n_units}, group_size={self.group_size}, recurrent={self.recurrent is not None}"


class DriveGate(DataGate):
    r"""Opens where the drive is large: :math:`a_t = |I_t| - \kappa`, open where a > 0, each neuron on its own.

    It has to know the current everywhere, so it saves updates and spikes but no synaptic operation.

    Parameters
    ----------
    n_units : int
        Neurons N.
    open : float
        Wanted share of steps at which a gate is open to begin with, above 0 and below 1, for currents that are normal
        with standard deviation `spread`.
    spread : float
        Expected standard deviation of the currents, above 0.
    gate_width : float
        Half the support of the gradient, in units of `spread`.

    Attributes
    ----------
    log_kappa : Parameter [N]
        kappa is learned through an exponential.
    """

    def __init__(self, n_units: int, *, open: float, spread: float = 0.3, gate_width: float = 0.25) -> None:
        if not spread > 0:
            fail("spread", "above 0", repr(spread))
        super().__init__(n_units, 1, open, gate_width, spread)
        kappa = spread * NormalDist().inv_cdf(1 - open / 2)
        self.log_kappa = nn.Parameter(torch.full((n_units,), kappa).log())

    @property
    def kappa(self) -> Tensor:
        """Current above which a neuron opens [N]."""
        return self.log_kappa.clamp(-80, 80).exp()  # finite and above 0

    def steps(self, n_steps: int, start: int, x: Tensor | None, running: Tensor | None = None) -> Opened:
        """Return what opens the neurons, given their currents."""
        return _Collected(self, lambda t, cur, spk: cur.abs() - self.kappa, running)

    def extra_repr(self) -> str:
        """Show the size."""
        return f"{self.n_units}"


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
    return list({id(p): p for m in net.modules() if isinstance(m, Gate) for p in m.parameters()}.values())
