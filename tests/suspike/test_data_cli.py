"""`suspike data`: what it prints and draws, and one line for what a user can mend."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from suspike.cli import app
from suspike.plot_recordings import recording
from suspike_datasets import from_recordings, shd, smnist, write_recording

FIELDS = [(name, np.int64) for name in "xytp"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three recordings of a camera and two words."""
    rng = np.random.default_rng(0)
    for number, digit in ((1, 3), (2, 3), (7, 5)):
        folder = tmp_path / "NMNIST" / "Train" / str(digit)
        folder.mkdir(parents=True, exist_ok=True)
        events = np.zeros(40, FIELDS)
        events["t"] = np.sort(rng.integers(0, 300_000, 40))
        events["x"], events["y"], events["p"] = rng.integers(0, 34, 40), rng.integers(0, 34, 40), np.arange(40) % 2
        write_recording(folder / f"{number:05d}.bin", events)
    (tmp_path / "SHD").mkdir()
    words = [np.array([(5, 0, 1000, 0), (699, 0, 500_000, 0)], FIELDS), np.zeros(1, FIELDS)]
    events = from_recordings(words, sensor=shd.SENSOR, labels=[1, 0], subjects=[4, 4], classes=("zero", "one"))
    shd.write_file(tmp_path / "SHD" / "shd_test.h5", events)
    return tmp_path


def data(*args: Any) -> Any:
    return CliRunner().invoke(app, ["data", *map(str, args)], env={"COLUMNS": "200", "TERM": "dumb"})


def test_the_sets_are_named_with_their_licences() -> None:
    shown = data("list")
    assert shown.exit_code == 0
    for words in ("nmnist", "2 x 34 x 34", "CC BY-SA 4.0", "ssc", "train, valid, test"):
        assert words in shown.stdout


def test_what_is_here_is_counted(root: Path) -> None:
    shown = data("info", "nmnist", "--root", root).stdout
    assert "3 of 60,000 recordings" in shown
    assert "40 (40 to 40)" in shown
    assert "0 to 2 of 10" in shown
    assert f"`root` must hold recordings, got none in {root}/NMNIST/Test/<digit>/NNNNN.bin. " in shown
    assert f"`suspike data get nmnist --root {root} --split test` fetches it." in shown
    shown = data("info", "shd", "--root", root).stdout
    assert "2 recordings" in shown
    assert "1 to 1 of 2" in shown
    nothing = data("info", "ssc", "--root", root)
    assert isinstance(nothing.exception, FileNotFoundError)
    assert isinstance(data("info", "mnist", "--root", root).exception, ValueError)


def test_sets_of_nothing_are_counted(tmp_path: Path) -> None:
    (tmp_path / "SHD").mkdir()
    path = tmp_path / "SHD" / "shd_test.h5"
    for words, classes, shown in (
        ([], ("zero", "one"), ("0 recordings", "none", "0 to 0 of 2", "unknown")),
        ([np.zeros(0, FIELDS)] * 2, ("zero",), ("2 recordings", "0 (0 to 0)", "none", "2 to 2 of 1")),
    ):
        events = from_recordings(words, sensor=shd.SENSOR, labels=[0] * len(words), classes=classes)
        shd.write_file(path, events)
        said = data("info", "shd", "--root", tmp_path)
        assert said.exit_code == 0, said.output
        for part in shown:
            assert part in said.stdout
    assert data("show", path, "--out", tmp_path / "a.png").exit_code == 0
    shd.write_file(path, from_recordings([], sensor=shd.SENSOR, labels=[], classes=("zero",)))
    assert str(data("show", path).exception) == f"`path` must hold recordings, got none in {path}."


def test_gestures_and_rows_of_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "DVSGesture" / "ibmGestureTest" / "user24_led"
    folder.mkdir(parents=True)
    gesture = np.stack([*rng.integers(0, 128, (2, 50)), np.arange(50) % 2, np.arange(50) * 90], 1)
    np.save(folder / "3.npy", gesture)
    (tmp_path / "smnist").mkdir()
    images = tmp_path / "smnist" / "train-images-idx3-ubyte"
    grey = rng.integers(0, 256, (3, 784), np.uint8)
    grey[:, smnist.permutation(0)[-1]] = 255  # at the end: the last step is the last one that there can be
    images.write_bytes(struct.pack(">IIII", 2051, 3, 28, 28) + grey.tobytes())
    images.with_name("train-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, 3) + bytes([1, 2, 3]))
    shown = data("info", "dvsgesture", "--root", tmp_path).stdout
    for part in ("1 recordings", "50 (50 to 50)", "4410 to 4410", "0 to 1 of 11"):
        assert part in shown
    shown = data("info", "psmnist", "--root", tmp_path).stdout
    assert "3 of 60,000 recordings" in shown
    assert "1567 to 1567" in shown
    assert f"suspike data get smnist --root {tmp_path} --split test" in shown
    third = len(smnist.encode(grey[2:]).t)
    for path, number, words in ((folder / "3.npy", 0, "3.npy, 50 events"), (images, 2, f"image 2, {third:,} spikes")):
        out = tmp_path / f"{path.stem}.png"
        said = data("show", path, "--out", out, "--number", number)
        assert said.exit_code == 0, said.output
        assert words in said.stdout
        assert out.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert str(data("show", images, "--number", 3).exception) == "`number` must be from 0 to 2, got 3."


def test_images_are_encoded(tmp_path: Path) -> None:
    images = np.zeros((5, 12, 12), np.uint8)
    images[:, 3:9, 5:7] = 255
    np.savez(tmp_path / "a.npz", x_train=images, y_train=np.array([3, 1, 4, 1, 5]))
    shown = {}
    for name, options in (("plain", ()), ("kept", ("--no-invert",)), ("seeded", ("--seed", 7))):
        done = data("encode-images", tmp_path / "a.npz", tmp_path / name, "--images", 2, 4, *options)
        assert done.exit_code == 0, done.output
        assert f"{tmp_path / name / 'NMNIST'}: 3 recordings" in done.stdout
        files = sorted((tmp_path / name).rglob("*.bin"))
        assert [f"{path.parent.name}/{path.name}" for path in files] == ["1/00002.bin", "1/00004.bin", "4/00003.bin"]
        shown[name] = [path.read_bytes() for path in files]
    assert len({raws[0] for raws in shown.values()}) == 3
    assert isinstance(data("encode-images", tmp_path / "a.npz", tmp_path / "plain").exception, FileExistsError)


def test_recordings_are_drawn(root: Path, tmp_path: Path) -> None:
    for path, number in ((root / "NMNIST" / "Train" / "5" / "00007.bin", 0), (root / "SHD" / "shd_test.h5", 1)):
        out = tmp_path / f"{path.stem}.png"
        shown = data("show", path, "--out", out, "--number", number)
        assert shown.exit_code == 0, shown.output
        assert out.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    wrong = data("show", root / "SHD" / "shd_test.h5", "--number", 2)
    assert str(wrong.exception) == "`number` must be from 0 to 1, got 2."
    assert "must be a .bin, .npy, .h5 or images-idx3-ubyte file" in str(data("show", tmp_path / "a.txt").exception)


def test_a_picture_holds_every_event() -> None:
    pytest.importorskip("matplotlib")
    t = np.array([0, 10, 20_000, 59_999])
    figure = recording(t, np.array([0, 34 * 34 + 35, 34, 2 * 34 * 34 - 1]), (2, 34, 34), title="four")
    *frames, events = figure.axes
    shown = [np.asarray(axes.images[0].get_array()) for axes in frames]
    assert [int(np.abs(frame).sum()) for frame in shown] == [2, 0, 1, 0, 0, 1]
    assert (shown[0][0, 0], shown[0][1, 1], shown[5][33, 33]) == (-1, 1, 1)
    darker, brighter = (np.asarray(c.get_offsets()) for c in events.collections)
    np.testing.assert_allclose(darker, [[0, 0], [20, 0]])
    np.testing.assert_allclose(brighter, [[0.01, 1], [59.999, 33]])
    spikes, rates, _ = recording(t, np.array([0, 9, 10, 699]), (1, 1, 700)).axes
    np.testing.assert_allclose(np.asarray(spikes.collections[0].get_offsets())[:, 1], [0, 9, 10, 699])
    per_s = np.asarray(rates.collections[0].get_array())
    assert per_s.sum() * 10 * 0.01 == pytest.approx(4)
    assert per_s[0, 0] == pytest.approx(2 / 10 / 0.01)
    with pytest.raises(ValueError, match=r"^`unit` must be from 0 to 699, got 0 to 700"):
        recording(t, np.array([0, 9, 10, 700]), (1, 1, 700))


@pytest.mark.parametrize(("last_ms", "width_ms"), [(0, 10), (4999, 10), (5001, 20), (2_147_483, 4300)])
def test_a_long_recording_has_wider_columns(last_ms: int, width_ms: int) -> None:
    pytest.importorskip("matplotlib")
    figure = recording(np.array([0, last_ms * 1000]), np.array([0, 699]), (1, 1, 700))
    rates = figure.axes[1].collections[0]
    columns = np.asarray(rates.get_coordinates())[0, :, 0]  # type: ignore[attr-defined]
    assert np.unique(np.diff(columns)).tolist() == [width_ms]
    assert len(columns) <= 502
    assert columns[-1] >= last_ms
    per_s = np.asarray(rates.get_array())
    assert per_s.sum() * 10 * width_ms / 1000 == pytest.approx(2)
