r"""NIR's neurons as ours: leaks of Euler's rule, and what its gains and rest potentials do to weights and biases."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from suspike._validate import fail
from suspike.graph import LI, LIF, CubaLI, CubaLIF, Neuron
from suspike.interop._maps import Float64
from suspike.interop._nodes import spread

READOUTS = ("CubaLI", "I", "LI")
FIRING = ("CubaLIF", "IF", "LIF", "Threshold")
_ROUNDINGS = 4
"""Roundings of the file's own floats within which a gain is 1, or a leak 0: tau and r come from one division each."""


class Cell(NamedTuple):
    """Neurons [n], in NIR's order.

    Attributes
    ----------
    beta, alpha, threshold : float64 [n]
        `alpha` and `threshold` are None where the neurons have none.
    gain, constant : float64 [n]
        The current of our neurons is gain * (NIR's input) + constant.
    """

    beta: Float64
    alpha: Float64 | None
    threshold: Float64 | None
    gain: Float64
    constant: Float64


def cell(name: str, node: Any, shape: tuple[int, ...], dt: float) -> Cell:
    """Return the neurons of a node with input of `shape`; `dt` in s.

    Raises
    ------
    ValueError
        Naming the node, where our neurons cannot do the same.
    """
    kind, n = type(node).__name__, int(np.prod(shape))

    def field(key: str) -> Float64:
        return spread(name, key, getattr(node, key), shape)

    if kind == "Threshold":  # it forgets everything: v is its input
        level = _above(name, "threshold", field("threshold"), np.zeros(n))
        return Cell(np.zeros(n), None, level, np.ones(n), np.zeros(n))
    reset = np.zeros(n) if kind in READOUTS else field("v_reset")
    threshold = None if kind in READOUTS else _above(name, "v_threshold", field("v_threshold"), reset)
    if kind in ("I", "IF"):
        gain = _near(field("r") * dt, 1, _rounding(node.r))
        return Cell(np.ones(n), None, threshold, gain, np.zeros(n))
    key = "tau" if kind in ("LI", "LIF") else "tau_mem"
    beta, gain = _leak(name, node, key, shape, dt), _gain(name, node, "r", key, shape, dt)
    if key == "tau":
        return Cell(beta, None, threshold, gain, dt / field(key) * (field("v_leak") - reset))
    if (field("v_leak") != reset).any():
        rule = "0" if kind == "CubaLI" else "v_reset"
        cure = "A constant current, as an Affine's bias, passes through the synapse; a leak potential does not."
        fail(f"v_leak of node {name!r}", f"{rule} behind a synaptic current", f"{field('v_leak')}", cure)
    alpha, own = _leak(name, node, "tau_syn", shape, dt), _gain(name, node, "w_in", "tau_syn", shape, dt)
    return Cell(beta, alpha, threshold, gain * own, np.zeros(n))


def neuron(cell: Cell, order: Any, dtype: Any) -> Neuron:
    """Return the neurons of a Layer whose unit ``i`` is NIR's ``order[i]``."""
    beta, alpha, threshold = (None if x is None else x[order].astype(dtype) for x in cell[:3])
    assert beta is not None
    if threshold is None:
        return LI(beta) if alpha is None else CubaLI(beta, alpha)
    return LIF(beta, threshold) if alpha is None else CubaLIF(beta, alpha, threshold)


def _leak(name: str, node: Any, key: str, shape: tuple[int, ...], dt: float) -> Float64:
    """Return 1 - dt/tau [n]."""
    given = np.asarray(getattr(node, key))
    if given.dtype.kind == "f" and np.isinf(given).any():
        fail(f"{key} of node {name!r}", "finite", "inf", "IF and I are NIR's nodes that forget nothing.")
    tau = spread(name, key, getattr(node, key), shape)
    if (tau <= 0).any():
        fail(f"{key} of node {name!r}", "above 0 s", f"{tau.min()}")
    leak = _near(1 - dt / tau, 0, _rounding(getattr(node, key)))
    if (leak < 0).any():
        rule = f"at most {key} of node {name!r}, {tau.min() * 1000:g} ms"
        cure = "Choose a shorter step; tau is in seconds in NIR."
        fail("dt_ms", rule, f"{dt * 1000:g}", cure)
    return leak


def _gain(name: str, node: Any, gain: str, tau: str, shape: tuple[int, ...], dt: float) -> Float64:
    """Return gain * dt / tau [n]."""
    factors = (getattr(node, key) for key in (gain, tau))
    g, t = (spread(name, key, getattr(node, key), shape) for key in (gain, tau))
    return _near(g / (t / dt), 1, max(map(_rounding, factors)))


def _above(name: str, key: str, threshold: Float64, reset: Float64) -> Float64:
    """Return the threshold above the reset, which is 0 for our neurons."""
    if (threshold <= reset).any():
        place = int(np.argmax(threshold <= reset))
        fail(f"{key} of node {name!r}", f"above {'v_reset' if reset.any() else '0'}", f"{threshold[place]}")
    return threshold - reset


def _near(values: Float64, whole: int, rounding: float) -> Float64:
    return np.where(np.abs(values - whole) <= _ROUNDINGS * rounding, whole, values)


def _rounding(value: Any) -> float:
    dtype = np.asarray(value).dtype
    return float(np.finfo(dtype if dtype.kind == "f" else np.float64).eps)
