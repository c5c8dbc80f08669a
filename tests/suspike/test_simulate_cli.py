"""`suspike simulate`: what it prints and writes is what `simulate` gives, and one line for what a user can mend."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from suspike_testing.bundles import make_events, make_graph
from suspike_testing.comparing import assert_same_bits, assert_same_events
from typer.testing import CliRunner

from suspike.cli import app
from suspike.export import read_sonata, write_aedat, write_nir, write_sonata
from suspike.simulate import simulate
from suspike_kernels.layout import Events

GRAPH = make_graph(seed=25)
LENGTHS = {"short": 20, "long": 47, "camera": 33, "none": 0}
EVENTS = {name: make_events(n_samples=1, n_steps=n, seed=n) for name, n in LENGTHS.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A network, and recordings of different lengths."""
    write_nir(tmp_path / "net.nir", GRAPH)
    for name, events in EVENTS.items():
        if name == "camera":
            write_aedat(tmp_path / "camera.aedat", {"eye": events}, dt_ms=0.5)
        else:
            write_sonata(
                tmp_path / f"{name}.h5",
                {"input": events, "label": make_events(n_samples=1, n_steps=LENGTHS[name])},
                dt_ms=0.5,
            )
    return tmp_path


def run(folder: Path, *names: str, options: Any = (), network: str = "net.nir") -> Any:
    paths = [str(folder / name) for name in (network, *names)]
    env = {"COLUMNS": "200", "TERM": "dumb"}
    return CliRunner().invoke(app, ["simulate", *paths, *map(str, options)], env=env)


ALL = ("short.h5", "camera.aedat", "long.h5", "none.h5")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]


def rows(said: Any) -> dict[str, list[str]]:
    """The lines of the tables by their first cell."""
    assert said.exit_code == 0, f"{said.output}\n{said.exception}"
    return {row[0]: row[1:] for row in map(cells, said.stdout.splitlines()) if row}


def alone(name: str, graph: Any = GRAPH) -> Any:
    return simulate(graph, EVENTS[Path(name).stem])


@pytest.mark.parametrize("options", [(), ("--chunk", 10), ("--chunk", 1000), ("--threads", 2)])
def test_counts_and_answers_are_those_of_simulate(folder: Path, options: Any) -> None:
    shown = rows(run(folder, *ALL, options=options))
    results = {name: alone(name) for name in ALL}
    for title, field in (
        ("events", "events"), ("synops done", "synops_done"), ("synops skipped", "synops_skipped"),
        ("updates done", "updates_done"), ("updates skipped", "updates_skipped"), ("spikes", "spikes"),
        ("words read", "words_read"), ("words written", "words_written"),
    ):  # fmt: skip
        each = [sum(getattr(result.counts[i], field) for result in results.values()) for i in (0, 1)]
        assert shown[title] == [f"{n:,}" for n in (*each, sum(each))], title
    # a rhythm is computed once for a batch, and for each recording that runs on its own
    steps = sum(LENGTHS.values()) if "--chunk" in options else max(LENGTHS.values())
    assert shown["gate evaluations"] == [f"{10 * steps:,}", "0", f"{10 * steps:,}"]
    for name, result in results.items():
        v, n_steps = result.output[:, 0], LENGTHS[Path(name).stem]
        answers = [int(v.mean(0).argmax()), int(v[-1].argmax())] if n_steps else ["none", "none"]
        assert shown[Path(name).stem] == [str(n_steps), *map(str, answers)]


def test_enough_happens_in_what_is_compared() -> None:
    results = [alone(name) for name in ALL[:3]]
    answers = [(int(r.output.mean((0, 1)).argmax()), int(r.output[-1, 0].argmax())) for r in results]
    assert len(set(answers)) > 1
    assert any(mean != last for mean, last in answers)
    assert all(result.counts[0].spikes > 10 for result in results)
    assert all(result.counts[0].synops_skipped > 10 for result in results)


@pytest.mark.parametrize("options", [(), ("--chunk", 7)])
def test_spikes_and_readout_are_written(folder: Path, options: Any) -> None:
    out = folder / "new" / "out"
    assert run(folder, *ALL, options=("--out", out, *options)).exit_code == 0
    stems = [Path(name).stem for name in ALL]
    assert {p.name for p in out.iterdir()} == {f"{s}{end}" for s in stems for end in (".spikes.h5", ".readout.npy")}
    for stem in stems:
        wanted, found = alone(stem), read_sonata(out / f"{stem}.spikes.h5")
        assert list(found.trains) == ["hidden"]
        assert found.dt_ms == 0.5
        assert_same_events(found.trains["hidden"], in_order(wanted.spikes[0]))
        assert_same_bits(np.load(out / f"{stem}.readout.npy"), wanted.output[:, 0])


def in_order(events: Events) -> Events:
    row = np.repeat(np.arange(events.n_steps), events.per_step()[0])
    return events._replace(idx=events.idx[np.lexsort((events.idx, row))])


@pytest.mark.parametrize("options", [(), ("--chunk", 7)])
def test_without_a_readout_spikes_are_counted(folder: Path, options: Any) -> None:
    graph = make_graph(readout=False, gated=False)
    write_nir(folder / "net.nir", graph)
    out = folder / "out"
    shown = rows(run(folder, "long.h5", "short.h5", options=("--out", out, *options)))
    for stem in ("long", "short"):
        assert shown[stem] == [str(LENGTHS[stem]), str(alone(stem, graph).counts[0].spikes)]
    assert shown["gate evaluations"] == ["0"]
    assert {p.name for p in out.iterdir()} == {"long.spikes.h5", "short.spikes.h5"}


def test_a_readout_alone_has_no_spikes(folder: Path) -> None:
    layer = replace(GRAPH.layers[1], weight=GRAPH.layers[0].weight[:, :3])
    write_nir(folder / "net.nir", replace(GRAPH, layers=(layer,)))
    rows(run(folder, "long.h5", options=("--out", folder / "out")))
    assert [p.name for p in (folder / "out").iterdir()] == ["long.readout.npy"]


def test_a_cluster_prints_and_writes_the_same(folder: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="needs the extra `scale`: pip install 'suspike[scale]'")
    here = rows(run(folder, *ALL, options=("--out", folder / "here")))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp://", host="127.0.0.1",
        dashboard_address="127.0.0.1:0", silence_logs=50, local_directory=str(folder / "dask"),
    ) as cluster:  # fmt: skip
        address = cluster.scheduler_address
        there = run(folder, *ALL, options=("--scheduler", address, "--out", folder / "there"))
        wrong = run(folder, *ALL, options=("--scheduler", address, "--threads", 0))
    assert rows(there) == here
    for path in (folder / "here").iterdir():
        assert path.read_bytes() == (folder / "there" / path.name).read_bytes()
    assert str(wrong.exception) == "`n_threads` must be at least 1, got 0."


def damage(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["spikes/input/timestamps"][-1] = 0.25


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["short.h5", "net.nir"], (), "`recordings` must be .h5 (SONATA) or .aedat (AEDAT 2.0) files, got "),
        (["short.h5", "no.h5"], (), "[Errno 2] No such file or directory: "),
        (["short.h5", "no.h5"], ("--chunk", 9), "[Errno 2] No such file or directory: "),
        (["short.h5"], ("--chunk", 0), "`chunk` must be at least 1, got 0."),
        (["camera.aedat"], ("--chunk", 0), "`chunk` must be at least 1, got 0."),
        (["short.h5"], ("--chunk", 9, "--scheduler", "127.0.0.1:9"), "`chunk` must be left out with a scheduler, "),
        (["short.h5", "short.h5"], (), "`recordings` must be of different names with --out, got short, short."),
        (["short.h5", "wide.h5"], (), "`wide.h5` must be of the network's 6 input units, got 7."),
        (["short.h5", "wide.h5"], ("--chunk", 9), "`wide.h5` must be of the network's 6 input units, got 7."),
        (["short.h5", "fast.h5"], (), "`fast.h5` must be of the network's steps of 0.5 ms, got 0.25 ms."),
        (["short.h5", "fast.h5"], ("--chunk", 9), "`fast.h5` must be of the network's steps of 0.5 ms, got 0.25 ms."),
        (["short.h5", "pair.aedat"], (), "`pair.aedat` must be of a population 'input', or of one alone, got a, b."),
        (["short.h5", "torn.h5"], (), "`torn.h5` must be a SONATA spike file of suspike, got one that fails: `times`"),
    ],
)
def test_bad_input_is_named_before_anything_is_written(
    folder: Path, names: list[str], options: Any, message: str
) -> None:
    wide = EVENTS["short"]._replace(n_units=7)
    write_sonata(folder / "wide.h5", {"input": wide}, dt_ms=0.5)
    write_sonata(folder / "fast.h5", {"input": EVENTS["short"]}, dt_ms=0.25)
    write_sonata(folder / "torn.h5", {"input": EVENTS["short"]}, dt_ms=0.5)
    damage(folder / "torn.h5")
    write_aedat(folder / "pair.aedat", {"a": EVENTS["short"], "b": EVENTS["short"]}, dt_ms=0.5)
    said = run(folder, *names, options=("--out", folder / "out", *options))
    assert isinstance(said.exception, (ValueError, OSError))
    assert str(said.exception).startswith(message)
    assert not (folder / "out").exists()


def test_what_fails_late_leaves_whole_files_alone(folder: Path) -> None:
    damage(folder / "long.h5")
    said = run(folder, "short.h5", "long.h5", "camera.aedat", options=("--chunk", 10, "--out", folder / "out"))
    assert "`long.h5` must be a SONATA spike file of suspike, got one that fails: `times` must be " in str(
        said.exception
    )
    assert {p.name for p in (folder / "out").iterdir()} == {"short.spikes.h5", "short.readout.npy"}
    assert_same_bits(np.load(folder / "out" / "short.readout.npy"), alone("short").output[:, 0])


def test_an_error_is_one_line_and_ends_in_2(folder: Path) -> None:
    (folder / "out").write_text("mine")
    command = [sys.executable, "-c", "from suspike.cli import main; main()"]
    paths = [folder / "net.nir", folder / "short.h5", "--out", folder / "out"]
    said = subprocess.run([*command, "simulate", *map(str, paths)], capture_output=True, text=True, check=False)
    assert said.returncode == 2
    assert said.stderr.startswith("error: `out` must be a folder that can be made")
    assert said.stderr.count("\n") == 1
    assert (folder / "out").read_text() == "mine"
