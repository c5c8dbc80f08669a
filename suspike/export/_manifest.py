"""manifest.json: what a bundle holds, with the checksum of each file and of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import suspike
from suspike._files import read_bytes, reading
from suspike._validate import fail
from suspike.export._trains import INPUT
from suspike.graph import Graph
from suspike_kernels.layout import Events

FORMAT = 1
MANIFEST, NETWORK, SCHEDULE, GOLDEN = "manifest.json", "network.nir", "schedule.npz", "golden.npz"
CONVENTIONS = {
    "time": "Steps count from 0, the first after the initial state, in which every variable is 0.",
    "neuron": "u = beta * v + cur; spike where u > threshold; v = 0 after a spike. cur sums the weights of this "
    "step's events, of the own layer's spikes of the step before (recurrent), and the bias. Layers add no delay.",
    "gate": "Where a gate is shut, v is unchanged (no leak), the input is lost and nothing fires.",
    "golden": "Event lists: the events of sample b at step t are idx[ptr[b, t] : ptr[b, t + 1]]; a unit may stand "
    "twice. output is the readout's membrane [step, sample, unit].",
    "recordings": "The first samples of the golden run. What happens in step k is stamped (k + 1) * dt_ms: AEDAT 2.0 "
    "in us, address = base + unit by the header's map; SONATA in ms, a population a layer, a gate's edges beside it.",
}
_SELF = "manifest_sha256"
_NO_RECORDINGS: dict[str, Any] = {"number": 0, "populations": []}


class Description(NamedTuple):
    """What a manifest says of its bundle.

    Attributes
    ----------
    content : dict
        As `describe_graph` and `describe_runs` give it.
    files : dict of str to (sha256, bytes)
    """

    content: dict[str, Any]
    files: dict[str, tuple[str, int]]


def recording_files(sample: int) -> tuple[str, str]:
    """Return the names of a recording's event files: AEDAT 2.0, SONATA."""
    return f"recording-{sample}.aedat", f"recording-{sample}.sonata.h5"


def describe_graph(graph: Graph) -> dict[str, Any]:
    """Return what a manifest says of a network."""
    layers = []
    for layer in graph.neurons:
        gated = layer.neuron.gate is not None
        head = {"name": layer.name, "n_units": layer.n_units, "fires": layer.neuron.fires, "gated": gated}
        layers.append(head | {"recurrent": layer.recurrent is not None, "dtype": str(layer.weight.dtype)})
    return {"dt_ms": float(graph.dt_ms), "n_in": graph.n_in, "layers": layers}


def describe_runs(graph: Graph, events: Events, *, n_recordings: int) -> dict[str, Any]:
    """Return what a manifest says of the golden input and of what goes into event files."""
    number = min(n_recordings, events.n_samples)
    # An event file cannot say that a unit sent two events in a step: such an input stays out of all of them.
    single = events.take(range(number)).max_count() <= 1
    populations = [INPUT] * single + [layer.name for layer in graph.neurons if layer.neuron.fires]
    recordings = {"number": number, "populations": populations} if number and populations else _NO_RECORDINGS
    return {"n_steps": events.n_steps, "n_samples": events.n_samples, "recordings": recordings}


def manifest_bytes(content: Mapping[str, Any], contents: Mapping[str, bytes]) -> bytes:
    """Return manifest.json for what `describe_graph` and `describe_runs` say and the bytes of every other file."""
    files = {name: {"sha256": sha256(data), "bytes": len(data)} for name, data in contents.items()}
    versions = {"suspike": suspike.__version__} | {name: version(name) for name in ("nir", "h5py", "numpy")}
    head = {"format": FORMAT, "versions": versions, **content}
    return seal(head | {"conventions": CONVENTIONS, "files": files})


def seal(manifest: Mapping[str, Any]) -> bytes:
    """Return the JSON of a manifest with the checksum of all of the rest of it."""
    rest = {key: value for key, value in manifest.items() if key != _SELF}
    return _json(rest | {_SELF: sha256(_json(rest))})


def read_manifest(folder: Path) -> Description:
    """Read and check manifest.json, without a look at the files it names.

    Raises
    ------
    ValueError
        Naming what is wrong: no JSON, another format, changed by hand, fields missing or of a wrong kind.
    """
    data = read_bytes(folder / MANIFEST)
    with reading(folder / MANIFEST, "the manifest of a suspike bundle"):
        manifest = json.loads(data)
        if not isinstance(manifest, dict):
            fail("manifest", "an object", type(manifest).__name__)
        if manifest["format"] != FORMAT:
            fail("format", str(FORMAT), repr(manifest["format"]))
        if seal(manifest) != data:
            fail(_SELF, "the checksum of the rest, and the layout as written", "a manifest that was changed")
        content = {key: manifest.pop(key) for key in ("dt_ms", "n_steps", "n_samples", "n_in", "layers", "recordings")}
        _require_content(content)
        for key, kind in {"versions": str, "conventions": str, "files": dict}.items():
            if not all(isinstance(value, kind) for value in dict(manifest[key]).values()):
                fail(key, f"of {kind.__name__}", "others")
        if set(manifest) != {"format", "versions", "conventions", "files", _SELF}:
            fail("keys", "those of a manifest", ", ".join(manifest))
        _require_files(manifest["files"], content)
        entries = {name: (entry["sha256"], entry["bytes"]) for name, entry in manifest["files"].items()}
        return Description(content, {name: (str(a), _whole(f"bytes of {name}", b)) for name, (a, b) in entries.items()})


def sha256(data: bytes) -> str:
    """Return the checksum in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def expected_files(content: Mapping[str, Any]) -> list[str]:
    """Return the names of a bundle's files, the manifest apart."""
    schedule = [SCHEDULE] * any(layer["gated"] for layer in content["layers"])
    recordings = [name for k in range(content["recordings"]["number"]) for name in recording_files(k)]
    return [NETWORK, *schedule, GOLDEN, *recordings]


def _require_files(files: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    for name in files:
        if name in ("", ".", "..") or set(name) & set("/\\\0") or Path(name).name != name:
            fail("files", "names of files in the folder itself", repr(name))
    if content["recordings"]["number"] > len(files):  # before a list of them is made
        fail("recordings.number", f"no more than the {len(files)} files", str(content["recordings"]["number"]))
    if sorted(files) != sorted(expected_files(content)):
        fail("files", ", ".join(expected_files(content)), ", ".join(files))


def _require_content(content: Mapping[str, Any]) -> None:
    for key in ("n_steps", "n_samples", "n_in"):
        _whole(key, content[key])
    number = _whole("recordings.number", content["recordings"]["number"])
    if number > content["n_samples"]:
        fail("recordings.number", f"at most n_samples = {content['n_samples']}", str(number))
    for layer in content["layers"]:
        _whole("n_units", layer["n_units"])
        if not isinstance(layer["name"], str) or not isinstance(layer["gated"], bool):
            fail("layers", "of a name (str) and gated (bool)", repr(layer))


def _whole(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        fail(name, "a whole number from 0", repr(value))
    return value


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2).encode() + b"\n"
