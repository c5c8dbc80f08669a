"""Layers for GPU kernels, and the comparison with the reference; small, as numba's simulator has a thread for each."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from suspike_kernels import cuda, reference
from suspike_kernels.geometry import convolution
from suspike_kernels.layout import NEURONS, RESETS, SynapseArrays, always_open, lif_arrays
from suspike_kernels.reference import Layer, Run, Surrogate
from suspike_testing.cases import GATES, cut, make_case
from suspike_testing.comparing import assert_same_bits, assert_same_events, assert_same_run

BAND = 1e-5


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
            n_steps=7, n_samples=2, n_units=9, density=0.4, seed=i,
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
    for i, (name, layer, threads) in enumerate(kinds()):
        n_steps = layer.events.n_steps
        whole, middle = cuda.forward(layer, trace=True, threads=threads), i % (n_steps + 1)
        first = cuda.forward(cut(layer, 0, middle), trace=True, threads=threads)
        later = cut(layer, middle, n_steps)._replace(state=first.state, spk=first.spk)
        second = cuda.forward(later, trace=True, threads=threads)
        assert_same_bits(second.state, whole.state, name)
        assert_same_bits(second.spk, whole.spk, name)
        assert_same_bits(np.concatenate([first.trace, second.trace]), whole.trace, name)
        spikes = np.concatenate([first.spikes.dense(), second.spikes.dense()])
        np.testing.assert_array_equal(spikes, whole.spikes.dense(), name)
        np.testing.assert_array_equal(first.n_open + second.n_open, whole.n_open, name)
        np.testing.assert_array_equal(np.concatenate([first.open_at, second.open_at], 1), whole.open_at, name)


def check_empty() -> None:
    """No samples, no steps, no events, samples of no length."""
    for sizes in ({"n_samples": 0}, {"n_steps": 0}, {"n_samples": 0, "n_steps": 0}, {"density": 0.0}):
        for gate in GATES:
            case = make_case(neuron="adlif", gate=gate, n_units=3, current=True, **{"n_steps": 3, **sizes})
            compare(cuda.forward(case.layer, trace=True), reference.forward(case.layer, trace=True))
    layer = make_case(n_steps=3, n_samples=3).layer._replace(n_steps=np.array([0, 3, 0]))
    events = layer.events
    kept = (events.ptr[1, 0], events.ptr[1, -1])
    ptr = np.clip(events.ptr, *kept) - kept[0]
    layer = layer._replace(events=events._replace(ptr=ptr, idx=events.idx[slice(*kept)]))
    compare(cuda.forward(layer), reference.forward(layer))


def each(part: Any, function: Any) -> Any:
    """Apply a function to each array of a layer or a run."""
    if isinstance(part, tuple):
        return type(part)(*(each(x, function) for x in part))
    return function(part) if hasattr(part, "shape") else part


def check_device() -> None:
    """Arrays of the device are taken and returned as such, and those that `zeros` makes are used."""
    from numba import cuda as device

    for gate in ("tables", "input"):
        layer = make_case(gate=gate, n_steps=6, n_samples=2, n_units=5).layer
        there = each(layer, lambda x: device.to_device(x) if x.size else x)
        wanted = reference.forward(layer, trace=True)
        asked: list[tuple[tuple[int, ...], str]] = []

        def zeros(shape: tuple[int, ...], kind: str, asked: Any = asked) -> Any:
            asked.append((shape, kind))
            made = np.zeros(shape, "float32" if kind == "float" else kind)
            return device.to_device(made) if made.size else made

        for found in (cuda.forward(there, trace=True), cuda.forward(there, trace=True, zeros=zeros)):
            for x in (found.state, found.spikes.ptr, found.spikes.idx, found.trace):
                assert not isinstance(x, np.ndarray)
            compare(each(found, lambda x: x if isinstance(x, np.ndarray) else x.copy_to_host()), wanted)
        assert ((len(wanted.spikes.idx),), "int32") in asked
        assert (layer.state.shape, "float") in asked
        # lists on the device are what the next layer there takes
        second = make_case(n_in=5, n_steps=6, n_samples=2, seed=1).layer
        on = each(second, lambda x: device.to_device(x) if x.size else x)._replace(events=found.spikes)
        again = cuda.forward(on)
        assert_same_events(
            again.spikes._replace(ptr=again.spikes.ptr.copy_to_host(), idx=again.spikes.idx.copy_to_host()),
            reference.forward(second._replace(events=wanted.spikes)).spikes,
        )


def check_refused() -> None:
    layer = make_case(n_steps=1, n_samples=1, n_units=3).layer
    for threads in (0, 1025):
        with pytest.raises(ValueError, match=r"^`threads` must be from 1 to 1024, got"):
            cuda.forward(layer, threads=threads)
    with pytest.raises(ValueError, match=r"^`stream` must be 0 without `zeros`"):
        cuda.forward(layer, stream=1)
    many = 12_000
    zeros = np.zeros(many, np.float32)
    wide = layer._replace(
        synapses=SynapseArrays(
            np.zeros((9, many), np.float32), np.broadcast_to(zeros, (many, many)), zeros, layer.synapses.geometry
        ),
        neurons=lif_arrays(zeros, zeros, 0), state=zeros.reshape(1, 1, -1), spk=zeros.reshape(1, -1),
        current=np.zeros((0, 1, many), np.float32), gate=always_open(np.float32),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"^`layer` must be of spikes that fit into 49152 bytes .* 12000 neurons"):
        cuda.forward(wide)


def check_few_blocks() -> None:
    """What numba says of a launch with few blocks is not passed on, anything else is."""
    from suspike_kernels.cuda.device import configured

    class Kernel(NamedTuple):
        warning: str

        def __getitem__(self, launch: Any) -> Any:
            warnings.warn(self.warning, UserWarning, stacklevel=1)
            return launch

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few = Kernel("Grid size 1 will likely result in GPU under-utilization due to low occupancy.")
        assert configured(few, 1, 32, 0, 8) == (1, 32, 0, 8)
        with pytest.raises(UserWarning, match="copied"):
            configured(Kernel("Host array is copied"), 1, 32)


def check_band(n_steps: int = 100, n_units: int = 300) -> None:
    """Of any weights, the first spike of a sample that differs from float64's is of a membrane at the threshold."""
    for seed in range(3):
        case = make_case(
            gate="table", n_steps=n_steps, n_samples=4, n_in=200, n_units=n_units, density=0.05, seed=seed
        )  # fmt: skip
        layer = off_grid(case.layer)
        exact = each(layer, lambda x: x.astype(np.float64) if x.dtype == np.float32 else x)
        found, wanted = cuda.forward(layer).spikes.dense(), reference.forward(exact, Surrogate(0, BAND))
        differs = found != wanted.spikes.dense()
        near = np.zeros(differs.size, bool)
        near[wanted.active.places()[2]] = True
        for b in range(differs.shape[1]):
            steps = np.flatnonzero(differs[:, b].any(1))
            if len(steps):
                assert near.reshape(differs.shape)[steps[0], b][differs[steps[0], b]].all(), (seed, b, steps[0])


def check_streams() -> None:
    """Tensors on the device, from two streams at once."""
    import torch

    if not torch.cuda.is_available():
        return
    kinds = {"int64": torch.int64, "int32": torch.int32, "float": torch.float32}
    layers = [make_case(n_steps=50, n_samples=4, n_units=100, seed=seed).layer for seed in range(2)]
    streams, runs = [torch.cuda.Stream(), torch.cuda.Stream()], []
    for stream, layer in zip(streams, layers, strict=True):
        with torch.cuda.stream(stream):
            there = each(layer, lambda x: torch.from_numpy(x).cuda())
            runs.append(
                cuda.forward(
                    there, zeros=lambda shape, kind: torch.zeros(shape, dtype=kinds[kind], device="cuda"),
                    stream=stream.cuda_stream,
                )
            )  # fmt: skip
    torch.cuda.synchronize()
    for run, layer in zip(runs, layers, strict=True):
        compare(each(run, lambda x: x.cpu().numpy()), reference.forward(layer))
