"""A bundle: a folder with everything a consumer needs to run a network and to check that it runs it right.

``network.nir``, ``schedule.npz`` where a layer is gated, ``golden.npz`` (input, spikes, readout), the first recordings
as AEDAT 2.0 and SONATA, and ``manifest.json`` with sizes, conventions in words, versions and checksums.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from suspike._files import PathLike, npz_bytes, sibling, write_new
from suspike._validate import fail
from suspike.export._golden import golden_arrays, run
from suspike.export._manifest import (
    GOLDEN,
    MANIFEST,
    NETWORK,
    SCHEDULE,
    describe_graph,
    describe_runs,
    manifest_bytes,
    read_manifest,
    recording_files,
)
from suspike.export._plain import plain_layers
from suspike.export._trains import INPUT, require_names
from suspike.export.aedat import write_aedat
from suspike.export.nir import write_nir
from suspike.export.schedule import gate_tables, write_schedule
from suspike.export.sonata import write_sonata
from suspike.export.verify import verify
from suspike.graph import Graph
from suspike_kernels.layout import Events, check_events


def write_bundle(folder: PathLike, graph: Graph, events: Events, *, n_recordings: int = 2) -> Path:
    """Write a network with golden input and output, and verify what was written before it takes its place.

    Parameters
    ----------
    folder : path of a folder
        New, empty, or a bundle, which is replaced once the new one is complete.
    graph : Graph
        With exact sums (weights on a power-of-two grid): it has to run alike in "cpu" and "reference".
    events : Events [B, T]
        The golden input: at least one sample and step.
    n_recordings : int
        Number of samples to write as event files too, at most B; 0 for networks that do not fit into those.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        If the graph or the events do not fit a format, the network does not run alike everywhere, or `folder` holds
        anything but a bundle.
    ImportError
        Without the packages of suspike[export].
    OSError
        If the place cannot be written. The old bundle is still there then, and nothing of the new one.
    """
    place = Path(os.path.realpath(folder))
    _require_replaceable(place)
    events = check_events(events)
    if events.n_samples < 1 or events.n_steps < 1:
        fail("events", "of at least one sample and step", f"{events.n_samples} samples of {events.n_steps} steps")
    if n_recordings < 0:
        fail("n_recordings", "0 or more", str(n_recordings))
    require_names(layer.name for layer in plain_layers(graph))
    content = describe_graph(graph) | describe_runs(graph, events, n_recordings=n_recordings)
    golden = run(graph, events, target="cpu")
    gates = gate_tables(graph, events.n_steps)
    with _replacing(place) as new:
        write_nir(new / NETWORK, graph)
        if gates:
            write_schedule(new / SCHEDULE, graph, events.n_steps)
        write_new(new / GOLDEN, npz_bytes(golden_arrays(golden)))
        for sample in range(content["recordings"]["number"]):
            trains = golden.trains(sample, with_input=INPUT in content["recordings"]["populations"])
            aedat, sonata = recording_files(sample)
            write_aedat(new / aedat, trains, dt_ms=graph.dt_ms)
            write_sonata(new / sonata, trains, dt_ms=graph.dt_ms, gates=gates)
        contents = {path.name: path.read_bytes() for path in sorted(new.iterdir())}
        write_new(new / MANIFEST, manifest_bytes(content, contents))
        failed = [f"{check.name}: {check.detail.rstrip('.')}" for check in verify(new).checks if not check.passed]
        if failed:
            cure = "Round its weights to a power-of-two grid, so that sums are exact (see suspike.convert)."
            fail("graph", "one that gives the same result in every path", "; ".join(failed), cure)
    return Path(folder)


@contextmanager
def _replacing(place: Path) -> Iterator[Path]:
    """Hand out a new folder beside `place` that takes its place at the end, or vanishes after an error."""
    new = sibling(place)
    try:
        new.mkdir()
        yield new
        _require_replaceable(place)  # somebody may have put something there meanwhile
        _move(new, place)
    except OSError as error:
        number = error.errno or errno.EIO
        raise OSError(number, f"{os.strerror(number)}; no bundle was written", str(place)) from None
    finally:
        shutil.rmtree(new, ignore_errors=True)  # gone where it took its place


def _move(new: Path, place: Path) -> None:
    """Put a folder in the place of another in two steps, since one that is not empty cannot be replaced in one."""
    old = sibling(place)
    try:
        if place.exists():
            place.rename(old)
        new.rename(place)
    except BaseException:
        if old.exists() and not place.exists():
            old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)  # only now that the new one is there


def _require_replaceable(place: Path) -> None:
    """Refuse a folder with anything in it that is not of a bundle: replacing would delete it."""
    if not place.exists():
        return
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "Not a folder; no bundle was written", str(place))
    entries = {path.name for path in place.iterdir()}
    if not entries:
        return
    cure = "Choose another place, or delete it yourself."
    if MANIFEST not in entries:
        fail("folder", "new, empty or a bundle", f"{place} with {min(entries)!r} in it", cure)
    others = entries - {MANIFEST, *read_manifest(place).files}
    if others:
        fail("folder", "a bundle and nothing else, to be replaced", f"{min(others)!r} in it", cure)
