r"""The rhythm of a gate: a function of time alone, evaluated in one place for training, simulation and export.

.. math:: a_{t,i} = b_i + \sum_k \alpha_{i,k} \sin(\omega_k t + \varphi_{i,k}),\qquad g_{t,i} = [a_{t,i} > 0]

(selective-update RNNs, arXiv:2603.02226). Float32 and float64 evaluations differ in the bits of g, so there is only
this one, in float64 with the phase taken modulo 2 pi and the sum in fixed order; everything else is handed its bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


class RhythmGrads(NamedTuple):
    """Gradients of a loss by the rhythm's parameters, in their shapes."""

    bias: Float64
    amplitude: Float64
    phase: Float64
    omega: Float64


def _waves(omega: Float64, start: int, n_steps: int) -> tuple[Float64, Float64]:
    """Return sin and cos of ``omega_k t`` for t = start .. start + n_steps - 1: two arrays [T, K]."""
    angle = np.remainder(np.arange(start, start + n_steps, dtype=np.float64)[:, None] * omega, 2 * np.pi)
    return np.sin(angle), np.cos(angle)


def rhythm(bias: Float64, amplitude: Float64, phase: Float64, omega: Float64, *, start: int, n_steps: int) -> Float64:
    """Evaluate the rhythm: a [T, N], float64.

    Parameters
    ----------
    bias : float64 [N]
    amplitude, phase : float64 [N, K]
        Phase in rad.
    omega : float64 [K]
        Angular frequency in rad a step.
    start, n_steps : int
        The first step, counted from the state's start, and the number of steps T.
    """
    sin, cos = _waves(omega, start, n_steps)
    a = np.repeat(bias[None], n_steps, axis=0)
    for k in range(len(omega)):  # a fixed order: a matrix product's would depend on the machine
        a += sin[:, k, None] * (amplitude[:, k] * np.cos(phase[:, k]))
        a += cos[:, k, None] * (amplitude[:, k] * np.sin(phase[:, k]))
    return a


def rhythm_backward(
    grad: Float64, amplitude: Float64, phase: Float64, omega: Float64, *, start: int, n_steps: int
) -> RhythmGrads:
    """Return the gradients of ``sum(grad * rhythm(...))``; `grad` is float64 [T, N]."""
    sin, cos = _waves(omega, start, n_steps)
    time = np.arange(start, start + n_steps, dtype=np.float64)
    along_sin, along_cos = grad.T @ sin, grad.T @ cos  # [N, K]
    # sin(wt + phi) = sin(wt) cos(phi) + cos(wt) sin(phi); its derivative by the angle is cos(wt + phi)
    d_amplitude = along_sin * np.cos(phase) + along_cos * np.sin(phase)
    d_phase = amplitude * (along_cos * np.cos(phase) - along_sin * np.sin(phase))
    timed = grad.T * time
    d_omega = (amplitude * (timed @ cos * np.cos(phase) - timed @ sin * np.sin(phase))).sum(0)
    return RhythmGrads(grad.sum(0), d_amplitude, d_phase, d_omega)


def spread(amplitude: Float64) -> Float64:
    r"""Return the root mean square of each neuron's swing, :math:`\sqrt{\sum_k \alpha_k^2 / 2}`: [N]."""
    return np.asarray(np.sqrt((amplitude**2).sum(-1) / 2))
