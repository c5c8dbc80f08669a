"""C programs as libraries in this process: what a loop written by hand takes."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path


def compiler() -> str | None:
    """Return the name of this machine's C compiler, if there is one."""
    return next((name for name in ("cc", "gcc") if shutil.which(name)), None)


def compiled(source: str, *flags: str) -> ctypes.CDLL:
    """Compile a file of this folder for this processor.

    Raises
    ------
    RuntimeError
        Without a compiler.
    """
    name = compiler()
    if name is None:
        raise RuntimeError("there is no C compiler")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "program.so"
        given = ["-O3", "-march=native", *flags, "-shared", "-fPIC", "-o", str(library)]
        path = str(Path(__file__).with_name(source))
        subprocess.run([name, *given, path, "-lm"], check=True, capture_output=True)
        return ctypes.CDLL(str(library))
