"""A layer's forward pass on a GPU, for simulation: a block a sample, its state in registers, through all steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from suspike_kernels.geometry import Geometry
from suspike_kernels.layout import Events, is_scaled, is_sparse, n_gates
from suspike_kernels.reference import Layer, Run

THREADS = 128
"""Threads of a block whose neurons do not hear each other."""

SHARED_BYTES = 48 * 1024
"""Shared memory that every GPU grants a block."""


def forward(
    layer: Layer, *, trace: bool = False, zeros: Callable[..., Any] | None = None, stream: int = 0,
    threads: int = 1024,
) -> Run:  # fmt: skip
    """Run a layer: see `reference.forward`, here without a surrogate, so without active places.

    Sums run in the reference's order and the update rounds as it does: equal bits, for any weights, at every run.

    Parameters
    ----------
    layer : Layer
        Of numpy arrays, which are copied to the device and what is returned back; or of contiguous arrays that are
        there (with ``__cuda_array_interface__``, as those of torch and CuPy), and what is returned stays there. A
        convolution's geometry may be a numpy array in both cases.
    trace : bool
        Whether to return the membrane after each step.
    zeros : callable, optional
        ``zeros(shape, kind)`` makes an array of zeros on the device; kind is "float" (as the state), "int64" or
        "int32". Without it, what stays on the device are numba's arrays.
    stream : int
        Handle of the CUDA stream in which `zeros` works, 0 the default one.
    threads : int
        Threads of a block, at most; it changes no bit of the result.

    Raises
    ------
    ValueError
        For int8 weights and fan-out lists; if `threads` is none that a block can have; for a stream without `zeros`;
        if neurons hear each other and are too many for a block's shared memory, more than 11,500 or so.
    """
    if is_scaled(layer.synapses):
        raise ValueError("`layer` must be of weights that are floats, got int8.")
    if is_sparse(layer.synapses):
        raise ValueError("`layer` must be of weights in rows or of a convolution, got fan-out lists.")
    if not 1 <= threads <= 1024:
        raise ValueError(f"`threads` must be from 1 to 1024, got {threads}.")
    if stream and zeros is None:
        raise ValueError(f"`stream` must be 0 without `zeros`, which work in the default stream, got {stream}.")
    on_host = zeros is None and isinstance(layer.state, np.ndarray)
    make = zeros or _numba_zeros(8 * layer.state.dtype.itemsize)
    n = int(layer.synapses.bias.shape[0])
    n_samples, n_steps = layer.events.n_samples, layer.events.n_steps
    gates, gated = n_gates(layer.gate, n), layer.gate.kind > 1
    run = Run(
        Events(make((n_samples, n_steps + 1), "int64"), make((0,), "int32"), n),
        Events(make((n_samples, n_steps + 1), "int64"), make((0,), "int32"), n),
        make((0,), "float"), make((0,), "float"), make(tuple(layer.state.shape), "float"),
        make((n_samples, n), "float"), make((n_steps if trace else 0, n_samples, n), "float"),
        make((n_samples, gates), "int64"), make((n_samples, gates), "float"),
        make((n_samples, n_steps if gated else 0), "int64"),
    )  # fmt: skip
    if n_samples and n:
        run = _run(layer, run, make, trace, stream, threads)
    return _each(run, _to_host) if on_host else run


def _run(layer: Layer, run: Run, make: Callable[..., Any], trace: bool, stream: int, threads: int) -> Run:
    """Launch the kernels; the arrays of `run` are zeros on the device, and take what they return."""
    from suspike_kernels.cuda.device import configured
    from suspike_kernels.cuda.layer_kernels import Build, forward_kernel, list_kernels

    events, current, synapses, neurons, gate, state, spk, lengths = layer
    _, n_samples, n = (int(x) for x in state.shape)
    recurrent, talks = synapses.recurrent.shape[0] > 0, gate.kind == 2 and gate.recurrent.shape[0] > 0
    hears, n_words = recurrent or talks, (n + 31) // 32
    shared = 4 * (2 * n_words + 2 + n) if hears else 0
    if shared > SHARED_BYTES:
        raise ValueError(
            f"`layer` must be of spikes that fit into {SHARED_BYTES} bytes where neurons hear each other, got {shared} "
            f"bytes for {n} neurons. Run it on the CPU: suspike_kernels.cpu.forward."
        )
    block = min(threads, n) if hears else min(threads, THREADS, n)
    geometry = Geometry(*(int(x) for x in synapses.geometry)) if synapses.geometry.shape[0] else None
    build = Build(
        8 * state.dtype.itemsize, neurons.kind, neurons.reset, gate.kind, geometry, hears and n > block,
        current.shape[0] > 0, recurrent, talks, trace, lengths.shape[0] > 0,
    )  # fmt: skip
    lanes, n_rows, of_input = n_samples * n, n_samples * events.n_steps, int(gate.a.shape[2])
    n_tallies, n_tallied = n_samples * int(run.n_open.shape[1]), n_rows if gate.kind > 1 else 0

    def by_lane(array: Any) -> Any:
        return array.reshape((array.shape[0], lanes))

    words, counts = make((n_rows, n_words), "int32"), make((n_rows,), "int64")
    floats = (
        *synapses[:3], by_lane(current), neurons.beta, neurons.threshold, neurons.decay, neurons.a, neurons.b,
        gate.open, gate.a.reshape((n_rows if of_input else 0, of_input)), gate.recurrent, gate.kappa, gate.scale,
    )  # fmt: skip
    given = (
        (events.ptr, "int64"), (events.idx, "int32"), *((x, "float") for x in floats), (lengths, "int64"),
        (by_lane(state), "float"), (spk.reshape((lanes,)), "float"),
    )  # fmt: skip
    taken = (
        (by_lane(run.state), "float"), (run.spk.reshape((lanes,)), "float"), (words, "int32"), (counts, "int64"),
        (by_lane(run.trace), "float"), (run.n_open.reshape((n_tallies,)), "int64"),
        (run.ramp.reshape((n_tallies,)), "float"), (run.open_at.reshape((n_tallied,)), "int64"),
    )  # fmt: skip
    configured(forward_kernel(build), (n_samples, 1 if hears else -(-n // block)), block, stream, shared)(
        *(_on_device(x, kind, make) for x, kind in (*given, *taken))
    )
    if not n_rows:
        return run
    write_offsets, write_units = list_kernels()
    block = min(threads, THREADS, n_rows)
    configured(write_offsets, 1, block, stream, 8 * block)(counts, run.spikes.ptr)
    n_spikes = int(run.spikes.ptr[n_samples - 1, events.n_steps])
    if not n_spikes:
        return run
    spikes = run.spikes._replace(idx=make((n_spikes,), "int32"))
    configured(write_units, -(-n_rows // block), block, stream)(words, spikes.ptr, spikes.idx)
    return run._replace(spikes=spikes)


def _numba_zeros(bits: int) -> Callable[..., Any]:
    from numba import cuda

    kinds = {"float": f"float{bits}", "int64": "int64", "int32": "int32"}

    def zeros(shape: tuple[int, ...], kind: str) -> Any:
        made = np.zeros(shape, kinds[kind])
        return cuda.to_device(made) if made.size else made  # without entries it has no address there

    return zeros


def _on_device(array: Any, kind: str, make: Callable[..., Any]) -> Any:
    """Return an array on the device; nothing reads what stands for one without entries."""
    if 0 in array.shape:
        return make((1,) * len(array.shape), kind)
    if not isinstance(array, np.ndarray):
        return array
    from numba import cuda

    return cuda.to_device(np.ascontiguousarray(array))


def _to_host(array: Any) -> Any:
    return array if isinstance(array, np.ndarray) else array.copy_to_host()


def _each(part: Any, function: Callable[[Any], Any]) -> Any:
    """Apply a function to each array of nested NamedTuples; numbers stay."""
    if isinstance(part, tuple):
        return type(part)(*(_each(x, function) for x in part))
    return function(part) if hasattr(part, "shape") else part
