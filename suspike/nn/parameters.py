"""Parameters of neurons that stay in their valid range: what is stored is free, what is used is made from it, here."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from suspike._validate import fail


class Leak(nn.Module):
    """A factor a step for each neuron, above 0 and below 1, fixed or learned through a sigmoid; IF neurons keep 1."""

    fixed: Tensor

    def __init__(self, n_units: int, value: float, *, learn: bool) -> None:
        super().__init__()
        if learn:
            self.raw = nn.Parameter(torch.full((n_units,), math.log(value / (1 - value))))
        else:
            self.register_buffer("fixed", torch.full((n_units,), float(value)))
        self.learn = learn

    @property
    def stored(self) -> Tensor:
        """What is kept [N]: the factor, or what a sigmoid makes it from."""
        stored: Tensor = self.raw if self.learn else self.fixed
        return stored

    def forward(self) -> Tensor:
        """Return the factor [N]."""
        if not self.learn:
            return self.fixed
        kind = torch.finfo(self.raw.dtype)  # far out, a sigmoid rounds to 0 and 1
        return torch.sigmoid(self.raw).clamp(kind.tiny, 1 - kind.eps / 2)


class Positive(nn.Module):
    """A value for each neuron, fixed, or above 0 and learned through an exponential."""

    fixed: Tensor

    def __init__(self, n_units: int, value: float, *, learn: bool) -> None:
        super().__init__()
        full = torch.full((n_units,), float(value))
        if learn:
            self.log = nn.Parameter(full.log())
        else:
            self.register_buffer("fixed", full)
        self.learn = learn

    def forward(self) -> Tensor:
        """Return the value [N]."""
        # e^80 is a float32 and far out of any range; infinity would give a gradient of 0 times infinity
        return self.log.clamp(-80, 80).exp() if self.learn else self.fixed


def leak_of(name: str, leak: float | None, tau_name: str, tau_ms: float | None, dt_ms: float | None) -> float:
    r"""Return a leak given as such or as :math:`\exp(-\Delta t/\tau)`, in ms.

    Raises
    ------
    ValueError
        If both are given, neither, or one out of its range.
    """
    if (leak is None) == (tau_ms is None):
        got = "neither" if leak is None else f"{leak!r} and {tau_name}={tau_ms!r}"
        fail(name, f"given, or {tau_name} with dt_ms instead", got)
    if leak is None:
        assert tau_ms is not None, "one of the two is there"
        if dt_ms is None:
            fail("dt_ms", f"given with {tau_name}", "None")
        for each, value in ((tau_name, tau_ms), ("dt_ms", dt_ms)):
            if not 0 < value < math.inf:
                fail(each, "above 0 ms", repr(value))
        leak = math.exp(-dt_ms / tau_ms)
    if not 0 < leak < 1:
        fail(name, "above 0 and below 1", repr(leak), "It is exp(-dt_ms / tau_ms).")
    return leak
