"""Convolutions: the plain loops against the textbook's matrix, the compiled kernels against the plain loops."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suspike_testing.cases import EPSILON, GATES, Case, cases, make_case, on_grid, take_samples
from suspike_testing.comparing import assert_close, assert_close_fields, assert_same_bits, assert_same_run
from suspike_testing.poison import STAND_INS, poisoned

from suspike_kernels import cpu, reference
from suspike_kernels.compiling import kernel
from suspike_kernels.cpu.patches import count_synops
from suspike_kernels.cpu.vectors import add_run, dot_run
from suspike_kernels.geometry import Geometry, convolution
from suspike_kernels.layout import NEURONS, FloatArray, SynapseArrays
from suspike_kernels.reference import LayerGrads

GEOMETRIES = {
    "plain": convolution((5, 6), 2, 3, (3, 3)),
    "padded": convolution((4, 3), 1, 2, (3, 3), padding=(1, 1)),
    "strided": convolution((7, 6), 2, 1, (3, 2), (2, 3), (1, 0)),
    "wide strides": convolution((7, 9), 1, 3, (2, 3), (3, 4), (2, 1)),
    "larger than the input": convolution((2, 2), 1, 2, (5, 4), padding=(3, 2)),
    "one pixel": convolution((1, 1), 3, 5, (1, 1)),
    "vectors": convolution((3, 4), 2, 17, (2, 3), (1, 2), (1, 1)),
}
"""All of odd kinds: several inputs a unit, outputs that no event reaches, inputs that reach no output."""


def patch_case(geometry: Geometry, **options: Any) -> Case:
    return into_patches(make_case(n_in=geometry.n_in, n_units=geometry.n_out, recurrent=False, **options), geometry)


def into_patches(case: Case, geometry: Geometry) -> Case:
    """The same layer with a convolution for its synapses."""
    rng, old = np.random.default_rng([case.seed, 2]), case.layer.synapses
    weight = on_grid(rng.standard_normal(geometry.row_shape) * 0.5 + 0.2, old.weight.dtype)
    synapses = SynapseArrays(weight, old.recurrent[:0], old.bias, geometry.array())
    return replace(case, layer=case.layer._replace(synapses=synapses))


def kernel_of(weight: FloatArray, geometry: Geometry) -> FloatArray:
    """Rows of weights as [kernel_h, kernel_w, C_in, C_out]."""
    g = geometry
    rows = weight.reshape(g.kernel_h, g.channels, g.kernel_w, g.out_channels)
    out = np.empty((g.kernel_h, g.kernel_w, g.channels, g.out_channels), weight.dtype)
    for i, dx in enumerate(g.column_order()):
        out[:, dx] = rows[:, :, i]
    return out


def entries(geometry: Geometry) -> Any:
    """Of the textbook's matrix [n_in, n_out]: each entry's place and its place in [kernel_h, kernel_w, C_in, C_out]."""
    g = geometry
    for dy, dx, out_y, out_x in np.ndindex(g.kernel_h, g.kernel_w, g.out_height, g.out_width):
        y, x = out_y * g.stride_y + dy - g.pad_y, out_x * g.stride_x + dx - g.pad_x
        if 0 <= y < g.height and 0 <= x < g.width:
            for c, out_c in np.ndindex(g.channels, g.out_channels):
                unit = (y * g.width + x) * g.channels + c
                yield (unit, (out_y * g.out_width + out_x) * g.out_channels + out_c), (dy, dx, c, out_c)


@st.composite
def geometries(draw: Any) -> Geometry:
    def pair(low: int, high: int) -> tuple[int, int]:
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    kernel, stride, padding = pair(1, 4), pair(1, 3), pair(0, 2)
    size = tuple(max(draw(st.integers(1, 6)), k - 2 * p) for k, p in zip(kernel, padding, strict=True))
    return convolution((size[0], size[1]), *pair(1, 3), kernel, stride, padding)


def test_the_order_of_weights() -> None:
    assert convolution((9, 9), 1, 1, (1, 5), (1, 1)).column_order() == [4, 3, 2, 1, 0]
    assert convolution((9, 9), 1, 1, (1, 5), (1, 2)).column_order() == [4, 2, 0, 3, 1]
    assert convolution((9, 9), 1, 1, (1, 2), (1, 3)).column_order() == [0, 1]
    assert GEOMETRIES["strided"][:6] == (7, 6, 2, 4, 2, 1)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_plain_loops_are_a_layer_with_the_textbooks_matrix(name: str) -> None:
    geometry = GEOMETRIES[name]
    for gate in ("none", "input"):
        case = patch_case(geometry, gate=gate, dtype="float64", trace=True)
        run, synapses = case.forward(reference), case.layer.synapses
        matrix, kernel = np.zeros((geometry.n_in, geometry.n_out)), kernel_of(synapses.weight, geometry)
        for place, tap in entries(geometry):
            matrix[place] += kernel[tap]
        dense = replace(case, layer=case.layer._replace(synapses=SynapseArrays(matrix, *synapses[1:3])))
        assert_same_run(run, dense.forward(reference))
        by, wanted = case.backward(reference, run), dense.backward(reference, run)
        assert len(run.spikes.idx) > 5
        for field in LayerGrads._fields:
            if field != "weight":
                assert_close(getattr(by, field), getattr(wanted, field), 1e-12, field)
        by_kernel = np.zeros_like(kernel)
        for place, tap in entries(geometry):
            by_kernel[tap] += wanted.weight[place]
        assert_close(kernel_of(by.weight, geometry), by_kernel, 1e-12)
        assert np.abs(by_kernel).max() > 0.1


def test_compiled_equals_reference() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=120, deadline=None, derandomize=True, database=None)
    @given(geometries(), st.data())
    def check(geometry: Geometry, data: st.DataObject) -> None:
        drawn = {
            "neuron": NEURONS, "gate": GATES, "opened": [0.6, 0.3, 0.0, 1.0], "near": [True, False],
            "group": [1, geometry.out_channels], "trace": [False, True], "current": [False, True],
            "n_steps": [7, 3, 1, 0], "n_samples": [3, 1, 0], "density": [0.3, 0.8, 0.0],
            "dtype": ["float32", "float64"],
        }  # fmt: skip
        options = {key: data.draw(st.sampled_from(choices)) for key, choices in drawn.items()}
        case = patch_case(geometry, seed=data.draw(st.integers(0, 2**16)), **options)
        wanted = case.forward(reference)
        by = case.backward(reference, wanted)
        seen["spikes"] += len(wanted.spikes.idx)
        for name in ("source", "weight", "bias", "gate", "state"):
            seen[name] += np.count_nonzero(getattr(by, name))
        for n_threads in (1, 2):
            assert_same_run(case.forward(cpu, n_threads=n_threads), wanted)
            found = case.backward(cpu, wanted, n_threads=n_threads)
            assert_close_fields(found, by, EPSILON[options["dtype"]])

    check()
    assert min(seen.values()) > 200, seen


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("gate", GATES)
def test_each_gate(name: str, gate: str) -> None:
    geometry = GEOMETRIES[name]
    for group in (1, geometry.out_channels):
        case = patch_case(geometry, gate=gate, group=group, opened=0.3, n_steps=15, trace=True)
        run = case.forward(reference)
        assert_same_run(case.forward(cpu, n_threads=2), run)
        by = case.backward(reference, run)
        assert_close_fields(case.backward(cpu, run, n_threads=2), by, 1e-5)
        few = case.backward(cpu, run, want_weights=False)
        assert not few.weight.any()
        assert_close(few.source, by.source, 1e-5)


def test_gates_that_close_whole_blocks() -> None:
    geometry = convolution((8, 8), 2, 16, (3, 3), padding=(1, 1))
    for gate in ("table", "tables", "input"):
        for opened in (0.05, 0.5, 0.0):
            case = patch_case(geometry, gate=gate, group=16, opened=opened, n_steps=4, n_samples=3, trace=True)
            run = case.forward(reference)
            assert_same_run(case.forward(cpu), run)
            by = case.backward(reference, run)
            assert_close_fields(case.backward(cpu, run), by, 1e-5)
            assert by.weight.any() == (opened > 0)


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(geometries(), st.sampled_from(GATES), st.integers(0, 2**16))
def test_no_uninitialised_memory_is_read(geometry: Geometry, gate: str, seed: int) -> None:
    case = patch_case(geometry, gate=gate, n_steps=4, n_samples=2, seed=seed)
    wanted = case.forward(reference)
    with poisoned():
        assert_same_run(case.forward(cpu), wanted)
        assert_close_fields(case.backward(cpu, wanted), case.backward(reference, wanted), 1e-5)


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(cases(dtypes=("float64",)))
def test_a_single_pixel_is_a_full_layer(case: Case) -> None:
    """One pixel whose channels are the units: the same weights, the same results."""
    n_in, n = case.layer.synapses.weight.shape
    geometry = convolution((1, 1), n_in, n, (1, 1))
    layer = case.layer._replace(synapses=case.layer.synapses._replace(recurrent=np.zeros((0, n))))
    full = replace(case, layer=layer)
    patch = replace(case, layer=layer._replace(synapses=layer.synapses._replace(geometry=geometry.array())))
    run = full.forward(cpu)
    assert_same_run(patch.forward(cpu), run)
    assert_close_fields(patch.backward(cpu, run), full.backward(cpu, run), 1e-11)


def test_the_order_of_samples_is_free() -> None:
    case, order = patch_case(GEOMETRIES["plain"], gate="input", n_samples=5), np.array([3, 0, 4, 1, 2])
    run = case.forward(cpu)
    moved = replace(case, layer=take_samples(case.layer, order)).forward(cpu)
    assert_same_bits(moved.state, run.state[:, order])
    assert len(run.spikes.idx) > 100


@pytest.mark.parametrize("name", GEOMETRIES)
def test_synaptic_operations_are_counted(name: str) -> None:
    geometry = GEOMETRIES[name]
    events = patch_case(geometry).layer.events
    assert geometry.n_synapses == len({place for place, _ in entries(geometry)})
    is_open = (np.random.default_rng(0).random((events.n_steps, geometry.n_out)) < 0.4).astype(np.uint8)
    reached = opened = 0
    for step, unit in zip(events.places()[1], events.idx, strict=True):
        for _, _, first in geometry.targets(int(unit)):
            reached += geometry.out_channels
            opened += int(is_open[step, first : first + geometry.out_channels].sum())
    assert count_synops(events, geometry.array(), is_open) == (reached, opened)
    assert count_synops(events, geometry.array()) == (reached, reached)
    assert 0 < opened < reached


@kernel()
def through_intrinsics(acc: Any, matrix: Any, x: Any, out: Any, length: int) -> None:
    add_run(acc, 3, matrix, 1, 2, length)
    out[0] = dot_run(matrix, 1, 2, x, 3, length)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_runs_of_every_length(dtype: str) -> None:
    rng = np.random.default_rng(0)
    for length in range(70):
        matrix, x = (rng.standard_normal(shape).astype(dtype) for shape in ((3, 80), 80))
        acc, out = x.copy(), np.zeros(1, dtype)
        through_intrinsics(acc, matrix, x, out, length)
        wanted = x.copy()
        STAND_INS[add_run](wanted, 3, matrix, 1, 2, length)
        np.testing.assert_array_equal(acc, wanted)
        total = STAND_INS[dot_run](matrix, 1, 2, x, 3, length)
        assert out[0] == pytest.approx(total, rel=1e-5, abs=1e-5)
    with pytest.raises(IndexError):
        STAND_INS[add_run](x, 70, matrix, 1, 2, 20)
    with pytest.raises(IndexError):
        STAND_INS[dot_run](matrix, 1, 70, x, 0, 20)
