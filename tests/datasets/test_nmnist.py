import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suspike_datasets import nmnist, read_recording, write_recording


def load(root, split, **options):
    """The recordings as tonic has them, and their labels."""
    events = nmnist.read_split(root, split, **options)
    return [events.recording(b) for b in range(events.n_recordings)], events.labels


@st.composite
def recordings(draw):
    n = draw(st.integers(0, 60))
    column = lambda end: draw(st.lists(st.integers(0, end), min_size=n, max_size=n))  # noqa: E731
    names = draw(st.permutations("xytp"))
    events = np.zeros(n, [(name, draw(st.sampled_from(["i4", "i8", "u4"]))) for name in names])
    events["x"], events["y"], events["p"] = column(33), column(33), column(1)
    events["t"] = sorted(column(2**23 - 1))
    return events


def place(root, number, digit, events, split="Train"):
    path = root / "NMNIST" / split / str(digit) / f"{number:05d}.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_recording(path, events)
    return path


@settings(deadline=None, max_examples=60)
@given(events=recordings())
def test_round_trip_of_records_and_bytes(events, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "round_trip.bin"
    write_recording(path, events)
    back = read_recording(path)
    assert back.dtype.names == ("x", "y", "t", "p")
    for name in "xytp":
        assert back[name].dtype == np.int64
        np.testing.assert_array_equal(back[name], events[name])
    raw = path.read_bytes()
    write_recording(path, back)
    assert path.read_bytes() == raw


def test_the_bytes_of_one_record(tmp_path, make_events):
    write_recording(tmp_path / "a.bin", make_events([0x123456, 2**23 - 1], x=[1, 33], y=[2, 0], p=[1, 0]))
    assert (tmp_path / "a.bin").read_bytes() == bytes.fromhex("01 02 92 34 56  21 00 7f ff ff")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_real_recordings_come_back_byte_for_byte(real_root, tmp_path):
    paths = sorted((real_root / "NMNIST").glob("*/*/*.bin"))[::4]
    assert len(paths) == 250
    for path in paths:
        write_recording(tmp_path / "copy.bin", read_recording(path))
        assert (tmp_path / "copy.bin").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("t", -1, "`t` must be from 0 to 8388607, got -1"),
        ("t", 2**23, "`t` must be from 0 to 8388607, got 8388608"),
        ("t", 5, "`t` must not decrease, got 5 after 20"),
        ("x", 34, "`x` must be from 0 to 33, got 34"),
        ("y", -1, "`y` must be from 0 to 33, got -1"),
        ("p", 2, "`p` must be from 0 to 1, got 2"),
    ],
)
def test_a_broken_record_is_named_and_not_written(tmp_path, make_events, field, value, fault):
    events = make_events([10, 20, 30, 40])
    events[field][2] = value
    path = tmp_path / "a.bin"
    with pytest.raises(ValueError, match="record") as caught:
        write_recording(path, events)
    assert str(caught.value) == f"{fault} (record 2 of {path})."
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_several_faults_is_named(tmp_path, make_events):
    events = make_events([10, 5, 30, 40], x=[0, 0, 99, 0])
    with pytest.raises(ValueError, match=r"`t` must not decrease, got 5 after 10 \(record 1 of "):
        write_recording(tmp_path / "a.bin", events)


@pytest.mark.parametrize("events", [[1, 2], np.zeros(3), np.zeros(3, [("t", "i8"), ("x", "i8"), ("p", "i8")])])
def test_events_of_another_kind(tmp_path, events):
    with pytest.raises(TypeError, match="`events` must be "):
        write_recording(tmp_path / "a.bin", events)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            b"\0" * 13,
            "`size` must be a multiple of 5 bytes, got 13 (record 2 of {} is cut off): the file is damaged.",
        ),
        (bytes.fromhex("0000000001 2200000002"), "`x` must be from 0 to 33, got 34 (record 1 of {})."),
        (bytes.fromhex("0000000002 0000000001"), "`t` must not decrease, got 1 after 2 (record 1 of {})."),
    ],
)
def test_a_damaged_file_is_named(tmp_path, raw, message):
    path = tmp_path / "a.bin"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="must") as caught:
        read_recording(path)
    assert str(caught.value) == message.format(path)


def outcome(path):
    """What a recording holds, or None and why it is refused."""
    try:
        return read_recording(path), ""
    except ValueError as fault:
        return None, str(fault)


@settings(deadline=None, max_examples=1500, derandomize=True, database=None)
@given(raw=st.binary(max_size=60))
def test_any_bytes_are_read_right_or_refused(raw, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.bin"
    path.write_bytes(raw)
    events, fault = outcome(path)
    assert str(path) in fault if events is None else nmnist.pack(events, "here") == raw


def test_damage_to_a_good_recording(tmp_path, make_events):
    rng, good, read = np.random.default_rng(0), tmp_path / "good.bin", 0
    write_recording(good, make_events(np.sort(rng.integers(0, 300_000, 500)), rng.integers(0, 34, 500)))
    raw = good.read_bytes()
    for _ in range(2000):
        bad = bytearray(raw)
        bad[rng.integers(len(bad))] = rng.integers(256)
        good.write_bytes(bad[: rng.integers(len(bad))] if rng.random() < 0.2 else bad)
        events, fault = outcome(good)
        assert str(good) in fault if events is None else nmnist.pack(events, "here") == good.read_bytes()
        read += events is not None
    assert 200 < read < 1800


def test_writing_where_no_file_can_be(tmp_path, make_events):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"`path` must be a place .*: Not a directory\.$"):
        write_recording(tmp_path / "file" / "a.bin", make_events([1]))
    (tmp_path / "a.bin").mkdir()
    with pytest.raises(OSError, match=r"`path` must .*a\.bin: Is a directory\.$"):
        write_recording(tmp_path / "a.bin", make_events([1]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "file"]


def test_a_full_disk_keeps_the_old_recording(tmp_path, make_events):
    path = tmp_path / "a.bin"
    write_recording(path, make_events([1]))
    code = (
        "import resource, sys, numpy as np\n"
        "from suspike_datasets import write_recording\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    write_recording(sys.argv[1], np.zeros(999, [(k, 'i8') for k in 'xytp']))\n"
        "except OSError as err:\n"
        "    sys.exit(str(err))\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert run.stderr == f"`path` must be a place that can be written and has room, got {path}: File too large.\n"
    assert path.stat().st_size == 5
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_load_returns_what_was_written_in_file_order(tmp_path, make_events, no_network):
    rng = np.random.default_rng(0)
    written = {}
    for number, digit in [
        (12, 0),
        (3, 9),
        (100_001, 2),
        (99_999, 5),
        (4, 0),
        (3, 1),
    ]:  # by folder or name: other orders
        n = int(rng.integers(1, 50))
        events = make_events(
            np.sort(rng.integers(0, 2**23, n)), rng.integers(0, 34, n), rng.integers(0, 34, n), rng.integers(0, 2, n)
        )
        place(tmp_path, number, digit, events)
        written[number, digit] = events
    place(tmp_path, 7, 7, make_events([1]), "Test")
    recordings, labels = load(str(tmp_path), "train")
    assert labels.dtype == np.int64
    assert labels.tolist() == [1, 9, 0, 0, 5, 2]
    for events, key in zip(recordings, sorted(written), strict=True):
        assert events.dtype == written[key].dtype
        np.testing.assert_array_equal(events, written[key])
    assert load(tmp_path, "test")[1].tolist() == [7]


def test_load_takes_the_real_subset(real_root, no_network):
    recordings, labels = load(real_root, "test")
    assert len(recordings) == len(labels) == 150
    assert {*labels.tolist()} == {*range(10)}
    paths = sorted((real_root / "NMNIST" / "Test").glob("*/*.bin"), key=lambda path: path.stem)
    assert labels.tolist() == [int(path.parent.name) for path in paths]
    for i in range(0, 150, 10):
        np.testing.assert_array_equal(recordings[i], read_recording(paths[i]))


def test_the_network_guard_catches_the_stock_class(tmp_path, make_events, no_network):
    import tonic

    place(tmp_path, 1, 0, make_events([1]))
    with pytest.raises(AssertionError, match="the network was touched"):
        tonic.datasets.NMNIST(save_to=str(tmp_path), train=True)


def test_load_of_nothing(tmp_path, no_network):
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(FileNotFoundError) as caught:
            load(root, "test")
        want = f"`root` must hold recordings, got none in {root}/NMNIST/Test/<digit>/NNNNN.bin"
        assert str(caught.value) == f"{want}. `suspike data get nmnist --root {root} --split test` fetches it."
    with pytest.raises(ValueError, match="`split` must be 'train' or 'test', got 'valid'"):
        load(tmp_path, "valid")


def test_load_names_the_damaged_file(tmp_path, make_events, no_network):
    place(tmp_path, 1, 3, make_events([1, 2]))
    path = place(tmp_path, 2, 3, make_events([1, 2, 3]))
    good = path.read_bytes()
    damage = {
        good[
            :-2
        ]: f"`size` must be a multiple of 5 bytes, got 13 (record 2 of {path} is cut off): the file is damaged.",
        b"": f"`root` must hold recordings with events, got the empty file {path}: fetch it again.",
        good[:5] + bytes([0, 240]) + good[7:]: f"`y` must be from 0 to 33, got 240 (record 1 of {path}).",
        good[:5] + bytes([0, 99]) + good[7:]: f"`y` must be from 0 to 33, got 99 (record 1 of {path}).",
        good[10:] + good[5:10]: f"`t` must not decrease, got 2 after 3 (record 1 of {path}).",
    }
    for raw, message in damage.items():
        path.write_bytes(raw)
        with pytest.raises(ValueError, match="must") as caught:
            load(tmp_path, "train")
        assert str(caught.value) == message
    path.write_bytes(good)
    assert len(load(tmp_path, "train")[0]) == 2


@pytest.mark.parametrize("stray", ["10/00001.bin", "x/00001.bin", "00001.bin", "3/deep/00001.bin", "3/a.bin", "3/1bin"])
def test_load_names_a_stray_file(tmp_path, make_events, stray):
    good = place(tmp_path, 1, 3, make_events([1, 2]))
    folder = tmp_path / "NMNIST" / "Train"
    path = folder / stray
    path.parent.mkdir(exist_ok=True)
    shutil.copy(good, path)
    with pytest.raises(ValueError, match="must hold") as caught:
        load(tmp_path, "train")
    assert str(caught.value) == f"`root` must hold recordings as {folder}/<digit>/NNNNN.bin, got {path}."


def test_damaged_recordings_are_skipped_and_counted(tmp_path, make_events, caplog):
    for number in (1, 2, 4):
        place(tmp_path, number, 3, make_events([number]))
    paths = [place(tmp_path, number, 5, make_events([1, 2])) for number in (3, 5)]
    paths[0].write_bytes(b"123456")
    paths[1].write_bytes(b"")
    recordings, labels = load(tmp_path, "train", damaged="skip")
    assert [r["t"].tolist() for r in recordings] == [[1], [2], [4]]
    assert labels.tolist() == [3, 3, 3]
    (message,) = caplog.messages
    assert message.startswith("skipped 2 of 5 recordings; the first: `size` must be a multiple of 5 bytes, got 6 ")
    with pytest.raises(ValueError, match=r"^`damaged` must be 'refuse' or 'skip', got 'ignore'\.$"):
        load(tmp_path, "train", damaged="ignore")


def test_of_recordings_only_times_and_units_are_kept(tmp_path, make_events):
    """A load takes little more memory than what it returns; structured arrays of it all would take four times that."""
    rng = np.random.default_rng(0)
    for number in range(1, 201):
        t = np.sort(rng.integers(0, 300_000, 4000))
        place(tmp_path, number, number % 10, make_events(t, rng.integers(0, 34, 4000), 5, rng.integers(0, 2, 4000)))
    nmnist.read_split(tmp_path, "train")
    tracemalloc.start()
    try:
        found = nmnist.read_split(tmp_path, "train")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.t.nbytes + found.unit.nbytes == 200 * 4000 * 8
    assert peak < 200 * 4000 * 8 * 1.25


def test_a_file_that_grows_meanwhile(tmp_path, make_events, monkeypatch):
    paths = [place(tmp_path, number, 3, make_events([1, 2])) for number in (1, 2)]
    read = nmnist.read_recording

    def grow(path):
        write_recording(path, make_events([1, 2, 3] if path == paths[1] else [1, 2]))
        return read(path)

    monkeypatch.setattr(nmnist, "read_recording", grow)
    with pytest.raises(ValueError, match=rf"^`root` must hold files that nobody writes .* longer one at {paths[1]}\.$"):
        load(tmp_path, "train")
    assert len(load(tmp_path, "train")[0]) == 2


def test_tonic_reads_the_same_events(real_root, no_network, monkeypatch):
    import tonic.datasets

    monkeypatch.setattr(tonic.datasets.NMNIST, "_check_exists", lambda self: True)
    for split in ("train", "test"):
        recordings, labels = load(real_root, split)
        theirs = tonic.datasets.NMNIST(save_to=str(real_root), train=split == "train")
        order = sorted(range(len(theirs)), key=lambda i: Path(theirs.data[i]).stem)
        assert len(order) == len(recordings) == {"train": 850, "test": 150}[split]
        for i, mine, label in zip(order, recordings, labels, strict=True):
            events, target = theirs[i]
            assert target == label
            assert mine.dtype == events.dtype  # fields, their order and types
            np.testing.assert_array_equal(mine, events)


def test_the_package_loads_nothing_heavy():
    code = "import suspike_datasets, sys; sys.exit(str({'torch', 'tonic', 'sklearn', 'suspike'} & {*sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr == "set()\n"
