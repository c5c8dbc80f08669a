"""`suspike data`: what it prints and draws, and one line for what a user can mend."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from suspike.cli import app
from suspike.plot_recordings import recording
from suspike_datasets import from_recordings, shd, write_recording

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
    assert f"`root` must hold recordings, got none in {root}/NMNIST/Test/<digit>/NNNNN.bin." in shown.replace("\n", "")
    shown = data("info", "shd", "--root", root).stdout
    assert "2 recordings" in shown
    assert "1 to 1 of 2" in shown
    nothing = data("info", "ssc", "--root", root)
    assert isinstance(nothing.exception, FileNotFoundError)
    assert isinstance(data("info", "mnist", "--root", root).exception, ValueError)


def test_recordings_are_drawn(root: Path, tmp_path: Path) -> None:
    for path, number in ((root / "NMNIST" / "Train" / "5" / "00007.bin", 0), (root / "SHD" / "shd_test.h5", 1)):
        out = tmp_path / f"{path.stem}.png"
        shown = data("show", path, "--out", out, "--number", number)
        assert shown.exit_code == 0, shown.output
        assert out.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    wrong = data("show", root / "SHD" / "shd_test.h5", "--number", 2)
    assert str(wrong.exception) == "`number` must be from 0 to 1, got 2."
    assert "must be a .bin or an .h5 file" in str(data("show", tmp_path / "a.txt").exception)


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
