"""The two decorators of the package: `rule` for scalar rules, `kernel` for compiled loops.

numba looks only at a kernel's own file when it decides whether a cached binary is still good, so a kernel that inlines
a changed rule would run the old rule. `kernel` therefore keys numba's cache folder by a hash of all of the package's
sources.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import config
from numba.extending import register_jitable

F = TypeVar("F", bound=Callable[..., Any])

log = logging.getLogger(__name__)


def rule(function: F) -> F:
    """Leave `function` as plain Python and let compiled kernels inline it."""
    compiled: F = register_jitable(function)
    return compiled


def kernel(*, reassociate: bool = False, allocates: bool = True, inline: bool = False) -> Callable[[F], F]:
    """Compile a module-level function without the interpreter lock, cached on disk.

    Parameters
    ----------
    reassociate : bool
        Let sums run in any order and contract to FMA (gradients and row sums). The state update never may: it is
        plain IEEE arithmetic, equal on every machine. One that other kernels call must be
        `inline`: each caller has a copy of it, rounded in its own way, and among copies that stand apart the first one
        loaded serves all callers, so that results would depend on what ran before.
    allocates : bool
        A function that makes no array of its own says so, and then counts no references to those that it is given: two
        atomic additions for each would cost more than a short loop.
    inline : bool
        Put the code where it is called: handing over a few arrays takes as long as a short loop.
    """
    flags: Any = {"reassoc", "contract", "nsz", "arcp"} if reassociate else False

    def compile_(function: F) -> F:
        cached, folder = _can_cache(), config.CACHE_DIR
        config.CACHE_DIR = str(_cache_folder()) if cached else folder
        try:
            # error_model="numpy": no branch on division by zero inside a loop that should vectorise
            options = {"nogil": True, "error_model": "numpy", "boundscheck": False, "fastmath": flags}
            if not allocates:
                options["_nrt"] = False
            if inline:
                options["forceinline"] = True
            compiled: F = numba.njit(cache=cached, **options)(function)
            return compiled
        finally:
            config.CACHE_DIR = folder

    return compile_


def _cache_folder() -> Path:
    """Return the folder of compiled kernels of exactly these sources."""
    root = Path(__file__).parent
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(root.rglob("*.py")))).hexdigest()[:12]
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "suspike" / f"kernels-{digest}"


_cacheable: bool | None = None


def _can_cache() -> bool:
    """Say whether the cache folder can be written; without one, kernels compile anew in each process."""
    global _cacheable
    if _cacheable is None:
        folder = None
        try:
            folder = _cache_folder()
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(bytes(2**20))  # a compiled kernel's size: numba raises when its own write finds no room
            _cacheable = True
        except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
            log.warning("Kernels will be compiled in every process: no cache at %s (%s).", folder, error)
            _cacheable = False
    return _cacheable
