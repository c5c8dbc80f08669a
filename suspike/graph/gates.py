"""What opens the neurons of a Graph: functions of time alone, and gates that data open."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from suspike._validate import fail, require_finite, require_shape
from suspike_kernels.layout import FloatArray
from suspike_kernels.rhythm import rhythm_table

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rhythm:
    r"""A gate that is a function of time alone, open where :math:`a_{t,i} > 0`.

    .. math:: a_{t,i} = b_i + \sum_k \alpha_{i,k} \sin(2\pi t/P_k + \varphi_{i,k})

    Parameters
    ----------
    bias : float64 [N]
    amplitude, phase : float64 [N, K]
        Phase in rad.
    period : float64 [K]
        P in steps, above 0; at least one.
    """

    bias: Float64
    amplitude: Float64
    phase: Float64
    period: Float64

    def __post_init__(self) -> None:
        n, k = len(self.bias), len(self.period)
        for name, shape in (("bias", (n,)), ("amplitude", (n, k)), ("phase", (n, k)), ("period", (k,))):
            require_shape(f"Rhythm.{name}", getattr(self, name), shape)
            require_finite(f"Rhythm.{name}", getattr(self, name))
        if not k or (self.period <= 0).any():
            fail("Rhythm.period", "one or more, above 0", str(self.period))

    @property
    def n_units(self) -> int:
        """Neurons N."""
        return len(self.bias)

    def table(self, n_steps: int, *, start: int = 0) -> NDArray[np.uint8]:
        """Return the open steps from step `start` on: uint8 [T, N]."""
        omega = 2 * np.pi / self.period
        return rhythm_table(self.bias, self.amplitude, self.phase, omega, start=start, n_steps=n_steps)


@dataclass(frozen=True, eq=False)
class Periodic:
    r"""A gate that opens every few steps: :math:`g_{t,i} = [(t + o_i) \bmod P < n]`.

    Parameters
    ----------
    offset : int64 [N]
        o in steps.
    period, n_open : int
        P, and the open steps n of a period, from 1 to P - 1.
    """

    offset: NDArray[np.int64]
    period: int
    n_open: int

    def __post_init__(self) -> None:
        if self.offset.ndim != 1 or self.offset.dtype.kind != "i":
            fail("Periodic.offset", "whole numbers [N]", f"{self.offset.dtype} of shape {list(self.offset.shape)}")
        if not 1 <= self.n_open < self.period:
            fail("Periodic.n_open", f"from 1 to period - 1 = {self.period - 1}", repr(self.n_open))

    @property
    def n_units(self) -> int:
        """Neurons N."""
        return len(self.offset)

    def table(self, n_steps: int, *, start: int = 0) -> NDArray[np.uint8]:
        """Return the open steps from step `start` on: uint8 [T, N]."""
        t = np.arange(start, start + n_steps)[:, None]
        return ((t + self.offset) % self.period < self.n_open).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class InputGate:
    r"""A gate that events open, :math:`a_t = W_g^\top x_t + U_g^\top s_{t-1} + b`, open where a > 0.

    Each of G gates opens N // G neighbouring neurons.

    Parameters
    ----------
    weight : float [n_in, G]
        Row ``i`` is what an event of the layer's source ``i`` adds.
    bias : float [G]
    recurrent : float [N, G], optional
        Row ``i`` is what unit ``i``'s spike adds one step later.
    n_units : int
        Neurons N, a multiple of G.
    """

    weight: FloatArray
    bias: FloatArray
    n_units: int
    recurrent: FloatArray | None = None

    def __post_init__(self) -> None:
        n = len(self.bias)
        require_shape("InputGate.weight", self.weight, (len(self.weight), n))
        if not n or self.n_units % n:
            fail("InputGate.bias", f"of a number of gates that divides n_units = {self.n_units}", str(n))
        if self.recurrent is not None:
            require_shape("InputGate.recurrent", self.recurrent, (self.n_units, n))
        for name, array in (("weight", self.weight), ("bias", self.bias), ("recurrent", self.recurrent)):
            if array is not None:
                require_finite(f"InputGate.{name}", array)


@dataclass(frozen=True, eq=False)
class DriveGate:
    r"""A gate of each neuron's own that a large current opens: :math:`|I_t| > \kappa`, float [N]."""

    kappa: FloatArray

    def __post_init__(self) -> None:
        require_shape("DriveGate.kappa", self.kappa, (len(self.kappa),))
        require_finite("DriveGate.kappa", self.kappa)

    @property
    def n_units(self) -> int:
        """Neurons N."""
        return len(self.kappa)


Gate = Rhythm | Periodic | InputGate | DriveGate


def arrays_of(gate: Gate | None) -> dict[str, FloatArray]:
    """Return the arrays of a gate that have to be of its layer's float type: those that data open have some."""
    if isinstance(gate, InputGate):
        own = {} if gate.recurrent is None else {"gate.recurrent": gate.recurrent}
        return {"gate.weight": gate.weight, "gate.bias": gate.bias, **own}
    return {"gate.kappa": gate.kappa} if isinstance(gate, DriveGate) else {}
