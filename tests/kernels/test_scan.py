"""The fused scan against the reference: spikes and states bit for bit, every gradient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suspike_testing.poison import poisoned
from suspike_testing.scans import MODELS, Case, Model, compare, make

from suspike_kernels import reference
from suspike_kernels.cpu import lanes, memory, scan, scan_gates
from suspike_kernels.scanning import ScanGrads, ScanPull, ScanRun


def ours(case: Case, model: Model, n_threads: int = 1) -> tuple[ScanRun, ScanGrads]:
    layer = case.layer
    given = layer.current, layer.neurons, layer.gate
    run = scan.scan_forward(
        *given, layer.state, spikes=model.wants != "trace", trace=model.wants != "spikes", n_threads=n_threads
    )
    by = scan.scan_backward(case.pull, run, *given, case.surrogate, want_neurons=model.params, n_threads=n_threads)
    return run, by


EACH = [*MODELS[:4], *(pytest.param(model, marks=pytest.mark.slow) for model in MODELS[4:])]
"""A model takes seconds to compile."""


@pytest.mark.parametrize("model", EACH, ids=str)
@settings(deadline=None, max_examples=12)
@given(st.integers(0, 11), st.integers(0, 3), st.integers(1, 19), st.integers(0, 2**31))
def test_reference(model: Model, n_steps: int, n_samples: int, n: int, seed: int) -> None:
    case = make(model, n_steps, n_samples, n, seed)
    compare(case, model, *ours(case, model))


@pytest.mark.parametrize("model", MODELS[:1] + MODELS[9:14], ids=str)
def test_uninitialised_memory(model: Model) -> None:
    case = make(model, 6, 2, 4, 3)
    memory.release()
    with poisoned(scan, scan_gates, lanes, memory), np.errstate(invalid="ignore"):  # a readout's infinite threshold
        run, by = ours(case, model)
    compare(case, model, run, by)


@pytest.mark.parametrize("model", [MODELS[0], MODELS[3], MODELS[13]], ids=str)
@pytest.mark.parametrize("past", [0, 2**40])
def test_large(model: Model, past: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles and threads, with results written past the caches or not: the same bits, but for a sum's order."""
    monkeypatch.setattr(scan, "STREAM_BYTES", past)
    case = make(model, 9, 7, 1237, 5)  # 8659 lanes: more than a tile, no multiple of a line
    run, by = ours(case, model)
    again, by_again = ours(case, model, n_threads=3)
    wanted = reference.forward(case.layer)
    np.testing.assert_array_equal(run.spk, wanted.spikes.dense())
    np.testing.assert_array_equal(run.state, wanted.state)
    for name in ("spk", "trace", "state", "kept"):
        np.testing.assert_array_equal(getattr(run, name), getattr(again, name), err_msg=name)
    for name in ScanGrads._fields:
        if getattr(by, name) is None:
            assert getattr(by_again, name) is None
        elif name == "gate":
            np.testing.assert_allclose(by.gate, by_again.gate, rtol=1e-5, atol=1e-4)
        else:
            np.testing.assert_array_equal(getattr(by, name), getattr(by_again, name), err_msg=name)


def test_no_steps_no_samples() -> None:
    for n_steps, n_samples in ((0, 2), (3, 0), (0, 0)):
        case = make(Model(), n_steps, n_samples, 3, 0)
        run, by = ours(case, Model())
        assert run.spk.shape == (n_steps, n_samples, 3)
        np.testing.assert_array_equal(run.state, case.layer.state)
        np.testing.assert_array_equal(by.state, case.pull.state)
        assert not by.beta.any()


def test_two_halves() -> None:
    """The state after one stretch starts the next, and gradients pass through it."""
    case = make(Model(kind=1), 10, 2, 5, 1)
    layer, (d_spk, _, d_state, _), surrogate = case
    given = layer.neurons, layer.gate
    run = scan.scan_forward(layer.current, *given, layer.state)
    by = scan.scan_backward(case.pull, run, layer.current, *given, surrogate)
    first = scan.scan_forward(layer.current[:7], *given, layer.state)
    second = scan.scan_forward(layer.current[7:], *given, first.state)
    np.testing.assert_array_equal(run.spk, np.concatenate([first.spk, second.spk]))
    back = scan.scan_backward(ScanPull(d_spk[7:], state=d_state), second, layer.current[7:], *given, surrogate)
    front = scan.scan_backward(ScanPull(d_spk[:7], state=back.state), first, layer.current[:7], *given, surrogate)
    np.testing.assert_allclose(by.current, np.concatenate([front.current, back.current]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(by.state, front.state, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(by.decay, front.decay + back.decay, rtol=1e-4, atol=1e-5)


def test_nothing_is_kept_unasked() -> None:
    case = make(Model(), 8, 2, 3, 0)
    run = scan.scan_forward(case.layer.current, case.layer.neurons, case.layer.gate, case.layer.state, keep=False)
    assert run.kept.size == 0


def test_memory_waits_for_the_next() -> None:
    memory.release()
    first = memory.empty((2**10, 2**9), np.float32)
    address, part = first.ctypes.data, first[3:5]
    assert address % memory.LINE == 0
    assert memory.empty(first.shape, np.float32).ctypes.data != address
    del first
    assert memory.empty((2**10, 2**9), np.float32).ctypes.data != address, "a view still holds it"
    del part
    held = [memory.empty((2**10, 2**9), np.float32) for _ in range(3)]
    assert address in [x.ctypes.data for x in held]
    memory.release()
