r"""Each neuron's update, once, as scalar Python: what training, simulation and hardware export all mean by a spike.

Plain functions of numbers. `reference` calls them as they stand; compiled kernels inline the same source, in plain IEEE
operations (no fused multiply-add: see `compiling`). The order within a step is that of the module: candidate, select,
fires, reset.

.. math::
    u_t = \beta v_{t-1} + I_t,\qquad
    \tilde v_t = u_t \text{ if } g_t \text{ else } v_{t-1},\qquad
    s_t = g_t \wedge (\tilde v_t > \theta),\qquad
    v_t = \text{reset}(\tilde v_t)\text{ where } s_t
"""

from __future__ import annotations

import numpy as np

from suspike_kernels.compiling import rule


@rule
def leak(v: float, cur: float, beta: float) -> float:
    r"""Return the ordinary update :math:`u_t = \beta v_{t-1} + I_t`, for LIF neurons and LI readouts alike."""
    return beta * v + cur


@rule
def select(is_open: bool, u: float, v: float) -> float:
    """Return the candidate `u` where the gate is open, else the old state `v`, bit for bit."""
    return u if is_open else v


@rule
def fires(v: float, threshold: float) -> bool:
    """Say whether `v` is above `threshold`: strictly, as in the Neuromorphic Intermediate Representation."""
    return v > threshold


@rule
def reset(v: float, threshold: float, mode: int) -> float:
    """Return the state after a spike: 0 (mode 0), ``v - threshold`` (1) or `v` (2), as in `layout.RESETS`."""
    if mode == 0:
        # a plain 0 would promote float32 to float64 in a compiled kernel, and v - v is NaN for infinity
        return np.float32(0)  # type: ignore[return-value]
    if mode == 1:
        return v - threshold
    return v


@rule
def triangle(distance: float, width: float) -> float:
    r"""Return the surrogate derivative :math:`(w - |d|)/w^2` of a step at ``|distance| < width``; its area is 1."""
    return (width - abs(distance)) / (width * width)
