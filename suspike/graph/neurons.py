r"""The neurons of a Graph, always open unless they have a gate; where it is shut they keep their state bit for bit.

.. math:: s_t = [u_t > \theta],\quad v_t = \text{reset}(u_t) \text{ where } s_t

behind the update :math:`u_t` of each kind, for input current :math:`I_t`. Readouts (LI, CubaLI) never fire.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from suspike._validate import fail, require_finite, require_shape
from suspike.graph.gates import Gate
from suspike_kernels.layout import RESETS, FloatArray, NeuronArrays


@dataclass(frozen=True, eq=False)
class LIF:
    r"""Leaky integrate-and-fire neurons: :math:`u_t = \beta v_{t-1} + I_t`; with beta 1 they forget nothing (IF).

    Parameters
    ----------
    beta, threshold : float [N]
        Leak a step (0 to 1) and threshold (above 0).
    reset : "zero", "subtract" or "none"
    gate : Gate, optional
    """

    beta: FloatArray
    threshold: FloatArray
    reset: str = "zero"
    gate: Gate | None = None

    fires: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self, leaks=("beta",))


@dataclass(frozen=True, eq=False)
class CubaLIF:
    r"""LIF neurons behind a synaptic current: :math:`i_t = \alpha i_{t-1} + I_t,\; u_t = \beta v_{t-1} + i_t`.

    Parameters
    ----------
    beta, alpha, threshold : float [N]
        Leak of the membrane and decay of the current a step (0 to 1), and threshold (above 0).
    reset, gate
        As of `LIF`.
    """

    beta: FloatArray
    alpha: FloatArray
    threshold: FloatArray
    reset: str = "zero"
    gate: Gate | None = None

    fires: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self, leaks=("beta", "alpha"))


@dataclass(frozen=True, eq=False)
class AdLIF:
    r"""Adaptive LIF neurons in symplectic Euler steps; :math:`v_t` is the membrane after reset.

    .. math::
        u_t = \beta v_{t-1} + (1 - \beta)(I_t - w_{t-1}),\qquad
        w_t = \rho w_{t-1} + (1 - \rho)(a v_t + b s_t)

    Parameters
    ----------
    beta, rho, a, b, threshold : float [N]
        Leak of the membrane and decay of the adaptation a step (0 to 1), how membrane and spike drive the adaptation,
        and threshold (above 0).
    reset, gate
        As of `LIF`.

    References
    ----------
    Baronig et al. 2025, arXiv:2408.07517, eq. 6.
    """

    beta: FloatArray
    rho: FloatArray
    a: FloatArray
    b: FloatArray
    threshold: FloatArray
    reset: str = "zero"
    gate: Gate | None = None

    fires: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self, leaks=("beta", "rho"), others=("a", "b"))


@dataclass(frozen=True, eq=False)
class LI:
    r"""A leaky readout: :math:`v_t = \beta v_{t-1} + I_t`. `beta` is float [N], 0 to 1 a step."""

    beta: FloatArray
    gate: Gate | None = None

    fires: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(self, leaks=("beta",))


@dataclass(frozen=True, eq=False)
class CubaLI:
    r"""A readout behind a synaptic current: :math:`i_t = \alpha i_{t-1} + I_t,\; v_t = \beta v_{t-1} + i_t`.

    `beta` and `alpha` are float [N], 0 to 1 a step.
    """

    beta: FloatArray
    alpha: FloatArray
    gate: Gate | None = None

    fires: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(self, leaks=("beta", "alpha"))


Neuron = LIF | CubaLIF | AdLIF | LI | CubaLI


def arrays_of(neuron: Neuron) -> dict[str, FloatArray]:
    """Return a neuron's parameters [N] by name."""
    names = ("beta", "alpha", "rho", "a", "b", "threshold")
    return {name: getattr(neuron, name) for name in names if hasattr(neuron, name)}


def kernel_arrays(neuron: Neuron) -> NeuronArrays:
    """Return neurons as kernels take them; a readout's threshold is infinite."""
    beta, none = neuron.beta, neuron.beta[:0]
    if isinstance(neuron, (LI, CubaLI)):
        threshold, reset = np.full_like(beta, np.inf), RESETS.index("none")
    else:
        threshold, reset = neuron.threshold, RESETS.index(neuron.reset)
    if isinstance(neuron, AdLIF):
        return NeuronArrays(2, beta, threshold, reset, 0, neuron.rho, neuron.a, neuron.b)
    if isinstance(neuron, (CubaLIF, CubaLI)):
        return NeuronArrays(1, beta, threshold, reset, 0, neuron.alpha, none, none)
    return NeuronArrays(0, beta, threshold, reset, 0, none, none, none)


def _check(neuron: Neuron, *, leaks: tuple[str, ...], others: tuple[str, ...] = ()) -> None:
    kind = type(neuron).__name__
    if neuron.beta.ndim != 1:
        fail(f"{kind}.beta", "of shape [N]", f"shape {neuron.beta.shape}")
    for name, array in arrays_of(neuron).items():
        require_shape(f"{kind}.{name}", array, neuron.beta.shape)
        require_finite(f"{kind}.{name}", array)
    for name in leaks:
        array = getattr(neuron, name)
        outside = (array < 0) | (array > 1)
        if outside.any():
            fail(f"{kind}.{name}", "from 0 to 1", f"{array[outside][0]}")
    if not isinstance(neuron, (LI, CubaLI)):
        if (neuron.threshold <= 0).any():
            fail(f"{kind}.threshold", "above 0", f"{neuron.threshold.min()}")
        if neuron.reset not in RESETS:
            fail("reset", f"one of {', '.join(RESETS)}", repr(neuron.reset))
    if neuron.gate is not None and neuron.gate.n_units != len(neuron.beta):
        fail(f"{kind}.gate", f"of {len(neuron.beta)} units like its neurons", f"{neuron.gate.n_units}")
