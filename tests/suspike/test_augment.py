"""Augmentation against plain loops and dense arrays: what leaves is dropped, nothing else is."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suspike.augment import (
    Augment,
    Sample,
    chain,
    drop,
    drop_units,
    jitter_time,
    jitter_units,
    mirror,
    shift,
    shift_time,
    stretch,
)

quiet = settings(deadline=None, derandomize=True, database=None, max_examples=60)
Rng = np.random.Generator

AUGMENTS = {
    "jitter_time": jitter_time(1.5),
    "jitter_units": jitter_units(1.2),
    "drop": drop(0.3),
    "drop_units": drop_units(0.3),
    "stretch": stretch(0.4, 2.5),
    "mirror": mirror(0.5),
    "shift": shift(2, 3),
    "shift_time": shift_time(4),
    "chain": chain(stretch(0.5, 2), shift(1, 1), chain(mirror(0.5), jitter_time(1)), jitter_units(1), drop(0.1)),
    "nothing": chain(),
}
each = pytest.mark.parametrize("augment", AUGMENTS.values(), ids=AUGMENTS.keys())


def sample_of(step: Any, unit: Any, n_steps: int, n_total: int, sensor: tuple[int, int, int]) -> Sample:
    return Sample(np.array(step, np.int64), np.array(unit, np.int32), n_steps, n_total, sensor)


@st.composite
def samples(draw: Callable[..., Any]) -> Sample:
    sensor = (draw(st.integers(1, 2)), draw(st.integers(1, 4)), draw(st.integers(1, 6)))
    n_total = draw(st.integers(1, 12))
    n_steps = draw(st.integers(0, n_total))
    size = draw(st.integers(0, 25)) if n_steps else 0
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    step = np.sort(rng.integers(0, max(n_steps, 1), size))
    return sample_of(step, rng.integers(0, np.prod(sensor), size), n_steps, n_total, sensor)


seeds = st.integers(0, 2**32)


def some(n_events: int = 4000, sensor: tuple[int, int, int] = (2, 34, 34), n_steps: int = 300, room: int = 0) -> Sample:
    rng = np.random.default_rng(8)
    step = np.sort(rng.integers(0, n_steps, n_events))
    return sample_of(step, rng.integers(0, np.prod(sensor), n_events), n_steps, n_steps + room, sensor)


def dense(sample: Sample) -> np.ndarray:
    out = np.zeros((sample.n_total, np.prod(sample.sensor)), int)
    np.add.at(out, (sample.step, sample.unit), 1)
    return out.reshape(sample.n_total, *sample.sensor)


def same(a: Sample, b: Sample) -> bool:
    return a[2:] == b[2:] and np.array_equal(a.step, b.step) and np.array_equal(a.unit, b.unit)


def pairs(sample: Sample) -> list[tuple[int, int]]:
    return list(zip(sample.step.tolist(), sample.unit.tolist(), strict=True))


def x_of(sample: Sample) -> np.ndarray:
    return sample.unit % sample.sensor[2]


@each
@quiet
@given(sample=samples(), seed=seeds)
def test_what_comes_out_is_a_sample(augment: Augment, sample: Sample, seed: int) -> None:
    given_as = (sample.step.copy(), sample.unit.copy())
    out = augment(sample, np.random.default_rng(seed))
    assert out.step.dtype == np.int64
    assert out.unit.dtype == np.int32
    assert len(out.step) == len(out.unit) <= len(sample.step)
    assert (np.diff(out.step) >= 0).all()
    assert (out.step >= 0).all()
    assert (out.step < out.n_steps).all()
    assert ((out.unit >= 0) & (out.unit < np.prod(sample.sensor))).all()
    assert type(out.n_steps) is int
    assert 0 <= out.n_steps <= out.n_total
    assert out[3:] == sample[3:]
    assert np.array_equal(sample.step, given_as[0])
    assert np.array_equal(sample.unit, given_as[1])
    copied = pickle.loads(pickle.dumps(augment))
    assert same(copied(sample, np.random.default_rng(seed)), out)


DRAWS: dict[str, Callable[[Rng, Sample], Any]] = {
    "jitter_time": lambda rng, s: rng.standard_normal(len(s.step)),
    "jitter_units": lambda rng, s: rng.standard_normal(len(s.step)),
    "drop": lambda rng, s: rng.random(len(s.step)),
    "drop_units": lambda rng, s: rng.random(np.prod(s.sensor)),
    "stretch": lambda rng, s: rng.random(),
    "mirror": lambda rng, s: rng.random(),
    "shift": lambda rng, s: (rng.integers(-2, 2, endpoint=True), rng.integers(-3, 3, endpoint=True)),
    "shift_time": lambda rng, s: rng.integers(0, 4, endpoint=True),
    "nothing": lambda rng, s: None,
}


@pytest.mark.parametrize("name", DRAWS)
@quiet
@given(sample=samples(), seed=seeds)
def test_what_is_drawn_depends_on_the_sample_alone(name: str, sample: Sample, seed: int) -> None:
    rng, replayed = np.random.default_rng(seed), np.random.default_rng(seed)
    AUGMENTS[name](sample, rng)
    DRAWS[name](replayed, sample)
    assert rng.bit_generator.state == replayed.bit_generator.state


@quiet
@given(samples(), seeds, st.sampled_from([0.0, 0.4, 3.0]))
def test_jitter_time_moves_each_event_by_itself(sample: Sample, seed: int, std: float) -> None:
    by = np.rint(std * np.random.default_rng(seed).standard_normal(len(sample.step)))
    moved = [(s + int(d), u) for (s, u), d in zip(pairs(sample), by, strict=True)]
    wanted = sorted((e for e in moved if 0 <= e[0] < sample.n_total), key=lambda e: e[0])
    out = jitter_time(std)(sample, np.random.default_rng(seed))
    assert pairs(out) == wanted
    assert out.n_steps == max([sample.n_steps, *(s + 1 for s, _ in wanted)])


@quiet
@given(samples(), seeds, st.sampled_from([0.0, 0.4, 3.0, 1e9]))
def test_jitter_units_moves_each_event_along_its_row(sample: Sample, seed: int, std: float) -> None:
    by = np.rint(std * np.random.default_rng(seed).standard_normal(len(sample.step)))
    width = sample.sensor[2]
    stays = [(s, u + int(d)) for (s, u), d in zip(pairs(sample), by, strict=True) if 0 <= u % width + d < width]
    out = jitter_units(std)(sample, np.random.default_rng(seed))
    assert pairs(out) == stays
    assert out.n_steps == sample.n_steps


def test_jitter_is_as_wide_as_asked_for_and_loses_nothing_where_nothing_can_leave() -> None:
    n = 20_000
    middle = sample_of(np.full(n, 500), np.full(n, 350), 501, 1000, (1, 1, 700))
    in_time = jitter_time(6.0)(middle, np.random.default_rng(0))
    in_place = jitter_units(20.0)(middle, np.random.default_rng(0))
    assert len(in_time.step) == len(in_place.step) == n
    for values, centre, std in ((in_time.step, 500, 6.0), (in_place.unit, 350, 20.0)):
        assert abs(values.mean() - centre) < 4 * std / n**0.5
        assert values.std() == pytest.approx(std, rel=0.03)
    assert in_time.n_steps == in_time.step[-1] + 1 > 501


@quiet
@given(samples(), seeds)
def test_drop_keeps_the_rest_in_order(sample: Sample, seed: int) -> None:
    stays = np.random.default_rng(seed).random(len(sample.step)) >= 0.4
    out = drop(0.4)(sample, np.random.default_rng(seed))
    assert pairs(out) == [e for e, kept in zip(pairs(sample), stays, strict=True) if kept]
    assert out.n_steps == sample.n_steps
    for augment in (drop, drop_units):
        assert same(augment(0)(sample, np.random.default_rng(seed)), sample)
        assert not len(augment(1)(sample, np.random.default_rng(seed)).step)


@quiet
@given(samples(), seeds)
def test_a_dropped_unit_is_silent_and_the_others_are_whole(sample: Sample, seed: int) -> None:
    before = Counter(sample.unit.tolist())
    out = drop_units(0.5)(sample, np.random.default_rng(seed))
    after = Counter(out.unit.tolist())
    assert all(after[u] in (0, before[u]) for u in before)
    assert pairs(out) == [e for e in pairs(sample) if e[1] in after]


def test_as_many_are_dropped_as_asked_for() -> None:
    sample = some()
    rngs = np.random.default_rng(0).spawn(50)
    events = [len(drop(0.2)(sample, rng).step) for rng in rngs]
    units = [len(np.unique(drop_units(0.2)(sample, rng).unit)) for rng in rngs]
    there = len(np.unique(sample.unit))
    for counts, n in ((events, 4000), (units, there)):
        assert abs(np.mean(counts) - 0.8 * n) < 4.5 * (0.16 * n / 50) ** 0.5
        assert len(set(counts)) > 10


@quiet
@given(samples(), seeds, st.sampled_from([(0.3, 0.9), (0.8, 1.25), (2.0, 2.0), (1.0, 9.0)]))
def test_stretch_moves_events_and_end_alike(sample: Sample, seed: int, limits: tuple[float, float]) -> None:
    low, high = limits
    a = low + (high - low) * np.random.default_rng(seed).random()
    out = stretch(low, high)(sample, np.random.default_rng(seed))
    assert pairs(out) == [(int(a * s), u) for s, u in pairs(sample) if int(a * s) < sample.n_total]
    assert out.n_steps == min(int(np.ceil(a * sample.n_steps)), sample.n_total)
    assert same(stretch(1, 1)(sample, np.random.default_rng(seed)), sample)


def test_stretch_factors_cover_the_range() -> None:
    sample = some(n_steps=1000, room=1000)
    lengths = [stretch(0.5, 2)(sample, rng).n_steps for rng in np.random.default_rng(0).spawn(300)]
    assert 500 <= min(lengths) < 520
    assert 1980 < max(lengths) <= 2000
    assert abs(np.mean(lengths) - 1250) < 4.5 * 1500 / 12**0.5 / 300**0.5


@quiet
@given(samples(), seeds)
def test_mirror_swaps_left_and_right(sample: Sample, seed: int) -> None:
    once = mirror(1)(sample, np.random.default_rng(seed))
    assert np.array_equal(dense(once), dense(sample)[..., ::-1])
    assert np.array_equal(x_of(once), sample.sensor[2] - 1 - x_of(sample))
    assert same(mirror(1)(once, np.random.default_rng(seed)), sample)
    assert same(mirror(0)(sample, np.random.default_rng(seed)), sample)
    for share in (0, 1):
        rng = np.random.default_rng(seed)
        mirror(share)(sample, rng)
        assert rng.random() == np.random.default_rng(seed).random(2)[1]


def test_mirror_swaps_as_many_as_asked_for() -> None:
    sample = some(200)
    n = sum(not same(mirror(0.3)(sample, rng), sample) for rng in np.random.default_rng(0).spawn(400))
    assert abs(n - 120) < 4.5 * (400 * 0.21) ** 0.5


def padded(array: np.ndarray, by: int, axis: int) -> np.ndarray:
    """Move along an axis; what leaves is gone, what comes in is empty."""
    n = array.shape[axis]
    by = max(-n, min(n, by))
    rolled = np.moveaxis(np.roll(array, by, axis), axis, 0).copy()
    rolled[: max(by, 0)] = 0
    rolled[n + min(by, 0) :] = 0
    return np.moveaxis(rolled, 0, axis)


@quiet
@given(samples(), seeds, st.sampled_from([0, 1, 2, 7]), st.sampled_from([0, 1, 3, 8]))
def test_shift_moves_the_whole_recording(sample: Sample, seed: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    i, j = rng.integers(-rows, rows, endpoint=True), rng.integers(-columns, columns, endpoint=True)
    out = shift(rows, columns)(sample, np.random.default_rng(seed))
    assert np.array_equal(dense(out), padded(padded(dense(sample), int(i), 2), int(j), 3))
    assert out.n_steps == sample.n_steps


def test_shift_reaches_every_place_and_far_beyond() -> None:
    middle = sample_of([0], [2 * 7 + 3], 1, 1, (1, 5, 7))
    rngs = np.random.default_rng(0).spawn(300)
    assert {int(shift(2, 3)(middle, rng).unit[0]) for rng in rngs} == set(range(35))
    assert sum(len(shift(10**9, 10**9)(middle, rng).step) for rng in rngs) == 0


@quiet
@given(samples(), seeds, st.sampled_from([0, 1, 5, 30, 10**9]))
def test_shift_time_starts_later(sample: Sample, seed: int, steps: int) -> None:
    by = int(np.random.default_rng(seed).integers(0, steps, endpoint=True))
    out = shift_time(steps)(sample, np.random.default_rng(seed))
    assert np.array_equal(dense(out), padded(dense(sample), by, 0))
    assert out.n_steps == min(sample.n_steps + by, sample.n_total)


def test_shift_time_draws_each_delay() -> None:
    one = sample_of([0], [0], 1, 10, (1, 1, 1))
    assert {int(shift_time(3)(one, rng).step[0]) for rng in np.random.default_rng(0).spawn(100)} == {0, 1, 2, 3}


@quiet
@given(samples(), seeds)
def test_a_chain_is_one_after_the_other(sample: Sample, seed: int) -> None:
    parts = [AUGMENTS[name] for name in ("stretch", "shift", "jitter_time", "drop")]
    rng = np.random.default_rng(seed)
    wanted = sample
    for part in parts:
        wanted = part(wanted, rng)
    assert same(chain(*parts)(sample, np.random.default_rng(seed)), wanted)
    assert same(chain(chain(*parts[:2]), chain(), *parts[2:])(sample, np.random.default_rng(seed)), wanted)


@pytest.mark.parametrize("name", sorted(AUGMENTS.keys() - {"nothing"}))
def test_another_generator_makes_another_recording(name: str) -> None:
    sample = some(500, room=500)
    out = [AUGMENTS[name](sample, rng) for rng in np.random.default_rng(1).spawn(20)]
    assert not all(same(out[0], other) for other in out)


def test_a_worker_unpickles_them_without_torch() -> None:
    program = (
        "import pickle, sys, numpy as np\n"
        "augment, sample = pickle.load(sys.stdin.buffer)\n"
        "out = augment(sample, np.random.default_rng(5))\n"
        "assert 'torch' not in sys.modules\n"
        "sys.stdout.buffer.write(pickle.dumps(out))"
    )
    sample = some(300, room=50)
    sent = pickle.dumps((AUGMENTS["chain"], sample))
    said = subprocess.run([sys.executable, "-c", program], input=sent, check=True, capture_output=True)
    assert same(pickle.loads(said.stdout), AUGMENTS["chain"](sample, np.random.default_rng(5)))


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (jitter_time, (-1,), "`std_steps` must be a number from 0 to 1e+09, got -1."),
        (jitter_units, (float("nan"),), "`std` must be a number from 0 to 1e+09, got nan."),
        (jitter_units, ("2",), "`std` must be a number from 0 to 1e+09, got '2'."),
        (drop, (1.5,), "`share` must be a number from 0 to 1, got 1.5."),
        (drop_units, (True,), "`share` must be a number from 0 to 1, got True."),
        (mirror, (None,), "`share` must be a number from 0 to 1, got None."),
        (stretch, (0, 1), "`low` must be above 0 and up to `high` = 1, got 0."),
        (stretch, (2, 1.5), "`low` must be above 0 and up to `high` = 1.5, got 2."),
        (stretch, (1, float("inf")), "`high` must be a number from 0 to 1e+09, got inf."),
        (shift, (1.5, 0), "`rows` must be a whole number from 0 to 1e+09, got 1.5."),
        (shift, (1, -2), "`columns` must be a whole number from 0 to 1e+09, got -2."),
        (shift_time, (True,), "`steps` must be a whole number from 0 to 1e+09, got True."),
        (chain, (chain(), 3), "`augments[1]` must be callable (sample, generator) -> sample, got 3."),
    ],
)
def test_errors(make: Callable[..., Augment], arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match="must be") as caught:
        make(*arguments)
    assert str(caught.value) == message
