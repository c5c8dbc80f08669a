"""Segments of open neurons against a look at every block; layers wide enough for vectors, blocks and many segments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suspike_testing.cases import GATES, make_case
from suspike_testing.comparing import assert_close_fields, assert_same_run

from suspike_kernels import cpu, reference
from suspike_kernels.cpu.gating import find_segments, segments, touch_blocks
from suspike_kernels.cpu.rows import BLOCK
from suspike_kernels.layout import always_open, table_gate

LEFT = -7  # what no segment holds


def slow_segments(touched: np.ndarray) -> list[tuple[int, int]]:
    """Runs of neighbouring blocks of 16 in which anything is touched."""
    n, out = len(touched), []
    for low in range(0, n, 16):
        if not touched[low : low + 16].any():
            continue
        if out and out[-1][1] == low:
            out[-1] = (out[-1][0], min(low + 16, n))
        else:
            out.append((low, min(low + 16, n)))
    return out


def found_segments(is_open: np.ndarray, is_near: np.ndarray) -> list[tuple[int, int]]:
    """As kernels call it, with room for n // 32 + 1 segments and not one more."""
    room = len(is_open) // 32 + 1
    low, high = np.full((2, room + 1), LEFT, np.int32)
    used = find_segments(is_open, is_near, low, high)
    assert used <= room
    assert low[room] == high[room] == LEFT
    return list(zip(low[:used].tolist(), high[:used].tolist(), strict=True))


@pytest.mark.parametrize("n", [1, 15, 16, 17, 31, 32, 33, 48, 64, 65, 97, 111, 112, 113])
def test_every_pattern_of_blocks(n: int) -> None:
    n_blocks = -(-n // 16)
    rng = np.random.default_rng(n)
    most = 0
    for pattern in range(2**n_blocks):
        flags = np.zeros((2, n), np.uint8)
        for block in range(n_blocks):
            if pattern >> block & 1:  # one neuron of the block, open or near
                flags[rng.integers(2), rng.integers(16 * block, min(16 * block + 16, n))] = 1
        found = found_segments(flags[0], flags[1])
        assert found == slow_segments(flags.any(0))
        most = max(most, len(found))
    assert most == -(-n_blocks // 2)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 200])
def test_blocks_that_segments_touch(n: int) -> None:
    rng = np.random.default_rng(n)
    for density in (0.0, 0.01, 0.05, 1.0):
        touched = (rng.random(n) < density).astype(np.uint8)
        low, high = np.zeros((2, n // 32 + 1), np.int32)
        used = find_segments(touched, touched * 0, low, high)
        blocks = np.full(-(-n // BLOCK), 9, np.uint8)
        touch_blocks(low, high, 0, used, blocks)
        assert blocks.tolist() == [int(touched[k : k + BLOCK].any()) for k in range(0, n, BLOCK)]


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    n_gates=st.sampled_from([1, 5, 33, 70]), size=st.sampled_from([1, 3, 16]), n_steps=st.sampled_from([0, 1, 6]),
    density=st.sampled_from([0.0, 0.03, 0.5, 1.0]), near=st.booleans(), seed=st.integers(0, 999),
)  # fmt: skip
def test_segments_of_a_table(n_gates: int, size: int, n_steps: int, density: float, near: bool, seed: int) -> None:
    rng, n = np.random.default_rng(seed), n_gates * size
    tables = (rng.random((2, 1, n_steps, n_gates)) < density).astype(np.uint8)
    found = segments(table_gate(tables[0], tables[1], np.float32), n, near=near)
    np.testing.assert_array_equal(found.open, np.repeat(tables[0, 0], size, axis=1))
    np.testing.assert_array_equal(found.near, np.repeat(tables[1, 0], size, axis=1) * near)
    assert found.ptr[0] == 0
    assert found.ptr[-1] == len(found.low) == len(found.high)
    assert found.blocks.shape == (n_steps + 1, -(-n // BLOCK))
    assert not found.blocks[-1].any()
    for t in range(n_steps):
        touched = found.open[t] | found.near[t]
        low, high = (x[found.ptr[t] : found.ptr[t + 1]].tolist() for x in (found.low, found.high))
        assert list(zip(low, high, strict=True)) == slow_segments(touched)
        assert found.blocks[t].tolist() == [int(touched[k : k + BLOCK].any()) for k in range(0, n, BLOCK)]


def test_there_are_no_segments_without_a_shared_table() -> None:
    bits = np.ones((2, 3, 4), np.uint8)
    for gate in (always_open(np.float32), table_gate(bits, bits, np.float32), always_open(np.float32)._replace(kind=2)):
        assert not any(x.size for x in segments(gate, 4, near=True))


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("n_units", [16, 33, 64, 81, 145, 200])
def test_wide_layers_equal_reference(n_units: int, gate: str) -> None:
    """Few open neurons, so that segments are many and short, and blocks of gradients are skipped."""
    for i, opened in enumerate((0.02, 0.3)):
        group = next(x for x in (1, 4, 3) if not n_units % x) if i else 1
        neuron = ("lif", "cuba", "adlif")[(n_units + i) % 3]
        case = make_case(
            gate=gate, opened=opened, group=group, neuron=neuron, n_units=n_units, n_steps=6, n_samples=2, n_in=20,
            density=0.5, trace=True, attached=True, reset="subtract", near=i > 0, seed=i,
        )  # fmt: skip
        if gate == "input":  # most gates shut, some by their own spikes open
            case = case.with_gate(case.layer.gate._replace(a=case.layer.gate.a - (1 - opened)))
        run = case.forward(reference)
        assert_same_run(case.forward(cpu, n_threads=2), run)
        by = case.backward(reference, run)
        assert_close_fields(case.backward(cpu, run, n_threads=2), by, 1e-5)
        if i:
            assert len(run.spikes.idx) > 0
            assert by.recurrent.any()
