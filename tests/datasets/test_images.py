import gzip
import logging
import os
import re
import struct
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from suspike_datasets import load, read_recording, saccade_events
from suspike_datasets.images import _read_image, encode_images

N_TRAIN, N_TEST = 6, 3


def strokes(n, seed=0):
    """White strokes on black, as MNIST's: a bar whose place and width differ."""
    pixels = np.zeros((n, 12, 12), np.uint8)
    for i, (place, width) in enumerate(np.random.default_rng(seed).integers(2, 5, (n, 2))):
        pixels[i, 2:10, place : place + width] = 200 + i
    return pixels


@pytest.fixture
def arrays():
    return {
        "x_train": strokes(N_TRAIN), "y_train": np.array([3, 1, 4, 1, 5, 9], np.uint8),
        "x_test": strokes(N_TEST, 1), "y_test": np.array([2, 6, 5], np.uint8),
    }  # fmt: skip


@pytest.fixture
def npz(arrays, tmp_path):
    file = tmp_path / "set.npz"
    np.savez(file, **arrays)
    return file


def write_idx(folder, arrays, packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, split in (("train", "train"), ("t10k", "test")):
        for what, key in (("images-idx3", "x"), ("labels-idx1", "y")):
            array = arrays[f"{key}_{split}"]
            raw = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
            file = folder / f"{name}-{what}-ubyte{'.gz' if packed else ''}"
            file.write_bytes(gzip.compress(raw) if packed else raw)


def write_pngs(folder, pixels, labels):
    from PIL import Image

    for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / str(label) / f"{i}.png")


def files(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.bin"))}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_recording_is_the_cameras_and_lies_where_its_label_says(npz, arrays, tmp_path):
    seen = []
    root = encode_images(
        npz, tmp_path / "deep" / "out", seed=7, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(i + 1, N_TRAIN + N_TEST) for i in range(N_TRAIN + N_TEST)]
    assert names(root) == [".NMNIST.lock", "NMNIST"]
    want = {}
    for number, (split, folder) in enumerate((("train", "Train"), ("test", "Test"))):
        for i, label in enumerate(arrays[f"y_{split}"], 1):
            want[f"NMNIST/{folder}/{label}/{i:05d}.bin"] = (255 - arrays[f"x_{split}"][i - 1], (7, number, i))
    assert files(root).keys() == want.keys()
    for name, (image, seed) in want.items():
        np.testing.assert_array_equal(read_recording(root / name), saccade_events(image, seed=seed))
    for split in ("train", "test"):
        events = load("nmnist", root=root, split=split)
        np.testing.assert_array_equal(events.labels, arrays[f"y_{split}"])


@pytest.mark.parametrize("form", ["idx", "idx.gz", "torchvision", "keras names"])
def test_forms_of_mnist_give_the_same_bytes(form, npz, arrays, tmp_path):
    folder = tmp_path / "idx"
    write_idx(folder / "MNIST" / "raw" if form == "torchvision" else folder, arrays, packed=form == "idx.gz")
    if form == "keras names":
        for file in list(folder.iterdir()):
            file.rename(file.with_name(file.name.replace("-idx", ".idx")))
    got = files(encode_images(folder, tmp_path / "a"))
    assert got == files(encode_images(npz, tmp_path / "b"))
    assert len(got) == N_TRAIN + N_TEST


def test_folders_of_images(npz, arrays, tmp_path):
    folder = tmp_path / "pngs"
    for split in ("train", "test"):  # the same order as in the arrays: by class first
        order = np.argsort(arrays[f"y_{split}"], kind="stable")
        arrays[f"x_{split}"], arrays[f"y_{split}"] = (arrays[f"{key}_{split}"][order] for key in "xy")
        write_pngs(folder / split, arrays[f"x_{split}"], arrays[f"y_{split}"])
    np.savez(npz, **arrays)
    got = files(encode_images(folder, tmp_path / "a"))
    assert got == files(encode_images(npz, tmp_path / "b"))
    alone = files(encode_images(folder / "train", tmp_path / "c"))  # all for training
    assert alone == {name: raw for name, raw in got.items() if "Train" in name}


def test_names_that_are_no_digits_are_numbered(tmp_path):
    write_pngs(tmp_path / "pngs", strokes(3), ["dog", "cat", "eel"])
    (tmp_path / "pngs" / "dog" / "notes.txt").write_text("not an image")
    root = encode_images(tmp_path / "pngs", tmp_path / "out")
    assert list(files(root)) == [f"NMNIST/Train/{i}/{i + 1:05d}.bin" for i in range(3)]
    image = 255 - strokes(3)[1]  # the cat
    events = read_recording(root / "NMNIST" / "Train" / "0" / "00001.bin")
    np.testing.assert_array_equal(events, saccade_events(image, seed=(0, 0, 1)))


def test_jpegs_and_colours(tmp_path):
    from PIL import Image

    folder = tmp_path / "photos" / "7"
    folder.mkdir(parents=True)
    grey = strokes(1)[0]
    Image.fromarray(grey).save(folder / "a.jpg", quality=95)
    Image.fromarray(np.stack([grey] * 3, 2)).save(folder / "b.PNG")
    root = encode_images(tmp_path / "photos", tmp_path / "out")
    one, two = (read_recording(root / "NMNIST" / "Train" / "7" / f"0000{i}.bin") for i in (1, 2))
    np.testing.assert_array_equal(two, saccade_events(255 - grey, seed=(0, 0, 2)))
    assert len(one) == pytest.approx(len(two), rel=0.15)


def test_dark_borders_are_inverted_unless_told(npz, arrays, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    dark = files(encode_images(npz, tmp_path / "a"))
    assert "dark, so black and white are exchanged" in caplog.text
    assert files(encode_images(npz, tmp_path / "b", invert=True)) == dark
    kept = files(encode_images(npz, tmp_path / "c", invert=False))
    assert all(kept[name] != dark[name] for name in dark)
    caplog.clear()
    arrays["x_train"], arrays["x_test"] = 255 - arrays["x_train"], 255 - arrays["x_test"]
    np.savez(npz, **arrays)
    assert files(encode_images(npz, tmp_path / "d")) == dark
    assert "the background is light" in caplog.text


def test_a_range_of_images_is_what_the_whole_has_there(npz, tmp_path):
    whole = files(encode_images(npz, tmp_path / "a"))
    part = files(encode_images(npz, tmp_path / "b", images=(2, 4)))
    assert part == {name: raw for name, raw in whole.items() if 2 <= int(name[-9:-4]) <= 4}
    assert len(part) == 3 + 2
    beyond = files(encode_images(npz, tmp_path / "c", images=(N_TEST + 1, 99)))
    assert sorted(beyond) == sorted(name for name in whole if "Train" in name and int(name[-9:-4]) > N_TEST)
    with pytest.raises(FileNotFoundError, match=r"`images` must reach into the set, got \(7, 9\)"):
        encode_images(npz, tmp_path / "d", images=(7, 9))
    assert not (tmp_path / "d").exists()


def test_threads_and_seeds(npz, tmp_path, monkeypatch):
    base = files(encode_images(npz, tmp_path / "a"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(7), raising=False)
    assert files(encode_images(npz, tmp_path / "b")) == base
    other = files(encode_images(npz, tmp_path / "c", seed=1))
    assert all(other[name] != base[name] for name in base)


# What must not happen


def test_what_stands_there_is_left_alone(npz, tmp_path):
    (tmp_path / "NMNIST" / "Train" / "3").mkdir(parents=True)
    precious = tmp_path / "NMNIST" / "Train" / "3" / "00001.bin"
    precious.write_bytes(b"mine")
    with pytest.raises(FileExistsError) as caught:
        encode_images(npz, tmp_path)
    want = f"`path` must be a folder that holds no NMNIST, got {tmp_path}: move {tmp_path / 'NMNIST'} away."
    assert str(caught.value) == want
    assert files(tmp_path) == {"NMNIST/Train/3/00001.bin": b"mine"}
    assert names(tmp_path) == ["NMNIST", npz.name]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("stop")])
def test_a_failure_halfway_leaves_nothing(npz, tmp_path, error):
    def progress(done, total):
        if done == 4:
            assert any(name.endswith(".partial") for name in names(tmp_path / "out"))
            raise error

    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        encode_images(npz, tmp_path / "out", progress=progress)
    assert names(tmp_path / "out") == [".NMNIST.lock"]
    assert len(files(encode_images(npz, tmp_path / "out"))) == N_TRAIN + N_TEST


def start(code, *arguments):
    # Made-up events of 20 kB: what is about files needs no camera to be compiled.
    head = """
        import os, sys, time
        import numpy as np
        from suspike_datasets import images

        def fake_events(image, *, seed):
            events = np.zeros(4000, [(k, "i8") for k in "xytp"])
            events["t"] = np.arange(4000) + seed[2]
            return events

        images.saccade_events = fake_events
        """
    command = [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_kill_at_any_moment_is_not_taken_for_good(tmp_path):
    n = 150
    np.savez(tmp_path / "set.npz", x_train=np.zeros((n, 4, 4), np.uint8), y_train=np.arange(n) % 10)
    out = tmp_path / "out"
    out.mkdir()
    code = """
        import shutil, signal
        for moment in [*np.random.default_rng(0).uniform(0, 0.2, 12), 60]:
            child = os.fork()
            if not child:
                images.encode_images(sys.argv[1], sys.argv[2], progress=lambda done, total: time.sleep(2e-4))
                os._exit(0)
            end = time.monotonic() + moment
            while time.monotonic() < end and os.waitpid(child, os.WNOHANG) == (0, 0):
                time.sleep(1e-3)
            try:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
            sizes = [path.stat().st_size for path in images.Path(sys.argv[2]).glob("NMNIST/*/*/*")]
            rest = any(name.endswith(".partial") for name in os.listdir(sys.argv[2]))
            print(len(sizes), {*sizes} <= {20_000}, rest)
            shutil.rmtree(sys.argv[2] + "/NMNIST", ignore_errors=True)
        """
    printed, error = start(code, tmp_path / "set.npz", out).communicate(timeout=60)
    assert error == ""
    outcomes = [line.split() for line in printed.splitlines()]
    assert len(outcomes) == 13
    assert {count for count, _, _ in outcomes} <= {"0", str(n)}  # never a part of a set
    assert all(sized == "True" for _, sized, _ in outcomes)
    assert outcomes[-1] == [str(n), "True", "False"]  # nobody killed the last one, which cleaned up
    assert sum(rest == "True" for *_, rest in outcomes) >= 3  # some died in the middle


def test_two_processes_make_one_set(tmp_path):
    np.savez(tmp_path / "set.npz", x_train=np.zeros((40, 4, 4), np.uint8), y_train=np.arange(40) % 10)
    code = """
        try:
            images.encode_images(sys.argv[1], sys.argv[2], progress=lambda done, total: time.sleep(0.01))
        except FileExistsError as err:
            sys.exit("there")
        """
    both = [start(code, tmp_path / "set.npz", tmp_path / "out") for _ in range(2)]
    errors = sorted(process.communicate(timeout=60)[1] for process in both)
    assert errors == ["", "there\n"]
    assert len(files(tmp_path / "out")) == 40


def test_a_full_disk_leaves_nothing(tmp_path):
    np.savez(tmp_path / "set.npz", x_train=np.zeros((4, 4, 4), np.uint8), y_train=np.arange(4))
    code = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (19_999, resource.RLIM_INFINITY))
        try:
            images.encode_images(sys.argv[1], sys.argv[2])
        except OSError as err:
            sys.exit(str(err))
        """
    error = start(code, tmp_path / "set.npz", tmp_path / "out").communicate(timeout=60)[1]
    want = f"`path` must be a place that can be written and has room, got {tmp_path / 'out'}: File too large.\n"
    assert error == want
    assert names(tmp_path / "out") == [".NMNIST.lock"]


def cut(file, n=-3):
    file.write_bytes(file.read_bytes()[:n])


@pytest.mark.parametrize(
    ("damage", "file", "reason"),
    [
        (lambda f: cut(f / "train-images-idx3-ubyte"), "train-images-idx3-ubyte", "861 bytes of values, not 864"),
        (lambda f: cut(f / "train-images-idx3-ubyte", 9), "train-images-idx3-ubyte", "it does not begin as an idx3"),
        (lambda f: (f / "t10k-labels-idx1-ubyte").write_bytes(b""), "t10k-labels-idx1-ubyte", "not begin as an idx1"),
        (lambda f: (f / "t10k-labels-idx1-ubyte").unlink(), "t10k-labels-idx1-ubyte", "got no t10k-labels-idx1-ubyte"),
        (
            lambda f: (f / "train-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI6B", 0, 8, 1, 6, *range(5, 11))),
            "train-images-idx3-ubyte", "labels are from 5 to 10, not from 0 to 9",
        ),
        (
            lambda f: (f / "train-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 5) + bytes(5)),
            "train-images-idx3-ubyte", r"labels are uint8 of shape \(5,\), not whole numbers \[6\]",
        ),
    ],
)  # fmt: skip
def test_damaged_idx_files(damage, file, reason, arrays, tmp_path):
    write_idx(tmp_path / "idx", arrays)
    damage(tmp_path / "idx")
    with pytest.raises((ValueError, FileNotFoundError), match=rf"^`source` must .*{file}.*") as caught:
        encode_images(tmp_path / "idx", tmp_path / "out")
    assert re.search(reason, str(caught.value)), str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", [0.2, 0.5, 0.95])
def test_damaged_gzip_files(where, arrays, tmp_path):
    write_idx(tmp_path / "idx", arrays, packed=True)
    file = tmp_path / "idx" / "train-images-idx3-ubyte.gz"
    raw = bytearray(file.read_bytes())
    for change in (
        raw[: int(len(raw) * where)],
        [*raw[: int(len(raw) * where)], 255, *raw[int(len(raw) * where) + 1 :]],
    ):
        file.write_bytes(bytes(change))
        with pytest.raises(ValueError, match=f"^`source` must hold MNIST's idx files, got {file}: "):
            encode_images(tmp_path / "idx", tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x_train": np.zeros((6, 4, 4))}, "images are float64 of shape (6, 4, 4), not uint8 [N, H, W]"),
        ({"x_train": np.zeros((6, 16), np.uint8)}, "images are uint8 of shape (6, 16), not uint8 [N, H, W]"),
        ({"y_test": np.array([1, 2, -1])}, "labels are from -1 to 2, not from 0 to 9"),
        ({"y_test": np.array([1.0, 2, 3])}, "labels are float64 of shape (3,), not whole numbers [3]"),
        ({"y_test": np.array([1, 2, None])}, "Object arrays cannot be loaded when allow_pickle=False"),
        ({"y_train": None}, "'y_train is not a file in the archive'"),
    ],
)
def test_damaged_npz(change, reason, arrays, tmp_path):
    file = tmp_path / "set.npz"
    np.savez(file, **{k: v for k, v in {**arrays, **change}.items() if v is not None})
    with pytest.raises(ValueError, match=r"`source` must be an \.npz") as caught:
        encode_images(file, tmp_path / "out")
    want = f"`source` must be an .npz with uint8 x_train [N, H, W] and y_train [N], got {file}: {reason}."
    assert str(caught.value) == want
    assert not (tmp_path / "out").exists()


def test_bytes_that_are_no_npz(npz, tmp_path):
    good = npz.read_bytes()
    for n in (0, 1, 100, len(good) // 2, len(good) - 1):
        npz.write_bytes(good[:n])
        with pytest.raises(ValueError, match=f"^`source` must be an .npz .*, got {npz}: "):
            encode_images(npz, tmp_path / "out")
    flipped = bytearray(good)
    flipped[300] ^= 255
    npz.write_bytes(bytes(flipped))
    with pytest.raises(ValueError, match=f"^`source` must be an .npz .*, got {npz}: Bad CRC-32"):
        encode_images(npz, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_png_is_read_right_or_refused(tmp_path):
    write_pngs(tmp_path, strokes(1), [1])
    file = tmp_path / "1" / "0.png"
    good = file.read_bytes()
    cuts = [good[:n] for n in range(len(good))]
    flips = [good[:n] + bytes([good[n] ^ 255]) + good[n + 1 :] for n in range(len(good))]
    reasons = []
    for raw in cuts + flips:
        file.write_bytes(raw)
        try:
            np.testing.assert_array_equal(_read_image(file), strokes(1)[0])
        except ValueError as err:
            reasons.append(str(err))
    assert all(reason.startswith(f"`source` must hold whole 8-bit images, got {file}: ") for reason in reasons)
    assert len(reasons) > 1.5 * len(good)


def test_damaged_images(tmp_path):
    from PIL import Image

    write_pngs(tmp_path / "pngs", strokes(3), [1, 2, 3])
    file = tmp_path / "pngs" / "2" / "1.png"
    good = file.read_bytes()
    deep = Image.fromarray(np.zeros((4, 4), np.uint16))
    wide = Image.new("L", (5000, 4))
    for change, reason in (
        (lambda: file.write_bytes(good[:50]), ""),
        (lambda: file.write_bytes(b"nothing"), "cannot identify image file"),
        (lambda: file.write_bytes(b""), "cannot identify image file"),
        (lambda: deep.save(file), "its mode is I;16, not 1, L, P, RGB"),
        (lambda: wide.save(file), r"its sides are \(5000, 4\), not 4096 at most"),
    ):
        change()
        with pytest.raises(ValueError, match=f"^`source` must hold whole 8-bit images, got {file}: .*{reason}"):
            encode_images(tmp_path / "pngs", tmp_path / "out", invert=False)
        assert not (tmp_path / "out" / "NMNIST").exists()
        assert names(tmp_path / "out") == [".NMNIST.lock"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"source": "absent"}, FileNotFoundError, "`source` must be a folder of images or an .npz, got {}/absent."),
        (
            {"source": "absent.npz"},
            FileNotFoundError,
            "`source` must be a folder of images or an .npz, got {}/absent.npz.",
        ),
        ({"source": "empty"}, FileNotFoundError, "`source` must hold images, got none as CLASS/*.png in {}/empty."),
        ({"images": 5}, TypeError, "`images` must be (first, last), got 5."),
        ({"images": (0, 5)}, ValueError, "`images` must be from 1 to 2147483648, got 0."),
        ({"images": (5, 4)}, ValueError, "`images` must be from 5 to 2147483648, got 4."),
        ({"seed": -1}, ValueError, "`seed` must be from 0 to 9223372036854775807, got -1."),
    ],
)
def test_errors(arguments, error, message, npz, tmp_path):
    (tmp_path / "empty").mkdir()
    source = tmp_path / arguments.pop("source", npz.name)
    with pytest.raises(error) as caught:
        encode_images(source, tmp_path / "out", **arguments)
    assert str(caught.value) == message.format(tmp_path)
    assert not (tmp_path / "out").exists()


def test_eleven_classes(tmp_path):
    write_pngs(tmp_path / "pngs", strokes(11), [*"abcdefghijk"])
    with pytest.raises(ValueError, match=r"^`source` must hold ten classes at most, got 11: a, b, c"):
        encode_images(tmp_path / "pngs", tmp_path / "out")


def test_without_pillow(tmp_path, monkeypatch):
    write_pngs(tmp_path / "pngs", strokes(1), [1])
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError) as caught:
        encode_images(tmp_path / "pngs", tmp_path / "out")
    assert str(caught.value) == "`encode_images` needs Pillow: pip install 'suspike[datasets]'."


def test_mnist_itself(real_root, tmp_path):
    if not (real_root / "MNIST" / "mnist.npz").is_file():
        pytest.skip("no MNIST images in ../shared/data beside the project")
    root = encode_images(real_root / "MNIST" / "mnist.npz", tmp_path, images=(1, 30))
    for split in ("train", "test"):
        encoded = load("nmnist", root=root, split=split)
        assert encoded.n_recordings == 30
        assert np.diff(encoded.start).mean() == pytest.approx(4133, rel=0.2)  # as of the real ones
    with np.load(real_root / "MNIST" / "mnist.npz") as data:
        np.testing.assert_array_equal(encoded.labels, data["y_test"][:30])
