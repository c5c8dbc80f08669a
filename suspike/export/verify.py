"""Check a bundle from its files alone: nothing missing, added or changed, and the network still does what it did."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from suspike._files import PathLike, npz_arrays, read_bytes, reading
from suspike._validate import fail, import_extra
from suspike.export._golden import Golden, golden_of, require_same, require_same_train, run
from suspike.export._manifest import (
    GOLDEN,
    MANIFEST,
    NETWORK,
    SCHEDULE,
    Description,
    describe_graph,
    describe_runs,
    read_manifest,
    recording_files,
    sha256,
)
from suspike.export._trains import INPUT, Recording
from suspike.export.aedat import read_aedat
from suspike.export.nir import read_nir
from suspike.export.schedule import gate_tables, read_schedule
from suspike.export.sonata import read_sonata
from suspike.graph import Graph

_T = TypeVar("_T")


def verify(folder: PathLike, *, n_reference: int = 1) -> Verification:
    """Check a bundle and run it again.

    Parameters
    ----------
    folder : path of a bundle
    n_reference : int
        Number of recordings to run through the plain loops of target "reference" too, which are slow.

    Returns
    -------
    Verification
        Whatever is wrong with the bundle is a failed check that names the file.

    Raises
    ------
    ValueError
        If there is no bundle at all.
    ImportError
        Without the packages of suspike[export].
    """
    for package in ("nir", "h5py"):
        import_extra(package, extra="export")
    place = Path(folder)
    if not any((place / name).exists() for name in (MANIFEST, NETWORK, GOLDEN)):
        fail("folder", "a bundle, with a manifest.json", str(place))
    checks = _Checks()
    manifest = checks.run(MANIFEST, lambda: _manifest(place))
    if manifest is None:
        return Verification(tuple(checks.done))
    for name, entry in manifest.files.items():
        checks.run(name, partial(_intact, place / name, *entry))
    checks.run("no other files", lambda: _alone(place, manifest))
    content = manifest.content
    graph = checks.run("network", lambda: _network(place, manifest), needs=[NETWORK])
    if any(layer["gated"] for layer in content["layers"]):
        checks.run("schedule", lambda: _schedule(place, graph, manifest), needs=[SCHEDULE, "network"])
    golden = checks.run("golden", lambda: _golden(place, graph, manifest), needs=[GOLDEN, "network"])
    checks.run("cpu run", lambda: _rerun(graph, golden, "cpu", None), needs=["golden"])
    if n_reference > 0:
        checks.run("reference run", lambda: _rerun(graph, golden, "reference", n_reference), needs=["golden"])
    for sample in range(content["recordings"]["number"]):
        for name, read in zip(recording_files(sample), (read_aedat, read_sonata), strict=True):
            populations = content["recordings"]["populations"]
            job = partial(_recording, place / name, read, sample, graph, golden, populations)
            checks.run(f"spikes of {name}", job, needs=[name, "golden"])
    return Verification(tuple(checks.done))


@dataclass(frozen=True)
class Check:
    """One thing that was checked: its name, whether it passed, and what was found."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Verification:
    """The checks of a bundle, in order.

    Parameters
    ----------
    checks : tuple of Check
    """

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether there were checks, and all passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)


class _Checks:
    """The checks made so far; a failing one becomes a result."""

    def __init__(self) -> None:
        self.done: list[Check] = []

    def run(self, name: str, job: Callable[[], tuple[_T, str]], *, needs: list[str] | None = None) -> _T | None:
        """Make a check, unless one that it needs has failed, and return what it found."""
        passed = {check.name for check in self.done if check.passed}
        missing = [need for need in needs or () if need not in passed]
        if missing:
            self.done.append(Check(name, False, f"Not checked, since {missing[0]} failed."))
            return None
        try:
            found, detail = job()
        except Exception as error:  # a damaged file may provoke anything in its reader
            kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
            self.done.append(Check(name, False, f"{kind}{error}"))
            return None
        self.done.append(Check(name, True, detail))
        return found


def _manifest(folder: Path) -> tuple[Description, str]:
    manifest = read_manifest(folder)
    return manifest, f"format and checksum right, {len(manifest.files)} files"


def _intact(path: Path, digest: str, n_bytes: int) -> tuple[None, str]:
    """Compare a file with its checksum; a link could lead outside, and a pipe would never end."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        fail(path.name, "a regular file", "something else")
    if path.stat().st_size != n_bytes:
        fail(path.name, f"of {n_bytes} bytes", f"{path.stat().st_size}")
    found = sha256(read_bytes(path))
    if found != digest:
        fail(path.name, f"of sha256 {digest}", found)
    return None, f"{n_bytes} bytes, checksum right"


def _alone(folder: Path, manifest: Description) -> tuple[None, str]:
    others = {path.name for path in folder.iterdir()} - {MANIFEST, *manifest.files}
    if others:
        fail("folder", "of the files in the manifest", ", ".join(sorted(others)))
    return None, "none"


def _network(folder: Path, manifest: Description) -> tuple[Graph, str]:
    graph = read_nir(folder / NETWORK)
    _require_described(manifest, describe_graph(graph), NETWORK)
    return graph, f"{len(graph.layers)} layers at a step of {graph.dt_ms} ms"


def _schedule(folder: Path, graph: Graph | None, manifest: Description) -> tuple[None, str]:
    assert graph is not None
    schedule, n_steps = read_schedule(folder / SCHEDULE), manifest.content["n_steps"]
    if (schedule.n_steps, schedule.dt_ms) != (n_steps, graph.dt_ms):
        said = f"{schedule.n_steps} steps of {schedule.dt_ms} ms"
        fail(SCHEDULE, f"of {n_steps} steps of {graph.dt_ms} ms", said)
    return None, _require_same_gates(SCHEDULE, schedule.tables, graph, n_steps)


def _golden(folder: Path, graph: Graph | None, manifest: Description) -> tuple[Golden, str]:
    assert graph is not None
    data = read_bytes(folder / GOLDEN)
    with reading(folder / GOLDEN, "golden input and output"):
        golden = golden_of(npz_arrays(data), graph)
    number = manifest.content["recordings"]["number"]
    _require_described(manifest, describe_runs(graph, golden.events, n_recordings=number), GOLDEN)
    return golden, f"{len(golden.events.idx)} input events in {golden.events.n_samples} recordings"


def _rerun(graph: Graph | None, golden: Golden | None, target: str, number: int | None) -> tuple[None, str]:
    assert graph is not None
    assert golden is not None
    part = golden if number is None else golden.first(number)
    with reading(GOLDEN, f"what the network gives on target {target!r}"):
        return None, require_same(run(graph, part.events, target=target), part)


def _recording(
    path: Path,
    read: Callable[[Path], Recording],
    sample: int,
    graph: Graph | None,
    golden: Golden | None,
    populations: Any,
) -> tuple[None, str]:
    assert graph is not None
    assert golden is not None
    found, trains = read(path), golden.trains(sample, with_input=INPUT in populations)
    if list(found.trains) != list(trains) or found.dt_ms != graph.dt_ms:
        said = f"{', '.join(found.trains)} at {found.dt_ms} ms"
        fail(path.name, f"of the populations {', '.join(trains)} at {graph.dt_ms} ms", said)
    for name, events in trains.items():
        require_same_train(f"spikes of {name!r} in {path.name}", found.trains[name], events)
    said = f"{sum(len(events.idx) for events in trains.values())} events equal"
    if read is read_sonata:
        said += f", {_require_same_gates(path.name, found.gates, graph, golden.events.n_steps)}"
    return None, said


def _require_described(manifest: Description, said: Mapping[str, Any], file: str) -> None:
    for key, value in said.items():
        if manifest.content[key] != value:
            fail(f"{key} of {MANIFEST}", f"{value}, as in {file}", str(manifest.content[key]))


def _require_same_gates(file: str, tables: Mapping[str, NDArray[np.uint8]], graph: Graph, n_steps: int) -> str:
    rhythms = gate_tables(graph, n_steps)
    if set(tables) != set(rhythms):
        fail(file, f"the gates of {', '.join(rhythms)}", ", ".join(tables))
    for name, table in rhythms.items():
        different = int((tables[name] != table).sum()) if tables[name].shape == table.shape else table.size
        if different:
            found = f"{different} bits of {table.size} that differ"
            fail(f"gate of {name!r} in {file}", f"the rhythm of {NETWORK}", found)
    return f"{sum(table.size for table in rhythms.values())} gate bits equal"
