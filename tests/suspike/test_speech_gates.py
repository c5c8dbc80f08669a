"""The example of docs/speech_gates.md runs, on recordings drawn here in SHD's layout."""

import json
import runpy
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

h5py = pytest.importorskip("h5py")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXAMPLES)
    import speech_gates  # type: ignore[import-not-found]

    return speech_gates  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten words, each of them noise around a channel of its own."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("speech")
    (root / "SHD").mkdir()
    for part, n in (("train", 40), ("test", 20)):
        labels = np.arange(n) % 10
        with h5py.File(root / "SHD" / f"shd_{part}.h5", "w") as file:
            file["labels"], file["extra/speaker"] = labels.astype(np.uint16), np.zeros(n, np.uint16)
            file["extra/keys"] = np.array([str(i).encode() for i in range(10)])
            for field, kind in (("times", np.float16), ("units", np.uint16)):
                file.create_dataset(f"spikes/{field}", (n,), h5py.vlen_dtype(kind))
            for i, label in enumerate(labels):
                units = np.clip(rng.normal(35 + 70 * label, 20, 300), 0, 699)
                file["spikes/times"][i] = rng.uniform(0, 0.99, 300).astype(np.float16)  # in no order
                file["spikes/units"][i] = units.astype(np.uint16)
    return root


def test_both_networks_run_from_every_seed(
    example: ModuleType, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = example.Settings(hidden=24, batch=40, epochs=1)
    rows = example.main(folder, seeds=2, chosen=small, out=tmp_path / "figures.json")
    assert [(row["network"], row["seed"]) for row in rows] == [
        ("gated", 0), ("always open", 0), ("gated", 1), ("always open", 1),
    ]  # fmt: skip
    assert all(row["spikes"] > 0 for row in rows)
    assert all(0.15 < row["open_fraction"] < 0.4 for row in rows[::2])
    assert all(row["open_fraction"] == 1 and row["synops_skipped"] == 0 for row in rows[1::2])
    kept = json.loads((tmp_path / "figures.json").read_text())
    assert kept["rows"] == rows
    assert kept["settings"]["hidden"] == 24
    text = capsys.readouterr().out
    assert "40/20 recordings in SHD's format (not SHD), 2 seeds" in text
    # the seed alone decides
    again = example.main(folder, seeds=1, chosen=small)
    without_time = [{k: v for k, v in row.items() if k != "seconds"} for row in [*again, *rows[:2]]]
    assert without_time[:2] == without_time[2:]


def test_every_event_is_read(example: ModuleType, folder: Path) -> None:
    with h5py.File(folder / "SHD" / "shd_test.h5") as file:
        times, units = (np.concatenate(file[f"spikes/{field}"][()]) for field in ("times", "units"))
    data = example.read(folder, "test")
    assert data.labels.tolist() == [*range(10)] * 2
    assert (data.events.n_units, data.events.n_steps) == (140, 200)
    sample, step, _ = data.events.places()
    expected_step = (times.astype(float) * 1e6).astype(int) // 5000
    expected = zip(np.repeat(np.arange(20), 300), expected_step, units // 5, strict=True)
    assert sorted(zip(sample, step, data.events.idx, strict=True)) == sorted(expected)


def test_a_folder_without_recordings_is_refused(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FileNotFoundError, match=r"^`root` must hold SHD/shd_train\.h5, got nothing at .*train\.h5"):
        example.main(tmp_path)
    monkeypatch.setattr(sys, "argv", ["speech_gates.py", str(tmp_path)])
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # of the other tests
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(EXAMPLES / "speech_gates.py"), run_name="__main__")
    assert stopped.value.code == 2
    cure = f"`suspike data get shd --root {tmp_path} --split train` fetches it"
    assert capsys.readouterr().err.endswith(f"got nothing at {tmp_path / 'SHD' / 'shd_train.h5'}. {cure}.\n")
