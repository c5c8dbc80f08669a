"""Layers for GPU kernels, and the comparison with the reference; small, as numba's simulator has a thread for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from suspike_kernels import cuda, reference
from suspike_kernels.geometry import convolution
from suspike_kernels.layout import NEURONS, RESETS, SynapseArrays
from suspike_kernels.reference import Layer, Run
from suspike_testing.cases import GATES, cut, make_case
from suspike_testing.comparing import assert_same_bits, assert_same_run


class Listed(NamedTuple):
    """A layer, and the threads of a block: few, so that a thread has several neurons, or as many as there are."""

    name: str
    layer: Layer
    threads: int = 1024


def kinds() -> Iterator[Listed]:
    """Every neuron under every gate, every reset, both float types; what is summed is on a grid."""
    for i, (neuron, gate) in enumerate((n, g) for n in NEURONS for g in GATES):
        case = make_case(
            neuron=neuron, gate=gate, group=(1, 3)[i % 2], reset=RESETS[i % 3], current=i % 2 == 0,
            recurrent=i % 4 != 1, talk=i % 7 != 3, ends=i % 3 == 2, dtype=("float32", "float64")[i % 5 == 2],
            n_steps=8, n_samples=3, n_units=9, density=0.4, seed=i,
        )  # fmt: skip
        yield Listed(f"{neuron} {gate}", case.layer, (1024, 4)[i % 2])


def listed() -> Iterator[Listed]:
    """The same, with any weights too; sizes around a word of 32 bits; convolutions."""
    for i, (name, layer, threads) in enumerate(kinds()):
        yield Listed(name, layer, threads)
        yield Listed(f"{name}, any weights", off_grid(layer), (2, 1024)[i % 2])
    for n_units, threads in ((1, 1024), (31, 1024), (33, 8), (33, 1024), (70, 16), (70, 35)):
        for recurrent in (True, False):
            case = make_case(
                n_units=n_units, n_steps=24 if n_units == 1 else 5, n_samples=2, recurrent=recurrent, density=0.5,
                seed=n_units + 6,
            )  # fmt: skip
            name = f"{n_units} units, {threads} threads, {'' if recurrent else 'not '}recurrent"
            yield Listed(name, off_grid(case.layer), threads)
    sizes = (((5, 6), 2, 3, (3, 3)), ((7, 6), 2, 1, (3, 2), (2, 3), (1, 0)), ((2, 2), 1, 2, (5, 4), (1, 1), (3, 2)))
    for i, size in enumerate(sizes):
        geometry = convolution(*size)  # type: ignore[arg-type]
        case = make_case(
            n_in=geometry.n_in, n_units=geometry.n_out, recurrent=False, gate=GATES[i], n_steps=6, n_samples=2,
            density=0.2, seed=i,
        )  # fmt: skip
        weight = np.random.default_rng(i).standard_normal(geometry.row_shape).astype(np.float32) * np.float32(0.4)
        bias = case.layer.synapses.bias
        yield Listed(
            f"{geometry}",
            case.layer._replace(synapses=SynapseArrays(weight, case.layer.synapses.recurrent, bias, geometry.array())),
            16,
        )


def off_grid(layer: Layer) -> Layer:
    """The same layer with weights, biases and currents whose sums round, so that their order matters."""
    factor = layer.state.dtype.type(1.1)
    synapses, gate = layer.synapses, layer.gate
    synapses = synapses._replace(
        weight=synapses.weight * factor, recurrent=synapses.recurrent * factor, bias=synapses.bias * factor
    )
    gate = gate._replace(a=gate.a * factor, recurrent=gate.recurrent * factor)
    return layer._replace(current=layer.current * factor, synapses=synapses, gate=gate)


def compare(found: Run, wanted: Run) -> None:
    """Every field, to the last bit, the ramp's sums too."""
    assert_same_run(found, wanted)
    assert_same_bits(found.ramp, wanted.ramp, "ramp")


def check_listed() -> int:
    """Compare each, and return how many there are."""
    fired: dict[str, int] = {}
    for name, layer, threads in listed():
        wanted = reference.forward(layer, trace=True)
        compare(cuda.forward(layer, trace=True, threads=threads), wanted)
        fired[name] = len(wanted.spikes.idx)
    # silence equals silence in any kernel
    assert min(fired.values()) > 2, fired
    return len(fired)


def check_stretches() -> None:
    """Steps in two calls, the state handed on, are the steps in one."""
    for name, layer, threads in kinds():
        n_steps = layer.events.n_steps
        whole = cuda.forward(layer, trace=True, threads=threads)
        for middle in (0, n_steps // 2):
            first = cuda.forward(cut(layer, 0, middle), trace=True, threads=threads)
            later = cut(layer, middle, n_steps)._replace(state=first.state, spk=first.spk)
            second = cuda.forward(later, trace=True, threads=threads)
            assert_same_bits(second.state, whole.state, name)
            assert_same_bits(second.spk, whole.spk, name)
            assert_same_bits(np.concatenate([first.trace, second.trace]), whole.trace, name)
            spikes = np.concatenate([first.spikes.dense(), second.spikes.dense()])
            np.testing.assert_array_equal(spikes, whole.spikes.dense(), name)
            np.testing.assert_array_equal(first.n_open + second.n_open, whole.n_open, name)
