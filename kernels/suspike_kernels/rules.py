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
from suspike_kernels.layout import N_COMPACT

# pi / 2 in two parts: a float64 would promote float32, one float32 is too coarse for float64
_HALF_PI: float = np.float32(np.pi / 2)  # type: ignore[assignment]
_HALF_PI_REST: float = np.float32(np.pi / 2 - float(_HALF_PI))  # type: ignore[assignment]

# exact, and of the type that promotes neither float32 nor float64
ZERO: float = np.float32(0)  # type: ignore[assignment]
ONE: float = np.float32(1)  # type: ignore[assignment]
_HALF: float = np.float32(0.5)  # type: ignore[assignment]
_ANY: float = np.float32(np.inf)  # type: ignore[assignment]


@rule
def product(x: float, y: float) -> float:
    """Return ``x * y``, rounded on its own: GPUs take a product into a sum that follows, unless this replaces it."""
    return x * y


@rule
def scaled(total: float, scale: float, bias: float) -> float:
    """Return the current ``scale * total + bias`` of a sum of weights that count in steps of `scale`."""
    return product(scale, total) + bias


@rule
def leak(v: float, cur: float, beta: float) -> float:
    r"""Return the ordinary update :math:`u_t = \beta v_{t-1} + I_t`, for LIF neurons and LI readouts alike."""
    return product(beta, v) + cur


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
def leak_adapted(v: float, cur: float, w: float, beta: float) -> float:
    r"""Return the membrane update under adaptation: :math:`u_t = \beta v_{t-1} + (1 - \beta)(I_t - w_{t-1})`."""
    return product(beta, v) + product(ONE - beta, cur - w)


@rule
def adapt(w: float, v: float, spk: float, rho: float, a: float, b: float) -> float:
    r"""Return the adaptation :math:`w_t = \rho w_{t-1} + (1 - \rho)(a v_t + b s_t)`: symplectic, it sees the new v."""
    return product(rho, w) + product(ONE - rho, product(a, v) + product(b, spk))


@rule
def surrogate(distance: float, width: float, shape: int) -> float:
    r"""Return the surrogate derivative of a step at a place that `carries` a gradient; its area is 1, except shape 3's.

    .. math::
        \frac{w - |d|}{w^2} \text{ (shape 0, "triangle")},\quad
        \frac{1}{2w} \text{ (1, "boxcar")},\quad
        \frac{w/2}{1 + (\tfrac{\pi}{2} w d)^2} \text{ (2, "atan")},\quad
        \frac{1}{(1 + w|d|)^2} \text{ (3, "fast_sigmoid")},\quad
        \frac{w e^{-w|d|}}{(1 + e^{-w|d|})^2} \text{ (4, "sigmoid")}

    `width` is half the support of the first two, and the slope of the others, which have none: snnTorch's alpha and k.
    """
    if shape == 1:
        return _HALF / width
    if shape == 2:
        x = width * distance
        y = x * _HALF_PI + x * _HALF_PI_REST
        return _HALF * width / (ONE + y * y)
    if shape == 3:
        x = ONE + width * abs(distance)
        return ONE / (x * x)
    if shape == 4:
        e: float = np.exp(-(width * abs(distance)))  # of |d|, as the curve is even: never above 1
        return width * e / ((ONE + e) * (ONE + e))
    return (width - abs(distance)) / (width * width)


@rule
def carries(distance: float, width: float, shape: int) -> bool:
    """Say whether a place carries a gradient at all: inside of a compact support, else at any finite distance."""
    return abs(distance) < (width if shape < N_COMPACT else _ANY)
