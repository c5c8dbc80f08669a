"""Who was open: the gates of a run again, from its spikes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from suspike_kernels.compiling import kernel
from suspike_kernels.cpu import gating, rows, steps
from suspike_kernels.layout import Events
from suspike_kernels.reference import Layer


def opened(layer: Layer, spikes: Events) -> NDArray[np.uint8]:
    """Return which neurons were open in a run: uint8 [B, T, N], 0 behind a sample's end.

    Parameters
    ----------
    layer : Layer
        What ran.
    spikes : Events [B, T]
        What it fired.
    """
    n_samples, n_steps, n = layer.events.n_samples, layer.events.n_steps, len(layer.synapses.bias)
    out = np.ones((n_samples, n_steps, n), np.uint8)
    gate = layer.gate
    if gate.kind == 1:
        out[:] = np.repeat(gate.open, n // max(gate.open.shape[2], 1), axis=2)
    elif gate.kind > 1:
        activation = np.empty(gate.a.shape[2] if gate.kind == 2 else n, layer.state.dtype)
        _opened(
            rows.scaled(layer, widened=True), spikes.ptr, spikes.idx, activation, np.empty(n, layer.state.dtype), out
        )
    if len(layer.n_steps):
        out *= np.arange(n_steps)[None, :, None] < layer.n_steps[:, None, None]
    return out


@kernel()
def _opened(layer: Any, ptr: Any, idx: Any, activation: Any, cur: Any, out: Any) -> None:
    n = out.shape[2]
    before, near = np.empty(n + 16, np.int32), np.empty(n, np.uint8)
    low, high = np.zeros(1, np.int32), np.full(1, n, np.int32)
    for b in range(out.shape[0]):
        end = steps.append_above(layer.spk[b], before, 0, 0, n)
        last, first = before, 0
        for t in range(steps.n_steps_of(layer, b)):
            if layer.gate.kind == 2:
                gating.activate(layer.gate, b, t, last, first, end, activation)
                gating.spread_open(layer.gate, b, t, activation, out[b, t], near, False)
            else:
                steps.sum_current(
                    layer.synapses, layer.current, layer.events, b, t, last, first, end, cur, low, high, 0, 1
                )
                gating.drive_open(layer.gate, cur, activation, out[b, t], near)
            last, first, end = idx, ptr[b, t], ptr[b, t + 1]
