"""Verification: every kind of damage to a bundle is found and named, and a whole one passes."""

from __future__ import annotations

import dataclasses
import json
import os

import h5py
import numpy as np
import pytest
from suspike_testing.bundles import FILES, contents, make_graph

from suspike.export import (
    _manifest,
    verify,
    write_nir,
)
from suspike.graph import Graph


def failures(folder):
    return {check.name: check.detail for check in verify(folder).checks if not check.passed}


def reseal(folder):
    """Make the manifest of a changed bundle consistent again, as someone would who means harm."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for name, entry in manifest["files"].items():
        data = (folder / name).read_bytes()
        entry.update(sha256=_manifest.sha256(data), bytes=len(data))
    (folder / "manifest.json").write_bytes(_manifest.seal(manifest))


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_flipped_bit_anywhere_is_found(copy, name):
    data = (copy / name).read_bytes()
    places = range(0, len(data), 41) if name == "manifest.json" else (0, len(data) // 2, len(data) - 1)
    for place in places:
        (copy / name).write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        found = failures(copy)
        assert name in found, place
        assert found[name]


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_or_cut_file_is_found(copy, name):
    data = (copy / name).read_bytes()
    for broken in (data[:-1], data[: len(data) // 2], b""):
        (copy / name).write_bytes(broken)
        assert name in failures(copy)
    (copy / name).unlink()
    assert "No such file" in failures(copy)[name]
    (copy / name).mkdir()
    assert name in failures(copy)


def test_what_needs_a_damaged_file_is_not_run(copy):
    (copy / "network.nir").unlink()
    found = failures(copy)
    assert found["network"] == "Not checked, since network.nir failed."
    assert set(found) == {"network.nir", "network", "schedule", "golden", "cpu run", "reference run"} | {
        f"spikes of recording-{k}.{kind}" for k in range(2) for kind in ("aedat", "sonata.h5")
    }


def test_an_added_file_or_a_link_is_found(copy, tmp_path):
    (copy / "notes.txt").write_text("mine")
    assert failures(copy) == {"no other files": "`folder` must be of the files in the manifest, got notes.txt."}
    (copy / "notes.txt").unlink()
    assert verify(copy).ok
    (copy / "golden.npz").rename(tmp_path / "outside.npz")
    (copy / "golden.npz").symlink_to(tmp_path / "outside.npz")
    assert "a regular file" in failures(copy)["golden.npz"]
    (copy / "golden.npz").unlink()
    os.mkfifo(copy / "golden.npz")  # would be read for ever
    assert "a regular file" in failures(copy)["golden.npz"]


def move(manifest, name, to):
    manifest["files"][to] = manifest["files"].pop(name)


@pytest.mark.parametrize(
    ("change", "check", "match"),
    [
        (lambda m: m.update(format=2), "manifest.json", "`format` must be 1, got 2"),
        (lambda m: m.pop("format"), "manifest.json", "KeyError: 'format'"),
        (lambda m: m.pop("layers"), "manifest.json", "'layers'"),
        (lambda m: m.update(more=1), "manifest.json", "keys"),
        (lambda m: m.update(files=[]), "manifest.json", "files"),
        (lambda m: m.update(n_steps="20"), "manifest.json", "n_steps"),
        (lambda m: m["recordings"].update(number=4), "manifest.json", "at most n_samples = 3, got 4"),
        (lambda m: m["recordings"].update(number=1), "manifest.json", "`files` must be"),
        (
            lambda m: m.update(n_samples=m["recordings"].update(number=10**12) or 10**12),
            "manifest.json",
            "than the 7 files",
        ),
        (lambda m: m["recordings"].update(populations=["hidden"]), "golden", "recordings of manifest.json"),
        (lambda m: m["files"].pop("golden.npz"), "manifest.json", "`files` must be"),
        (lambda m: m["files"]["golden.npz"].update(bytes=1), "golden.npz", "of 1 bytes"),
        (lambda m: m["files"]["golden.npz"].update(sha256="0"), "golden.npz", "of sha256 0"),
        (lambda m: m["files"]["golden.npz"].update(bytes=-1), "manifest.json", "whole number from 0, got -1"),
        (
            lambda m: move(m, "golden.npz", "../golden.npz"),
            "manifest.json",
            "in the folder itself, got '../golden.npz'",
        ),
        (lambda m: move(m, "golden.npz", "/etc/passwd"), "manifest.json", "in the folder itself, got '/etc/passwd'"),
        (lambda m: move(m, "golden.npz", "a\\b"), "manifest.json", "in the folder itself"),
        (lambda m: m.update(dt_ms=1.0), "network", "`dt_ms of manifest.json` must be 0.5, as in network.nir, got 1.0"),
        (lambda m: m.update(n_in=7), "network", "n_in"),
        (lambda m: m["layers"][0].update(name="other"), "network", "layers"),
        (lambda m: m["layers"][0].update(gated="yes"), "manifest.json", "layers"),
        (lambda m: m.update(n_steps=21), "golden", "`n_steps of manifest.json` must be 20, as in golden.npz, got 21"),
        (lambda m: m.update(n_samples=5), "golden", "n_samples"),
    ],
)
def test_a_changed_manifest_is_found(copy, change, check, match):
    manifest = json.loads((copy / "manifest.json").read_bytes())
    change(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest, indent=2))
    if "format" in match:
        assert match in failures(copy)["manifest.json"]
    else:
        assert "a manifest that was changed" in failures(copy)["manifest.json"]
    (copy / "manifest.json").write_bytes(_manifest.seal(manifest))
    assert match in failures(copy)[check]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"format": 1}'])
def test_a_manifest_that_is_none_is_found(copy, data):
    (copy / "manifest.json").write_bytes(data)
    assert list(failures(copy)) == ["manifest.json"]


def change_arrays(name, key, change):
    def apply(folder):
        with np.load(folder / name) as file:
            arrays = dict(file)
        arrays[key] = change(arrays[key].copy())
        np.savez(folder / name, **arrays)

    return apply


def change_graph(folder):
    graph = make_graph()
    layer = graph.layers[0]
    write_nir(
        folder / "network.nir", Graph((dataclasses.replace(layer, bias=layer.bias + 1), graph.layers[1]), graph.dt_ms)
    )


def change_rhythm(folder):
    graph = make_graph()
    layer = graph.layers[0]
    gate = dataclasses.replace(layer.neuron.gate, bias=layer.neuron.gate.bias + 1)
    layer = dataclasses.replace(layer, neuron=dataclasses.replace(layer.neuron, gate=gate))
    write_nir(folder / "network.nir", Graph((layer, graph.layers[1]), graph.dt_ms))


def drop_last_event(folder):
    path = folder / "recording-1.aedat"
    path.write_bytes(path.read_bytes()[:-8])


def swap_recordings(folder):
    for kind in ("aedat", "sonata.h5"):
        one, other = (folder / f"recording-{k}.{kind}" for k in range(2))
        data = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(data)


def drop_gate(folder):
    with h5py.File(folder / "recording-0.sonata.h5", "a") as file:
        del file["spikes/hidden_gate"], file["suspike/schedule"]


def first(value):
    def change(array):
        array.flat[0] = value
        return array

    return change


def next_float(array):
    array.flat[-1] = np.nextafter(array.flat[-1], np.float32(9))
    return array


def truncate(name):
    def apply(folder):
        (folder / name).write_bytes((folder / name).read_bytes()[:-30])

    return apply


@pytest.mark.parametrize(
    ("damage", "check", "match"),
    [
        (change_graph, "cpu run", "spikes of 'hidden'"),
        (change_graph, "reference run", "that differ, the first at step"),
        (change_rhythm, "schedule", "the rhythm of network.nir, got"),
        (change_arrays("golden.npz", "output", next_float), "cpu run", "`golden.npz` must be what the network gives"),
        (
            change_arrays("golden.npz", "output", lambda x: x.astype("f8")),
            "cpu run",
            "float64 of shape (20, 3, 3), got float32",
        ),
        (change_arrays("golden.npz", "spikes.hidden.idx", lambda x: (x + 1) % 10), "cpu run", "spikes of 'hidden'"),
        (
            change_arrays("golden.npz", "spikes.hidden.idx", first(99)),
            "golden",
            "units from 0 to n_units - 1 = 9, got 99",
        ),
        (change_arrays("golden.npz", "input.ptr", first(5)), "golden", "`golden.npz` must be golden input and output"),
        (change_arrays("golden.npz", "input.idx", lambda x: (x + 1) % 6), "cpu run", "spikes of 'hidden'"),
        (change_arrays("golden.npz", "input.idx", lambda x: x.astype(object)), "golden", "allow_pickle=False"),
        (
            change_arrays("schedule.npz", "n_steps", lambda x: x - 1),
            "schedule",
            "`schedule.npz` must be a gate schedule",
        ),
        (
            change_arrays("schedule.npz", "dt_ms", lambda x: x * 2),
            "schedule",
            "of 20 steps of 0.5 ms, got 20 steps of 1.0 ms",
        ),
        (truncate("golden.npz"), "golden", "`golden.npz` must be golden input and output"),
        (truncate("schedule.npz"), "schedule", "`schedule.npz` must be a gate schedule"),
        (truncate("network.nir"), "network", "`network.nir` must be a NIR file"),
        (truncate("recording-0.sonata.h5"), "spikes of recording-0.sonata.h5", "`recording-0.sonata.h5` must be"),
        (truncate("recording-0.aedat"), "spikes of recording-0.aedat", "`recording-0.aedat` must be"),
        (
            drop_last_event,
            "spikes of recording-1.aedat",
            "in recording-1.aedat` must be the golden ones, got 1 that differ",
        ),
        (swap_recordings, "spikes of recording-0.aedat", "that differ"),
        (swap_recordings, "spikes of recording-1.sonata.h5", "that differ"),
        (drop_gate, "spikes of recording-0.sonata.h5", "the gates of hidden"),
    ],
)
def test_damage_under_right_checksums_is_found(copy, damage, check, match):
    reseal(copy)
    assert verify(copy).ok  # so it is the damage that is found
    damage(copy)
    assert failures(copy)  # by its checksum
    reseal(copy)
    assert match in failures(copy)[check]


def test_a_swapped_schedule_bit_is_found(copy):
    with np.load(copy / "schedule.npz") as file:
        arrays = dict(file)
    arrays["bits.hidden"][3, 0] ^= 64
    arrays["sha256"] = np.array([_manifest.sha256(arrays["bits.hidden"].tobytes())])
    np.savez(copy / "schedule.npz", **arrays)
    reseal(copy)
    found = "`gate of 'hidden' in schedule.npz` must be the rhythm of network.nir, got 1 bits of 200 that differ."
    assert failures(copy) == {"schedule": found}


def test_no_bundle_is_one_clear_error(whole, tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path, tmp_path / "none", tmp_path / "file", whole / "golden.npz"):
        with pytest.raises(ValueError, match=r"`folder` must be a bundle, with a manifest.json, got"):
            verify(place)


def test_a_bundle_verifies(whole):
    assert set(contents(whole)) == FILES
    verification = verify(whole, n_reference=2)
    assert verification.ok
    details = {check.name: check.detail for check in verification.checks}
    assert FILES < set(details)
    assert "spikes equal in 3 recordings of 20 steps; 180 readout values equal" in details["cpu run"]
    assert "spikes equal in 2 recordings of 20 steps; 120 readout values equal" in details["reference run"]
    assert details["schedule"] == "200 gate bits equal"
    assert int(details["cpu run"].split()[0]) > 20  # it does fire
    assert [check.name for check in verify(whole, n_reference=0).checks].count("reference run") == 0
