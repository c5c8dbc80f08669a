"""A batch run part by part and merged is the batch run at once, in every field; and how it is cut into parts."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suspike_testing.chains import make_chain, make_recordings
from suspike_testing.comparing import assert_same_result

from suspike import _scale
from suspike._scale import cut, merge
from suspike.simulate import State, simulate

PROBE = {"hidden0": [3, 0, 3], "hidden2": [], "out": [2]}


def run_in_parts(graph: Any, events: Any, bounds: list[int], **options: Any) -> Any:
    results = []
    for low, high in pairwise(bounds):
        part, state, n_steps = _scale._part(low, high, events, options.get("state"), options.get("n_steps"))
        results.append(simulate(graph, part, **options | {"state": state, "n_steps": n_steps}))
    return merge(results, graph)


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(
    n_samples=st.sampled_from([6, 3, 1, 0]),
    n_steps=st.sampled_from([30, 7, 1, 0]),
    dtype=st.sampled_from(["float32", "float64"]),
    ends=st.booleans(),
    goes_on=st.booleans(),
    probed=st.booleans(),
    readout=st.booleans(),
    cuts=st.lists(st.integers(0, 6), max_size=4),
    seed=st.integers(0, 99),
)
def test_parts_merged_are_the_whole(
    n_samples: int, n_steps: int, dtype: str, ends: bool, goes_on: bool, probed: bool, readout: bool, cuts: list[int],
    seed: int,
) -> None:  # fmt: skip
    graph = make_chain(dtype=dtype, readout=readout, seed=seed)
    lengths = np.random.default_rng(seed).integers(0, n_steps + 1, n_samples) if ends else None
    options: dict[str, Any] = {"n_steps": lengths, "n_threads": 1}
    if probed:
        options["probe"] = {name: units for name, units in PROBE.items() if readout or name != "out"}
    if goes_on:
        options["state"] = simulate(graph, make_recordings(n_samples, 9, seed=seed)).state
    events = make_recordings(n_samples, n_steps, lengths=lengths, seed=seed)
    bounds = [0, *sorted(min(c, n_samples) for c in cuts), n_samples]
    assert_same_result(run_in_parts(graph, events, bounds, **options), simulate(graph, events, **options))


def test_enough_happens_in_what_is_compared() -> None:
    lengths = np.array([30, 12, 5, 0])
    events = make_recordings(4, lengths=lengths)
    whole = simulate(make_chain(), events, n_steps=lengths)
    for counts in whole.counts[:-1]:
        assert counts.spikes > 50
        assert counts.updates_skipped > 50
        assert counts.gate_evaluations > 0
    assert np.ptp(whole.output) > 1
    shorter = simulate(make_chain(), events.take([1, 2]), n_steps=lengths[1:3])
    assert [counts.gate_evaluations for counts in shorter.counts] == [12 * 20, 12 * 20, 17 * 5, 17 * 20, 0]


def test_the_comparison_fails_on_each_part() -> None:
    whole = simulate(make_chain(), make_recordings(3), probe=PROBE)
    assert whole.output is not None
    layer, seen = whole.state.layers["hidden1"], whole.probes["hidden0"]
    for wrong in (
        whole._replace(output=None),
        whole._replace(output=-whole.output),
        whole._replace(spikes=whole.spikes[:-1]),
        whole._replace(spikes=(*whole.spikes[:-1], whole.spikes[0])),
        whole._replace(counts=(*whole.counts[:-1], whole.counts[-1]._replace(steps=1))),
        whole._replace(state=whole.state._replace(t=1)),
        whole._replace(state=whole.state._replace(layers={})),
        whole._replace(state=State(30, whole.state.layers | {"hidden1": layer._replace(spk=-layer.spk)})),
        whole._replace(probes={}),
        whole._replace(probes=whole.probes | {"hidden0": seen._replace(is_open=seen.is_open.astype(np.int8))}),
        whole._replace(probes=whole.probes | {"hidden0": seen._replace(spk=1 - seen.spk)}),
    ):
        with pytest.raises(AssertionError):
            assert_same_result(wrong, whole)


def test_a_merged_result_holds_no_memory_of_its_parts() -> None:
    graph, events = make_chain(), make_recordings(3)
    part = simulate(graph, events, probe=PROBE)
    whole = merge([part], graph)
    assert_same_result(whole, part)
    mine = [whole.output, *whole.probes["hidden0"], *whole.state.layers["hidden1"], whole.spikes[0].idx]
    theirs = [part.output, *part.probes["hidden0"], *part.state.layers["hidden1"], part.spikes[0].idx]
    assert not any(np.shares_memory(a, b) for a, b in zip(mine, theirs, strict=True))


def test_nothing_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match=r"^`results` must be at least one, got none\.$"):
        merge([], make_chain())


def test_parts_have_about_as_many_events_and_steps() -> None:
    events = make_recordings(200, 50)
    bounds = cut(events, None, n_shards=8)
    assert len(bounds) == 9
    assert (bounds[0], bounds[-1]) == (0, 200)
    sizes = [int(events.ptr[high - 1, -1] - events.ptr[low, 0]) + 50 * (high - low) for low, high in pairwise(bounds)]
    largest = 50 * 13  # one sample at most: every unit at every step, and the steps
    assert max(sizes) - min(sizes) <= 2 * largest
    assert np.diff(bounds)[-1] > 3 * np.diff(bounds)[0]
    silent = cut(make_recordings(4, lengths=np.zeros(4)), np.array([30, 0, 0, 30]), n_shards=2)
    assert silent in ([0, 1, 4], [0, 2, 4], [0, 3, 4])


@pytest.mark.parametrize(
    ("n_samples", "n_steps", "wanted"), [(0, 9, [0, 0]), (1, 9, [0, 1]), (5, 0, [0, 5]), (3, 9, [0, 1, 2, 3])]
)
def test_few_samples(n_samples: int, n_steps: int, wanted: list[int]) -> None:
    assert cut(make_recordings(n_samples, n_steps), None, n_shards=16) == wanted


def test_a_part_is_not_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    events = make_recordings(40)
    one, total = 30 * 13, len(events.idx) + 40 * 30  # the largest that a sample can be, and all of them
    monkeypatch.setattr(_scale, "LARGEST", total // 9)
    bounds = cut(events, None, n_shards=1)
    sizes = [int(events.ptr[b - 1, -1] - events.ptr[a, 0]) + 30 * (b - a) for a, b in pairwise(bounds)]
    assert sum(sizes) == total
    assert 9 <= len(sizes) <= 10
    assert max(sizes) <= total // 9 + one


def test_a_worker_runs_what_it_is_sent_with_aligned_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, lengths = make_chain(), np.array([30, 7])
    raw = np.zeros(graph.layers[0].weight.nbytes + 1, np.uint8)
    weight = raw[1:].view(np.float32).reshape(graph.layers[0].weight.shape)
    weight[...] = graph.layers[0].weight
    weight.flags.writeable = False
    assert not weight.flags.aligned
    crooked = replace(graph, layers=(replace(graph.layers[0], weight=weight), *graph.layers[1:]))
    straight = _scale._settled(crooked)
    assert straight.layers[0].weight.flags.aligned
    assert straight.layers[0].weight.flags.writeable
    np.testing.assert_array_equal(straight.layers[0].weight, weight)
    assert [type(layer.neuron.gate) for layer in straight.layers] == [type(x.neuron.gate) for x in graph.layers]
    events = make_recordings(2, lengths=lengths)
    ptr = np.zeros(events.ptr.nbytes + 1, np.uint8)[1:].view(np.int64).reshape(events.ptr.shape)
    ptr[...] = events.ptr
    ran: list[Any] = []
    monkeypatch.setattr(_scale, "simulate", lambda *args, **options: ran.append((*args, options)))
    _scale._run(crooked, (events._replace(ptr=ptr), None, lengths), {"out": [0]}, "reference", 3)
    ((network, found, options),) = ran
    assert network.layers[0].weight.flags.aligned
    assert found.ptr.flags.aligned
    np.testing.assert_array_equal(found.ptr, events.ptr)
    assert options.pop("n_steps").tolist() == [30, 7]
    assert options == {"state": None, "probe": {"out": [0]}, "target": "reference", "n_threads": 3}
