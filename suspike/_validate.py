"""Argument checks with one message grammar: "`name` must be RULE, got VALUE." and the cure where one is known."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray


def fail(name: str, rule: str, got: str, cure: str = "") -> NoReturn:
    """Raise the ValueError "`name` must be RULE, got GOT. CURE"."""
    raise ValueError(message(name, rule, got, cure))


def message(name: str, rule: str, got: str, cure: str = "") -> str:
    """Return the sentence of `fail`, for errors of another class."""
    return f"`{name}` must be {rule}, got {got}.{' ' + cure if cure else ''}"


def require_shape(name: str, array: NDArray[Any], shape: Sequence[int]) -> None:
    """Refuse an array of another shape."""
    if array.shape != tuple(shape):
        fail(name, f"of shape {list(shape)}", f"shape {list(array.shape)}")


def require_finite(name: str, array: NDArray[Any]) -> None:
    """Refuse NaN and infinity, naming the first place."""
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        place = tuple(int(i) for i in bad[0])
        fail(name, "finite", f"{array[place]} at {list(place)} ({len(bad)} such values)")


def import_extra(module: str, *, extra: str) -> ModuleType:
    """Import an optional package, or say which extra brings it.

    Raises
    ------
    ImportError
        Naming the package and the extra to install.
    """
    require_extras({module.partition(".")[0]: extra})
    return importlib.import_module(module)


def require_extras(packages: Mapping[str, str]) -> None:
    """Say which extra brings the first of `packages` (package: extra) that is missing; it imports none of them.

    Raises
    ------
    ImportError
        Naming the package and the extra to install.
    """
    for package, extra in packages.items():
        try:
            found = importlib.util.find_spec(package) is not None
        except ValueError:  # in sys.modules without a spec: how an import is blocked
            found = False
        if not found:
            cure = f"Run: pip install 'suspike[{extra}]'"
            raise ImportError(message(package, "installed", "no such package", cure), name=package)
