"""A bundle that several files of tests look at, and a copy of it to damage."""

import shutil
from pathlib import Path

import pytest
from suspike_testing.bundles import make_events, make_graph

from suspike.export import write_bundle


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle not to be changed."""
    return write_bundle(tmp_path_factory.mktemp("whole") / "net", make_graph(), make_events())


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A bundle to damage."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))
