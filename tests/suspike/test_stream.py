"""An hour of events in stretches: memory stays where it is, and the first minute is that of a run in one piece."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from suspike.graph import LI, LIF, Graph, Layer, Rhythm
from suspike.simulate import simulate, stream
from suspike_kernels.layout import Events, offsets

STRETCH = 10_000
"""Steps of 1 ms."""


def make_graph(n_in: int = 100, n: int = 64) -> Graph:
    rng = np.random.default_rng(0)
    grid = lambda *shape: (np.round(rng.normal(0.02, 0.2, shape) * 256) / 256).astype(np.float32)  # noqa: E731
    one = np.ones(n, np.float32)
    phase = np.sort(rng.uniform(0, 2 * np.pi, (n, 1)), 0)
    gate = Rhythm(np.full(n, -0.3), np.ones((n, 1)), phase, np.array([47.3]))
    hidden = Layer("hidden", grid(n_in, n), 0 * one, LIF(one * 0.9375, one, gate=gate), grid(n, n) / 4)
    return Graph((hidden, Layer("out", grid(n, 5), np.zeros(5, np.float32), LI(one[:5] * 0.96875))), 1.0)


def recording(n_stretches: int) -> Iterator[Events]:
    """800 events a second, drawn anew for each stretch."""
    for i in range(n_stretches):
        rng = np.random.default_rng([7, i])
        counts = rng.poisson(0.8, (1, STRETCH))
        yield Events(offsets(counts), rng.integers(0, 100, counts.sum()).astype(np.int32), 100)


def resident() -> int:
    """The memory of this process now, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.slow
def test_an_hour_in_constant_memory() -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc to see its own memory")
    graph, n_spikes, minute, after_minute = make_graph(), 0, [], 0
    for i, result in enumerate(stream(graph, recording(360), n_threads=1)):
        n_spikes += len(result.spikes[0].idx)
        if i < 6:
            minute.append(result)
        if i == 11:
            after_minute = resident()
    assert result.state.t == 3_600_000
    assert resident() - after_minute < 20e6, "a stretch holds 1 MB, the hour some 100"
    assert n_spikes > 1_000_000
    first = list(recording(6))
    counts = np.concatenate([events.per_step() for events in first], 1)
    whole = simulate(graph, Events(offsets(counts), np.concatenate([events.idx for events in first]), 100))
    np.testing.assert_array_equal(np.concatenate([r.spikes[0].idx for r in minute]), whole.spikes[0].idx)
    np.testing.assert_array_equal(
        np.concatenate([r.spikes[0].per_step() for r in minute], 1), whole.spikes[0].per_step()
    )
    np.testing.assert_array_equal(np.concatenate([r.output for r in minute]), whole.output)
