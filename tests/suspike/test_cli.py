"""The command line: exit codes, one line for what a user can mend, and nothing half-written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from suspike.export import write_bundle
from suspike.graph import LI, LIF, Graph, Layer, Rhythm
from suspike_kernels.layout import events_from_dense


def suspike(*args: str | Path, without: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, as if the package `without` were not installed."""
    code = (
        "import sys\n"
        "without = sys.argv.pop(1)\n"
        "if without: sys.modules[without] = None\n"
        "from suspike.cli import main\n"
        "sys.argv[0] = 'suspike'\n"
        "main()"
    )
    command = [sys.executable, "-c", code, without, *map(str, args)]
    env = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, timeout=300, check=False)


def is_one_line(run: subprocess.CompletedProcess[str]) -> bool:
    return run.stderr.startswith("error: ") and run.stderr.count("\n") == 1 and "Traceback" not in run.stderr


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)

    def grid(*shape: int) -> np.ndarray:
        return (np.round(rng.standard_normal(shape) * 64) / 128).astype(np.float32)

    rhythm = Rhythm(np.zeros(6), np.ones((6, 1)), rng.uniform(0, 6, (6, 1)), np.array([9.0]))
    hidden = LIF(np.full(6, 0.9, np.float32), np.ones(6, np.float32), gate=rhythm)
    layers = (
        Layer("hidden", grid(5, 6), grid(6), hidden),
        Layer("out", grid(6, 3), grid(3), LI(np.full(3, 0.8, np.float32))),
    )
    return write_bundle(tmp_path / "bundle", Graph(layers, 1.0), events_from_dense(rng.integers(0, 2, (20, 3, 5))))


def test_version_and_help_say_what_there_is() -> None:
    assert suspike("version").stdout == "0.1.0\n"
    shown = suspike("--help")
    assert shown.returncode == 0
    assert "demo" in shown.stdout
    assert "verify" in shown.stdout


def test_a_good_bundle_is_verified(bundle: Path) -> None:
    run = suspike("verify", bundle)
    assert run.returncode == 0, run.stderr
    assert "reference run" in run.stdout
    assert "NO" not in run.stdout.split()


def test_a_damaged_bundle_ends_in_1_and_names_the_file(bundle: Path) -> None:
    data = bytearray((bundle / "network.nir").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "network.nir").write_bytes(data)
    run = suspike("verify", bundle)
    assert run.returncode == 1
    (line,) = (line for line in run.stdout.splitlines() if "network.nir" in line and "sha256" in line)
    assert "NO" in line.split()


def test_what_is_no_bundle_ends_in_2(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    run = suspike("verify", tmp_path)
    assert run.returncode == 2
    assert is_one_line(run)
    assert run.stderr.startswith("error: `folder` must be a bundle, with a manifest.json, got ")


def test_an_unknown_command_ends_in_2() -> None:
    assert suspike("train").returncode == 2


@pytest.mark.parametrize("option", ["--folder", "--cache"])
def test_a_file_where_a_folder_should_be_ends_in_2_and_leaves_nothing(tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("mine")
    run = suspike(
        "demo", option, tmp_path / "file", *([] if option == "--cache" else ["--cache", tmp_path / "c"]), cwd=tmp_path
    )
    assert run.returncode == 2
    assert is_one_line(run), run.stderr
    assert f"`{option[2:]}` must be" in run.stderr
    assert (tmp_path / "file").read_text() == "mine"
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / "file"]


@pytest.mark.parametrize(
    ("package", "extra"), [("sklearn", "datasets"), ("lightning", "train"), ("nir", "export"),
                           ("h5py", "export"), ("matplotlib", "plot")],
)  # fmt: skip
def test_a_missing_package_is_named_with_its_extra_before_any_work(tmp_path: Path, package: str, extra: str) -> None:
    run = suspike("demo", "--folder", tmp_path / "out", "--cache", tmp_path / "cache", without=package)
    assert run.returncode == 2
    assert is_one_line(run), run.stderr
    assert f"pip install 'suspike[{extra}]'" in run.stderr
    assert not list(tmp_path.iterdir())


def test_a_missing_package_does_not_keep_verify_from_saying_so(bundle: Path) -> None:
    run = suspike("verify", bundle, without="nir")
    assert run.returncode == 2
    assert is_one_line(run)
    assert "pip install 'suspike[export]'" in run.stderr
    assert json.loads((bundle / "manifest.json").read_text())
