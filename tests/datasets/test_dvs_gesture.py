import io
import tracemalloc

import numpy as np
import pytest

from suspike_datasets import dvs_gesture, load, load_binned
from suspike_datasets.checks import check_events

KINDS = ("<i8", "<i4", "<u4", "<f4", "<f8", ">i4")


def some(n, seed=0, end=6000):
    """An array [n, 4] as a file holds it: x, y, p, t in ms."""
    rng = np.random.default_rng(seed)
    columns = rng.integers(0, 128, n), rng.integers(0, 128, n), rng.integers(0, 2, n), np.sort(rng.integers(0, end, n))
    return np.stack(columns, 1)


def place(root, user, label, array, split="Test", name=None):
    path = root / "DVSGesture" / f"ibmGesture{split}" / user / (name or f"{label}.npy")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


def packed(array):
    raw = io.BytesIO()
    np.save(raw, array)
    return raw.getvalue()


@pytest.fixture
def root(tmp_path):
    places = [("user24_led", 3), ("user24_led", 10), ("user3_fluorescent_led", 0), ("user24_fluorescent", 3)]
    for i, (user, label) in enumerate([*places, ("user100_lab", 7), ("user25_natural", 0)]):
        array = some(20 + i, i).astype(KINDS[i])
        place(tmp_path, user, label, np.asfortranarray(array) if i == 2 else array)
    place(tmp_path, "user1_led", 5, np.array([[127, 0, 1, 30_000], [0, 127, 0, 32_767]], np.int16), "Train")
    return tmp_path


def test_tonic_reads_the_same_events(root, no_network, monkeypatch):
    import tonic.datasets

    monkeypatch.setattr(tonic.datasets.DVSGesture, "_check_exists", lambda self: True)
    theirs = tonic.datasets.DVSGesture(save_to=str(root), train=False)
    mine = load("dvsgesture", root=root, split="test")
    assert mine.classes == tuple(theirs.classes)
    assert (mine.sensor[2], mine.sensor[1], mine.sensor[0]) == theirs.sensor_size
    found = {path: b for b, path in enumerate(map(str, dvs_gesture.files_of(root, "test")))}
    assert len(theirs) == mine.n_recordings == len(found) == 6
    for i, path in enumerate(theirs.data):
        b = found[path]
        events, label = theirs[i]
        assert (mine.labels[b], mine.subjects[b]) == (label, theirs.users[i])
        assert len(events) == len(mine.recording(b)) > 0
        for name in "xypt":
            np.testing.assert_array_equal(mine.recording(b)[name], events[name])


def test_the_order_and_the_users(root):
    events = load("dvsgesture", root=str(root), split="test")
    assert list(zip(events.subjects.tolist(), events.labels.tolist(), strict=True)) == [
        (3, 0), (24, 3), (24, 3), (24, 10), (25, 0), (100, 7)
    ]  # fmt: skip
    assert np.diff(events.start).tolist() == [22, 23, 20, 21, 25, 24]
    assert events.sensor == (2, 128, 128)
    # the same times as two-byte integers would overflow as microseconds there
    train = load("dvsgesture", root=root, split="train")
    assert train.recording(0).tolist() == [(127, 0, 30_000_000, 1), (0, 127, 32_767_000, 0)]
    binned = load_binned("dvsgesture", root=root, split="train", dt_us=1_000_000, cache=root / "cache")
    assert binned.events.idx.tolist() == [(128 + 0) * 128 + 127, 127 * 128]
    assert binned.events.n_steps.tolist() == [33]
    assert binned.subjects.tolist() == [1]


def test_parts_of_a_millisecond_are_kept(tmp_path):
    array = np.array([[1, 2, 0, 0.0], [3, 4, 1, 0.0015], [5, 6, 0, 2.5]])
    assert dvs_gesture.read_recording(place(tmp_path, "user1_led", 0, array))["t"].tolist() == [0, 1, 2500]


DAMAGE = {
    (0, 128): "`x` must be from 0 to 127, got 128 (record 2 of {}).",
    (0, -1): "`x` must be from 0 to 127, got -1 (record 2 of {}).",
    (0, 1.5): "`x` must be a whole number below 2147483648, got 1.5 (record 2 of {}).",
    (1, 2**40): "`y` must be a whole number below 2147483648, got {} (record 2 of {}).",
    (1, np.nan): "`y` must be a whole number below 2147483648, got nan (record 2 of {}).",
    (2, 2): "`p` must be from 0 to 1, got 2 (record 2 of {}).",
    (3, np.inf): "`t` must be a number below 2147483, got inf (record 2 of {}).",
    (3, 2_147_483): "`t` must be a number below 2147483, got {} (record 2 of {}).",
    (3, -1): "`t` must be from 0 to 2147483647, got -1000 (record 2 of {}).",
    (3, 0): "`t` must not decrease, got 0 after {} (record 2 of {}).",
}


@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [(*key, kind) for key in DAMAGE for kind in ("<f8", "<i8") if kind == "<f8" or float(key[1]).is_integer()],
)
def test_a_broken_record_is_named(tmp_path, column, value, kind):
    array = np.array(some(9) + [0, 0, 0, 10], kind)  # noqa: RUF005 - a sum
    array[2, column] = value
    path, message = place(tmp_path, "user1_led", 0, array), DAMAGE[column, value]
    with pytest.raises(ValueError, match="must") as caught:
        dvs_gesture.read_recording(path)
    got = int(array[1, 3]) * 1000 if value == 0 else array[2, column]
    assert str(caught.value) == (message.format(got, path) if message.count("{}") == 2 else message.format(path))


def test_the_lowest_integer_and_a_time_before_0_are_refused(tmp_path):
    for kind, value in (("<i8", -(2**63)), ("<f8", -0.0005), ("<f2", -0.5)):
        array = np.array(some(9), kind)
        array[0, 3] = value
        with pytest.raises(ValueError, match="`t` must be"):
            dvs_gesture.read_recording(place(tmp_path, "user1_led", 0, array))


GOOD = packed(some(50))
HEAD = "{{'descr': '<i8', 'fortran_order': False, 'shape': ({}, 4), }}"
FORGED = {
    "empty": b"",
    "cut": GOOD[:-1],
    "longer": GOOD + b"\0",
    "no numpy": b"x" * 128,
    "more rows": GOOD.replace(b"(50, 4), }  ", b"(51, 4), }  "),
    "endless rows": GOOD.replace(b"(50, 4), }          ", b"(500000000000, 4), }"),
    "negative rows": GOOD.replace(b"(50, 4), } ", b"(-50, 4), }"),
    "five columns": packed(np.zeros((8, 5), np.int64)),
    "one dimension": packed(np.zeros(8, np.int64)),
    "records": packed(np.zeros(8, [("x", "i8")])),
    "pickled": packed(np.array([[1, 2, 3, {}]], object)),
    "text": packed(np.array([["1", "2", "3", "4"]])),
    "complex": packed(np.zeros((2, 4), complex)),
    "half an int": GOOD.replace(b"'<i8'", b"'<f1'"),
    "newer": b"\x93NUMPY\x02\x00" + GOOD[8:],
    "code": GOOD.replace(b"(50, 4), }          ", b"(50,4*1),}          "),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_file_is_refused_before_anything_is_set_aside(tmp_path, kind):
    path = place(tmp_path, "user1_led", 0, some(1))
    assert FORGED[kind] != GOOD
    path.write_bytes(FORGED[kind])
    tracemalloc.start()
    try:
        for read in (dvs_gesture.read_recording, lambda _: dvs_gesture.read_split(tmp_path, "test")):
            with pytest.raises(ValueError, match=r"^`path` must be a whole \.npy file of numbers \[E, 4\]") as caught:
                read(path)
            assert str(caught.value).endswith(f"got {path}: the file is damaged.")
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_damaged_and_empty_recordings_are_skipped_and_counted(root, caplog):
    good = load("dvsgesture", root=root, split="test")
    empty = place(root, "user1_led", 2, np.zeros((0, 4), np.int64))
    with pytest.raises(ValueError, match=rf"^`root` must hold recordings with events, got the empty file {empty}"):
        load("dvsgesture", root=root, split="test")
    place(root, "user24_led", 4, some(5)).write_bytes(b"12345")
    caplog.clear()
    found = load("dvsgesture", root=root, split="test", damaged="skip")
    for mine, theirs in zip(found, good, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    (message,) = caplog.messages
    assert message.startswith("skipped 2 of 8 recordings; the first: `root` must hold recordings with events")
    with pytest.raises(ValueError, match=r"^`damaged` must be 'refuse' or 'skip', got 'drop'\.$"):
        load("dvsgesture", root=root, split="test", damaged="drop")


@pytest.mark.parametrize(
    ("user", "name"),
    [
        ("user1_led", "11.npy"), ("user1_led", "a.npy"), ("user1_led", "01.npy"), ("user1_led", "._1.npy"),
        ("user1_led", "1npy"), ("led", "1.npy"), ("user_led", "1.npy"), ("user1", "1.npy"), (".", "1.npy"),
        ("user1_led/deep_1", "1.npy"), ("user1_led/user1_led", "1.npy"),
    ],
)  # fmt: skip
def test_a_stray_file_is_named(root, user, name):
    path = place(root, user, 1, some(3), name="1.npy").rename(
        root / "DVSGesture" / "ibmGestureTest" / user / name
    )  # fmt: skip
    with pytest.raises(
        ValueError, match=r"^`root` must hold recordings as .*/user<number>_<lighting>/<label>.npy"
    ) as e:
        load("dvsgesture", root=root, split="test")
    assert str(e.value).endswith(f"labels 0 to 10, got {path}.")


def test_nothing_there(tmp_path):
    folder = tmp_path / "my data"
    with pytest.raises(FileNotFoundError) as caught:
        load("dvsgesture", root=folder, split="train")
    assert str(caught.value) == (
        f"`root` must hold recordings, got none in {folder}/DVSGesture/ibmGestureTrain/user<number>_<lighting>/"
        f"<label>.npy. `suspike data get dvsgesture --root '{folder}' --split train` fetches it."
    )
    with pytest.raises(ValueError, match=r"^`split` must be 'train' or 'test', got 'valid'\.$"):
        load("dvsgesture", root=tmp_path, split="valid")


def test_any_damage_is_refused_or_read_as_numpy_does(tmp_path):
    path, rng, read = tmp_path / "0.npy", np.random.default_rng(0), 0
    for trial in range(1200):
        raw = bytearray(packed(some(50, end=2_000_000 if trial % 2 else 6000).astype(KINDS[trial % len(KINDS)])))
        for _ in range(rng.integers(1, 3)):
            n, at = int(rng.choice([1, 2, 8, 64, 512])), int(rng.integers(len(raw)) * rng.choice([0.1, 1]))
            byte = int(rng.choice([0, 255, 128, rng.integers(256)]))
            raw[at : at + n] = bytes([byte]) * len(raw[at : at + n])
        path.write_bytes(raw[: rng.integers(len(raw))] if rng.random() < 0.1 else raw)
        try:
            events = check_events(dvs_gesture.read_recording(path), dvs_gesture.LIMITS, "fuzzed")
        except ValueError as fault:
            if str(path) not in str(fault):
                raise
            continue
        read += 1
        theirs = np.load(path, allow_pickle=False)
        for name, column in zip("xyp", theirs.T[:3], strict=True):
            np.testing.assert_array_equal(events[name], column)
        np.testing.assert_array_equal(events["t"], (theirs[:, 3].astype(float) * 1000).astype(np.int64))
    assert 20 < read < 1000
