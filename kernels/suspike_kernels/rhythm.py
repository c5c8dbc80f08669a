r"""The rhythm of a gate: a function of time alone, evaluated in one place for training, simulation and export.

.. math:: a_{t,i} = b_i + \sum_k \alpha_{i,k} \sin(\omega_k t + \varphi_{i,k}),\qquad g_{t,i} = [a_{t,i} > 0]

(selective-update RNNs, arXiv:2603.02226). Float32 and float64 evaluations differ in the bits of g, so there is only
this one, in float64 with the phase taken modulo 2 pi and the sum in fixed order; everything else is handed its bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from suspike_kernels.compiling import kernel
from suspike_kernels.cpu.loops import columns

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


def rhythm_table(
    bias: Float64, amplitude: Float64, phase: Float64, omega: Float64, *, start: int, n_steps: int
) -> NDArray[np.uint8]:
    """Return where `rhythm` is above 0, uint8 [T, N], without its T x N numbers: the same operations, step by step."""
    return _tables(bias, amplitude, phase, omega, start, n_steps, None)[0]


def rhythm_near(
    bias: Float64,
    amplitude: Float64,
    phase: Float64,
    omega: Float64,
    width: Float64,
    *,
    start: int,
    n_steps: int,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return `rhythm_table`, and likewise where the rhythm is nearer to 0 than `width`, float64 [N]."""
    return _tables(bias, amplitude, phase, omega, start, n_steps, width)


def _tables(
    bias: Float64, amplitude: Float64, phase: Float64, omega: Float64, start: int, n_steps: int, width: Float64 | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    waves = np.stack(_waves(omega, start, n_steps))
    parts = np.ascontiguousarray([(amplitude * f(phase)).T for f in (np.cos, np.sin)])
    table = np.empty((n_steps, len(bias)), np.uint8)
    near = np.empty((0 if width is None else n_steps, len(bias)), np.uint8)
    _compare(bias, np.empty(0) if width is None else width, waves, parts, np.empty(len(bias)), table, near)
    return table, near


@kernel(allocates=False)
def _compare(bias: Any, width: Any, waves: Any, parts: Any, a: Any, table: Any, near: Any) -> None:
    """Set the tables [T, N] from waves [2, T, K] and each neuron's parts [2, K, N] of them; `a` [N] is scratch."""
    for t in range(table.shape[0]):
        row = table[t]
        for i in columns(0, a.shape[0]):
            a[i] = bias[i]
        for k in range(waves.shape[2]):
            sin, cos, by_sin, by_cos = waves[0, t, k], waves[1, t, k], parts[0, k], parts[1, k]
            for i in columns(0, a.shape[0]):
                a[i] = a[i] + sin * by_sin[i] + cos * by_cos[i]
        for i in columns(0, a.shape[0]):
            row[i] = a[i] > 0
        if near.shape[0]:
            row = near[t]
            for i in columns(0, a.shape[0]):
                row[i] = abs(a[i]) < width[i]


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
