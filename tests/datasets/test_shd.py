import io
import json
import resource
import subprocess
import sys
import textwrap
import time
from unittest import mock

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suspike_datasets import from_recordings, load, shd, shd_child

FIELDS = [("t", "i8"), ("x", "i8")]


def words(n=5, seed=0, longest=1_400_000):
    """Recordings of one line of 700 units."""
    rng, recordings = np.random.default_rng(seed), []
    for size in rng.integers(0, 200, n):
        events = np.zeros(size, FIELDS)
        events["t"], events["x"] = np.sort(rng.integers(0, longest, size)), rng.integers(0, 700, size)
        recordings.append(events)
    return from_recordings(
        recordings, sensor=shd.SENSOR, labels=rng.integers(0, 3, n), subjects=rng.integers(0, 9, n),
        classes=("zero", "one", "zwei"),
    )  # fmt: skip


def same(a, b):
    for mine, theirs in zip(a, b, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def here(command, *, input, **_):
    """Answer as the reading process does, from this one, without its limits: for files that are whole."""
    out = io.BytesIO()
    with mock.patch.dict(sys.modules, {"resource": None}):
        shd_child.answer(out, **json.loads(input))
    return subprocess.CompletedProcess(command, 0, out.getvalue())


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(seed=st.integers(0, 10**6), longest=st.sampled_from([3, 100, 5000, 1_400_000, 30_000_000]))
def test_what_was_read_once_comes_back_as_it_was(seed, longest, tmp_path_factory):
    path, events = tmp_path_factory.getbasetemp() / "words.h5", words(4, seed, longest)
    shd.write_file(path, events)
    with mock.patch.object(shd.subprocess, "run", here):
        first = shd.read_file(path)
    same(first._replace(t=events.t), events)
    assert (np.abs(first.t - events.t) <= np.maximum(1, events.t * 2.0**-11 + 1)).all()  # half floats
    shd.write_file(path, first)
    with mock.patch.object(shd.subprocess, "run", here):
        same(shd.read_file(path), first)


def test_tonic_reads_what_we_write(tmp_path, no_network):
    import tonic.datasets

    folder, events = tmp_path / "SHD", words()
    folder.mkdir()
    shd.write_file(folder / "shd_train.h5", events)
    (folder / "shd_train.h5.zip").touch()
    theirs = tonic.datasets.SHD(save_to=str(tmp_path), train=True)
    mine = load("shd", root=tmp_path, split="train")
    assert len(theirs) == mine.n_recordings == 5
    assert theirs.speaker.tolist() == mine.subjects.tolist() == events.subjects.tolist()
    assert tuple(k.decode() for k in theirs.classes) == mine.classes
    for b in range(5):
        found, label = theirs[b]
        assert label == mine.labels[b]
        np.testing.assert_array_equal(found["t"], mine.recording(b)["t"])
        np.testing.assert_array_equal(found["x"], mine.recording(b)["x"])


def test_tonic_reads_the_same_events(speech_root, no_network):
    import tonic.datasets

    for split, n in (("train", 1250), ("test", 250)):
        theirs = tonic.datasets.SHD(save_to=str(speech_root), train=split == "train")
        mine = load("shd", root=speech_root, split=split)
        assert len(theirs) == mine.n_recordings == n
        for b in range(0, n, 7):
            events, label = theirs[b]
            assert label == mine.labels[b]
            np.testing.assert_array_equal(events["t"], mine.recording(b)["t"])
            np.testing.assert_array_equal(events["x"], mine.recording(b)["x"])


def test_a_real_file_comes_back_with_the_same_events(speech_root, tmp_path):
    path = speech_root / "SHD" / "shd_test.h5"
    shd.write_file(tmp_path / "copy.h5", shd.read_file(path))
    with h5py.File(path) as file, h5py.File(tmp_path / "copy.h5") as copy:
        for key in ("labels", "extra/speaker", "extra/keys"):
            np.testing.assert_array_equal(file[key], copy[key])
            assert file[key].dtype == copy[key].dtype
        for key, scale in (("spikes/times", 1e6), ("spikes/units", 1)):
            assert h5py.check_vlen_dtype(file[key].dtype) == h5py.check_vlen_dtype(copy[key].dtype)
            for mine, theirs in zip(copy[key][()], file[key][()], strict=True):  # half floats are finer below 2 ms
                np.testing.assert_array_equal(*((x.astype(float) * scale).astype(int) for x in (mine, theirs)))


def test_spikes_out_of_order_are_put_in_order(tmp_path):
    path = tmp_path / "words.h5"
    shd.write_file(path, words())
    with h5py.File(path, "r+") as file:
        file["spikes/times"][0] = np.array([0.5, 0.25, 0.5, 0.125], np.float16)
        file["spikes/units"][0] = np.array([1, 2, 3, 4], np.uint16)
    first = shd.read_file(path).recording(0)
    assert first["t"].tolist() == [125_000, 250_000, 500_000, 500_000]
    assert first["x"].tolist() == [4, 2, 1, 3]


DAMAGE = {
    "times": (np.array([0.1, np.nan], np.float16), "`times` must be seconds from 0 to 2147.48, got nan at spike 1"),
    "long": (np.array([0.1, 3000], np.float16), "`times` must be seconds from 0 to 2147.48, got 3000.0 at spike 1"),
    "negative": (np.array([-0.1, 1], np.float16), "`times` must be seconds from 0 to 2147.48, got -0.0999"),
    "units": (np.array([1, 700], np.uint16), "`units` must be from 0 to 699, got 700 at spike 1"),
    "number": (np.array([1], np.uint16), "`times` and `units` must be as many, got 2 and 1"),
    "label": (3, "`label` must be from 0 to 2, got 3"),
}


@pytest.mark.parametrize("kind", DAMAGE)
@mock.patch.object(shd.subprocess, "run", here)
def test_a_damaged_recording_is_named_or_skipped(tmp_path, kind, caplog):
    path, (value, fault) = tmp_path / "words.h5", DAMAGE[kind]
    events = words()
    shd.write_file(path, events)
    good = shd.read_file(path)
    with h5py.File(path, "r+") as file:
        file["spikes/times"][2], file["spikes/units"][2] = np.zeros(2, np.float16), np.zeros(2, np.uint16)
        if kind == "label":
            file["labels"][2] = value
        else:
            file["spikes/units" if value.dtype == np.uint16 else "spikes/times"][2] = value
    with pytest.raises(ValueError, match="recording 2 of") as caught:
        shd.read_file(path)
    assert str(caught.value).startswith(fault)
    assert str(caught.value).endswith(f"(recording 2 of {path}): the file is damaged.")
    same(shd.read_file(path, damaged="skip"), good.take([0, 1, 3, 4]))
    assert caplog.messages == [f"skipped 1 of 5 recordings; the first: {caught.value}"]


@pytest.mark.parametrize("key", ["spikes/times", "spikes/units", "labels", "extra/speaker", "extra/keys", "spikes"])
@mock.patch.object(shd.subprocess, "run", here)
def test_a_file_of_another_layout_is_refused(tmp_path, key):
    path = tmp_path / "words.h5"
    shd.write_file(path, words())
    with h5py.File(path, "r+") as file:
        del file[key]
    with pytest.raises(ValueError, match=r"^`path` must be a whole file in SHD's layout, got "):
        shd.read_file(path)
    for wrong in (np.zeros(5), np.zeros((5, 2), np.uint16), np.zeros(3, np.uint16)):
        with h5py.File(path, "a") as file:
            if key in file:
                del file[key]
            file[key] = wrong
        with pytest.raises(ValueError, match=r"^`path` must be a whole file in SHD's layout, got "):
            shd.read_file(path)


def test_damaged_types_and_long_names_are_refused_unread(tmp_path):
    path = tmp_path / "words.h5"
    shd.write_file(path, words())
    raw = path.read_bytes()
    with h5py.File(path) as file:
        kind = file["spikes/times"].id.get_type().encode()
    at = raw.index(kind[2:12])  # as it stands in the file, after the version of the message
    strange = "`spikes/times` is not what SHD's layout has there, got "
    for place, value, fault in ((0, 0xFF, ""), (1, 0x01, strange), (1, 0xA6, strange + "a damaged type")):
        path.write_bytes(raw[: at + place] + bytes([value]) + raw[at + place + 1 :])
        with pytest.raises(ValueError, match=rf"^`path` must be a whole file in SHD's layout, got {path}: {fault}"):
            shd.read_file(path)
    path.write_bytes(raw)
    with h5py.File(path, "r+") as file:
        del file["extra/keys"]
        file.create_dataset("extra/keys", (10**12,), "S10", chunks=(1000,))
    with pytest.raises(ValueError, match="`extra/keys` is longer than the file"):
        shd.read_file(path)


def test_a_hang_ends(tmp_path, monkeypatch):
    """A sector of zeros where the lists stand: libhdf5 walks on by lengths of 0."""
    path = tmp_path / "words.h5"
    shd.write_file(path, words())
    raw = bytearray(path.read_bytes())
    at = -(-(raw.index(b"GCOL") + 16) // 512) * 512
    raw[at : at + 512] = bytes(512)
    path.write_bytes(raw)
    monkeypatch.setattr(shd, "CPU_S", 1)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with pytest.raises(
        ValueError, match=rf"^`path` must be a whole .*, got {path}: reading it takes longer than 1 s of CPU time\.$"
    ):
        shd.read_file(path)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 3
    # where the system knows no such limit, or the reader sleeps
    monkeypatch.setattr(shd, "CPU_S", 0.02)
    monkeypatch.setattr(shd, "CHILD", tmp_path / "sleeps.py")
    shd.CHILD.write_text("import time\ntime.sleep(60)\n")
    begun = time.monotonic()
    with pytest.raises(ValueError, match=r"reading it takes longer than 0\.2 s\.$"):
        shd.read_file(path)
    assert time.monotonic() - begun < 30


PEAK = """
import runpy
try:
    runpy.run_path({child!r}, run_name="__main__")
finally:
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    open({peak!r}, "w").write(line.split()[1])
"""


def test_a_crash_and_a_flood_stay_outside(tmp_path, monkeypatch):
    path = tmp_path / "words.h5"
    events = np.zeros(100_000, FIELDS)
    one = from_recordings([events] + 1999 * [events[:1]], sensor=shd.SENSOR, labels=[0] * 2000, classes=("zero",))
    shd.write_file(path, one)
    with h5py.File(path) as file:
        at = file["spikes/times"].id.get_offset()
    raw = bytearray(path.read_bytes())
    good = shd.read_file(path)
    assert len(good.t) == 101_999
    path.write_bytes(raw[:at] + 10 * raw[at : at + 16] + raw[at + 160 :])  # the long list ten times
    with pytest.raises(ValueError, match=r": `spikes` is longer than the file, 1001990 of them\.$"):
        shd.read_file(path)
    path.write_bytes(raw[:at] + 2000 * raw[at : at + 16] + raw[at + 32_000 :])
    monkeypatch.setattr(shd, "ROOM_BYTES", 2**29)
    # its peak by its own word: what the system says of children may be this process's, which they were forked from
    peak, child = tmp_path / "peak", tmp_path / "tells.py"
    child.write_text(PEAK.format(child=str(shd.CHILD), peak=str(peak)))
    monkeypatch.setattr(shd, "CHILD", child)
    good_path = tmp_path / "good.h5"
    good_path.write_bytes(raw)
    assert len(shd.read_file(good_path).t) == 101_999  # so much room is enough for a good one
    with pytest.raises(ValueError, match=r"^`path` must be a whole file in SHD's layout, got "):
        shd.read_file(path)
    assert int(peak.read_text()) < 2**29 / 1024 * 1.5
    monkeypatch.setattr(shd, "CHILD", tmp_path / "crashes.py")
    shd.CHILD.write_text("import os\nos.kill(os.getpid(), 11)\n")
    with pytest.raises(ValueError, match=r"^`path` must be .*: reading it ends in a crash \(-11\)\.$"):
        shd.read_file(path)


def test_the_reader_sees_the_callers_packages(tmp_path, monkeypatch):
    path = tmp_path / "words.h5"
    shd.write_file(path, words())
    (tmp_path / "h5py.py").write_text("raise ImportError('mine')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"^Files in SHD's layout need h5py: .* mine$"):
        shd.read_file(path)
    (tmp_path / "h5py.py").write_text("raise RuntimeError('mine')")
    with pytest.raises(ValueError, match=r": mine\.$"):
        shd.read_file(path)
    (tmp_path / "sitecustomize.py").write_text("print('hello')")  # what others print is not taken for an answer
    (tmp_path / "h5py.py").unlink()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert shd.read_file(path).n_recordings == words().n_recordings
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"^Files in SHD's layout need h5py: pip install 'suspike\[datasets\]'\.$"):
        shd.read_file(path)


def test_what_is_no_such_file(tmp_path, no_network):
    with pytest.raises(FileNotFoundError, match=r"^`path` must be a file in SHD's layout, got nothing at "):
        shd.read_file(tmp_path / "absent.h5")
    with pytest.raises(FileNotFoundError, match=r"^`root` must hold SSC/ssc_valid\.h5, got nothing at ") as absent:
        load("ssc", root=tmp_path, split="valid")
    cure = f". `suspike data get ssc --root {tmp_path} --split valid` fetches it."
    assert str(absent.value).endswith(f"/SSC/ssc_valid.h5{cure}")
    with pytest.raises(ValueError, match=r"^`split` must be 'train' or 'test', got 'valid'\.$"):
        load("shd", root=tmp_path, split="valid")
    with pytest.raises(
        ValueError,
        match=r"^`name` must be 'nmnist' or 'shd' or 'ssc' or 'dvsgesture' or 'smnist' or 'psmnist', got 'mnist'\.$",
    ):
        load("mnist", root=tmp_path, split="train")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(ValueError, match=r"^`path` must be a whole file in SHD's layout, got "):
        shd.read_file(tmp_path / "text.h5")


def test_writing_refuses_what_the_layout_cannot_hold(tmp_path):
    events = words()
    with pytest.raises(ValueError, match=r"^`events.sensor` must be \(1, 1, 700\) for SHD's layout, got \(2, 1, 700\)"):
        shd.write_file(tmp_path / "a.h5", events._replace(sensor=(2, 1, 700)))
    with pytest.raises(ValueError, match=r"^`events` must have labels and classes for SHD's layout"):
        shd.write_file(tmp_path / "a.h5", events._replace(labels=np.full(5, -1)))
    for wrong in (
        {"subjects": np.full(5, 70_000)}, {"subjects": np.full(5, -5)}, {"classes": ()},
        {"t": np.where(events.t == events.t.max(), 2_147_400_000, events.t)},
    ):  # fmt: skip
        broken = events._replace(**wrong)
        if "t" in wrong:
            broken = broken.take([int(np.argmax([events.t[e - 1] for e in events.start[1:]]))])
        with pytest.raises(ValueError, match=r"^`events"):
            shd.write_file(tmp_path / "a.h5", broken)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"^`path` must be a place that can be written and has room, got "):
        shd.write_file(tmp_path / "file" / "a.h5", events)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# A process with one thread, so it may fork. A child answers for one file after the other until one of them ends it.
FUZZ = """
    import json, os, resource, signal, subprocess, sys
    import h5py
    import numpy as np
    from suspike_datasets import shd, shd_child
    from suspike_datasets.sets import check_set

    place, trials, rng = sys.argv[2], int(sys.argv[3]), np.random.default_rng(0)
    good, paths = open(sys.argv[1], "rb").read(), [f"{place}/{i}.h5" for i in range(trials)]

    def extreme(raw):
        kind, at = rng.integers(8), int(rng.integers(len(raw)))
        n = int(rng.choice([1, 2, 4, 8, 16, 64, 512, 4096]))
        if kind < 4:
            raw[at : at + n] = bytes([(0, 255, 128, 127)[kind]]) * len(raw[at : at + n])
        elif kind == 4:  # a sector of a disk
            at -= at % 512
            raw[at : at + 512] = bytes([255 * int(rng.integers(2))]) * len(raw[at : at + 512])
        elif kind == 5:
            raw[at] = int(rng.integers(256))
        elif kind == 6:  # of another place
            other = int(rng.integers(len(raw)))
            raw[at : at + n] = raw[other : other + len(raw[at : at + n])]
        else:
            raw = raw[:at]
        return raw

    for path in paths:
        raw = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            raw = extreme(raw) if raw else raw
        open(path, "wb").write(raw)

    def answer(given):
        signal.setitimer(signal.ITIMER_PROF, 0.1)  # a limit in whole seconds is tried elsewhere
        with open(given["path"] + ".part", "wb") as out:
            shd_child.answer(out, **given)
        os.rename(given["path"] + ".part", given["path"] + ".answer")

    def forked(command, *, input, **_):  # noqa: A002 - as subprocess.run has it
        given = json.loads(input) | {"seconds": 1000}
        first, found = given["path"], given["path"] + ".answer"
        if not os.path.exists(found):
            child = os.fork()
            if not child:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                for path in paths[paths.index(first) :]:
                    answer(given | {"path": path})
                os._exit(0)
            ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if not os.path.exists(found):
                return subprocess.CompletedProcess(command, {-signal.SIGPROF: -signal.SIGXCPU}.get(ended, ended), b"")
        return subprocess.CompletedProcess(command, 0, open(found, "rb").read())

    shd.subprocess.run = forked
    counts = {"read": 0, "refused": 0, "late": 0, "crash": 0}
    for path in paths:
        try:
            check_set(shd.read_file(path, damaged=("refuse", "skip")[rng.integers(2)]), "fuzzed")
            counts["read"] += 1
        except ValueError as fault:
            assert path in str(fault), fault
            counts["late" if "takes longer" in str(fault) else "crash" if "crash" in str(fault) else "refused"] += 1
    counts["child_kb"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    (peak,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    counts["kb"] = int(peak.split()[1])  # ru_maxrss would be that of the process which started this one, if larger
    print(json.dumps(counts))
    """


def test_damaged_files_end_in_an_error_or_a_read(tmp_path):
    """Runs and sectors of extreme bytes, repeats, cuts: a set that obeys the rules, or a ValueError that names it."""
    path = tmp_path / "words.h5"
    shd.write_file(path, words())
    trials = 600
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FUZZ), str(path), str(tmp_path), str(trials)],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    counts = json.loads(run.stdout)
    assert counts.pop("kb") < 500_000
    assert counts.pop("child_kb") < 500_000
    assert sum(counts.values()) == trials
    assert min(counts["read"], counts["refused"]) > 50
    assert counts["late"] > 0, "the damage that hangs libhdf5 is among it"


def test_other_files_are_not_read(tmp_path):
    """A link, and data that lies in another file."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(64)))
    for change in ("link", "soft", "external"):
        path = tmp_path / f"{change}.h5"
        shd.write_file(path, words())
        n = shd.read_file(path).n_recordings
        with h5py.File(path, "r+") as file:
            if change == "external":
                del file["labels"]
                file.create_dataset("labels", (n,), np.uint16, external=[(str(secret), 0, 2 * n)])
            else:
                file.move("labels", "hidden")
                shd.write_file(tmp_path / "other.h5", words())
                file["labels"] = (
                    h5py.ExternalLink(str(tmp_path / "other.h5"), "labels")
                    if change == "link"
                    else h5py.SoftLink("/hidden")
                )
        with pytest.raises(ValueError, match=r"`labels` is not what SHD's layout has there, got "):
            shd.read_file(path)
