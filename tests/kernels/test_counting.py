"""Counts against a loop over every event and every target."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from suspike_testing.cases import Case, cases, make_case

from suspike_kernels import reference
from suspike_kernels.counting import count_layer
from suspike_kernels.counts import Counts

SHARED = ("none", "table")


def brute_force(case: Case, spikes: np.ndarray | None, opened: np.ndarray | None = None) -> Counts:
    """Walk over every sample, step, event and target.

    `spikes` [T, B, N] are those of a layer that fires, `opened` [T, B, N] the neurons that data opened.
    """
    layer = case.layer
    n_samples, n_in = layer.events.n_samples, layer.events.n_units
    n, recurrent, gate = len(layer.synapses.bias), len(layer.synapses.recurrent) > 0, layer.gate
    n_input_gates = gate.a.shape[2] if gate.kind == 2 else 0
    seen = dict.fromkeys(Counts._fields[3:], 0)
    steps, arriving = 0, layer.events.dense(np.int64)
    for b in range(n_samples):
        for t in range(reference.steps_of(layer, b)):
            if opened is not None:
                is_open = [bool(x) for x in opened[t, b]]
            else:
                is_open = [not gate.kind or bool(gate.open[0, t, k]) for k in range(n)]
            summed = [True] * n if gate.kind == 3 else is_open
            steps += 1
            seen["updates_done"] += sum(is_open)
            seen["updates_skipped"] += n - sum(is_open)
            seen["gate_evaluations"] += n if gate.kind == 3 else n_input_gates
            n_arriving = int(arriving[t, b].sum())
            seen["gate_synops"] += n_arriving * n_input_gates
            n_own = 0 if spikes is None else int(layer.spk[b].sum() if t == 0 else spikes[t - 1, b].sum())
            seen["gate_synops"] += n_own * n_input_gates if len(gate.recurrent) else 0
            n_arriving += n_own if recurrent else 0
            for _ in range(n_arriving):
                seen["events"] += 1
                seen["rows_fetched"] += any(summed)
                seen["synops_done"] += sum(summed)
                seen["synops_skipped"] += n - sum(summed)
            seen["spikes"] += 0 if spikes is None else int(spikes[t, b].sum())
    seen["synops_done"] += seen["gate_synops"]
    seen["state_words"] = len(layer.state)
    seen["neurons"] = n
    seen["synapses"] = n_in * n + (n * n if recurrent else 0)
    longest = max((reference.steps_of(layer, b) for b in range(n_samples)), default=0)
    seen["gate_evaluations"] += n * longest if gate.kind == 1 else 0
    return Counts("x", n_samples, steps, **seen)


def count(case: Case, run: Any, **options: Any) -> Counts:
    layer = case.layer
    return count_layer(
        "x",
        layer.events,
        len(layer.synapses.bias),
        spikes=run.spikes,
        recurrent=len(layer.synapses.recurrent) > 0,
        initial_spikes=layer.spk > 0,
        n_steps=layer.n_steps if len(layer.n_steps) else None,
        state_words=len(layer.state),
        **options,
    )


def test_counts_equal_a_loop() -> None:
    skipped = []

    @settings(max_examples=200, deadline=None, derandomize=True, database=None)
    @given(cases(dtypes=("float32",), gates=SHARED))
    def check(case: Case) -> None:
        run, gate = case.forward(reference), case.layer.gate
        table = np.repeat(gate.open[0], len(case.layer.synapses.bias) // gate.open.shape[2], 1) if gate.kind else None
        counts = count(case, run, gate=table)
        wide = gate if table is None else gate._replace(open=table[None])
        assert counts == brute_force(case.with_gate(wide), run.spikes.dense(np.int64))
        assert all(type(x) is int for x in counts[1:])
        skipped.append(counts.synops_skipped)

    check()
    assert sum(x > 0 for x in skipped) > 10


def test_counts_of_gates_that_data_open_equal_a_loop() -> None:
    skipped = []

    @settings(max_examples=100, deadline=None, derandomize=True, database=None)
    @given(cases(dtypes=("float32",), gates=("input", "drive")))
    def check(case: Case) -> None:
        run, layer, gate = case.forward(reference), case.layer, case.layer.gate
        opened = np.zeros((layer.events.n_steps, *layer.spk.shape), bool)
        for b in range(layer.events.n_samples):
            for t, step in enumerate(reference._replay(run.spikes, layer, b)):
                opened[t, b] = step.open
        n_gates = gate.a.shape[2] if gate.kind == 2 else 0
        talks = n_gates if len(gate.recurrent) else 0
        gates = {"input_gates": n_gates, "recurrent_gates": talks, "drive_gate": gate.kind == 3}
        counts = count(case, run, open_at=run.open_at, **gates)
        assert counts == brute_force(case, run.spikes.dense(np.int64), opened)
        assert all(type(x) is int for x in counts[1:])
        skipped.append((gate.kind, counts.synops_skipped, counts.updates_skipped))

    check()
    assert not any(synops for kind, synops, _ in skipped if kind == 3), "a drive gate sees all currents"
    assert sum(updates > 0 for kind, _, updates in skipped if kind == 3) > 10
    assert sum(synops > 0 for kind, synops, _ in skipped if kind == 2) > 5


def test_a_readout_always_updates_and_never_fires() -> None:
    case = make_case(recurrent=False, gate="none")
    counts = count_layer("x", case.layer.events, 6)
    assert counts == brute_force(case, None)
    assert counts.spikes == counts.updates_skipped == counts.synops_skipped == 0
    assert counts.words_read == counts.synops_done + counts.updates_done
    assert counts.words_written == counts.updates_done
    assert counts.dense_synops == counts.synapses * 12 * 4
