"""The whole road, with one epoch: every step runs on the real digits, and what it prints is what was counted."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from suspike import demo
from suspike.export import verify
from suspike.loader import Recordings
from suspike_kernels.layout import Events

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def run(folder: Path, cache: Path) -> str:
    console = Console(file=io.StringIO(), width=120)
    demo.run(folder, cache=cache, seed=0, console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_demo_walks_the_whole_road(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "EPOCHS", 1)
    monkeypatch.setattr(demo, "N_REFERENCE", 2)
    text = run(tmp_path, cache)
    assert len(re.findall(r"(\d+) spikes on 360 recordings, 0 differ from torch's; (\d+) on 2, 0 differ", text)) == 2
    assert "18 of 18 checks passed" in text
    place = tmp_path / "seed0"
    assert verify(place / "bundle").ok
    assert {p.name for p in (place / "figures").iterdir()} == {
        "confusion.png", "energy.png", "learning.png", "raster.png", "schedule.png",
    }  # fmt: skip
    assert (place / "report.html").read_text().count("data:image/png;base64,") == 5
    # a second call trains nothing again and comes to the same
    weights = (place / "gated" / "weights.pt").read_bytes()
    again = run(tmp_path, cache)
    assert (place / "gated" / "weights.pt").read_bytes() == weights
    assert [line for line in again.splitlines() if "differ" in line] == [
        line for line in text.splitlines() if "differ" in line
    ]


def test_the_split_and_the_input_are_as_documented(cache: Path) -> None:
    data, held_out = demo.recordings(cache, Console(file=io.StringIO()))
    assert (len(data.labels), len(held_out.labels)) == (1437, 360)
    assert np.bincount(held_out.labels).tolist() == [36] * 10
    assert data.events.max_count() == 1
    assert data.events.n_units == 2312


def test_a_path_that_disagrees_stops_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    from suspike.convert import to_graph
    from suspike.simulate import simulate

    graph, roundings = to_graph(demo.network(gated=True), dt_ms=demo.DT_MS)
    rng = np.random.default_rng(0)
    counts = np.sort(rng.integers(0, 104, (21, 900)), axis=1)  # the step of each event
    ptr = np.concatenate([[0], np.cumsum([(counts[b] == t).sum() for b in range(21) for t in range(104)])])
    rows = np.stack([ptr[b * 104 : (b + 1) * 104 + 1] for b in range(21)])
    data = Recordings(Events(rows, rng.integers(0, 2312, 21 * 900).astype(np.int32), 2312), np.zeros(21, np.int64))
    result = simulate(graph, data.events)
    assert len(result.spikes[0].idx) > 30
    trained = demo.Trained([], 0.0, graph, roundings, result)
    monkeypatch.setattr(demo, "N_REFERENCE", 1)
    demo._compare("right", trained, data, Console(file=io.StringIO()))
    moved = result.spikes[0]._replace(idx=(result.spikes[0].idx + 1) % 128)
    wrong = trained._replace(result=result._replace(spikes=(moved,)))
    with pytest.raises(RuntimeError, match=r"^wrong: the paths disagree about \d+ \+ \d+ spikes$"):
        demo._compare("wrong", wrong, data, Console(file=io.StringIO()))


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "examples")
    import first_spikes  # type: ignore[import-not-found]

    first_spikes.main(tmp_path, epochs=1)
    text = capsys.readouterr().out
    assert "0 differ from the plain torch path on 20 recordings" in text
    assert "bundle verified: True" in text
    assert (tmp_path / "raster.png").stat().st_size > 10_000
