"""Bundles: they hold the network and its runs, and are written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from suspike_testing import bundles
from suspike_testing.bundles import FILES, contents, make_events, make_graph

from suspike.export import (
    _golden,
    bundle,
    read_aedat,
    read_nir,
    read_sonata,
    verify,
    write_bundle,
)
from suspike.graph import LI, CubaLIF, Graph, Layer, Route
from suspike.simulate import simulate
from suspike_kernels.layout import Events, events_from_dense


def test_a_bundle_holds_the_network_and_its_runs(whole):
    graph, events = make_graph(), make_events()
    result = simulate(read_nir(whole / "network.nir"), events)
    for k in range(2):
        for found in (read_aedat(whole / f"recording-{k}.aedat"), read_sonata(whole / f"recording-{k}.sonata.h5")):
            assert list(found.trains) == ["input", "hidden"]
            np.testing.assert_array_equal(found.trains["input"].dense(), events.dense()[:, [k]])
            np.testing.assert_array_equal(found.trains["hidden"].dense(), result.spikes[0].dense()[:, [k]])
        np.testing.assert_array_equal(found.gates["hidden"], graph.layers[0].neuron.gate.table(20))
    with np.load(whole / "golden.npz", allow_pickle=False) as golden:
        np.testing.assert_array_equal(golden["output"], result.output)
        train = Events(golden["spikes.hidden.ptr"], golden["spikes.hidden.idx"], 10)
        np.testing.assert_array_equal(train.dense(), result.spikes[0].dense())
    manifest = json.loads((whole / "manifest.json").read_bytes())
    assert (manifest["dt_ms"], manifest["n_steps"], manifest["n_samples"], manifest["n_in"]) == (0.5, 20, 3, 6)
    assert [(x["name"], x["n_units"], x["gated"]) for x in manifest["layers"]] == [
        ("hidden", 10, True),
        ("readout", 3, False),
    ]
    assert all(len((whole / name).read_bytes()) == entry["bytes"] for name, entry in manifest["files"].items())


@pytest.mark.parametrize(("gated", "readout"), [(False, True), (True, False), (False, False)])
def test_other_networks_make_bundles_too(tmp_path, gated, readout):
    folder = write_bundle(tmp_path / "b", make_graph(gated=gated, readout=readout), make_events(n_samples=1))
    assert verify(folder).ok
    assert ("schedule.npz" in contents(folder)) == gated
    assert "recording-1.aedat" not in contents(folder)  # there is one sample only


def test_repeated_input_stays_out_of_event_files(tmp_path):
    folder = write_bundle(tmp_path / "b", make_graph(), make_events(most=3), n_recordings=1)
    assert verify(folder).ok
    assert list(read_aedat(folder / "recording-0.aedat").trains) == ["hidden"]
    none = write_bundle(tmp_path / "c", make_graph(), make_events(), n_recordings=0)
    assert verify(none).ok
    assert set(contents(none)) == {"manifest.json", "network.nir", "schedule.npz", "golden.npz"}


def test_a_readout_alone_makes_a_bundle(tmp_path):
    graph = Graph(
        (Layer("readout", *(np.ones(s, np.float32) for s in ((6, 2), 2)), LI(np.full(2, 0.5, np.float32))),), 1.0
    )
    assert verify(write_bundle(tmp_path / "a", graph, make_events())).ok
    folder = write_bundle(tmp_path / "b", graph, make_events(most=3))  # nothing is left for an event file
    assert verify(folder).ok
    assert set(contents(folder)) == {"manifest.json", "network.nir", "golden.npz"}


def test_the_same_bundle_has_the_same_bytes(whole, tmp_path):
    assert contents(write_bundle(tmp_path / "b", make_graph(), make_events())) == contents(whole)


def broken(*arguments, **options):
    raise RuntimeError("in the middle")


def interrupted(*arguments, **options):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "step", ["write_nir", "write_schedule", "write_new", "write_sonata", "manifest_bytes", "verify"]
)
@pytest.mark.parametrize(("fault", "error"), [(broken, RuntimeError), (interrupted, KeyboardInterrupt)])
def test_a_crash_in_the_middle_keeps_the_old_bundle(copy, tmp_path, monkeypatch, step, fault, error):
    before = contents(copy)
    monkeypatch.setattr(bundle, step, fault)
    for place in (copy, tmp_path / "new"):
        with pytest.raises(error):
            write_bundle(place, make_graph(seed=1), make_events())
    assert contents(copy) == before
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_move_that_fails_keeps_the_old_bundle(copy, tmp_path, monkeypatch):
    before, rename = contents(copy), Path.rename

    def no_rename(self, target):
        if (self / "manifest.json").read_bytes() != before["manifest.json"]:  # the new one
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", no_rename)
    with pytest.raises(OSError, match="No space left on device; no bundle was written"):
        write_bundle(copy, make_graph(seed=1), make_events())
    assert contents(copy) == before
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_bundle_that_can_be_moved_neither_there_nor_back_is_not_deleted(copy, tmp_path, monkeypatch):
    before, rename, calls = contents(copy), Path.rename, []

    def once(self, target):
        calls.append(target)
        if len(calls) > 1:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", once)
    with pytest.raises(OSError, match="no bundle was written"):
        write_bundle(copy, make_graph(seed=1), make_events())
    assert [contents(path) for path in tmp_path.iterdir()] == [before]


def test_what_is_put_there_meanwhile_is_not_deleted(copy, tmp_path, monkeypatch):
    def verify_and_add(folder):
        (copy / "notes.txt").write_text("mine")
        return verify(folder)

    monkeypatch.setattr(bundle, "verify", verify_and_add)
    with pytest.raises(ValueError, match=r"to be replaced, got 'notes.txt' in it"):
        write_bundle(copy, make_graph(seed=1), make_events())
    assert set(contents(copy)) == FILES | {"notes.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_bundle_replaces_a_bundle_and_an_empty_folder(copy, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(copy)
    for place in (copy, tmp_path / "empty", tmp_path / "link"):
        folder = write_bundle(place, make_graph(seed=1), make_events())
        assert folder == place
        assert verify(place).ok
    assert (tmp_path / "link").is_symlink()
    assert read_nir(copy / "network.nir").layers[0].weight[0, 0] == make_graph(seed=1).layers[0].weight[0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "empty", "link"]


def test_what_is_no_bundle_is_not_replaced(copy, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    (copy / "notes.txt").write_text("mine")
    with pytest.raises(
        ValueError, match=r"a bundle and nothing else, to be replaced, got 'notes.txt' in it\. Choose another"
    ):
        write_bundle(copy, make_graph(), make_events())
    with pytest.raises(ValueError, match=r"new, empty or a bundle, got .* with 'thesis.tex' in it"):
        write_bundle(tmp_path / "full", make_graph(), make_events())
    with pytest.raises(NotADirectoryError, match="Not a folder; no bundle was written"):
        write_bundle(tmp_path / "file", make_graph(), make_events())
    with pytest.raises(OSError, match="no bundle was written"):
        write_bundle(tmp_path / "file" / "b", make_graph(), make_events())
    with pytest.raises(OSError, match="no bundle was written"):
        write_bundle(tmp_path / "none" / "b", make_graph(), make_events())
    (copy / "notes.txt").unlink()
    (copy / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="the manifest of a suspike bundle"):
        write_bundle(copy, make_graph(), make_events())
    assert (tmp_path / "full" / "thesis.tex").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "file", "full"]


def test_a_full_disk_leaves_the_old_bundle_alone(copy, tmp_path):
    code = f"""
import resource, runpy
from suspike.export import write_aedat, write_bundle, write_nir, write_schedule, write_sonata
made = runpy.run_path({bundles.__file__!r})
graph, events = made["make_graph"](seed=1), made["make_events"]()
write_bundle({str(copy)!r}, made["make_graph"](), events)  # compiles, before files are limited
trains = {{"a": events.take([0])}}
for limit in (3000, 100, 0):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    calls = [
        lambda: write_bundle({str(copy)!r}, graph, events),
        lambda: write_bundle({str(tmp_path / "new")!r}, graph, events),
        lambda: write_nir({str(tmp_path / "n")!r}, graph),
        lambda: write_sonata({str(tmp_path / "s")!r}, trains, dt_ms=1.0),
    ]
    if limit < 3000:
        calls.append(lambda: write_aedat({str(tmp_path / "a")!r}, trains, dt_ms=1.0))
        calls.append(lambda: write_schedule({str(tmp_path / "t")!r}, graph, 20))
    for call in calls:
        try:
            call()
        except OSError as error:
            assert error.errno == 27 and "written" in str(error), error
        else:
            raise AssertionError("written to a full disk")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    assert verify(copy).ok
    assert read_nir(copy / "network.nir").layers[0].weight[0, 0] == make_graph().layers[0].weight[0, 0]


TENTHS = np.full(10, 0.9, np.float32)
CUBA = dataclasses.replace(make_graph().layers[0], neuron=CubaLIF(TENTHS, TENTHS, TENTHS))


@pytest.mark.parametrize(
    ("graph", "events", "options", "match"),
    [
        (make_graph(), events_from_dense(np.zeros((3, 0, 6))), {}, "sample and step, got 0 samples of 3 steps"),
        (make_graph(), events_from_dense(np.zeros((0, 2, 6))), {}, "sample and step, got 2 samples of 0 steps"),
        (make_graph(), events_from_dense(np.zeros((2, 2, 5))), {}, "of the graph's 6 input units, got 5"),
        (make_graph(), make_events(), {"n_recordings": -1}, "`n_recordings` must be 0 or more, got -1"),
        (
            Graph((dataclasses.replace(make_graph().layers[0], name="a b"),), 1.0), make_events(), {},
            "`layer name` must be of letters, digits, '_', '-' and '.' in a file, got 'a b'. Rename the layer.",
        ),
        (
            Graph((CUBA,), 1.0), make_events(), {},
            r"`layer 'hidden'` must be one of a chain .*, got a layer of CubaLIF neurons\.",
        ),
        (
            Graph((make_graph(readout=False).layers[0], Route("pool", np.zeros(10, int), 1)), 1.0), make_events(), {},
            r"`layer 'pool'` must be one of a chain .*, got a Route\.",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_bundle_is_refused(tmp_path, graph, events, options, match):
    with pytest.raises(ValueError, match=match):
        write_bundle(tmp_path / "b", graph, events, **options)
    assert not list(tmp_path.iterdir())


def test_a_network_that_does_not_run_alike_is_refused(tmp_path, monkeypatch):
    def other(graph, events, *, target):
        result = simulate(graph, events, target=target)
        return result._replace(output=result.output + np.float32(target == "reference"))

    monkeypatch.setattr(_golden, "simulate", other)
    with pytest.raises(
        ValueError, match=r"one that gives the same result in every path, got reference run: .* Round its weights"
    ):
        write_bundle(tmp_path / "b", make_graph(), make_events())
    assert not list(tmp_path.iterdir())
