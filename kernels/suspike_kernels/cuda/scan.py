"""A neuron alone on a dense current, on a GPU: one thread a lane, which is one unit of one sample.

The arrays may be any that numba takes: torch tensors on the device as they are, or numpy arrays under numba's
simulator. No sum is an atomic one of floats, so results are reproducible: what several lanes share is written lane by
lane and summed after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from suspike_kernels.layout import GateArrays, NeuronArrays
from suspike_kernels.reference import Surrogate
from suspike_kernels.scanning import ScanGrads, ScanPull, ScanRun, n_groups

THREADS = 128
"""Threads of a block."""


def scan_forward(
    current: Any, neurons: NeuronArrays, gate: GateArrays, state: Any, *, zeros: Callable[..., Any],
    spikes: bool = True, trace: bool = False, keep: bool = True, stream: int = 0,
) -> ScanRun:  # fmt: skip
    """Run neurons on a current: see `suspike_kernels.cpu.scan.scan_forward`.

    Parameters
    ----------
    current, neurons, gate, state
        As there, contiguous arrays of the device.
    zeros : callable
        ``zeros(shape, kind)`` makes an array of zeros on the device; kind is "float" (as the current) or "int64".
    stream : int
        Handle of the CUDA stream, 0 the default one.
    """
    n_steps, n_samples, n = current.shape
    drive = gate.kind == 3
    run = ScanRun(
        zeros((n_steps if spikes else 0, n_samples, n), "float"),
        zeros((n_steps if trace else 0, n_samples, n), "float"), zeros(tuple(state.shape), "float"),
        zeros((n_groups(n_steps) if keep else 0, len(state), n_samples * n), "float"),
        zeros((n_samples, n if drive else 0), "int64"), zeros((n_samples, n if drive else 0), "float"),
        zeros((n_samples, n_steps if drive else 0), "int64"),
    )  # fmt: skip
    if n_steps == 0 or n_samples * n == 0:
        run.state[...] = state
        return run
    from suspike_kernels.cuda.kernels import forward_kernel

    kernel = forward_kernel(_bits(current), neurons.kind, neurons.reset, gate.kind, spikes, trace, keep)
    lanes = (-1, n_samples * n)
    rows = (x.reshape(lanes) for x in (run.spk, run.trace))
    _launched(kernel, n_samples * n, stream)(
        current.reshape(lanes), *_some(zeros, _parameters(neurons, gate)), *_some(zeros, (gate.open,), 3),
        state.reshape(lanes), run.state.reshape(lanes), *_some(zeros, rows, 2), *_some(zeros, (run.kept,), 3),
        *_some(zeros, (run.n_open.reshape(-1), run.ramp.reshape(-1))), *_some(zeros, (run.open_at,), 2),
    )  # fmt: skip
    return run


def scan_backward(
    pull: ScanPull, run: ScanRun, current: Any, neurons: NeuronArrays, gate: GateArrays, surrogate: Surrogate, *,
    zeros: Callable[..., Any], want_neurons: bool = True, stream: int = 0,
) -> ScanGrads:  # fmt: skip
    """Return the gradients of a scan: see `suspike_kernels.cpu.scan.scan_backward`, and `scan_forward` for the rest."""
    n_steps, n_samples, n = current.shape
    drive, table = gate.kind == 3, gate.kind == 1 and 0 not in gate.near.shape
    out, state = zeros((n_steps, n_samples, n), "float"), zeros(tuple(run.state.shape), "float")
    if pull.state is not None:
        state[...] = pull.state
    sums = zeros((6, n_samples, n), "float") if want_neurons or drive else None
    d_gate = zeros((n_steps, n_samples, n) if table else (1, 1, 1), "float")
    if n_steps and n_samples * n:
        from suspike_kernels.cuda.kernels import backward_kernel

        kernel = backward_kernel(
            _bits(current), neurons.kind, neurons.reset, neurons.attached, surrogate.shape, gate.kind, table,
            sums is not None, pull.spk is not None, pull.trace is not None,
        )  # fmt: skip
        lanes, flags = (-1, n_samples * n), gate.open + 2 * gate.near if table else gate.open
        pulled = (zeros((1, 1), "float") if x is None else x.reshape(lanes) for x in (pull.spk, pull.trace, sums))
        ramp = zeros((n_samples * n if drive else 1,), "float") if pull.ramp is None else pull.ramp.reshape(-1)
        width = (np.float32 if _bits(current) == 32 else np.float64)(surrogate.width)
        _launched(kernel, n_samples * n, stream)(
            current.reshape(lanes), *_some(zeros, _parameters(neurons, gate)), *_some(zeros, (flags,), 3), run.kept,
            *pulled, ramp, state.reshape(lanes), d_gate.reshape(lanes if table else (1, 1)), out.reshape(lanes), width,
        )  # fmt: skip
    by = ScanGrads(out, state)
    if table:
        n_gates = gate.near.shape[2]
        by_gate = d_gate.reshape(n_steps, n_samples, n_gates, n // n_gates).sum(3).swapaxes(0, 1)
        by = by._replace(gate=by_gate.sum(0)[None] if len(gate.near) == 1 else by_gate)
    if sums is None:
        return by
    total = sums.sum(1)
    by = by._replace(kappa=total[5]) if drive else by
    if want_neurons:
        by = by._replace(beta=total[0], threshold=total[1])
        by = by._replace(decay=total[2]) if neurons.kind else by
        by = by._replace(a=total[3], b=total[4]) if neurons.kind == 2 else by
    return by


def _bits(current: Any) -> int:
    return 64 if "64" in str(current.dtype) else 32


def _launched(kernel: Any, n_lanes: int, stream: int) -> Any:
    """Return a kernel with its launch: a thread a lane."""
    from numba.core import config

    from suspike_kernels.cuda.device import configured

    threads = 4 if config.ENABLE_CUDASIM else THREADS  # a thread of the simulator is a thread of the system
    return configured(kernel, -(-n_lanes // threads), threads, stream)


def _parameters(neurons: NeuronArrays, gate: GateArrays) -> tuple[Any, ...]:
    return (
        neurons.beta, neurons.threshold, neurons.decay, neurons.a, neurons.b, gate.kappa, gate.width, gate.scale
    )  # fmt: skip


def _some(zeros: Callable[..., Any], arrays: Iterable[Any], n_axes: int = 1) -> tuple[Any, ...]:
    """Replace arrays without entries, which have no address on a device; nothing reads the others."""
    return tuple(zeros((1,) * n_axes, "float") if 0 in x.shape else x for x in arrays)
