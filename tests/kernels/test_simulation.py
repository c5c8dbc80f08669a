"""Runs that keep spikes and membranes alone, with steps in registers and runs of silent ones, against plain loops."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suspike_testing.cases import Case, make_case
from suspike_testing.comparing import assert_same_bits, assert_same_run
from suspike_testing.poison import poisoned

from suspike_kernels import cpu, reference
from suspike_kernels.cpu import compress, fused, fused_runs, simulation
from suspike_kernels.layout import RESETS, Events, table_gate

DTYPES = ("float32", "float64")


def at_rest(case: Case) -> Case:
    """The case without a bias: silent steps are silent."""
    bias = np.zeros_like(case.layer.synapses.bias)
    return replace(case, layer=case.layer._replace(synapses=case.layer.synapses._replace(bias=bias)))


@st.composite
def quiet_cases(draw: Any, *, n_units: tuple[int, ...] = (20, 1, 7, 16, 34, 130)) -> Case:
    """Layers in which most steps are silent, and neurons that stand where they may, or may not, fire in these."""
    case = make_case(
        gate=draw(st.sampled_from(["none", "table"])),
        opened=draw(st.sampled_from([0.3, 0.1, 1.0])),
        reset=draw(st.sampled_from(RESETS)),
        readout=draw(st.sampled_from([False] * 4 + [True])),
        recurrent=draw(st.booleans()),
        trace=draw(st.booleans()),
        ends=draw(st.sampled_from([False, False, True])),
        n_steps=draw(st.sampled_from([30, 11, 1, 0])),
        n_samples=draw(st.sampled_from([2, 3, 1, 0])),
        n_in=draw(st.sampled_from([1, 3])),
        n_units=draw(st.sampled_from(n_units)),
        density=draw(st.sampled_from([0.05, 0.3, 0.0])),
        dtype=draw(st.sampled_from(DTYPES)),
        width=0.0,
        seed=draw(st.integers(0, 2**16)),
    )
    case = at_rest(case) if draw(st.sampled_from([True, True, True, False])) else case
    neurons, rng = case.layer.neurons, np.random.default_rng(case.seed)
    state = case.layer.state * draw(st.sampled_from([1, 4, 0, -0.0]))  # 4: above the threshold
    beta, threshold, some = neurons.beta.copy(), neurons.threshold.copy(), rng.random(len(neurons.beta)) < 0.2
    beta[some] = draw(st.sampled_from([0.0, 1.0, 0.5, 0.5, -0.5, 1.1]))
    threshold[some] = draw(st.sampled_from([0.5, 0.5, 0.5, 0.0, -0.3]))
    neurons = neurons._replace(beta=beta, threshold=threshold)
    return replace(case, layer=case.layer._replace(neurons=neurons, state=state))


def test_compiled_equals_reference() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=250, deadline=None, derandomize=True, database=None)
    @given(quiet_cases())
    def check(case: Case) -> None:
        wanted, layer = case.forward(reference), case.layer
        arrived, fired = layer.events.per_step() > 0, wanted.spikes.per_step()
        fed = np.zeros_like(fired)
        fed[:, 1:] = fired[:, :-1]
        silent = ~arrived & ~(fed.astype(bool) & (len(layer.synapses.recurrent) > 0))
        seen["silent"] += int(silent.sum())
        seen["spikes in silence"] += int(fired[silent].sum())
        seen["spikes"] += int(fired[~silent].sum())
        seen["resting"] += simulation.rests(layer)
        seen["restless"] += not simulation.rests(layer)
        assert simulation.serves(layer)
        for n_threads in (1, 2, 3):
            assert_same_run(case.forward(cpu, n_threads=n_threads), wanted)

    check()
    assert len(seen) == 5
    assert min(seen.values()) > 60, seen


@pytest.mark.parametrize("gate", ["none", "table"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_wide_layers(gate: str, dtype: str) -> None:
    """Whole blocks, and last ones of every width."""
    for i, n_units in enumerate((256, 128, 64, 300, 257, 255, 140, 520)):
        case = make_case(
            gate=gate, opened=0.5, n_units=n_units, n_steps=6, n_samples=2, width=0.0, reset=RESETS[i % 3],
            trace=bool(i % 2), dtype=dtype, seed=i,
        )  # fmt: skip
        for each in (case, at_rest(case)):
            wanted = each.forward(reference)
            assert len(wanted.spikes.idx) > 20
            assert_same_run(each.forward(cpu), wanted)


@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(quiet_cases(n_units=(20, 1, 34, 130)))
def test_no_uninitialised_memory_is_read(case: Case) -> None:
    wanted = case.forward(reference)
    with poisoned():
        assert_same_run(case.forward(cpu), wanted)
        assert_same_run(case.forward(cpu, n_threads=2), wanted)


def silence(n_steps: int, n_units: int, **options: Any) -> Case:
    """A layer that no event ever reaches, without a bias."""
    case = make_case(
        n_steps=n_steps, n_samples=1, n_in=1, n_units=n_units, density=0.0, width=0.0, **{"gate": "none", **options}
    )  # fmt: skip
    return at_rest(replace(case, layer=case.layer._replace(spk=np.zeros_like(case.layer.spk))))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("trace", [False, True])
def test_long_silence(dtype: str, trace: bool) -> None:
    """Repeated multiplication, through denormal numbers to where a state moves no more, which ends a run."""
    n_steps = 400
    for beta in (0.0, 0.5, 0.7, 0.95, 1.0):
        case = silence(n_steps, 20, trace=trace, dtype=dtype, readout=True)
        tiny = float(np.finfo(dtype).tiny)
        state = np.array([0, -0.0, 1, -1, tiny, -tiny, 64 * tiny, np.inf, -np.inf, np.nan] * 2, dtype)
        state[10:] *= 0.37
        neurons = case.layer.neurons._replace(beta=np.full(20, beta, dtype))
        case = replace(case, layer=case.layer._replace(neurons=neurons, state=state[None, None]))
        with np.errstate(invalid="ignore"):
            wanted = case.forward(reference)
        assert simulation.rests(case.layer)
        assert_same_run(case.forward(cpu), wanted)


@pytest.mark.parametrize("n_steps", [1, 2, 63, 64, 65, 66, 127, 128, 129, 130, 193])
def test_a_run_has_as_many_steps_as_were_silent(n_steps: int) -> None:
    case = silence(n_steps, 40, readout=True)
    run = case.forward(cpu)
    assert_same_run(run, case.forward(reference))
    state, after = case.layer.state[0, 0], run.state[0, 0]
    assert not np.array_equal(after, state)
    np.testing.assert_allclose(
        after, state * case.layer.neurons.beta.astype(np.float64) ** n_steps, rtol=1e-4, atol=1e-40
    )


@pytest.mark.parametrize("sign", [0.0, -0.0])
def test_the_sign_of_zero(sign: float) -> None:
    """-0.0 + 0.0 is 0.0, but -0.0 with a bias of -0.0 stays; also where a leak of 0, or rounding, makes it."""
    for trace in (False, True):
        for n_steps in (1, 3, 70):
            case = silence(n_steps, 8, trace=trace)
            # all below their thresholds: a step in which one is above is no silent one
            state = np.array([[[-0.0, 0.0, -1, 0.2, -1e-45, 1e-45, -0.0, -1e-44]]], np.float32)
            beta = np.array([0.5, 0.5, 0, 0, 0.1, 0.1, 1, 0.9], np.float32)
            layer = case.layer._replace(
                state=state,
                neurons=case.layer.neurons._replace(beta=beta),
                synapses=case.layer.synapses._replace(bias=np.full(8, sign, np.float32)),
            )
            case = replace(case, layer=layer)
            run = case.forward(cpu)
            assert_same_run(run, case.forward(reference))
            assert (layer.state[0] < layer.neurons.threshold).all()
            assert np.signbit(run.state[0, 0, 0]) == np.signbit(np.float32(sign))


def changed(case: Case, **neurons: Any) -> Case:
    """The case with one number for all neurons of each parameter named."""
    arrays = {name: np.full_like(case.layer.neurons.beta, value) for name, value in neurons.items()}
    return replace(case, layer=case.layer._replace(neurons=case.layer.neurons._replace(**arrays)))


def test_who_may_fire_in_silence() -> None:
    """One case for each condition of a run of silent steps: where it does not hold, silent steps have spikes."""
    above = silence(9, 6, reset="subtract")
    above = changed(above, beta=1.0, threshold=0.5)
    above = replace(above, layer=above.layer._replace(state=np.full_like(above.layer.state, 2.25)))
    bias = above.layer.synapses.bias + np.float32(0.25)
    state = np.full_like(above.layer.state, 0.25)
    table = np.zeros((1, 9, 6), np.uint8)
    table[0, 4:] = 1
    low, deep = (replace(above, layer=above.layer._replace(state=x)) for x in (state, -3 * state))
    cases = {
        "above at the start, and after each reset": above,
        "above, and closed until step 4": above.with_gate(
            table_gate(table, np.zeros((0, 0, 0), np.uint8), np.float32)
        ),
        "bias": replace(low, layer=low.layer._replace(synapses=low.layer.synapses._replace(bias=bias))),
        "beta above 1": changed(low, beta=1.5),
        "beta below 0": changed(deep, beta=-1.0),
        "threshold below 0": changed(deep, beta=0.5, threshold=-0.3),
    }  # fmt: skip
    for name, case in cases.items():
        wanted = case.forward(reference)
        assert len(wanted.spikes.idx) > 5, name
        with poisoned():
            assert_same_run(case.forward(cpu), wanted)
        assert_same_run(case.forward(cpu), wanted)


def test_spikes_that_stay_above() -> None:
    """An event lifts neurons far above; they fire on in silence, by what the reset leaves of them."""
    for reset in RESETS:
        case = silence(20, 5, reset=reset, recurrent=False)
        layer = case.layer._replace(
            events=Events((np.arange(21) > 3).astype(np.int64)[None], np.zeros(1, np.int32), 1),
            synapses=case.layer.synapses._replace(weight=np.full((1, 5), 4, np.float32)),
            state=case.layer.state * 0,
        )
        case = replace(case, layer=layer)
        wanted = case.forward(reference)
        assert len(wanted.spikes.idx) == 5 if reset == "zero" else len(wanted.spikes.idx) > 10
        with poisoned():
            assert_same_run(case.forward(cpu), wanted)
        assert_same_run(case.forward(cpu), wanted)


@numba.njit
def through_run(v: Any, neurons: Any, reset: int, arriving: Any, own: Any, span: Any, places: Any) -> Any:
    return fused_runs.run_columns(v, neurons, reset, arriving, own, span, places, 3)


@numba.njit
def through_lines(v: Any, neurons: Any, reset: int, arriving: Any, own: Any, lines: Any, high: int, places: Any) -> Any:
    return fused.step_lines(v, neurons, reset, arriving, own, lines, 2, high, places, 3)


@numba.njit
def through_wait(v: Any, beta: Any, bias: Any, n_steps: int) -> None:
    fused_runs.wait_columns(v, beta, bias, n_steps)


def check_step(dtype: str, n: int, touched: float | None, reset: int, seed: int, *, small: bool = False) -> int:
    """Do a step compiled, and with the stand-ins, of all neurons or of a share of lines; return how many fired."""
    rng = np.random.default_rng(seed)
    v, beta, threshold = (rng.uniform(*span, n).astype(dtype) for span in ((-1, 1), (0.5, 1), (0.2, 1)))
    bias, weight, recurrent = ((rng.integers(-64, 99, (m, n)) / 256).astype(dtype) for m in (1, 5, n))
    if small:
        weight, recurrent = ((x * 256).astype(np.int8) for x in (weight, recurrent))
    neurons = (beta, threshold, bias[0], (rng.random(n) < 0.6).astype(np.uint8), np.full(1, 1 / 256, dtype))
    arriving = (weight, rng.integers(0, 5, 9).astype(np.int32), 2, 2 + seed % 6)
    given = (*arriving[:2], np.array([0, 1, *arriving[2:], 9]))
    own = (recurrent, rng.integers(0, n, 9).astype(np.int32), 1, 1 + seed % 3)
    lanes = 64 // v.itemsize
    chosen = np.flatnonzero(rng.random(-(-n // lanes)) < (touched or 0)).astype(np.int32) * lanes
    lines = np.concatenate([np.zeros(2, np.int32), chosen, np.zeros(16, np.int32)])  # other steps follow
    wanted, places, kept = v.copy(), np.full(n + compress.AHEAD + 4, -7, np.int32), v.copy()
    ends, wanted_ends = np.full((2, 5), -7)
    if touched is None:
        assert through_run(v, neurons, reset, given, own, (2, 3, False, ends), places) == 3
        end = ends[3]
    else:
        end = through_lines(v, neurons, reset, arriving, own, lines, 2 + len(chosen), places)
    stood_in = np.full(n + compress.AHEAD + 4, -7, np.int32)
    with poisoned(fused, fused_runs):
        if touched is None:
            fused_runs.run_columns(wanted, neurons, reset, given, own, (2, 3, False, wanted_ends), stood_in, 3)
            found = wanted_ends[3]
        else:
            found = fused.step_lines(wanted, neurons, reset, arriving, own, lines, 2, 2 + len(chosen), stood_in, 3)
    assert found == end
    np.testing.assert_array_equal(ends, wanted_ends)
    assert_same_bits(v, wanted)
    np.testing.assert_array_equal(places[3:end], stood_in[3:end])
    inside = np.ones(n, bool) if touched is None else np.isin(np.arange(n) // lanes * lanes, chosen)
    assert_same_bits(v[~inside], kept[~inside])
    assert inside[places[3:end]].all()
    assert (places[:3] == -7).all()
    assert places[-1] == -7
    return int(end) - 3


def check_wait(dtype: str, n: int, n_steps: int) -> None:
    rng = np.random.default_rng(n)
    v, beta = rng.uniform(-1, 1, n).astype(dtype), rng.uniform(0.5, 1, n).astype(dtype)
    wanted, bias = v.copy(), np.zeros(n, dtype)
    through_wait(v, beta, bias, n_steps)
    with poisoned(fused_runs):
        fused_runs.wait_columns(wanted, beta, bias, n_steps)
    assert_same_bits(v, wanted)


@pytest.mark.parametrize(("early", "until", "stop"), [(False, 70, 70), (True, 70, 9), (True, 9, 9), (True, 12, 9)])
def test_where_a_run_ends(early: bool, until: int, stop: int) -> None:
    """Rows come at steps 0, 8 and 60, and lift nobody; 7 silent steps are too few to end for."""
    v, neurons = np.zeros(20, np.float32), [np.full(20, x, np.float32) for x in (0.5, 9, 0)]
    begins = np.searchsorted([0, 8, 60], np.arange(71))
    given = (np.ones((1, 20), np.float32), np.zeros(3, np.int32), begins)
    own = (np.zeros((0, 20), np.float32), np.zeros(1, np.int32), 0, 0)
    ends, places, args = (
        np.full(71, -7),
        np.zeros(40, np.int32),
        (*neurons, np.zeros(20, np.uint8), np.ones(1, np.float32)),
    )
    wanted, wanted_ends = v.copy(), ends.copy()
    assert through_run(v, args, 0, given, own, (0, until, early, ends), places) == stop
    with poisoned(fused_runs):
        fused_runs.run_columns(wanted, args, 0, given, own, (0, until, early, wanted_ends), places, 3)
    assert_same_bits(v, wanted)
    np.testing.assert_array_equal(ends, wanted_ends)
    assert (ends[1 : stop + 1] == 3).all()
    assert (ends[stop + 1 :] == -7).all()


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_steps_of_any_width(data: Any) -> None:
    n = data.draw(st.sampled_from([1, 16, 20, 63, 100, 128, 200, 256, 272, 300, 530]))
    touched = data.draw(st.sampled_from([None, 1.0, 0.5, 0.2, 0.0]))
    dtype, reset = data.draw(st.sampled_from(DTYPES)), data.draw(st.integers(0, 2))
    check_step(dtype, n, touched, reset, data.draw(st.integers(0, 99)), small=data.draw(st.booleans()))
    check_wait(dtype, n, data.draw(st.integers(0, 140)))


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    n_steps=st.sampled_from([3, 1, 0]), n_units=st.sampled_from([1, 8, 16, 17, 40, 144]), dtype=st.sampled_from(DTYPES),
    density=st.sampled_from([0.05, 0.0, 1.0]), group=st.sampled_from([1, 0]), seed=st.integers(0, 99),
)  # fmt: skip
def test_touched_lines(n_steps: int, n_units: int, dtype: str, density: float, group: int, seed: int) -> None:
    group = group or n_units
    case = make_case(
        n_steps=n_steps, n_units=n_units, group=group, opened=density, dtype=dtype, seed=seed, recurrent=False
    )  # fmt: skip
    table, lanes = simulation.table_of(case.layer), 64 // np.dtype(dtype).itemsize
    is_open = np.repeat(case.layer.gate.open[0], group, axis=1)
    np.testing.assert_array_equal(table.open, is_open)
    for t in range(n_steps):
        wanted = [low for low in range(0, n_units, lanes) if is_open[t, low : low + lanes].any()]
        assert table.lines[table.ptr[t] : table.ptr[t + 1]].tolist() == wanted
    assert len(table.lines) >= table.ptr[-1] + 16


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["generic", "haswell"])
def test_steps_on_other_processors(kind: str, tmp_path: Path) -> None:
    """A fresh process compiles for processors without AVX-512, and without AVX."""
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    env |= {"NUMBA_CPU_NAME": kind, "NUMBA_CPU_FEATURES": "+avx2,+avx" if kind == "haswell" else ""}
    found = subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "False"


if __name__ == "__main__":
    n_fired = 0
    for n_columns in (530, 90, 15, 33):
        for share in (None, 0.7, 1.0):
            n_fired += sum(check_step("float32", n_columns, share, mode, mode) for mode in range(3))
        n_fired += check_step("float32", n_columns, None, 0, 0, small=True)
        check_wait("float32", n_columns, 130)
    assert n_fired > 300, n_fired
    sys.stdout.write(str(compress.COMPRESSES))
