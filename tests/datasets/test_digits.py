import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from suspike_datasets import cache, digits, digits_as_nmnist, load, read_recording

# A set of 40 made-up images with made-up events of 20 kB, for what is about files; used here and in fresh processes.
SMALL = textwrap.dedent(
    """
    import numpy as np
    from suspike_datasets import digits

    def fake_events(image, *, seed, **options):
        events = np.zeros(4000, [(k, "i8") for k in "xytp"])
        events["t"] = np.arange(4000) + seed[1]
        return events

    SMALL = {
        "_digits": lambda: (np.zeros((40, 8, 8)), np.arange(40) % 10),
        "N_DIGITS": 40,
        "N_TEST_PER_DIGIT": 1,
        "saccade_events": fake_events,
    }
    """
)
IN_PROCESS = SMALL + "for name, value in SMALL.items(): setattr(digits, name, value)\n"

# First and last test images, and the sum of all: the split may never change.
SPLIT = ([9, 10, 40, 47, 48], [1751, 1773, 1786], 313_027)


@pytest.fixture
def small(monkeypatch):
    names = {}
    exec(SMALL, names)
    for name, value in names["SMALL"].items():
        monkeypatch.setattr(digits, name, value)


def start(code, *arguments):
    command = [sys.executable, "-c", IN_PROCESS + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def files(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*.bin"))}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def is_good(root):
    return len(files(root)) == 40 and all(len(raw) == 20_000 for raw in files(root).values())


# The real set


def test_split_is_fixed_stratified_and_disjoint(digits_root):
    numbers = {}
    for split in ("Train", "Test"):
        paths = list((digits_root / "NMNIST" / split).glob("*/*.bin"))
        numbers[split] = {int(path.stem): int(path.parent.name) for path in paths}
        assert len(numbers[split]) == len(paths)
    assert len(numbers["Train"]) == 1437
    assert len(numbers["Test"]) == 360
    assert sorted([*numbers["Train"], *numbers["Test"]]) == list(range(1, 1798))
    assert np.bincount(list(numbers["Test"].values())).tolist() == [36] * 10
    test = sorted(numbers["Test"])
    assert (test[:5], test[-3:], sum(test)) == SPLIT

    from sklearn.datasets import load_digits

    assert [{**numbers["Train"], **numbers["Test"]}[i + 1] for i in range(1797)] == load_digits().target.tolist()


def test_recordings_look_like_nmnist(digits_root, no_network):
    held_out, train = (load("nmnist", root=digits_root, split=split) for split in ("test", "train"))
    assert (held_out.n_recordings, train.n_recordings) == (360, 1437)
    recordings = [part.recording(b) for part in (held_out, train) for b in range(part.n_recordings)]
    sizes = np.array([len(events) for events in recordings])
    # Real N-MNIST: 4133 events a recording, half of them ON, std of x 4.9 and of y 6.3, three saccades of 1.2-1.5k.
    assert abs(sizes.mean() - 4133) < 0.05 * 4133
    assert sizes.min() > 1069
    assert sizes.max() < 7152
    on = np.array([events["p"].mean() for events in recordings])
    assert abs(on.mean() - 0.5) < 0.01
    assert on.min() > 0.45
    assert on.max() < 0.55
    assert np.mean([events["x"].std() for events in recordings]) == pytest.approx(4.9, abs=0.8)
    assert np.mean([events["y"].std() for events in recordings]) == pytest.approx(6.3, abs=0.5)
    t = np.concatenate([events["t"] for events in recordings])
    assert t.max() < 320_000
    saccades = [np.median(t[(t > a) & (t <= b)]) for a, b in ((0, 100e3), (100e3, 205e3), (205e3, 320e3))]
    np.testing.assert_allclose(saccades, [48e3, 150e3, 259e3], atol=4e3)
    hist = np.histogram(t, np.arange(0, 320_001, 10_000))[0]
    # saccades beside pauses: 4.6 before the real camera
    assert min(hist[4], hist[14], hist[25]) / max(hist[9], hist[20]) == pytest.approx(4.6, abs=0.6)


def test_a_recording_depends_on_its_image_alone(digits_root):
    from sklearn.datasets import load_digits

    from suspike_datasets import saccade_events

    image = load_digits().images[41]
    events = saccade_events(1 - np.pad(image / 16, 1), seed=(2015, 41), span_px=24, threshold=0.157)
    (path,) = digits_root.rglob("00042.bin")
    np.testing.assert_array_equal(read_recording(path), events)


# The cache


def test_reuse_encodes_nothing(small, tmp_path, monkeypatch):
    seen = []
    root = digits_as_nmnist(tmp_path / "deep" / "cache", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, 40) for i in range(40)]
    assert is_good(root)
    assert names(root.parent) == [".digits.lock", root.name]
    monkeypatch.setattr(digits, "saccade_events", None)  # calling it would raise
    assert digits_as_nmnist(tmp_path / "deep" / "cache", progress=lambda *a: seen.append(a)) == root
    assert len(seen) == 40
    with pytest.raises(TypeError, match="not callable"):
        digits_as_nmnist(tmp_path / "other")
    assert names(tmp_path / "other") == [".digits.lock"]


def test_folder_name_follows_the_code(monkeypatch, tmp_path):
    before = cache.code_hash(*digits.CODE)
    folder = tmp_path / "copy"
    shutil.copytree(os.path.dirname(digits.__file__), folder)
    monkeypatch.setattr(cache, "__file__", str(folder / "cache.py"))
    assert cache.code_hash(*digits.CODE) == before
    text = (folder / "camera.py").read_text()
    (folder / "camera.py").write_text(text.replace("wobble: float = 0.07", "wobble: float = 0.08"))
    assert cache.code_hash(*digits.CODE) != before


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("stop")])
def test_a_failure_halfway_leaves_nothing(small, tmp_path, error):
    def progress(done, total):
        if done == 20:
            assert any(path.is_dir() for path in tmp_path.iterdir())
            raise error

    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        digits_as_nmnist(tmp_path, progress=progress)
    assert names(tmp_path) == [".digits.lock"]
    assert is_good(digits_as_nmnist(tmp_path))


def test_a_kill_halfway_is_not_taken_for_good(small, tmp_path):
    code = """
        import os, signal, sys
        def progress(done, total):
            if done == 39: os.kill(os.getpid(), signal.SIGKILL)
        digits.digits_as_nmnist(sys.argv[1], progress=progress)
        """
    dead = start(code, tmp_path)
    dead.communicate(timeout=60)
    assert dead.returncode == -signal.SIGKILL
    (rest,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert len(files(rest)) == 39
    root = digits_as_nmnist(tmp_path)
    assert root != rest
    assert is_good(root)
    assert names(tmp_path) == [".digits.lock", root.name]


@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_a_damaged_set_is_made_anew(small, tmp_path, damage):
    root = digits_as_nmnist(tmp_path)
    path = next((root / "NMNIST" / "Test").rglob("*.bin"))
    good = files(root)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else path.read_bytes()[:-1])
    assert digits_as_nmnist(tmp_path) == root
    assert files(root) == good
    assert names(tmp_path) == [".digits.lock", root.name]


def test_two_processes_make_one_set(tmp_path):
    code = """
        import pathlib, sys, time
        cache, flag = map(pathlib.Path, sys.argv[1:])
        calls = []
        def progress(done, total):
            calls.append(done)
            if done == 1:
                flag.touch()
                time.sleep(1.5)
        digits.digits_as_nmnist(cache, progress=progress)
        print(len(calls), time.time())
        """
    flag = tmp_path / "started"
    first = start(code, tmp_path / "cache", flag)
    limit = time.monotonic() + 60
    while not flag.exists():
        assert time.monotonic() < limit
        assert first.poll() is None
        time.sleep(0.01)
    second = start(code, tmp_path / "cache", flag)
    results = []
    for process in (first, second):
        out, err = process.communicate(timeout=60)
        assert err == ""
        results.append(out.split())
    assert [int(calls) for calls, _ in results] == [40, 0]
    (root,) = (tmp_path / "cache").glob("digits-*")
    assert is_good(root)
    assert names(tmp_path / "cache") == [".digits.lock", root.name]


def test_a_file_where_the_cache_should_be(small, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for place, reason in ((file, "File exists"), (file / "below", "Not a directory")):
        with pytest.raises(OSError, match="`cache`") as caught:
            digits_as_nmnist(place)
        want = f"`cache` must be a place that can be written and has room, got {place}: {reason}."
        assert str(caught.value) == want
    assert file.read_text() == "mine"
    assert names(tmp_path) == ["file"]


def test_a_file_where_the_set_should_be(small, tmp_path):
    root = digits_as_nmnist(tmp_path)
    shutil.rmtree(root)
    root.write_text("mine")
    with pytest.raises(OSError, match=r"`cache` must be .* is no folder\.$") as caught:
        digits_as_nmnist(tmp_path)
    assert str(root) in str(caught.value)
    assert root.read_text() == "mine"
    assert names(tmp_path) == [".digits.lock", root.name]


def test_a_full_disk_leaves_nothing(tmp_path):
    code = """
        import resource, sys
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
        try:
            digits.digits_as_nmnist(sys.argv[1])
        except OSError as err:
            sys.exit(str(err))
        """
    full = start(code, tmp_path, 19_999)
    err = full.communicate(timeout=60)[1]
    assert err == f"`cache` must be a place that can be written and has room, got {tmp_path}: File too large.\n"
    assert names(tmp_path) == [".digits.lock"]
    roomy = start(code, tmp_path, 20_000)  # the limit was the reason
    assert roomy.communicate(timeout=60)[1] == ""
    assert roomy.returncode == 0


def test_without_scikit_learn(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError) as caught:
        digits_as_nmnist(tmp_path)
    assert str(caught.value) == "`digits_as_nmnist` needs scikit-learn: pip install 'suspike[datasets]'."
    assert names(tmp_path) == [".digits.lock"]
