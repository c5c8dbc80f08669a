"""Plain loops over the rules: the oracle that every compiled target is compared with. Slow, exact, any float type.

The gradients are those of surrogate-gradient backpropagation through time in which the surrogate has compact support
(`rules.triangle`): places outside of it are constants, so nothing but the ACTIVE places (gate open and
``|v~ - threshold| < width``) is kept or visited. This is no approximation of dense BPTT with the same surrogate.
The spike that a reset sees is detached from the gradient; its threshold is not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from suspike_kernels import rules
from suspike_kernels.layout import DenseArrays, Events, FloatArray, GateArrays, LIFArrays, offsets


class LIFRun(NamedTuple):
    """What a LIF layer's forward pass returns.

    Attributes
    ----------
    spikes : Events
    active : Events
        The places that carry a gradient; empty lists when the width was 0.
    value : float [A]
        The spike at each active place: 0 or 1.
    slope : float [A]
        The surrogate's derivative there.
    v, spk : float [B, N]
        Membrane and spikes after the last step.
    """

    spikes: Events
    active: Events
    value: FloatArray
    slope: FloatArray
    v: FloatArray
    spk: FloatArray


class LIFGrads(NamedTuple):
    """Gradients of a LIF layer.

    Attributes
    ----------
    source : float [A_in]
        By the value at each active place of the layer's input.
    weight, recurrent, bias, beta, threshold : float
        In their parameters' shapes.
    gate : float [T, N] or [0, N]
        By the gate's value, where it is near its threshold; 0 elsewhere.
    v, spk : float [B, N]
        By the initial state.
    """

    source: FloatArray
    weight: FloatArray
    recurrent: FloatArray
    bias: FloatArray
    beta: FloatArray
    threshold: FloatArray
    gate: FloatArray
    v: FloatArray
    spk: FloatArray


class LIGrads(NamedTuple):
    """Gradients of a readout layer; the fields as in `LIFGrads`."""

    source: FloatArray
    weight: FloatArray
    bias: FloatArray
    beta: FloatArray
    v: FloatArray


def _current(events: Events, dense: DenseArrays, b: int, t: int, fired: NDArray[Any] | None = None) -> FloatArray:
    """Sum the rows of the events of step t and of the layer's own spikes `fired` [N] of step t - 1, and the bias."""
    cur = dense.bias.copy()
    for i in events.idx[events.ptr[b, t] : events.ptr[b, t + 1]]:
        cur += dense.weight[i]
    if fired is not None and len(dense.recurrent):
        for i in np.flatnonzero(fired):
            cur += dense.recurrent[i]
    return cur


def lif_forward(
    events: Events,
    dense: DenseArrays,
    lif: LIFArrays,
    gate: GateArrays,
    v: FloatArray,
    spk: FloatArray,
    *,
    width: float = 0.0,
) -> LIFRun:
    r"""Run a fully connected layer of LIF neurons over the events of a batch.

    .. math:: I_t = W^\top x_t + V^\top s_{t-1} + b

    and then the rules of `suspike_kernels.rules`, in their order.

    Parameters
    ----------
    events : Events [B, T], units 0 to n_in - 1
    dense : DenseArrays
    lif : LIFArrays
    gate : GateArrays
        For the T steps of `events`.
    v, spk : float [B, N]
        State before the first step; left as it is.
    width : float
        Half the support of the surrogate, in units of v; 0 keeps no active places.
    """
    dtype, n_units, always = dense.weight.dtype.type, len(dense.bias), not len(gate.open)
    v, spk = v.copy(), spk.copy()
    half: Any = dtype(width)  # a number of the arrays' own precision, as in the compiled kernels
    spikes, active = _Lists(events, n_units), _Lists(events, n_units)
    values: list[float] = []
    slopes: list[float] = []
    for b in range(events.n_samples):
        for t in range(events.n_steps):
            cur = _current(events, dense, b, t, spk[b])
            for k in range(n_units):
                is_open = always or bool(gate.open[t, k])
                x = rules.select(is_open, rules.leak(v[b, k], cur[k], lif.beta[k]), v[b, k])
                fired = is_open and bool(rules.fires(x, lif.threshold[k]))
                distance = x - lif.threshold[k]
                if is_open and abs(distance) < half:
                    active.add(b, t, k)
                    values.append(float(fired))
                    slopes.append(rules.triangle(distance, half))
                if fired:
                    spikes.add(b, t, k)
                v[b, k] = rules.reset(x, lif.threshold[k], lif.reset) if fired else x
                spk[b, k] = fired
    return LIFRun(spikes.events(), active.events(), np.array(values, dtype), np.array(slopes, dtype), v, spk)


def lif_backward(
    grad_value: FloatArray,
    grad_v: FloatArray,
    grad_spk: FloatArray,
    run: LIFRun,
    events: Events,
    sources: Events,
    dense: DenseArrays,
    lif: LIFArrays,
    gate: GateArrays,
    v: FloatArray,
    spk: FloatArray,
) -> LIFGrads:
    """Return the gradients of a loss by everything that `lif_forward` was given.

    Parameters
    ----------
    grad_value : float [A]
        Gradient by the spike at each active place of `run`.
    grad_v, grad_spk : float [B, N]
        Gradient by the final state.
    run : LIFRun
        What `lif_forward` returned.
    events, dense, lif, gate, v, spk
        What it was given.
    sources : Events [B, T], units 0 to n_in - 1
        The places of the input whose gradient is wanted.
    """
    n_units, n_steps, always = len(dense.bias), events.n_steps, not len(gate.open)
    zeros = np.zeros_like
    grads = LIFGrads(
        np.zeros(len(sources.idx), dense.weight.dtype), zeros(dense.weight), zeros(dense.recurrent), zeros(dense.bias),
        zeros(lif.beta), zeros(lif.threshold), np.zeros(gate.near.shape, dense.weight.dtype), zeros(v), zeros(spk),
    )  # fmt: skip
    for b in range(events.n_samples):
        before, candidate, fired, cur_spk = _replay(run.spikes, events, dense, lif, gate, v, spk, b)
        dv, later = grad_v[b].copy(), np.zeros(n_units, dense.weight.dtype)  # later: gradient by the next step's cur
        for t in range(n_steps - 1, -1, -1):
            d_spk = dense.recurrent @ later if len(dense.recurrent) else np.zeros_like(later)
            if t == n_steps - 1:
                d_spk = d_spk + grad_spk[b]
            through = np.zeros_like(later)
            for e in range(run.active.ptr[b, t], run.active.ptr[b, t + 1]):
                k = run.active.idx[e]
                through[k] = (grad_value[e] + d_spk[k]) * run.slope[e]
                grads.threshold[k] -= through[k]
            cur = np.zeros_like(later)
            for k in range(n_units):
                if fired[t, k] and lif.reset == 0:
                    dv[k] = 0
                elif fired[t, k] and lif.reset == 1:
                    grads.threshold[k] -= dv[k]
                d = dv[k] + through[k]
                if len(gate.near) and gate.near[t, k]:
                    grads.gate[t, k] += d * (candidate[t, k] - before[t, k])
                if always or gate.open[t, k]:
                    cur[k] = d
                    grads.beta[k] += d * before[t, k]
                    dv[k] = lif.beta[k] * d
                else:
                    dv[k] = d
            for e in range(sources.ptr[b, t], sources.ptr[b, t + 1]):
                grads.source[e] = dense.weight[sources.idx[e]] @ cur
            for i in events.idx[events.ptr[b, t] : events.ptr[b, t + 1]]:
                grads.weight[i] += cur
            for i in np.flatnonzero(cur_spk[t]) if len(dense.recurrent) else ():
                grads.recurrent[i] += cur
            grads.bias[:] += cur
            later = cur
        grads.v[b] = dv
        if n_steps == 0:
            grads.spk[b] = grad_spk[b]
        elif len(dense.recurrent):
            grads.spk[b] = dense.recurrent @ later
    return grads


def _replay(
    spikes: Events,
    events: Events,
    dense: DenseArrays,
    lif: LIFArrays,
    gate: GateArrays,
    v: FloatArray,
    spk: FloatArray,
    b: int,
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_], NDArray[np.bool_]]:
    """Run sample b again: v before each step, the candidate, what fired, what had fired one step before, all [T, N]."""
    n_steps, n_units = events.n_steps, len(dense.bias)
    before = np.zeros((n_steps, n_units), dense.weight.dtype)
    candidate, fired, had_fired = np.zeros_like(before), np.zeros(before.shape, bool), np.zeros(before.shape, bool)
    state, last = v[b].copy(), spk[b] > 0
    for t in range(n_steps):
        fired[t, spikes.idx[spikes.ptr[b, t] : spikes.ptr[b, t + 1]]] = True
        cur = _current(events, dense, b, t, last)
        before[t], had_fired[t] = state, last
        for k in range(n_units):
            candidate[t, k] = rules.leak(state[k], cur[k], lif.beta[k])
            x = rules.select(not len(gate.open) or bool(gate.open[t, k]), candidate[t, k], state[k])
            state[k] = rules.reset(x, lif.threshold[k], lif.reset) if fired[t, k] else x
        last = fired[t]
    return before, candidate, fired, had_fired


def li_forward(events: Events, dense: DenseArrays, beta: FloatArray, v: FloatArray) -> FloatArray:
    r"""Run a fully connected leaky readout: :math:`v_t = \beta v_{t-1} + W^\top x_t + b`; returns v [T, B, N]."""
    out = np.zeros((events.n_steps, *v.shape), dense.weight.dtype)
    for b in range(events.n_samples):
        before = v[b]
        for t in range(events.n_steps):
            cur = _current(events, dense, b, t)
            for k in range(len(before)):
                out[t, b, k] = rules.leak(before[k], cur[k], beta[k])
            before = out[t, b]
    return out


def li_backward(
    grad: FloatArray,
    out: FloatArray,
    events: Events,
    sources: Events,
    dense: DenseArrays,
    beta: FloatArray,
    v: FloatArray,
) -> LIGrads:
    """Return the gradients of ``sum(grad * out)``; `grad` and `out` are [T, B, N], the rest as in `lif_backward`."""
    grads = LIGrads(
        np.zeros(len(sources.idx), dense.weight.dtype), np.zeros_like(dense.weight), np.zeros_like(dense.bias),
        np.zeros_like(beta), np.zeros_like(v),
    )  # fmt: skip
    for b in range(events.n_samples):
        dv = np.zeros_like(v[b])
        for t in range(events.n_steps - 1, -1, -1):
            dv = dv + grad[t, b]
            grads.bias[:] += dv
            grads.beta[:] += dv * (out[t - 1, b] if t else v[b])
            for e in range(sources.ptr[b, t], sources.ptr[b, t + 1]):
                grads.source[e] = dense.weight[sources.idx[e]] @ dv
            for i in events.idx[events.ptr[b, t] : events.ptr[b, t + 1]]:
                grads.weight[i] += dv
            dv = dv * beta
        grads.v[b] = dv
    return grads


class _Lists:
    """Collects (sample, step, unit) in time order into Events."""

    def __init__(self, like: Events, n_units: int) -> None:
        self.counts = np.zeros((like.n_samples, like.n_steps), np.int64)
        self.idx: list[int] = []
        self.n_units = n_units

    def add(self, b: int, t: int, k: int) -> None:
        self.counts[b, t] += 1
        self.idx.append(k)

    def events(self) -> Events:
        return Events(offsets(self.counts), np.array(self.idx, np.int32), self.n_units)
