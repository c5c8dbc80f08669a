"""A fully connected leaky readout on the CPU; same signatures as `suspike_kernels.reference`."""

from __future__ import annotations

from typing import Any

import numpy as np

from suspike_kernels import rules
from suspike_kernels.compiling import kernel
from suspike_kernels.cpu.rows import add_by_source, add_rows, dot_rows
from suspike_kernels.layout import DenseArrays, Events, FloatArray
from suspike_kernels.pool import over_samples
from suspike_kernels.reference import LIGrads


@kernel()
def _forward(events: Any, dense: Any, beta: Any, v: Any, low: int, high: int, out: Any) -> None:
    """Run samples low .. high - 1 from `v` [B, N]; `out` [T, B, N] takes the states."""
    n_steps, n = out.shape[0], beta.shape[0]
    state, cur = np.empty(n, out.dtype), np.empty(n, out.dtype)
    for b in range(low, high):
        state[:] = v[b]
        for t in range(n_steps):
            cur[:] = dense.bias
            add_rows(cur, dense.weight, events.idx, events.ptr[b, t], events.ptr[b, t + 1])
            for k in range(n):
                state[k] = rules.leak(state[k], cur[k], beta[k])
            out[t, b] = state


@kernel(reassociate=True)
def _backward(
    grad: Any, out: Any, events: Any, sources: Any, dense: Any, beta: Any, v: Any, grads: Any, low: int, high: int
) -> Any:
    """Add the gradients of samples low .. high - 1 to `grads` (a LIGrads)."""
    n_steps, n = out.shape[0], beta.shape[0]
    dv, later = np.empty(n, out.dtype), np.empty((n_steps, n), out.dtype)
    longest = 0
    for b in range(low, high):
        longest = max(longest, events.ptr[b, n_steps] - events.ptr[b, 0])
    steps, at = np.empty(longest + 1, np.int32), np.empty(dense.weight.shape[0] + 1, np.int64)
    for b in range(low, high):
        dv[:] = 0
        for t in range(n_steps - 1, -1, -1):
            before = out[t - 1, b] if t > 0 else v[b]
            row = later[t]
            for k in range(n):
                row[k] = dv[k] + grad[t, b, k]
                grads.bias[k] += row[k]
                grads.beta[k] += row[k] * before[k]
                dv[k] = row[k] * beta[k]
            low_s, high_s = sources.ptr[b, t], sources.ptr[b, t + 1]
            dot_rows(dense.weight, sources.idx, low_s, high_s, row, grads.source[low_s:high_s])
        grads.v[b] = dv
        add_by_source(grads.weight, later, events.ptr[b], events.idx, 0, steps, at)
    return grads


def li_forward(
    events: Events, dense: DenseArrays, beta: FloatArray, v: FloatArray, *, n_threads: int = 1
) -> FloatArray:
    """Run a readout: see `reference.li_forward`."""
    out = np.empty((events.n_steps, *v.shape), dense.weight.dtype)
    over_samples(lambda low, high: _forward(events, dense, beta, v, low, high, out), events.n_samples, n_threads)
    return out


def li_backward(
    grad: FloatArray,
    out: FloatArray,
    events: Events,
    sources: Events,
    dense: DenseArrays,
    beta: FloatArray,
    v: FloatArray,
    *,
    n_threads: int = 1,
) -> LIGrads:
    """Return the gradients of a readout: see `reference.li_backward`."""
    source, d_v = np.zeros(len(sources.idx), dense.weight.dtype), np.zeros_like(v)

    def work(low: int, high: int) -> LIGrads:
        grads = LIGrads(source, np.zeros_like(dense.weight), np.zeros_like(dense.bias), np.zeros_like(beta), d_v)
        filled: LIGrads = _backward(grad, out, events, sources, dense, beta, v, grads, low, high)
        return filled

    total, *others = over_samples(work, events.n_samples, n_threads)
    for part in others:
        for name in ("weight", "bias", "beta"):
            getattr(total, name)[...] += getattr(part, name)
    return total
