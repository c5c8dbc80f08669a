import hashlib
import struct

import numpy as np
import pytest

from suspike_datasets import load, load_binned, smnist
from suspike_datasets.sets import check_set


def some(n=6, seed=0):
    """Images: noise, strokes with many 255, extremes."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (n, 784), np.uint8)
    strokes = np.where(rng.random((n, 784)) < 0.3, rng.choice([0, 1, 127, 253, 254, 255], (n, 784)), 0)
    return np.concatenate(
        [noise, strokes.astype(np.uint8), np.zeros((1, 784), np.uint8), np.full((1, 784), 255, np.uint8)]
    )


def place(root, images, labels, split="train"):
    folder = root / "smnist"
    folder.mkdir(exist_ok=True, parents=True)
    of_images, of_labels = smnist.FILES[split]
    (folder / of_images).write_bytes(struct.pack(">IIII", 2051, len(images), 28, 28) + images.tobytes())
    (folder / of_labels).write_bytes(struct.pack(">II", 2049, len(labels)) + bytes(labels))
    return folder / of_images, folder / of_labels


def same_as_tonic(mine, root, split, **options):
    """Compare all recordings with tonic's, which are in order of pixels where spikes come twice, not of time."""
    import tonic.datasets

    theirs = tonic.datasets.SMNIST(save_to=str(root), train=split == "train", **options)
    assert len(theirs) == mine.n_recordings > 0
    assert (mine.sensor[2], mine.sensor[1], mine.sensor[0]) == theirs.sensor_size
    for b in range(mine.n_recordings):
        events, label = theirs[b]
        events = events[np.argsort(events["t"], kind="stable")]
        assert mine.labels[b] == label
        np.testing.assert_array_equal(mine.recording(b)["t"], events["t"])
        np.testing.assert_array_equal(mine.recording(b)["x"], events["x"])


@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        ({"duplicate": False}, {"duplicate": False}),
        ({"n_units": 1}, {"num_neurons": 1}),
        ({"n_units": 3, "dt_us": 1}, {"num_neurons": 3, "dt": 1}),
        ({"n_units": 41, "dt_us": 700, "duplicate": False}, {"num_neurons": 41, "dt": 700.0, "duplicate": False}),
        ({"n_units": 511}, {"num_neurons": 511}),
    ],
)
def test_tonic_makes_the_same_spikes(tmp_path, no_network, options, theirs):
    images = some()
    place(tmp_path, images, [b % 10 for b in range(len(images))], "test")
    mine = check_set(smnist.read_split(tmp_path, "test", **options), "read")
    same_as_tonic(mine, tmp_path, "test", **theirs)
    assert len(mine.t) > 0


def test_permuted_images_are_those_of_permuted_files(tmp_path, no_network):
    images, labels = some(), [*range(10), 3, 3, 3, 3]
    place(tmp_path / "plain", images, labels)
    place(tmp_path / "permuted", images[:, smnist.permutation(5)], labels)
    same_as_tonic(smnist.read_split(tmp_path / "plain", "train", permute_seed=5), tmp_path / "permuted", "train")
    place(tmp_path / "permuted", images[:, smnist.permutation(0)], labels)
    found = load("psmnist", root=tmp_path / "plain", split="train")
    same_as_tonic(found, tmp_path / "permuted", "train")
    assert not np.array_equal(found.unit, load("smnist", root=tmp_path / "plain", split="train").unit)


def test_the_permutation_is_the_same_everywhere():
    """Written down: who compares results has to have the same one."""
    known = {0: ([269, 11, 403, 600, 196], "80af0db09bbbf7a2"), 1: ([458, 323, 622, 93, 61], "db0bbd3723a6aeb3")}
    for seed, (first, digest) in known.items():
        order = smnist.permutation(seed)
        assert sorted(order.tolist()) == list(range(784))
        assert order[:5].tolist() == first
        assert hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()[:16] == digest
    with pytest.raises(ValueError, match="`seed` must be from 0"):
        smnist.permutation(-1)


def test_spikes_by_hand():
    """Thresholds of five units: 0 and 254; unit 4 and 2 rise and fall beyond 254, unit 0 is 255."""
    image = np.zeros((1, 784), np.uint8)
    image[0, [3, 4, 5]] = 253, 254, 255
    once = smnist.encode(image, n_units=5, duplicate=False, dt_us=10)
    assert once.t.tolist() == [30, 50, 50]
    assert once.unit.tolist() == [4, 0, 2]
    twice = smnist.encode(image, n_units=5, dt_us=10)
    assert twice.t.tolist() == [60, 70, 100, 100, 110, 110]
    assert twice.unit.tolist() == [4, 4, 0, 2, 0, 2]
    assert (once.labels.tolist(), once.classes) == ([-1], ())


def test_images_as_they_are_and_in_steps(tmp_path):
    images = some()
    labels = [9 - b % 10 for b in range(len(images))]
    place(tmp_path, images, labels)
    found, numbers = smnist.read_images(tmp_path, "train")
    np.testing.assert_array_equal(found, images)
    assert (numbers.tolist(), numbers.dtype) == (labels, np.int64)
    events = load("smnist", root=tmp_path, split="train")
    assert (events.labels.tolist(), events.classes) == (labels, tuple("0123456789"))
    binned = load_binned("smnist", root=tmp_path, split="train", dt_us=1000, cache=tmp_path / "cache")
    assert binned.events.ptr.shape == (14, 1569)
    assert binned.events.n_units == 99
    np.testing.assert_array_equal(np.bincount(binned.events.idx), np.bincount(events.unit))
    other = load_binned("psmnist", root=tmp_path, split="train", dt_us=1000, cache=tmp_path / "cache")
    assert len(other.events.idx) != len(binned.events.idx)


def test_real_digits(real_root, tmp_path, no_network):
    path = real_root / "MNIST" / "mnist.npz"
    if not path.is_file():
        pytest.skip("no MNIST in ../shared/data beside the project")
    with np.load(path, allow_pickle=False) as file:
        images, labels = file["x_test"][:200].reshape(-1, 784), file["y_test"][:200]
    place(tmp_path, images, labels.tolist(), "test")
    same_as_tonic(load("smnist", root=tmp_path, split="test"), tmp_path, "test")


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("damage", ["magic", "number", "size", "cut", "longer", "empty", "packed"])
def test_another_file_is_refused(tmp_path, which, damage):
    path = place(tmp_path, some(), [0] * 14)[which]
    raw = path.read_bytes()
    path.write_bytes({
        "magic": raw[:3] + b"\2" + raw[4:], "number": raw[:4] + b"\xff" + raw[5:], "cut": raw[:-1], "empty": b"",
        "size": raw[:11] + b"\x1d" + raw[12:] if which == 0 else raw[:7] + b"\x0d" + raw[8:], "longer": raw + b"\0",
        "packed": b"\x1f\x8b" + raw,
    }[damage])  # fmt: skip
    with pytest.raises(ValueError, match=r"^`root` must hold MNIST's original files, unpacked") as caught:
        load("smnist", root=tmp_path, split="train")
    assert str(caught.value).endswith(f"at {path}.")


def test_labels_that_do_not_fit(tmp_path, caplog):
    images, labels = some(), [1, 2, 10, 3, 255, *[0] * 9]
    path = place(tmp_path, images, labels)[1]
    with pytest.raises(ValueError, match="`label`") as caught:
        load("smnist", root=tmp_path, split="train")
    assert str(caught.value) == f"`label` must be from 0 to 9, got 10 (recording 2 of {path}): the file is damaged."
    found = load("smnist", root=tmp_path, split="train", damaged="skip")
    assert found.labels.tolist() == [1, 2, 3, *[0] * 9]
    np.testing.assert_array_equal(found.unit, smnist.encode(images[[0, 1, 3, *range(5, 14)]]).unit)
    assert [m for m in caplog.messages if m.startswith("skipped 2 of 14 recordings; the first: `label` must be from 0")]
    place(tmp_path, images, [0] * 13)
    with pytest.raises(ValueError, match=r"^`root` must hold as many labels as images, got 13 and 14 in "):
        load("smnist", root=tmp_path, split="train")


def test_nothing_there(tmp_path):
    path = place(tmp_path, some(), [0] * 14)[1]
    path.unlink()
    with pytest.raises(FileNotFoundError) as caught:
        load("psmnist", root=tmp_path, split="train")
    cure = f". `suspike data get smnist --root {tmp_path} --split train` fetches it."
    assert str(caught.value) == f"`root` must hold smnist/{path.name}, got nothing at {path}{cure}"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_units": 98}, ValueError, "`n_units` must be odd, got 98."),
        ({"n_units": 513}, ValueError, "`n_units` must be from 1 to 511, got 513."),
        ({"dt_us": 0}, ValueError, "`dt_us` must be from 1 to 1369568, got 0."),
        ({"dt_us": 1.5}, TypeError, "`dt_us` must be an integer, got 1.5."),
        ({"images": np.zeros((2, 28, 28), np.uint8)}, TypeError,
         "`images` must be an array uint8 [B, 784], got uint8 [2, 28, 28]."),
        ({"images": np.zeros((2, 784))}, TypeError, "`images` must be an array uint8 [B, 784], got float64 [2, 784]."),
        ({"images": [1]}, TypeError, "`images` must be an array uint8 [B, 784], got list."),
    ],
)  # fmt: skip
def test_arguments(options, error, message):
    with pytest.raises(error) as caught:
        smnist.encode(**{"images": some(), **options})
    assert str(caught.value) == message
    assert check_set(smnist.encode(some(), dt_us=1369568), "slow").t.max() < 2**31


def test_any_damage_is_refused_or_read(tmp_path):
    images, rng, read = some(1), np.random.default_rng(0), 0
    paths = place(tmp_path, images, [0, 1, 2, 3])
    good = [path.read_bytes() for path in paths]
    for trial in range(400):
        path, raw = paths[trial % 2], bytearray(good[trial % 2])
        n, at = int(rng.choice([1, 2, 4, 512])), int(rng.integers(len(raw)) * rng.choice([0.01, 1]))
        raw[at : at + n] = bytes([rng.choice([0, 255, 1, rng.integers(256)])]) * len(raw[at : at + n])
        path.write_bytes(raw[: rng.integers(len(raw))] if rng.random() < 0.1 else raw)
        try:
            found = check_set(load("smnist", root=tmp_path, split="train"), "fuzzed")
            read += 1
            assert found.n_recordings == 4
        except ValueError as fault:
            if str(path) not in str(fault) and "as many labels as images" not in str(fault):
                raise
        path.write_bytes(good[trial % 2])
    assert 80 < read < 360
