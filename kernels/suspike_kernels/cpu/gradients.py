"""Gradients through one step of the neurons low .. high - 1 of a sample; the sums may run in any order."""

from __future__ import annotations

from typing import Any

import numpy as np

from suspike_kernels import rules
from suspike_kernels.compiling import kernel
from suspike_kernels.cpu.loops import columns


@kernel(reassociate=True, allocates=False, inline=True)
def through_adaptation(
    rho: Any, a: Any, b: Any, dv: Any, dw: Any, jump: Any, v: Any, w: Any, fired: Any, is_open: Any, by_rho: Any,
    by_a: Any, by_b: Any, d_gate: Any, near: bool, want_neurons: bool, low: int, high: int,
) -> None:  # fmt: skip
    """Go back through the adaptation of adaptive neurons: `dw` becomes the gradient by the adaptation a step earlier.

    Parameters
    ----------
    dv : float [N]
        Gradient by the membrane after reset: what the adaptation passes on is added.
    jump : float [N]
        Takes the gradient by the spike.
    v, w : float [N]
        Membrane after reset, adaptation before the step; read where `near` or `want_neurons`.
    fired, is_open : uint8 [N]
    d_gate : float [N]
        Takes the gradient by the gate, if `near`.
    """
    one, zero, dtype = np.float32(1), dv.dtype.type(0), dv.dtype
    if near:
        for k in columns(low, high):
            d_gate[k] = dw[k] * (rules.adapt(w[k], v[k], dtype.type(fired[k]), rho[k], a[k], b[k]) - w[k])
    if want_neurons:
        for k in columns(low, high):
            d, spk = dw[k] if is_open[k] else zero, dtype.type(fired[k])
            by_a[k] += d * (one - rho[k]) * v[k]
            by_b[k] += d * (one - rho[k]) * spk
            by_rho[k] += d * (w[k] - (a[k] * v[k] + b[k] * spk))
    for k in columns(low, high):
        rest = dw[k] * (one - rho[k]) if is_open[k] else zero
        dv[k] += rest * a[k]
        jump[k] = rest * b[k]
        dw[k] = rho[k] * dw[k] if is_open[k] else dw[k]


@kernel(reassociate=True, allocates=False, inline=True)
def through_surrogate(
    by_value: Any, distance: Any, first: int, last: int, width: Any, shape: int, by_next: Any
) -> None:
    """Turn the gradient by the spikes of the active places first .. last - 1 into that by their membrane before reset.

    `by_next`, from 0 on, holds what comes from the next step; what the loss itself asks, `by_value`, is added.
    """
    if shape == 0:  # one loop for each shape: only a loop without a choice is vectorised
        for e in columns(0, last - first):
            at = np.uint64(first) + e
            by_next[e] = (by_value[at] + by_next[e]) * rules.surrogate(distance[at], width, 0)
    else:
        for e in columns(0, last - first):
            at = np.uint64(first) + e
            by_next[e] = (by_value[at] + by_next[e]) * rules.surrogate(distance[at], width, 1)


@kernel(reassociate=True, allocates=False, inline=True)
def by_gate(
    kind: int, beta: Any, decay: Any, dv: Any, dx: Any, v: Any, x: Any, cur: Any, d_gate: Any, low: int, high: int
) -> None:
    """Set `d_gate` [N] to the gradient by each neuron's gate: how far a step moves the state, weighed by its gradient.

    For adaptive neurons it is added: `through_adaptation` has set its part.
    """
    if kind == 0:
        for k in columns(low, high):
            d_gate[k] = dv[k] * (rules.leak(v[k], cur[k], beta[k]) - v[k])
    elif kind == 1:
        for k in columns(low, high):
            i = rules.leak(x[k], cur[k], decay[k])
            d_gate[k] = dv[k] * (rules.leak(v[k], i, beta[k]) - v[k]) + dx[k] * (i - x[k])
    else:
        for k in columns(low, high):
            d_gate[k] += dv[k] * (rules.leak_adapted(v[k], cur[k], x[k], beta[k]) - v[k])


@kernel(reassociate=True, allocates=False, inline=True)
def by_leaks(
    kind: int, by_beta: Any, by_decay: Any, dv: Any, dx: Any, v: Any, x: Any, cur: Any, is_open: Any, low: int,
    high: int,
) -> None:  # fmt: skip
    """Add to the gradients by the leaks [N]."""
    zero = dv.dtype.type(0)
    if kind == 0:
        for k in columns(low, high):
            by_beta[k] += dv[k] * v[k] if is_open[k] else zero
    elif kind == 1:
        for k in columns(low, high):
            by_beta[k] += dv[k] * v[k] if is_open[k] else zero
            by_decay[k] += (dv[k] + dx[k]) * x[k] if is_open[k] else zero
    else:
        for k in columns(low, high):
            by_beta[k] += dv[k] * (v[k] - (cur[k] - x[k])) if is_open[k] else zero


@kernel(reassociate=True, allocates=False, inline=True)
def through_update(
    kind: int, gated: bool, beta: Any, decay: Any, dv: Any, dx: Any, cur: Any, is_open: Any, by_bias: Any,
    want_bias: bool, low: int, high: int,
) -> None:  # fmt: skip
    """Go back through the update: `cur` takes the gradient by the current, `dv`, `dx` that by the state before."""
    zero = dv.dtype.type(0)
    if kind == 0 and not gated:  # as below, without a mask: it costs as much as the rest
        for k in columns(low, high):
            cur[k], dv[k] = dv[k], beta[k] * dv[k]
    elif kind == 0:
        for k in columns(low, high):
            cur[k] = dv[k] if is_open[k] else zero
            dv[k] = beta[k] * dv[k] if is_open[k] else dv[k]
    elif kind == 1:
        for k in columns(low, high):
            cur[k] = dv[k] + dx[k] if is_open[k] else zero
            dx[k] = decay[k] * cur[k] if is_open[k] else dx[k]
            dv[k] = beta[k] * dv[k] if is_open[k] else dv[k]
    else:
        for k in columns(low, high):
            cur[k] = (np.float32(1) - beta[k]) * dv[k] if is_open[k] else zero
            dx[k] -= cur[k]
            dv[k] = beta[k] * dv[k] if is_open[k] else dv[k]
    if want_bias:
        for k in columns(low, high):
            by_bias[k] += cur[k]
