import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from suspike_datasets import cache, load_binned, write_recording
from suspike_datasets.cache import arrays_once

ARRAYS = {
    "a": np.arange(1000, dtype=np.int32), "b": np.zeros((0, 3)), "c": np.array(["x", "yz"]), "d": np.eye(7)[:, ::2]
}  # fmt: skip


def make():
    return dict(ARRAYS)


def never():
    raise AssertionError("made again")


def same(found):
    assert found.keys() == ARRAYS.keys()
    for key, array in ARRAYS.items():
        np.testing.assert_array_equal(found[key], array)
        assert found[key].dtype == array.dtype


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def start(code, *arguments):
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_arrays_are_made_once_and_mapped(tmp_path):
    place = tmp_path / "deep" / "cache"
    same(arrays_once(place, "test", {"dt": 1}, make))
    found = arrays_once(place, "test", {"dt": 1}, never)
    same(found)
    assert isinstance(found["a"], np.memmap)
    assert not found["a"].flags.writeable
    with pytest.raises(AssertionError, match="made again"):
        arrays_once(place, "test", {"dt": 2}, never)
    with pytest.raises(AssertionError, match="made again"):
        arrays_once(place, "other", {"dt": 1}, never)
    assert len([n for n in names(place) if n.startswith("test-")]) == 1
    assert not [n for n in names(place) if "partial" in n]


@pytest.mark.parametrize(
    "damage", ["missing", "cut", "flipped", "shape", "index", "no index", "object", "long index", "type", "name"]
)
def test_damaged_arrays_are_made_anew(tmp_path, damage):
    arrays_once(tmp_path, "test", {}, make)
    (folder,) = tmp_path.glob("test-*")
    path, index = folder / "a.bin", folder / cache.INDEX
    raw = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(raw[:-1])
    elif damage == "flipped":
        raw[-3] ^= 1
        path.write_bytes(raw)
    elif damage == "shape":
        index.write_text(index.read_text().replace("[1000]", f"[{10**30}]"))
    elif damage == "index":
        index.write_text(json.dumps({"arrays": {"../../a": 1}}))
    elif damage == "no index":
        index.unlink()
    elif damage == "type":
        index.write_text(index.read_text().replace("<i4", "<f4"))
    elif damage == "name":
        index.write_text(index.read_text().replace('"a"', '"b"'))
    elif damage == "object":
        index.write_text(index.read_text().replace("<i4", "|O"))
    else:
        index.write_text("[" * 10**6)
    calls = []
    same(arrays_once(tmp_path, "test", {}, lambda: calls.append(1) or make()))
    assert calls == [1]
    same(arrays_once(tmp_path, "test", {}, never))
    assert names(tmp_path) == [".test.lock", folder.name]


def test_random_damage_never_passes(tmp_path):
    """Bytes of any of the files changed or cut off: the arrays are right, or made anew."""
    arrays_once(tmp_path, "test", {}, make)
    (folder,) = tmp_path.glob("test-*")
    good, rng, made = {path: path.read_bytes() for path in folder.iterdir()}, np.random.default_rng(0), []
    paths = sorted(path for path, raw in good.items() if raw)
    for _ in range(1000):
        path = paths[rng.integers(len(paths))]
        raw = bytearray(good[path])
        for _ in range(rng.integers(1, 4)):
            raw[rng.integers(len(raw))] = rng.integers(256)
        path.write_bytes(raw[: rng.integers(len(raw))] if rng.random() < 0.2 else raw)
        same(arrays_once(tmp_path, "test", {}, lambda: made.append(1) or make()))
        path.write_bytes(good[path])
    assert 500 < len(made) <= 1000


@pytest.mark.parametrize("leads_to", ["damaged", "nothing"])
def test_a_link_in_an_entrys_place_is_replaced_and_what_it_leads_to_stays(tmp_path, leads_to):
    arrays_once(tmp_path / "cache", "test", {}, make)
    (folder,) = (tmp_path / "cache").glob("test-*")
    moved = folder.rename(tmp_path / "moved")
    folder.symlink_to(moved)
    same(arrays_once(tmp_path / "cache", "test", {}, never))
    if leads_to == "damaged":
        (moved / "a.bin").write_bytes(b"short")
    else:
        moved = moved.rename(tmp_path / "gone")
    before = {path.name: path.read_bytes() for path in moved.iterdir()}
    # as a process left it that was killed between two steps
    folder.with_name(f".{folder.name}.damaged.partial").symlink_to(moved)
    calls = []
    same(arrays_once(tmp_path / "cache", "test", {}, lambda: calls.append(1) or make()))
    same(arrays_once(tmp_path / "cache", "test", {}, never))
    assert calls == [1]
    assert not folder.is_symlink()
    assert names(tmp_path / "cache") == [".test.lock", folder.name]
    assert {path.name: path.read_bytes() for path in moved.iterdir()} == before


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(AssertionError):
        arrays_once(tmp_path, "test", {}, never)
    assert names(tmp_path) == [".test.lock"]
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(OSError, match=r"^`cache` must be a place that can be written and .*file: File exists\.$"):
        arrays_once(file, "test", {}, make)
    assert file.read_text() == "mine"


def test_a_full_disk_keeps_the_old_state(tmp_path):
    arrays_once(tmp_path, "test", {}, make)
    before = names(tmp_path)
    code = """
        import resource, sys, numpy as np
        from suspike_datasets.cache import arrays_once
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        try:
            arrays_once(sys.argv[1], "test", {"other": 1}, lambda: {"a": np.zeros(100_000)})
        except OSError as err:
            sys.exit(str(err))
        """
    err = start(code, tmp_path).communicate(timeout=60)[1]
    assert err.startswith(f"`cache` must be a place that can be written and has room, got {tmp_path}: ")
    assert names(tmp_path) == before
    same(arrays_once(tmp_path, "test", {}, never))


WRITER = """
    import sys, time, numpy as np
    from suspike_datasets.cache import arrays_once
    made = []
    def make():
        made.append(1)
        return {f"a{i}": np.full(300_000, i) for i in range(20)}
    print("go", flush=True)
    found = arrays_once(sys.argv[1], "test", {}, make)
    print(len(made), all((found[f"a{i}"] == i).all() and len(found[f"a{i}"]) == 300_000 for i in range(20)), flush=True)
    """


def test_a_kill_at_any_moment_leaves_nothing_that_passes(tmp_path):
    rng, killed = np.random.default_rng(0), 0
    for _ in range(25):
        process = start(WRITER, tmp_path)
        assert process.stdout.readline() == "go\n"
        time.sleep(rng.uniform(0, 0.12))
        process.kill()
        process.communicate(timeout=60)
        killed += process.returncode == -signal.SIGKILL
        for folder in tmp_path.glob("test-*"):  # what stands under its name is whole
            assert len(list(folder.glob("a*.bin"))) == 20
    assert killed
    process = start(WRITER, tmp_path)
    assert process.communicate(timeout=60)[0].split()[-1] == "True"
    assert len(names(tmp_path)) == 2


def test_two_processes_make_one_entry(tmp_path):
    both = [start(WRITER, tmp_path) for _ in range(2)]
    results = [process.communicate(timeout=60)[0].split()[1:] for process in both]
    assert sorted(results) == [["0", "True"], ["1", "True"]]
    assert len(names(tmp_path)) == 2


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    file = tmp_path / ".test.lock"
    with cache.locked(file, "cache"):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        with file.open() as again:
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where it is held
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def recordings(root, make_events, n=3):
    for number in range(1, n + 1):
        folder = root / "NMNIST" / "Train" / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        write_recording(folder / f"{number:05d}.bin", make_events([0, 1000 * number], x=number, y=number, p=[0, 1]))


def test_a_second_epoch_reads_and_bins_nothing(tmp_path, make_events, monkeypatch):
    from suspike_datasets import catalog

    recordings(tmp_path, make_events)
    options = {"root": tmp_path, "split": "train", "dt_us": 1000, "merge": True}
    plain, first = load_binned("nmnist", **options), load_binned("nmnist", **options, cache=tmp_path / "cache")
    read = catalog.load
    monkeypatch.setattr(catalog, "load", never)
    monkeypatch.setattr(catalog, "bin_events", never)
    second = load_binned("nmnist", **options, cache=tmp_path / "cache")
    for found in (first, second):
        assert found.classes == plain.classes == tuple("0123456789")
        assert found.events.sensor == plain.events.sensor == (2, 34, 34)
        for a, b in zip((*found.events, *found[1:3]), (*plain.events, *plain[1:3]), strict=True):
            np.testing.assert_array_equal(a, b)
    changes = {"dt_us": 2000, "merge": False, "n_steps": 3, "pool": (2, 1, 1), "window": ((0, 9), (0, 9))}
    for change in ({key: value} for key, value in changes.items()):
        with pytest.raises(TypeError, match="never"):
            load_binned("nmnist", **options | change, cache=tmp_path / "cache")
    assert len(load_binned("nmnist", **options | {"dt_us": np.int64(1000)}, cache=tmp_path / "cache").labels) == 3
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "NMNIST").symlink_to(tmp_path / "NMNIST")
    with pytest.raises(TypeError, match="never"):
        load_binned("nmnist", **options | {"root": tmp_path / "other"}, cache=tmp_path / "cache")
    path = tmp_path / "NMNIST" / "Train" / "1" / "00001.bin"
    time.sleep(0.01)
    os.utime(path)
    with pytest.raises(TypeError, match="never"):
        load_binned("nmnist", **options, cache=tmp_path / "cache")
    monkeypatch.undo()
    assert catalog.load is read
    recordings(tmp_path, make_events, n=4)
    assert len(load_binned("nmnist", **options, cache=tmp_path / "cache").labels) == 4
