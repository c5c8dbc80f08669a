"""A C program for the network of simulate.py alone: what its steps take at least. See steps_in_c.c."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from c_program import compiled, compiler
from network import Network
from numpy.typing import NDArray
from work import Built

from suspike_kernels.layout import Events, in_lines

LANES = 16
"""Floats of a vector."""


def is_possible() -> bool:
    """Say whether the program can be built and run here: a compiler, and vectors of 512 bits."""
    cpu = Path("/proc/cpuinfo")
    return compiler() is not None and cpu.exists() and "avx512bw" in cpu.read_text()


def network(net: Network, threads: int) -> Built:
    """Both layers over all samples; without checks, counts and gates, with one leak and one threshold."""
    del threads
    layers = [_layer(net.weight, net.recurrent), _layer(net.readout, None)]
    begins = [np.zeros_like(net.ptr) for _ in layers]
    n_steps, room = net.ptr.shape[1] - 1, net.ptr.size * LANES
    places = [np.zeros(room, np.int32) for _ in layers]

    def step() -> Any:
        ptr, idx = net.ptr, net.idx
        for (run, weight, recurrent), ends, fired in zip(layers, begins, places, strict=True):
            own = None if recurrent is None else recurrent.ctypes.data
            given = (ptr.ctypes.data, idx.ctypes.data, weight.ctypes.data, own)
            used = run(net.n_samples, n_steps, *given, net.beta, net.threshold, fired.ctypes.data, ends.ctypes.data)
            assert used + LANES * LANES < room, "all spikes have room"
            ptr, idx = ends, fired
        return None

    def as_ours(_: Any) -> list[Any]:
        sizes = [matrix.shape[1] for matrix in (net.weight, net.readout)]
        lists = zip(begins, places, sizes, strict=True)
        return [Events(ends, fired[: ends[-1, -1]], size).dense(np.uint8) for ends, fired, size in lists]

    return Built(step, as_ours, {})


def _layer(weight: NDArray[np.float32], recurrent: NDArray[np.float32] | None) -> tuple[Any, ...]:
    """Return the function for a layer, and its weights in rows of whole vectors."""
    n = -(-weight.shape[1] // LANES)

    def padded(matrix: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        if matrix is None:
            return None
        return in_lines(np.pad(matrix, ((0, 0), (0, n * LANES - matrix.shape[1]))))

    return _compiled(n), padded(weight), padded(recurrent)


def _compiled(n: int) -> Any:
    """Return ``steps`` of steps_in_c.c for n vectors."""
    steps = compiled("steps_in_c.c", "-ffp-contract=off", f"-DN={n}").steps
    number, address = ctypes.c_int64, ctypes.c_void_p
    steps.argtypes = [number, number, *[address] * 4, ctypes.c_float, ctypes.c_float, address, address]
    steps.restype = number
    return steps
