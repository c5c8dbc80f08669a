import hashlib
import io
import json
import shutil
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suspike_datasets import from_recordings, load, shd
from suspike_datasets.fetch import Archive, archives, fetch

MODULE = sys.modules["suspike_datasets.fetch"]  # in the package its name may be the function's
LOCKED = [".train.zip.lock"]
SETS = ("nmnist", "shd", "ssc", "dvsgesture")  # of an archive each
PARTLY = [*LOCKED, ".train.zip.part", ".train.zip.part.json"]
ROOM = "`root` must be a place that can be written and has room, got "
FIRST = {"zip": "Train/0/00001.bin", "tar": "ibmGestureTrain/a/1.npy"}


def entry(kind, name, mode=None, target=""):
    """Return an entry of an archive: `mode` is that of a file in a zip, a type in a tar."""
    if kind == "zip":
        info = zipfile.ZipInfo(name)  # of 1980: the same bytes at any time
        info.external_attr = (mode or 0) << 16
        return info
    info = tarfile.TarInfo(name)
    info.type, info.linkname = mode or tarfile.REGTYPE, target
    return info


def packed(files, kind="zip"):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") if kind == "zip" else tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, data in files.items():
            info = entry(kind, name) if isinstance(name, str) else name
            if kind == "zip":
                archive.writestr(info, data, zipfile.ZIP_DEFLATED)
            else:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return raw.getvalue()


RNG = np.random.default_rng(0)
FILES = {f"Train/{i % 10}/{i:05d}.bin": RNG.bytes(5 * int(RNG.integers(1, 800))) for i in range(1, 61)}
DATA = packed(FILES)


def md5(data):
    return hashlib.md5(data).hexdigest()


def tree(folder, below=""):
    return {below + str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def is_good(root):
    """Archive and content stand there, byte for byte, and nothing else."""
    assert names(root / "NMNIST") == [*LOCKED, "Train", "train.zip"]
    assert (root / "NMNIST" / "train.zip").read_bytes() == DATA
    assert tree(root / "NMNIST" / "Train", "Train/") == FILES


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        status, headers, body = self.server.answer(asked, self.path)
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        for i in range(0, len(body), 4000):
            self.wfile.write(body[i : i + 4000])
            time.sleep(self.server.pause)
        time.sleep(self.server.silence)


class Server(ThreadingHTTPServer):
    daemon_threads, pause, silence = True, 0.0, 0.0

    def has(self, data=DATA, url=None, filename="train.zip", folder="NMNIST"):
        """Set the archive that every set consists of, and give it."""
        self.archive = Archive(url or self.url, md5(data), filename, folder)
        self.gives(data)

    def gives(self, data=DATA, *, ranges=True, etag='"1"', modified=None, longer=0, cuts=()):
        """Answer with a file; `cuts` says after how many bytes of an answer it ends."""
        cuts = list(cuts)

        def answer(asked, path):
            start, status, headers = 0, 200, {"ETag": etag, "Last-Modified": modified}
            if asked and ranges:
                start, status = int(asked.removeprefix("bytes=").removesuffix("-")), 206
                if start >= len(data):
                    return 416, {}, b""
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            if longer is not None:
                headers["Content-Length"] = len(data) - start + longer
            body = data[start:][: cuts.pop(0) if cuts else None]
            return status, {key: value for key, value in headers.items() if value}, body

        self.answer = answer

    def says(self, status, body, headers):
        self.answer = lambda asked, path: (status, headers, body)
        return self.answer


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    found = Server(("127.0.0.1", 0), Handler)
    found.asked, found.url = [], f"http://127.0.0.1:{found.server_port}/file"
    found.has()
    monkeypatch.setattr(MODULE, "archives", lambda name, split: [found.archive])
    thread = threading.Thread(target=found.serve_forever, args=(0.005,))
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def get(root, progress=None):
    return fetch("nmnist", root=root, split="train", progress=progress)


def interrupt(root, server):
    """Let a call fetch 10,000 bytes, then the connection be cut twice; afterwards the server gives again."""
    server.gives(cuts=[10_000, 0])
    with pytest.raises(ConnectionError, match=rf"^`network` must give train.zip, got only 10000 of {len(DATA)} bytes"):
        get(root)
    assert names(root / "NMNIST") == PARTLY
    assert (root / "NMNIST" / PARTLY[1]).read_bytes() == DATA[:10_000]
    server.gives()
    server.asked.clear()


@pytest.mark.parametrize(("name", "split"), [(n, s) for n in SETS for s in MODULE.CONTENTS[n]])
def test_archives_are_those_that_tonic_would_fetch(name, split, tmp_path, monkeypatch, no_network):
    import tonic.datasets

    def ask(self):
        raise LookupError(self.url, self.file_md5, self.filename, Path(self.location_on_system).name)

    monkeypatch.setattr(tonic.dataset.Dataset, "download", ask)
    part = {"split": split} if name == "ssc" else {"train": split == "train"}
    with pytest.raises(LookupError) as asked:
        getattr(tonic.datasets, MODULE.FOLDERS[name])(save_to=str(tmp_path), **part)
    assert archives(name, split) == [Archive(*asked.value.args)]
    with pytest.raises(ValueError, match=r"^`name` must be 'nmnist' or 'shd' .* or 'psmnist', got 'mnist'"):
        archives("mnist", "train")
    with pytest.raises(ValueError, match=r"^`split` must be 'train' or .*'test', got 'extra'"):
        fetch(name, root=tmp_path, split="extra")
    monkeypatch.setitem(sys.modules, "tonic.datasets", None)
    with pytest.raises(ImportError, match=r"tonic: pip install 'suspike\[datasets\]'"):
        archives(name, split)


@pytest.mark.parametrize(
    "file", ["NMNIST/Test/7/1.bin", "SHD/shd_test.h5", "SSC/ssc_test.h5", "DVSGesture/ibmGestureTest/user1/3.npy"]
)
def test_what_is_there_is_used_as_it_is(file, tmp_path, monkeypatch, no_network):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"12345")
    monkeypatch.setitem(sys.modules, "tonic.datasets", None)  # not even asked for
    folder, content, *_ = path.relative_to(tmp_path).parts
    assert fetch(folder.lower(), root=str(tmp_path), split="test") == tmp_path / folder / content
    assert tree(tmp_path) == {file: b"12345"}


def test_an_original_archive_is_unpacked_and_another_one_refused(tmp_path, server, no_network):
    place = tmp_path / "NMNIST" / "train.zip"
    place.parent.mkdir()
    place.write_bytes(DATA[:-1])
    with pytest.raises(ValueError, match=rf"^`root` must hold the original train.zip .*got md5 {md5(DATA[:-1])} of"):
        get(tmp_path)
    assert tree(place.parent) == {LOCKED[0]: b"", "train.zip": DATA[:-1]}
    place.write_bytes(DATA)
    assert get(tmp_path) == tmp_path / "NMNIST" / "Train"
    is_good(tmp_path)


def test_other_things_at_the_place_are_left_alone(tmp_path, server):
    mine = tmp_path / "NMNIST" / "Train" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.touch()
    with pytest.raises(FileExistsError, match=r"^`root` must hold recordings or nothing in .*Train, got other things"):
        get(tmp_path)
    with pytest.raises(OSError, match=rf"^{ROOM}.*: Not a dir"):
        get(mine)
    assert tree(tmp_path) == {"NMNIST/Train/mine.txt": b"", f"NMNIST/{LOCKED[0]}": b""}
    assert server.asked == []


def test_a_download(tmp_path, server):
    seen, folder = [], tmp_path / "deep" / "NMNIST"  # with tonic's sign that an archive was unpacked
    (folder / "Train").mkdir(parents=True)
    (folder / "train.zip").touch()
    assert get(folder.parent, lambda *numbers: seen.append(numbers)) == get(folder.parent) == folder / "Train"
    is_good(folder.parent)
    assert server.asked == [None]
    assert seen[-1] == (len(DATA), len(DATA))
    assert seen == sorted(set(seen))


def test_tonic_and_load_find_what_was_fetched(tmp_path, server):
    import tonic.datasets

    events = np.zeros(9, [("t", "i8"), ("x", "i8")])
    words = from_recordings([events], sensor=shd.SENSOR, labels=[1], subjects=[2], classes=("zero", "one"))
    shd.write_file(tmp_path / "words.h5", words)
    server.has(packed({"shd_test.h5": (tmp_path / "words.h5").read_bytes()}), None, "shd_test.h5.zip", "SHD")
    assert fetch("shd", root=tmp_path, split="test") == tmp_path / "SHD" / "shd_test.h5"
    assert load("shd", root=tmp_path, split="test").labels.tolist() == [1]
    assert len(tonic.datasets.SHD(save_to=str(tmp_path), train=False)) == 1


@pytest.mark.parametrize("silence", [0, 3])
def test_a_cut_connection_is_taken_up_again(tmp_path, server, monkeypatch, silence):
    monkeypatch.setattr(MODULE, "TIMEOUT_S", 0.1 if silence else 30)
    server.gives(cuts=[10_000, 1, 30_000])
    server.silence, begun = silence, time.monotonic()
    get(tmp_path)
    is_good(tmp_path)
    assert time.monotonic() - begun < 3
    assert server.asked == [None, "bytes=10000-", "bytes=10001-", "bytes=40001-"]


def test_the_next_call_goes_on_through_redirects(tmp_path, server):
    interrupt(tmp_path, server)
    whole, there = server.answer, server.says(307, b"", {"Location": f"{server.url}/there"})
    server.answer = lambda asked, path: (whole if path.endswith("there") else there)(asked, path)
    seen, fault = [], BrokenPipeError("mine")

    def progress(done, total):
        seen.append(done)
        if done == total:
            raise fault

    with pytest.raises(BrokenPipeError) as told:
        get(tmp_path, progress)
    assert told.value is fault, "no failure of the file system"
    assert 10_000 < seen[0] <= seen[-1] == len(DATA)
    assert names(tmp_path / "NMNIST") == PARTLY
    get(tmp_path)
    is_good(tmp_path)
    assert server.asked == ["bytes=10000-"] * 2, "what is whole is not asked for"


LONGER = packed(FILES | {"Train/0/99999.bin": b"12345"})
CHANGES = [{"ranges": False}, {"etag": '"2"'}, {"etag": None}, {"modified": "Sunday"}, {"data": LONGER}]


@pytest.mark.parametrize("now", CHANGES)
def test_a_file_that_changed_is_fetched_anew(tmp_path, server, now):
    interrupt(tmp_path, server)
    server.has(now.get("data", DATA))
    server.gives(**now)
    assert len(tree(get(tmp_path))) == len(FILES) + ("data" in now)
    assert md5((tmp_path / "NMNIST" / "train.zip").read_bytes()) == server.archive.md5
    assert server.asked == ["bytes=10000-", None][: 1 if "ranges" in now else 2]


@pytest.mark.parametrize("sidecar", [b"", b"[]", b"3", b'{"url": "http://moved/"}', b"[" * 70_000, b"\xff\xfe"])
def test_a_part_that_nothing_vouches_for_is_dropped(tmp_path, server, sidecar):
    interrupt(tmp_path, server)
    (tmp_path / "NMNIST" / PARTLY[2]).write_bytes(sidecar)
    get(tmp_path)
    is_good(tmp_path)
    assert server.asked == [None]


LIES = {
    f"only {len(DATA)} of {len(DATA) + 5} bytes": {"longer": 5},
    f"only 30000 of {len(DATA)} bytes": {"ranges": False, "cuts": [20_000, 30_000, 30_000]},
    f"^`md5` of train.zip must be {md5(DATA)}, got {md5(DATA[:-5])} from": {"longer": -5},
    f"^`md5` of train.zip .*, got {md5(DATA[:999])} from": {"longer": None, "cuts": [999]},
    f"^`md5` of train.zip .*, got {md5(b'')} from": {"data": b""},
    "^`md5` of .*: what came was removed. Try again, or get the file": {"data": DATA[:-1] + b"x"},
}


@pytest.mark.parametrize("words", LIES)
def test_a_server_that_lies(tmp_path, server, words):
    server.gives(**LIES[words])
    with pytest.raises(ValueError if "md5" in words else ConnectionError, match=words):
        get(tmp_path)
    assert names(tmp_path / "NMNIST") == (LOCKED if "md5" in words else PARTLY)
    server.gives(longer=None)
    seen = []
    get(tmp_path, lambda *numbers: seen.append(numbers))
    is_good(tmp_path)
    assert seen[-1] == (len(DATA), len(DATA) if "30000" in words else None)


@pytest.mark.parametrize("extent", ["bytes 9999-10005/{n}", "bytes 10001-{n}/{n}", "bytes */{n}", "", "x"])
def test_another_extent_than_asked_for_is_not_appended(tmp_path, server, extent):
    interrupt(tmp_path, server)
    whole = server.answer
    part = server.says(206, b"12", {"Content-Range": extent.format(n=len(DATA)), "ETag": '"1"'})
    with pytest.raises(ConnectionError, match=r"^`network` must give train.zip, got the middle of a file from "):
        get(tmp_path / "other")
    server.answer = lambda asked, path: (part if asked else whole)(asked, path)
    get(tmp_path)
    is_good(tmp_path)


FAULTS = {
    r"HTTP 404 \(Not Found\)": (404, {}),
    r"HTTP 302 \(The HTTP server returned a redirect error .* Found\)": (302, {"Location": "/file"}),
    "HTTP 200 with text/html, no archive,": (200, {"Content-Type": "text/html; charset=utf-8"}),
    "HTTP 202 with application/zip, no archive,": (202, {"Content-Type": "application/zip"}),
    "unknown url type: ftp": (302, {"Location": "ftp://127.0.0.1/file"}),
    r"HTTP 302 \(.*file:///etc/hostname.*\)": (302, {"Location": "file:///etc/hostname"}),
    r"\[Errno 111\] Connection refused": "http://127.0.0.1:1/away",
    "unknown url type: file": "file:///etc/hostname",
}


@pytest.mark.parametrize("words", FAULTS)
def test_errors_of_the_network_say_what_to_do(tmp_path, server, words):
    interrupt(tmp_path, server)
    if isinstance(FAULTS[words], str):
        server.has(url=FAULTS[words])
    else:
        server.says(FAULTS[words][0], b"<html>", FAULTS[words][1])
    with pytest.raises(ConnectionError) as told:
        get(tmp_path)
    told.match(
        rf"^`network` must give train\.zip, got {words} from {server.archive.url}: try again, or get the file \(md5 "
        rf"{md5(DATA)}\) from there by other means and put it at {tmp_path}/NMNIST/train\.zip\.\Z"
    )
    server.has()
    server.asked.clear()
    get(tmp_path)
    assert server.asked == ["bytes=10000-"], "what came before still counts"
    is_good(tmp_path)


# The module alone: its package would bring numba, a second for each child.
CHILD = """
import json, resource, sys, types
package = types.ModuleType("suspike_datasets")
package.__path__ = [sys.argv[1]]
sys.modules["suspike_datasets"] = package
from suspike_datasets import fetch
archive, root, limit = json.loads(sys.argv[2])
fetch.archives = lambda name, split: [fetch.Archive(*archive)]
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
print("go", flush=True)
print(fetch.fetch("nmnist", root=root, split="train"), flush=True)
"""


def start(server, root, limit=-1):
    arguments = [str(Path(MODULE.__file__).parent), json.dumps([server.archive, str(root), limit])]
    process = subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stdout=-1, stderr=-1, text=True)  # pipes
    assert process.stdout.readline() == "go\n"
    return process


def test_a_kill_at_any_moment_leaves_nothing_that_passes(tmp_path, server):
    server.pause = 0.002
    folder, rng, killed = tmp_path / "NMNIST", np.random.default_rng(0), {".part": 0, ".partial": 0}
    for trial in range(16):
        moment, later = ((".part", 0.04), (".partial", 0.01))[trial % 2]
        process = start(server, tmp_path)
        while process.poll() is None and not any(path.suffix == moment for path in folder.glob(".*")):
            time.sleep(0.0005)
        time.sleep(rng.uniform(0, later))
        process.kill()
        process.communicate(timeout=60)
        killed[moment] += process.returncode == -9
        # what has its name is whole
        assert not (folder / "train.zip").exists() or (folder / "train.zip").read_bytes() == DATA
        if (folder / "Train").exists():
            assert tree(folder / "Train", "Train/") == FILES
            shutil.rmtree(folder)
        elif moment == ".partial" and rng.random() < 0.5:
            (folder / "train.zip").unlink(missing_ok=True)
    assert all(killed.values())
    assert any(server.asked), "some went on from a part"
    assert start(server, tmp_path).communicate(timeout=60)[0] == f"{folder / 'Train'}\n"
    is_good(tmp_path)


def test_two_processes_end_with_one_good_copy(tmp_path, server):
    both_are_there, give = threading.Event(), server.answer
    server.answer = lambda *asked: both_are_there.wait(60) and give(*asked)
    both = [start(server, tmp_path) for _ in range(2)]
    both_are_there.set()
    for process in both:
        assert process.communicate(timeout=60) == (f"{tmp_path / 'NMNIST' / 'Train'}\n", "")
    assert server.asked == [None]
    is_good(tmp_path)


def test_a_full_disk(tmp_path, server):
    folder = tmp_path / "NMNIST"
    told = start(server, tmp_path, 30_000).communicate(timeout=60)[1]
    assert told.endswith(f"\nOSError: {ROOM}{folder / '.train.zip.part'}: File too large.\n")
    assert names(folder) == PARTLY
    assert start(server, tmp_path, len(DATA)).communicate(timeout=60)[1] == ""
    assert server.asked == [None, "bytes=30000-"]
    is_good(tmp_path)
    shutil.rmtree(folder)
    server.has(packed({FIRST["zip"]: b"12345", "Train/0/00002.bin": bytes(200_000)}))
    assert f"\nOSError: {ROOM}{folder / '.train.zip.'}" in start(server, tmp_path, 50_000).communicate(timeout=60)[1]
    assert names(folder) == [*LOCKED, "train.zip"]
    assert len(tree(get(tmp_path))) == 2


def unpack(root, data, kind="zip"):
    """Return what an archive unpacks to; beside it and the content nothing is ever left."""
    place = root / "inner" / {"zip": "x.zip", "tar": "x.tar.gz"}[kind]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    content = place.with_name(FIRST[kind].partition("/")[0])
    try:
        MODULE._unpack(place, content)
        return tree(content)
    finally:
        assert names(root) == ["inner"]
        assert set(names(root / "inner")) <= {place.name, content.name}


GESTURE = "ibmGestureTrain/a/2.npy"
EVIL = [
    *((kind, name, f"the name '{name}'") for kind in FIRST for name in ("/evil", "../evil", "Train/../../x", "//evil")),
    ("zip", "..\\..\\evil", "the name"),
    ("zip", entry("zip", "Train/0/00002.bin", 0o120777), "the symbolic link 'Train/0/00002.bin'"),
    ("zip", entry("zip", "Train/pipe", 0o010666), "the device 'Train/pipe'"),
    ("zip", entry("zip", "Train/0/./00001.bin", 0o100666), "twice the name 'Train/0/./00001.bin'"),
    ("tar", entry("tar", GESTURE, tarfile.SYMTYPE, "/etc/hostname"), f"the symbolic link '{GESTURE}'"),
    ("tar", entry("tar", GESTURE, tarfile.SYMTYPE, "1.npy"), "the symbolic link"),
    ("tar", entry("tar", GESTURE, tarfile.LNKTYPE, FIRST["tar"]), "the hard link"),
    *(("tar", entry("tar", GESTURE, kind), "the device") for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, b"6")),
]


@pytest.mark.parametrize(("kind", "evil", "words"), EVIL)
def test_evil_archives_are_refused(tmp_path, kind, evil, words):
    with pytest.raises(ValueError, match=r"^`x\..* must hold files and folders below its own, got ") as told:
        unpack(tmp_path, packed({FIRST[kind]: b"12345", evil: b""}, kind), kind)
    assert words in str(told.value)
    with pytest.raises(ValueError, match=r"^`x\..* must hold recordings in (Train|ibmGestureTrain), got none"):
        unpack(tmp_path, packed({"Test/0/00001.bin": b"12345", "Train/a.txt": b"a"}, kind), kind)


def test_archives_are_bounded_and_hold_what_they_declare(tmp_path, monkeypatch):
    data, size = packed({f"Train/0/{i:05d}.bin": bytes(300_007) for i in range(10)}), struct.pack("<I", 300_007)
    for name, bound in (("UNPACKED_FILES", 10), ("UNPACKED_BYTES", 3_000_070)):
        monkeypatch.setattr(MODULE, name, bound - 1)
        with pytest.raises(ValueError, match=rf"^`x.zip` must hold at most .*\b{bound - 1}\b.*, got more"):
            unpack(tmp_path, data)
        monkeypatch.setattr(MODULE, name, bound)
    assert set(unpack(tmp_path, data).values()) == {bytes(300_007)}
    shutil.rmtree(tmp_path / "inner")
    monkeypatch.undo()
    for lie in (5, 300_006, 300_008, 2**30):
        with pytest.raises(ValueError, match=r"^`x.zip` must (hold \d+ bytes of|be a whole archive)"):
            unpack(tmp_path, data.replace(size, struct.pack("<I", lie)))


PARTS = st.lists(st.sampled_from(["..", ".", "", "a", "Train", "ibmGestureTrain", "é", "b.npy", "\\"]), max_size=5)


@settings(deadline=None, derandomize=True, database=None, max_examples=100)
@given(st.sampled_from(sorted(FIRST)), PARTS.map("/".join), st.integers(0, 10**6), st.integers(0, 2))
def test_whatever_is_in_an_archive_nothing_gets_out(tmp_path_factory, kind, name, seed, damage):
    """Any name; a byte changed; cut off: as if an md5 did not tell."""
    root, rng = tmp_path_factory.mktemp("any"), np.random.default_rng(seed)
    raw = bytearray(packed({FIRST[kind]: bytes(range(250)), name: b"x"}, kind))
    if damage == 1:
        raw[rng.integers(len(raw))] = rng.integers(256)
    try:
        found = unpack(root, raw[: rng.integers(len(raw))] if damage == 2 else raw, kind)
        assert damage or found[FIRST[kind].partition("/")[2]] == bytes(range(250))
    except (ValueError, OSError) as err:
        if not str(err).startswith(("`x.", ROOM)):
            raise
    shutil.rmtree(root)
