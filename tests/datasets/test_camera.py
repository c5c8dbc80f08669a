import hashlib

import numpy as np
import pytest

from suspike_datasets import read_recording, saccade_events
from suspike_datasets.camera import FITTED, HOT_PIXELS, PATTERN, _is_even, record


def edge(dark, light):
    """Left half dark, right half light."""
    image = np.full((28, 28), float(dark))
    image[:, 14:] = light
    return image


def per_pixel_intervals(events):
    order = np.lexsort((events["t"], events["x"], events["y"]))
    e = events[order]
    same = (np.diff(e["x"]) == 0) & (np.diff(e["y"]) == 0)
    return np.diff(e["t"])[same]


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (28, 28), (300, 200)])
def test_no_contrast_sends_noise_alone(level, shape):
    image = np.full(shape, level)
    assert len(saccade_events(image, seed=1, noise_hz=0)) == 0
    noise = saccade_events(image, seed=1, noise_hz=10)
    counts = np.zeros((34, 34))
    np.add.at(counts, (noise["y"], noise["x"]), 1)
    hot = np.zeros((34, 34), bool)
    for x, y, times in HOT_PIXELS:
        assert counts[y, x] == pytest.approx(10 * 0.308 * times, rel=0.3)
        hot[y, x] = True
    assert counts[~hot].mean() == pytest.approx(10 * 0.308, rel=0.1)
    assert counts[~hot].max() < 15  # Poisson's mean is 3: nothing else is hot
    is_hot = hot[noise["y"], noise["x"]]
    assert noise["p"][~is_hot].mean() == pytest.approx(0.97, abs=0.02)
    assert noise["p"][is_hot].mean() == pytest.approx(0.5, abs=0.1)


def test_stronger_edges_send_more_events():
    counts = [len(saccade_events(edge(0.2, light), seed=2, noise_hz=0)) for light in (0.25, 0.4, 0.6, 1.0)]
    assert counts == sorted(counts)
    assert counts[0] < counts[1] < counts[2] < counts[3]
    thresholds = [len(saccade_events(edge(0, 1), seed=2, threshold=th)) for th in (0.1, 0.2, 0.4)]
    assert thresholds[0] > thresholds[1] > thresholds[2]


def test_polarity_follows_the_motion():
    # In its second saccade the image moves right, so the dark half covers pixels: OFF; and back in the third: ON.
    events = saccade_events(edge(0, 1), seed=3, noise_hz=0)
    second, third = (events["p"][(events["t"] > a) & (events["t"] < b)] for a, b in ((120e3, 180e3), (230e3, 290e3)))
    assert min(len(second), len(third)) > 500
    assert not second.any()
    assert third.all()
    # The edge stands within 3.1 pixels of the sensor's middle, blurred by the optics, and nowhere else.
    assert events["x"].min() >= 12
    assert events["x"].max() <= 21
    up = saccade_events(edge(0, 1).T.copy(), seed=3, noise_hz=0)
    first = up["p"][(up["t"] > 20e3) & (up["t"] < 70e3)]
    assert len(first) > 500
    assert not first.any()  # down in the first


def test_saccades_start_at_random():
    times = []
    for seed in range(12):
        events = saccade_events(edge(0, 1), seed=seed, noise_hz=0)
        parts = ((20e3, 85e3), (110e3, 188e3), (224e3, 300e3))
        times.append([events["t"][(events["t"] > a) & (events["t"] < b)].mean() for a, b in parts])
    spread = np.std(times, axis=0)
    assert 300 < spread[0] < 1500
    assert 1500 < spread[1] < 4500
    assert 1200 < spread[2] < 4000
    assert abs(np.corrcoef(np.transpose(times)[1:])[0, 1]) < 0.7  # each on its own


def test_nothing_is_left_out_where_an_image_is_even():
    rng = np.random.default_rng(0)
    for _ in range(300):
        level = np.zeros(rng.integers(1, 9, 2))
        level[rng.integers(level.shape[0]), rng.integers(level.shape[1])] = 1
        (v, u), reach = rng.uniform(-3, 10, 2), int(rng.integers(0, 5))
        rows, columns = (
            np.clip(np.arange(int(place) - reach, int(place) + reach + 1), 0, n - 1)
            for place, n in zip((v, u), level.shape, strict=True)
        )
        assert _is_even(level, u, v, reach) == (np.ptp(level[np.ix_(rows, columns)]) == 0)


def test_refractory_time_and_form():
    events = saccade_events(edge(0, 1), seed=4, noise_hz=0, threshold=0.02)
    intervals = per_pixel_intervals(events)
    assert len(intervals) > 1000
    assert intervals.min() >= int(FITTED.refractory_us) - 1  # times are cut to whole microseconds
    assert (np.diff(events["t"]) >= 0).all()
    assert events.dtype == np.dtype([("x", "i8"), ("y", "i8"), ("t", "i8"), ("p", "i8")])
    assert 0 < events["t"].min()
    assert events["t"].max() < 320_000


def test_mismatch_spreads_the_counts_of_equal_pixels():
    rows = []
    for mismatch in (0.0, 0.3):
        events = saccade_events(edge(0, 1), seed=5, noise_hz=0, mismatch=mismatch)
        rows.append(np.bincount(events["y"][events["x"] == 16], minlength=34).std())
    assert rows[1] > 2 * rows[0]


def test_thresholds_are_one_pattern_for_all_images_and_seeds():
    # The pixels that send most of a vertical edge send most whatever the seed; ones of high threshold send least.
    counts = np.zeros((3, 34))
    for seed in range(3):
        events = saccade_events(edge(0, 1), seed=seed, noise_hz=0, mismatch=0.3)
        counts[seed] = np.bincount(events["y"][events["x"] == 16], minlength=34)
    inner = slice(6, 28)  # what the real sensor shows of pixels beyond is too little to tell their thresholds
    assert np.corrcoef(counts[:, inner])[np.triu_indices(3, 1)].min() > 0.9
    thresholds = PATTERN.reshape(2, 34, 34).mean(0)[inner, 16]
    assert np.corrcoef(counts.mean(0)[inner], thresholds)[0, 1] < -0.9


def test_a_pixel_in_the_dark_is_late():
    def first_half(dark, light):
        events = record(edge(dark, light), slow, np.random.default_rng(1), 0 * PATTERN)
        return np.median(events["t"][(events["t"] > 110e3) & (events["t"] < 190e3)])

    # About the same step of log light, much darker: the pixel follows more slowly.
    slow = FITTED._replace(noise_hz=0.0, jitter_us=(0.0, 0.0, 0.0), lag_us=10_000.0, contrast=31.0, wobble=0.0)
    bright, dim = (first_half(dark, 1.9 * dark + 0.03) for dark in (0.5, 0.05))
    assert dim > bright + 500


def test_a_reference_forgets():
    # Less time, less memory: slow motion then crosses fewer thresholds.
    counts = [
        len(record(edge(0, 1), FITTED._replace(memory_us=us, noise_hz=0.0), np.random.default_rng(1), PATTERN))
        for us in (5e3, 40e3, 1e9)
    ]
    assert counts[0] < 0.9 * counts[1] < 0.9 * 0.95 * counts[2]


def test_wobbling_thresholds_make_uneven_intervals():
    def spread(wobble):
        camera = FITTED._replace(wobble=wobble, noise_hz=0.0, jitter_us=(0.0, 0.0, 0.0))
        events = record(edge(0, 1), camera, np.random.default_rng(1), 0 * PATTERN)
        middle = events[(events["x"] == 16) & (events["t"] > 110e3) & (events["t"] < 190e3)]
        return np.std([np.diff(middle["t"][middle["y"] == y]).std() for y in range(34)])

    # Without it, rows of a vertical edge differ by where their references stand at the start alone.
    assert spread(0.3) > 1.5 * spread(0.0)


def test_rotation_tilts_the_image():
    camera = FITTED._replace(rotation=0.1, noise_hz=0.0)
    events = record(edge(0, 1), camera, np.random.default_rng(1), PATTERN)
    top, bottom = (events["x"][rows].mean() for rows in (events["y"] < 7, events["y"] > 26))
    assert top - bottom == pytest.approx(0.1 * 27, abs=0.4)


def test_delays_shift_one_saccade_each():
    def times(delay_us):
        camera = FITTED._replace(delay_us=delay_us, jitter_us=(0.0, 0.0, 0.0), noise_hz=0.0)
        events = record(edge(0, 1), camera, np.random.default_rng(1), PATTERN)
        parts = ((20e3, 85e3), (110e3, 188e3), (224e3, 300e3))
        return np.array([np.mean(events["t"][(events["t"] > a) & (events["t"] < b)]) for a, b in parts])

    base = times((0.0, 0.0, 0.0))
    for s in (1, 2):
        late = times(tuple(4000.0 * (i == s) for i in range(3))) - base
        assert 2000 < late[s] < 4500  # the pause gives way
        assert np.abs(np.delete(late, s)).max() < 300


def test_seed_decides_and_nothing_else_does():
    image = edge(0.1, 0.9)
    first = saccade_events(image, seed=(7, 1))
    np.random.seed(0)  # noqa: NPY002  the global state must not matter
    np.testing.assert_array_equal(saccade_events(image, seed=(7, 1)), first)
    assert not np.array_equal(saccade_events(image, seed=(7, 2)), first)
    assert not np.array_equal(saccade_events(image, seed=7), first)


def test_bytes_are_pinned():
    # One hash for every machine: a cache made here must equal one made there.
    image = (np.add.outer(np.arange(8) * 3, np.arange(8) * 5) % 16) / 16
    events = saccade_events(image, seed=3)
    digest = hashlib.sha256(events.astype(events.dtype.newbyteorder("<")).tobytes()).hexdigest()
    assert digest == "89d88e16eb6d4f58136a34647314cb1b951d43b92d2788323188d5b48f14da2a"


def test_uint8_and_fine_images():
    grey = (np.arange(34 * 34, dtype=np.uint8).reshape(34, 34) * 37) % 255
    np.testing.assert_array_equal(saccade_events(grey, seed=1), saccade_events(grey / 255, seed=1))
    # A finer picture of the same light: powers of two keep the area means exact.
    coarse = (grey // 16) / 16
    fine = np.kron(coarse, np.ones((4, 4)))
    want = saccade_events(coarse, seed=1, span_px=34)
    np.testing.assert_array_equal(saccade_events(fine, seed=1, span_px=34), want)
    assert len(want) > 1000


def test_uneven_reduction_keeps_the_light():
    from suspike_datasets.camera import _shrink

    light = np.random.default_rng(0).random((50, 3))
    small = _shrink(light, 0.37)
    assert small.shape == (18, 3)
    np.testing.assert_allclose(small.mean(0), light.mean(0))
    np.testing.assert_allclose(small[0], (light[:2].sum(0) + light[2] * (50 / 18 - 2)) / (50 / 18))


def test_agrees_with_the_real_camera_on_images_it_was_not_fitted_to(real_root):
    if not (real_root / "MNIST" / "mnist.npz").is_file():
        pytest.skip("no MNIST images in ../shared/data beside the project")
    with np.load(real_root / "MNIST" / "mnist.npz") as data:
        images = data["x_train"]

    def maps(events):
        place = (events["p"] * 34 + events["y"]) * 34 + events["x"]
        return np.bincount(place + 2312 * np.searchsorted([102_000, 205_000], events["t"]), minlength=3 * 2312)

    agreement, inverted, counts = [], [], []
    for path in sorted((real_root / "NMNIST" / "Test").glob("*/*.bin"))[::3]:
        image = images[int(path.stem) - 1]
        real, dark, white = (read_recording(path), *(saccade_events(g, seed=1) for g in (255 - image, image)))
        agreement.append(np.corrcoef(maps(real), maps(dark))[0, 1])
        inverted.append(np.corrcoef(maps(real), maps(white))[0, 1])
        counts.append((len(real), len(dark)))
    counts = np.array(counts)
    assert len(counts) == 50
    assert np.mean(agreement) > 0.945
    assert np.min(agreement) > 0.88
    assert np.mean(inverted) < 0.5  # the measure does see polarity
    assert np.corrcoef(counts.T)[0, 1] > 0.99
    np.testing.assert_allclose(*(counts[:, i].mean() for i in (0, 1)), rtol=0.03)
    np.testing.assert_allclose(*(counts[:, i].std() for i in (0, 1)), rtol=0.08)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"image": [[0.5]]}, TypeError, "`image` must be an array of floats or uint8, got list."),
        ({"image": np.zeros((2, 2), np.int32)}, TypeError, "`image` must be an array of floats or uint8, got int32."),
        (
            {"image": np.zeros((2, 2, 3))},
            ValueError,
            "`image` must be of shape [H, W] with at least one pixel, got shape (2, 2, 3).",
        ),
        (
            {"image": np.zeros((0, 2))},
            ValueError,
            "`image` must be of shape [H, W] with at least one pixel, got shape (0, 2).",
        ),
        (
            {"image": np.array([[0.0, 16.0]])},
            ValueError,
            "`image` must be floats from 0 to 1, got 0 to 16: divide by its maximum.",
        ),
        (
            {"image": np.array([[0.0, np.nan]])},
            ValueError,
            "`image` must be floats from 0 to 1, got nan to nan: divide by its maximum.",
        ),
        ({"threshold": 0.0}, ValueError, "`threshold` must be from 0.01 to 10, got 0.0."),
        ({"noise_hz": float("nan")}, ValueError, "`noise_hz` must be from 0 to 1000, got nan."),
        ({"mismatch": "0.1"}, TypeError, "`mismatch` must be a number, got '0.1'."),
        ({"span_px": -1}, ValueError, "`span_px` must be from 1 to 1000, got -1."),
        ({"seed": None}, TypeError, "`seed` must be an integer, got None."),
        ({"seed": (1, -1)}, ValueError, "`seed` must be from 0 to 9223372036854775807, got -1."),
    ],
)
def test_errors(arguments, error, message):
    arguments = {"image": np.zeros((4, 4)), "seed": 0, **arguments}
    with pytest.raises(error) as caught:
        saccade_events(**arguments)
    assert str(caught.value) == message
