r"""A neuron's whole step at one place, and the way back through it: the rules in their order, for CPU and GPU alike.

A place is one unit of one sample at one step. With the loss's gradients :math:`\bar v_t` by the state after the step
and :math:`\bar s_t` by the spike, the way back through a LIF neuron is

.. math::
    \bar{\tilde v}_t = \bar v_t \frac{\partial v_t}{\partial \tilde v_t} + \bar s_t\,\sigma'(\tilde v_t - \theta),\qquad
    \bar I_t = g_t \bar{\tilde v}_t,\qquad
    \bar v_{t-1} = (\beta \text{ if } g_t \text{ else } 1)\,\bar{\tilde v}_t,\qquad
    \bar g_t = \bar{\tilde v}_t (u_t - v_{t-1}).
"""

from __future__ import annotations

from typing import Any

from suspike_kernels.compiling import rule
from suspike_kernels.rules import ONE, ZERO, adapt, carries, fires, leak, leak_adapted, reset, select, surrogate


@rule
def place(
    kind: int, mode: int, is_open: bool, v: float, x: float, cur: float, beta: float, threshold: float, decay: float,
    a: float, b: float,
) -> Any:  # fmt: skip
    """Do one step: return the membrane before reset, whether it fires, the membrane after, and the second variable.

    Parameters
    ----------
    kind, mode : int
        Indices into `layout.NEURONS` and `layout.RESETS`.
    v, x
        The state before the step; `x` is the synaptic current ("cuba") or the adaptation ("adlif").
    """
    if kind == 2:
        u = leak_adapted(v, cur, x, beta)
    elif kind == 1:
        i = leak(x, cur, decay)
        u = leak(v, i, beta)
        x = select(is_open, i, x)
    else:
        u = leak(v, cur, beta)
    high = select(is_open, u, v)
    fired = is_open and fires(high, threshold)
    low = reset(high, threshold, mode) if fired else high
    if kind == 2:
        spk = ONE if fired else ZERO
        x = select(is_open, adapt(x, low, spk, decay, a, b), x)
    return high, fired, low, x


@rule
def place_back(
    kind: int, mode: int, attached: int, shape: int, width: float, is_open: bool, dv: float, dx: float, d_spk: float,
    v: float, x: float, cur: float, high: float, fired: bool, low: float, beta: float, threshold: float, decay: float,
    a: float, b: float,
) -> Any:  # fmt: skip
    """Go back through one step: return the gradients by ``(cur, v, x, beta, threshold, decay, a, b, gate)``.

    Parameters
    ----------
    attached, shape, width
        As in `layout.NeuronArrays` and `rules.surrogate`.
    dv, dx
        Gradient by the state after the step.
    d_spk
        Gradient by the spike.
    v, x
        The state before the step.
    high, fired, low
        What `place` returned. The gradient by the gate is that of a place which is near its gate's threshold.
    """
    by_beta = by_threshold = by_decay = by_a = by_b = ZERO
    if kind == 2:
        spk = ONE if fired else ZERO
        by_gate = dx * (adapt(x, low, spk, decay, a, b) - x)
        rest = dx * (ONE - decay) if is_open else ZERO
        by_a, by_b = rest * low, rest * spk
        by_decay = dx * (x - (a * low + b * spk)) if is_open else ZERO
        dv = dv + rest * a
        d_spk = d_spk + rest * b
        dx = decay * dx if is_open else dx
    kept = dv  # gradient by the membrane before reset
    if mode == 0:
        kept = ZERO if fired else dv
    elif mode == 1:
        by_threshold = -dv if fired else ZERO
    if attached:
        if mode == 0:
            d_spk = d_spk - dv * high
        elif mode == 1:
            d_spk = d_spk - dv * threshold
    distance = high - threshold
    through = d_spk * surrogate(distance, width, shape)
    through = through if is_open and carries(distance, width, shape) else ZERO  # a readout's is inf * 0
    kept = kept + through
    by_threshold = by_threshold - through
    if kind == 2:
        by_gate = by_gate + kept * (leak_adapted(v, cur, x, beta) - v)
        by_beta = kept * (v - (cur - x)) if is_open else ZERO
        by_cur = (ONE - beta) * kept if is_open else ZERO
        dx = dx - by_cur
    elif kind == 1:
        i = leak(x, cur, decay)
        by_gate = kept * (leak(v, i, beta) - v) + dx * (i - x)
        by_beta = kept * v if is_open else ZERO
        by_cur = kept + dx if is_open else ZERO
        by_decay = by_cur * x
        dx = decay * by_cur if is_open else dx
    else:
        by_gate = kept * (leak(v, cur, beta) - v)
        by_beta = kept * v if is_open else ZERO
        by_cur = kept if is_open else ZERO
    return by_cur, (beta * kept if is_open else kept), dx, by_beta, by_threshold, by_decay, by_a, by_b, by_gate
