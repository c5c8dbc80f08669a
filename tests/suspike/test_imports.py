"""What an import costs: no torch where none is needed, and no optional package anywhere."""

from __future__ import annotations

import subprocess
import sys

import pytest

import suspike as su

OPTIONAL = ("tonic", "lightning", "nir", "h5py", "matplotlib", "sklearn", "snntorch", "norse", "distributed", "dask")


def loaded(statement: str) -> set[str]:
    """The top-level packages that a fresh process has loaded after `statement`."""
    program = f"{statement}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(said.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import suspike",
        "import suspike.graph",
        "import suspike as su; su.simulate, su.Graph, su.Events",
        "import suspike.energy",
        "import suspike.export",
        "import suspike as su; su.interop.from_nir",
        "import suspike.cli, suspike._runs, suspike._scale",
        "import suspike_kernels.cpu, suspike_kernels.reference",
    ],
)
def test_without_torch(statement: str) -> None:
    found = loaded(statement)
    assert found.isdisjoint({"torch", *OPTIONAL})
    assert "suspike" in found or "suspike_kernels" in found


def test_modules_load_no_optional_package() -> None:
    names = ("nn", "Spikes", "convert", "surrogate", "losses", "record", "loader", "train", "plot")
    found = loaded(f"import suspike as su; {', '.join(f'su.{name}' for name in names)}")
    assert "torch" in found
    assert found.isdisjoint(OPTIONAL)


def test_public_names() -> None:
    for name in su.__all__:
        assert name in dir(su)
        assert getattr(su, name) is not None
    assert {"nn", "losses", "Spikes", "Graph", "Events", "record", "summary"} < set(su.__all__)
    assert su.Events.__module__ == "suspike_kernels.layout"
    assert su.record is su.inspect.record
    with pytest.raises(AttributeError, match="module 'suspike' has no attribute 'nowhere'"):
        su.nowhere  # noqa: B018
