import hashlib

import numpy as np
import pytest

from suspike_datasets import read_recording, saccade_events
from suspike_datasets.camera import REFRACTORY_US


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
    assert len(noise) == pytest.approx(10 * 0.308 * 34 * 34, abs=5 * 60)
    assert noise["p"].mean() == pytest.approx(0.88, abs=0.03)
    assert {*noise["x"]} == {*noise["y"]} == {*range(34)}


def test_stronger_edges_send_more_events():
    counts = [len(saccade_events(edge(0.2, light), seed=2, noise_hz=0)) for light in (0.25, 0.4, 0.6, 1.0)]
    assert counts == sorted(counts)
    assert counts[0] < counts[1] < counts[2] < counts[3]
    thresholds = [len(saccade_events(edge(0, 1), seed=2, threshold=th)) for th in (0.1, 0.2, 0.4)]
    assert thresholds[0] > thresholds[1] > thresholds[2]


def test_polarity_follows_the_motion():
    # The image moves right in saccades 1 and 2, so the dark half covers pixels: OFF; and back in the third: ON.
    events = saccade_events(edge(0, 1), seed=3, noise_hz=0)
    third = events["t"] > 205_000
    assert third.any()
    assert not third.all()
    assert not events["p"][~third].any()
    assert events["p"][third].all()
    # The edge stands within the triangle's 5.4 pixels around the sensor's middle, and nowhere else.
    assert events["x"].min() >= 13
    assert events["x"].max() <= 20


def test_refractory_time_and_form():
    events = saccade_events(edge(0, 1), seed=4, noise_hz=0, threshold=0.02)
    intervals = per_pixel_intervals(events)
    assert len(intervals) > 1000
    assert intervals.min() >= int(REFRACTORY_US)  # times are cut to whole microseconds
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
    assert digest == "77fddaa01e04ed60c6165ede19d6737860969b0778c8bec891d2af52e583a8e0"


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


def test_agrees_with_the_real_camera_on_the_same_images(real_root):
    if not (real_root / "MNIST" / "mnist.npz").is_file():
        pytest.skip("no MNIST images in ../shared/data beside the project")
    with np.load(real_root / "MNIST" / "mnist.npz") as data:
        images = data["x_train"]

    def maps(events):
        place = (events["p"] * 34 + events["y"]) * 34 + events["x"]
        return np.bincount(place + 2312 * np.searchsorted([100_000, 205_000], events["t"]), minlength=3 * 2312)

    agreement, inverted, counts = [], [], []
    for path in sorted((real_root / "NMNIST" / "Test").glob("*/*.bin"))[::3]:
        image = images[int(path.stem) - 1]
        real, dark, white = (read_recording(path), *(saccade_events(g, seed=1) for g in (255 - image, image)))
        agreement.append(np.corrcoef(maps(real), maps(dark))[0, 1])
        inverted.append(np.corrcoef(maps(real), maps(white))[0, 1])
        counts.append((len(real), len(dark)))
    counts = np.array(counts)
    assert len(counts) == 50
    assert np.mean(agreement) > 0.87
    assert np.mean(inverted) < 0.45  # the measure does see polarity
    assert np.corrcoef(counts.T)[0, 1] > 0.8
    assert abs(counts[:, 1].mean() / counts[:, 0].mean() - 1) < 0.1


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
