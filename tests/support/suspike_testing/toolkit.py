"""What tests of GPU kernels share: a Python of its own, for numba's simulator or compiler, and NVIDIA's assembler."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]


def run_python(code: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    folders = [str(ROOT / "kernels"), str(ROOT / "tests" / "support")]
    path = os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        env={**os.environ, "PYTHONPATH": path, **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def find_ptxas() -> Path | None:
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(p) for p in spec.submodule_search_locations or ()] if spec else []
    found = [p for folder in folders for p in folder.glob("*/bin/ptxas")]
    return found[0] if found else None


def has_toolkit() -> bool:
    return find_ptxas() is not None and importlib.util.find_spec("numba_cuda") is not None


class Assembled(NamedTuple):
    """What the assembler says of a kernel."""

    registers: int
    spilled: bool


def assemble(ptx: Path, *options: str) -> Assembled:
    """Assemble a file whose name ends with "-sm_80.ptx", or another architecture."""
    arch = ptx.stem.rsplit("-", 1)[1]
    done = subprocess.run(
        [str(find_ptxas()), f"-arch={arch}", *options, "-v", str(ptx), "-o", str(ptx.with_suffix(".cubin"))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"Used (\d+) registers", done.stderr)
    assert found, done.stderr
    return Assembled(int(found[1]), "0 bytes spill stores, 0 bytes spill loads" not in done.stderr)
