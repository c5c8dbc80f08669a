"""Counts against a loop over every event and every target."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from suspike_testing.cases import Case, cases, make_case

from suspike_kernels import reference
from suspike_kernels.counting import Counts, count_layer


def brute_force(case: Case, spikes: np.ndarray | None) -> Counts:
    """Walk over every sample, step, event and target; `spikes` [T, B, N] of a layer that fires."""
    n_steps, n_samples, n_in = case.events.dense().shape
    n, recurrent, gated = len(case.dense.bias), len(case.dense.recurrent) > 0, len(case.gate.open) > 0
    seen = dict.fromkeys(Counts._fields[2:], 0)
    arriving = case.events.dense(np.int64)
    for b in range(n_samples):
        for t in range(n_steps):
            is_open = [not gated or bool(case.gate.open[t, k]) for k in range(n)]
            seen["steps"] += 1
            seen["updates_done"] += sum(is_open)
            seen["updates_skipped"] += n - sum(is_open)
            n_arriving = int(arriving[t, b].sum())
            if recurrent and spikes is not None:
                n_arriving += int(case.spk[b].sum() if t == 0 else spikes[t - 1, b].sum())
            for _ in range(n_arriving):
                seen["events"] += 1
                seen["rows_fetched"] += any(is_open)
                seen["synops_done"] += sum(is_open)
                seen["synops_skipped"] += n - sum(is_open)
            seen["spikes"] += 0 if spikes is None else int(spikes[t, b].sum())
    seen["samples"], seen["neurons"] = n_samples, n
    seen["synapses"] = n_in * n + (n * n if recurrent else 0)
    seen["gate_evaluations"] = n * n_steps if gated else 0
    seen.pop("samples")
    return Counts("x", n_samples, **seen)


def test_counts_equal_a_loop() -> None:
    skipped = []

    @settings(max_examples=80, deadline=None, derandomize=True, database=None)
    @given(cases(dtypes=("float32",)))
    def check(case: Case) -> None:
        run = reference.lif_forward(*case.forward)
        counts = count_layer(
            "x",
            case.events,
            len(case.dense.bias),
            spikes=run.spikes,
            gate=case.gate.open if len(case.gate.open) else None,
            recurrent=len(case.dense.recurrent) > 0,
            initial_spikes=case.spk > 0,
        )
        assert counts == brute_force(case, run.spikes.dense(np.int64))
        assert all(type(x) is int for x in counts[1:])
        skipped.append(counts.synops_skipped)

    check()
    assert sum(x > 0 for x in skipped) > 10


def test_a_readout_always_updates_and_never_fires() -> None:
    case = make_case(recurrent=False, gate="none")
    counts = count_layer("x", case.events, 7)
    assert counts == brute_force(case, None)
    assert counts.spikes == counts.updates_skipped == counts.synops_skipped == 0
    assert counts.words_read == counts.synops_done + counts.updates_done
    assert counts.words_written == counts.updates_done
    assert counts.dense_synops == counts.synapses * 12 * 4
