"""Graph: a trained network as frozen dataclasses of numpy arrays, simulated, priced and exported without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suspike._validate import fail, require_finite, require_shape
from suspike_kernels.layout import RESETS, FloatArray
from suspike_kernels.rhythm import rhythm

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

    def table(self, n_steps: int, *, start: int = 0) -> NDArray[np.uint8]:
        """Return the open steps: uint8 [T, N]."""
        omega = 2 * np.pi / self.period
        a = rhythm(self.bias, self.amplitude, self.phase, omega, start=start, n_steps=n_steps)
        return (a > 0).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class LIF:
    r"""Leaky integrate-and-fire neurons, always open unless they have a gate.

    .. math:: u_t = \beta v_{t-1} + I_t,\quad s_t = [u_t > \theta],\quad v_t = \text{reset}(u_t)\text{ where } s_t

    Parameters
    ----------
    beta, threshold : float [N]
        Leak a step (0 to 1) and threshold (above 0).
    reset : "zero", "subtract" or "none"
    gate : Rhythm, optional
    """

    beta: FloatArray
    threshold: FloatArray
    reset: str = "zero"
    gate: Rhythm | None = None

    def __post_init__(self) -> None:
        _require_beta("LIF.beta", self.beta)
        require_shape("LIF.threshold", self.threshold, self.beta.shape)
        require_finite("LIF.threshold", self.threshold)
        if (self.threshold <= 0).any():
            fail("LIF.threshold", "above 0", f"{self.threshold.min()}")
        if self.reset not in RESETS:
            fail("reset", f"one of {', '.join(RESETS)}", repr(self.reset))
        if self.gate is not None:
            require_shape("LIF.gate.bias", self.gate.bias, self.beta.shape)


@dataclass(frozen=True, eq=False)
class LI:
    r"""A leaky readout that never fires: :math:`v_t = \beta v_{t-1} + I_t`. `beta` is float [N], 0 to 1 a step."""

    beta: FloatArray

    def __post_init__(self) -> None:
        _require_beta("LI.beta", self.beta)


@dataclass(frozen=True, eq=False)
class Layer:
    """Neurons and the synapses onto them, fully connected.

    Parameters
    ----------
    name : str
        Unique in the graph; it names the layer in counts, files and messages.
    weight : float [n_in, N]
        Row ``i`` holds the weights of source ``i``.
    bias : float [N]
    neuron : LIF or LI
    recurrent : float [N, N], optional
        Row ``i`` is what unit ``i``'s spike adds one step later.
    """

    name: str
    weight: FloatArray
    bias: FloatArray
    neuron: LIF | LI
    recurrent: FloatArray | None = None

    def __post_init__(self) -> None:
        where, n = f"layer {self.name!r}", self.n_units
        require_shape(f"weight of {where}", self.weight, (self.n_in, n))
        require_shape(f"bias of {where}", self.bias, (n,))
        require_shape(f"beta of {where}", self.neuron.beta, (n,))
        arrays: dict[str, FloatArray] = {"weight": self.weight, "bias": self.bias, "beta": self.neuron.beta}
        if self.recurrent is not None:
            if isinstance(self.neuron, LI):
                fail(f"recurrent of {where}", "absent on a readout, which never fires", "an array")
            require_shape(f"recurrent of {where}", self.recurrent, (n, n))
            arrays["recurrent"] = self.recurrent
        if isinstance(self.neuron, LIF):
            arrays["threshold"] = self.neuron.threshold
        for name, array in arrays.items():
            require_finite(f"{name} of {where}", array)
        dtypes = {str(a.dtype) for a in arrays.values()}
        if dtypes not in ({"float32"}, {"float64"}):
            fail(f"arrays of {where}", "all float32 or all float64", ", ".join(sorted(dtypes)))

    @property
    def n_in(self) -> int:
        """Number of sources."""
        return int(self.weight.shape[0])

    @property
    def n_units(self) -> int:
        """Number of neurons N."""
        return int(self.bias.shape[0])


@dataclass(frozen=True, eq=False)
class Graph:
    """A chain of layers and the length of a time step.

    Parameters
    ----------
    layers : tuple of Layer
        In order; a readout (LI) may only be last.
    dt_ms : float
        Length of a step in ms.
    max_count : int
        The largest number of events of one input unit in one step for which every sum is exact, whatever its order;
        0 where nothing of the kind is known. `convert.to_graph` rounds weights so.
    """

    layers: tuple[Layer, ...]
    dt_ms: float
    max_count: int = 0

    def __post_init__(self) -> None:
        if not self.layers:
            fail("layers", "at least one layer", "none")
        if not (np.isfinite(self.dt_ms) and self.dt_ms > 0):
            fail("dt_ms", "above 0", repr(self.dt_ms))
        if self.max_count < 0:
            fail("max_count", "0 or more", repr(self.max_count))
        names = [layer.name for layer in self.layers]
        if len(set(names)) < len(names):
            fail("layers", "of different names", ", ".join(names))
        for before, after in zip(self.layers, self.layers[1:], strict=False):
            if isinstance(before.neuron, LI):
                fail(f"layer {before.name!r}", "the last one, since a readout never fires", f"{after.name!r} behind it")
            if before.n_units != after.n_in:
                fail(
                    f"weight of layer {after.name!r}",
                    f"of {before.n_units} rows, one a unit of {before.name!r}",
                    f"{after.n_in} rows",
                )

    @property
    def n_in(self) -> int:
        """Number of input units."""
        return self.layers[0].n_in

    @property
    def dtype(self) -> Any:
        """The float type of the first layer's weights."""
        return self.layers[0].weight.dtype


def _require_beta(name: str, beta: FloatArray) -> None:
    require_finite(name, beta)
    if beta.ndim != 1:
        fail(name, "of shape [N]", f"shape {beta.shape}")
    if ((beta < 0) | (beta > 1)).any():
        fail(name, "from 0 to 1", f"{beta[(beta < 0) | (beta > 1)][0]}")
