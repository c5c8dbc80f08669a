"""Encoders against their equations, a membrane, a plain loop, and snnTorch's."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from suspike_datasets.binning import bin_events
from suspike_datasets.encoders import delta_code, latency_code, rate_code
from suspike_datasets.sets import T_END_US, check_set

quiet = settings(deadline=None, derandomize=True, database=None, max_examples=200)


def per_step(events, dt_us, n_steps):
    """Counts [B, T, n]."""
    binned = bin_events(events, dt_us=dt_us, n_steps=n_steps)
    row = np.repeat(np.arange(events.n_recordings * n_steps), np.diff(binned.ptr).ravel())
    shape = (events.n_recordings, n_steps, events.n_units)
    return np.bincount(row * events.n_units + binned.idx, minlength=math.prod(shape)).reshape(shape)


def times(events, b):
    """The time of each unit of recording b, or -1."""
    found = np.full(events.n_units, -1)
    part = slice(events.start[b], events.start[b + 1])
    assert len(set(events.unit[part])) == len(events.unit[part])
    found[events.unit[part]] = events.t[part]
    return found


def test_rates_are_those_of_the_values():
    values = np.linspace(0, 1, 40).reshape(1, 4, 10).repeat(2, 0)
    n_steps, dt_us, max_hz = 4000, 250, 1600.0
    events = check_set(rate_code(values, n_steps=n_steps, dt_us=dt_us, max_hz=max_hz, seed=3), "here")
    assert events.sensor == (1, 1, 40)
    assert events.labels.tolist() == [-1, -1]
    counts = per_step(events, dt_us, n_steps)
    assert counts.max() == 1
    assert (events.t % dt_us == 0).all()
    p = values.reshape(2, 40) * 0.4
    sigma = np.sqrt(n_steps * p * (1 - p))
    assert (np.abs(counts.sum(1) - n_steps * p) <= 4.5 * sigma).all()
    # steps follow each other at random: as many spikes behind a spike as anywhere
    pairs = (counts[:, 1:] & counts[:, :-1]).sum(1)
    assert (np.abs(pairs - n_steps * p**2) <= 4.5 * np.sqrt(n_steps * p**2 * (1 - p) * (1 + 3 * p)) + 1e-9).all()
    assert (counts[0] != counts[1]).any()


def test_rate_ends_are_certain():
    for dt_us in (1, 3, 7, 1000):  # 1e6 / 3 is no float
        events = rate_code(np.array([[0.0, 1.0]]), n_steps=500, dt_us=dt_us, max_hz=1e6 / dt_us, seed=0)
        assert events.unit.tolist() == [1] * 500
        assert events.t.tolist() == [dt_us * s for s in range(500)]
    assert not len(rate_code(np.ones((2, 3)), n_steps=50, dt_us=1000, max_hz=0, seed=0).t)
    assert check_set(rate_code(np.ones((0, 3)), n_steps=50, dt_us=1000, max_hz=0, seed=0), "here").start.tolist() == [0]


def test_a_recording_follows_from_seed_and_values_alone():
    values = np.random.default_rng(0).random((4, 5))
    arguments = {"n_steps": 60, "dt_us": 1000, "max_hz": 500}
    whole = rate_code(values, seed=7, labels=[3, 1, 2, 0], **arguments)
    assert whole.labels.tolist() == [3, 1, 2, 0]
    changed = values.copy()
    changed[0] = 1
    again = rate_code(changed, seed=7, **arguments)
    for b in (1, 2, 3):
        np.testing.assert_array_equal(whole.recording(b), again.recording(b))
    first = rate_code(values[:2], seed=7, **arguments)
    np.testing.assert_array_equal(first.recording(1), whole.recording(1))
    other = rate_code(values, seed=(7, 1), **arguments)
    assert any(len(other.recording(b)) != len(whole.recording(b)) for b in range(4))


def test_images_are_numbered_as_a_camera_is():
    images = np.zeros((1, 2, 3, 4))
    images[0, 1, 2, 0] = 1
    events = latency_code(images, t_max_us=10, threshold=0.5)._replace(sensor=(2, 3, 4))
    assert check_set(events, "here").recording(0).tolist() == [(0, 2, 0, 1)]


shapes = st.tuples(st.integers(0, 3), st.integers(1, 6))
values_01 = shapes.flatmap(lambda s: arrays(np.float64, s, elements=st.floats(0, 1)))
thresholds = st.sampled_from([0.01, 0.2, 0.25, 0.5, 1.0])


@quiet
@given(values_01, st.sampled_from([0, 1, 99, 100_000, T_END_US - 1]), thresholds | st.just(0.0))
def test_linear_latency(values, t_max_us, threshold):
    events = check_set(latency_code(values, t_max_us=t_max_us, threshold=threshold), "here")
    for b in range(len(values)):
        wanted = [round(t_max_us * (1 - x)) if x >= threshold else -1 for x in values[b]]
        assert times(events, b).tolist() == wanted


@quiet
@given(values_01, st.sampled_from([0, 1000, 100_000]), st.sampled_from([1.0, 333.3, 20_000.0]), thresholds)
def test_logarithmic_latency(values, t_max_us, tau_us, threshold):
    events = check_set(latency_code(values, t_max_us=t_max_us, tau_us=tau_us, threshold=threshold), "here")
    for b in range(len(values)):
        for x, t in zip(values[b], times(events, b), strict=True):
            # near the threshold the difference loses digits: by how much says what a bit of x changes
            exact = tau_us * (math.log(x) - math.log(x - threshold)) if x > threshold else math.inf
            slack = 0.5 + 1e-6 * (1 + exact) + tau_us * 1e-15 / (x - threshold) if x > threshold else 0
            if t >= 0:
                assert abs(t - exact) <= slack
            else:
                assert exact > t_max_us + 0.5 - slack


def test_logarithmic_latency_is_the_time_a_membrane_takes():
    values, tau_us, threshold, dt_us = np.linspace(0, 1, 50), 20_000, 0.3, 10
    events = latency_code(values[None], t_max_us=60_000, tau_us=tau_us, threshold=threshold)
    u, reached = np.zeros(50), np.full(50, -1)
    for s in range(1, 6001):
        u += (values - u) * -math.expm1(-dt_us / tau_us)
        reached[(reached < 0) & (u >= threshold)] = s * dt_us
    found = times(events, 0)
    assert ((found < 0) == (reached < 0)).all()
    assert (np.abs(found - reached)[found >= 0] <= dt_us).all()
    assert 20 < (found >= 0).sum() < 40


def test_spikes_of_one_time_are_in_the_order_of_units():
    events = latency_code(np.array([[0.5, 1, 0.5, 1, 0]]), t_max_us=8, threshold=0.25)
    assert events.unit.tolist() == [1, 3, 0, 2]
    assert events.t.tolist() == [0, 0, 4, 4]


def levels_of(events, n_samples, dt_us):
    """ON less OFF events of each channel up to each sample, [S, C]."""
    c = events.sensor[2]
    change = np.zeros((n_samples, c), np.int64)
    np.add.at(change, (events.t // dt_us, events.unit % c), np.where(events.unit >= c, 1, -1))
    return change.cumsum(0)


signals = st.tuples(st.integers(1, 12), st.integers(1, 4)).flatmap(
    lambda s: arrays(np.float64, s, elements=st.floats(-50, 50) | st.integers(-40, 40).map(lambda k: k * 0.1))
)


@quiet
@given(signals, st.sampled_from([0.1, 0.3, 1.0, 7.5]), st.sampled_from([-3.0, 0.0, 1e6]))
def test_who_knows_the_first_sample_follows_the_signal(signal, threshold, offset):
    signal = signal + offset
    events = check_set(delta_code(signal, dt_us=100, threshold=threshold), "here")
    assert events.sensor == (2, 1, signal.shape[1])
    assert (events.t > 0).all()
    levels = levels_of(events, len(signal), 100)
    assert (np.abs(signal - (signal[0] + levels * threshold)) < threshold).all()
    assert len(events.t) == np.abs(np.diff(levels, axis=0)).sum()  # no ON and OFF of one channel at once
    unit = events.unit % signal.shape[1]
    assert (np.diff(unit)[np.diff(events.t) == 0] >= 0).all()


@quiet
@given(
    st.lists(st.integers(-12, 12), min_size=1, max_size=30),
    st.sampled_from([0.25, 0.5, 1.0, 2.0]),
)
def test_events_are_sent_when_the_signal_has_moved_and_not_before(path, threshold):
    signal = np.array(path) * 0.25  # whole multiples: every sum is exact
    wanted, ref = [], signal[0]
    for s, x in enumerate(signal):
        while x - ref >= threshold:
            ref += threshold
            wanted.append((s, 1))
        while ref - x >= threshold:
            ref -= threshold
            wanted.append((s, 0))
    events = delta_code(signal[:, None], dt_us=1, threshold=threshold, label=4)
    assert list(zip(events.t.tolist(), events.unit.tolist(), strict=True)) == wanted
    assert events.recording(0)["p"].tolist() == [p for _, p in wanted]
    assert events.labels.tolist() == [4]


def test_thresholds_near_the_smallest_end():
    signal = np.array([[1.0, -1.0], [1.0 + 2**-20, -1.0], [1.0, -1.0]])
    events = delta_code(signal, dt_us=1, threshold=2.0**-31)
    assert len(events.t) == 2 * 2**11
    assert levels_of(events, 3, 1)[-1].tolist() == [0, 0]
    assert not len(delta_code(np.full((5, 2), 3), dt_us=1, threshold=1e-300 + 1e-9).t)
    assert not len(delta_code(np.zeros((5, 2)), dt_us=1, threshold=1e-300).t)


VALUES = np.array([[0.5, 0.25]])
RATE = {"values": VALUES, "n_steps": 5, "dt_us": 1000, "max_hz": 100, "seed": 0}
LATENCY = {"values": VALUES, "t_max_us": 100, "threshold": 0.25}
DELTA = {"signal": VALUES, "dt_us": 1000, "threshold": 0.5}


@pytest.mark.parametrize(
    (
        "encode",
        "arguments",
        "error",
        "message",
    ),
    [
        (
            rate_code,
            {"values": np.array([[0.5, 1.5]])},
            ValueError,
            "`values` must be from 0 to 1, got 1.5 at [0, 1]. Scale them first.",
        ),
        (
            rate_code,
            {"values": np.array([[np.nan]])},
            ValueError,
            "`values` must be from 0 to 1, got nan at [0, 0]. Scale them first.",
        ),
        (
            rate_code,
            {"values": np.ones(3)},
            ValueError,
            "`values` must be of shape [B, ...] with 1 to 16777215 values each, got [3].",
        ),
        (
            rate_code,
            {"values": np.ones((3, 0))},
            ValueError,
            "`values` must be of shape [B, ...] with 1 to 16777215 values each, got [3, 0].",
        ),
        (
            rate_code,
            {"values": np.array([["a"]])},
            TypeError,
            "`values` must be an array of numbers, got <U1.",
        ),
        (
            rate_code,
            {"max_hz": 1001},
            ValueError,
            "`max_hz` must be up to a spike a step, 1000, got 1001. Shorten `dt_us`.",
        ),
        (
            rate_code,
            {"max_hz": -1},
            ValueError,
            "`max_hz` must be from 0 to 1e+06, got -1.",
        ),
        (
            rate_code,
            {"n_steps": 2_147_484},
            ValueError,
            "`n_steps` must be from 1 to 2147483, got 2147484.",
        ),
        (
            rate_code,
            {"seed": None},
            TypeError,
            "`seed` must be an integer, got None.",
        ),
        (
            rate_code,
            {"labels": [1, 2]},
            ValueError,
            "`labels` must be those of 1 recordings, got shape (2,).",
        ),
        (
            latency_code,
            {"values": -VALUES},
            ValueError,
            "`values` must be from 0 to 1, got -0.5 at [0, 0]. Scale them first.",
        ),
        (
            latency_code,
            {"t_max_us": 0.5},
            TypeError,
            "`t_max_us` must be an integer, got 0.5.",
        ),
        (
            latency_code,
            {"threshold": 1.1},
            ValueError,
            "`threshold` must be from 0 to 1, got 1.1.",
        ),
        (
            latency_code,
            {"threshold": 0, "tau_us": 10},
            ValueError,
            "`threshold` must be above 0 with `tau_us`, got 0: every value would reach it at once.",
        ),
        (
            latency_code,
            {"tau_us": 0},
            ValueError,
            "`tau_us` must be from 1 to 2.14748e+09, got 0.",
        ),
        (
            delta_code,
            {"signal": np.array([[0.0], [np.inf]])},
            ValueError,
            "`signal` must be finite and below 1e+300, got inf at sample 1, channel 0.",
        ),
        (
            delta_code,
            {"signal": np.array([[0.0], [-1e301]])},
            ValueError,
            "`signal` must be finite and below 1e+300, got -1e+301 at sample 1, channel 0.",
        ),
        (
            delta_code,
            {"signal": np.zeros(3)},
            ValueError,
            "`signal` must be of shape [S, C] with samples and channels, got [3].",
        ),
        (
            delta_code,
            {"signal": np.zeros((0, 3))},
            ValueError,
            "`signal` must be of shape [S, C] with samples and channels, got [0, 3].",
        ),
        (
            delta_code,
            {"signal": np.zeros((3, 1)), "threshold": 0},
            ValueError,
            "`threshold` must be above 0, 2^-32 of the largest value, got 0.",
        ),
        (
            delta_code,
            {"threshold": 0},
            ValueError,
            "`threshold` must be above 1.16415e-10, 2^-32 of the largest value, got 0.",
        ),
        (
            delta_code,
            {"threshold": 1e-10},
            ValueError,
            "`threshold` must be above 1.16415e-10, 2^-32 of the largest value, got 1e-10.",
        ),
        (
            delta_code,
            {"signal": np.zeros((3, 1)), "dt_us": 2**30},
            ValueError,
            "`dt_us` must end 3 samples before 2147483648 us, got 1073741824.",
        ),
    ],
)
def test_errors(encode, arguments, error, message):
    rest = {rate_code: RATE, latency_code: LATENCY, delta_code: DELTA}[encode]
    with pytest.raises(error) as caught:
        encode(**{**rest, **arguments})
    assert str(caught.value) == message


@pytest.fixture(scope="module")
def spikegen():
    return pytest.importorskip("snntorch.spikegen", reason="snntorch is not installed")


DT_US, N_STEPS = 1000, 60


def steps_apart(events, theirs):
    """Where ours and theirs [T, n] spike, in steps; both must be silent in the same units."""
    ours = per_step(events, DT_US, N_STEPS)[0]
    theirs = np.asarray(theirs)
    assert (ours.sum(0) == theirs.sum(0)).all()
    fires = ours.any(0)
    assert 10 < fires.sum() < ours.shape[1]
    return (ours.argmax(0) - theirs.argmax(0))[fires]


def test_latencies_are_snntorchs_to_within_a_step(spikegen):
    import torch

    values = np.random.default_rng(1).random(200).astype(np.float32)
    data = torch.from_numpy(values)
    linear = latency_code(values[None], t_max_us=(N_STEPS - 1) * DT_US, threshold=0.25)
    theirs = spikegen.latency(data, num_steps=N_STEPS, threshold=0.25, linear=True, normalize=True, clip=True)
    apart = steps_apart(linear, theirs)
    assert {*apart} == {0, -1}
    log = latency_code(values[None], t_max_us=(N_STEPS - 1) * DT_US, tau_us=8 * DT_US, threshold=0.25)
    theirs = spikegen.latency(data, num_steps=N_STEPS, threshold=0.25, tau=8, clip=True, bypass=True)
    apart = steps_apart(log, theirs)
    assert {*apart} == {0, -1}


def test_rates_are_snntorchs(spikegen):
    import torch

    values = np.linspace(0, 1, 11)
    ours = per_step(rate_code(values[None], n_steps=4000, dt_us=DT_US, max_hz=1e6 / DT_US, seed=1), DT_US, 4000)[0]
    torch.manual_seed(0)
    theirs = spikegen.rate(torch.from_numpy(values), num_steps=4000).numpy()
    assert ours[:, [0, -1]].tolist() == theirs[:, [0, -1]].tolist()
    assert (np.abs(ours.mean(0) - theirs.mean(0)) <= 4.5 * np.sqrt(2 * values * (1 - values) / 4000)).all()


def test_changes_are_snntorchs_where_each_is_nothing_or_the_threshold(spikegen):
    import torch

    signal = np.random.default_rng(2).integers(-1, 2, (80, 5)).cumsum(0) * 0.25
    ours = np.diff(levels_of(delta_code(signal, dt_us=DT_US, threshold=0.25), 80, DT_US), axis=0)
    theirs = spikegen.delta(torch.from_numpy(signal), threshold=0.25, padding=True, off_spike=True).numpy()
    np.testing.assert_array_equal(ours, theirs[1:])
    assert not theirs[0].any()
    assert {*ours.ravel()} == {-1, 0, 1}
