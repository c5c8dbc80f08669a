"""suspike: spiking networks whose neurons choose when to update. Work follows events.

``su.nn`` and ``su.train`` train them in PyTorch; ``su.convert`` turns a network into a ``Graph`` of plain arrays;
``su.simulate``, ``su.energy`` and ``su.export`` run, price and hand over a Graph, without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from suspike import augment as augment
    from suspike import convert as convert
    from suspike import energy as energy
    from suspike import export as export
    from suspike import inspect as inspect
    from suspike import interop as interop
    from suspike import loader as loader
    from suspike import losses as losses
    from suspike import nn as nn
    from suspike import plot as plot
    from suspike import probes as probes
    from suspike import report as report
    from suspike import simulate as simulate
    from suspike import surrogate as surrogate
    from suspike import train as train
    from suspike.graph import Graph as Graph
    from suspike.inspect import record as record
    from suspike.inspect import summary as summary
    from suspike.probes import probe_gradients as probe_gradients
    from suspike.spikes import Spikes as Spikes
    from suspike_kernels.layout import Events as Events

_MODULES = (
    "augment", "convert", "energy", "export", "inspect", "interop", "loader", "losses", "nn", "plot", "probes",
    "report", "simulate", "surrogate", "train",
)  # fmt: skip
_NAMES = {
    "Events": "suspike_kernels.layout", "Graph": "suspike.graph", "Spikes": "suspike.spikes",
    "probe_gradients": "suspike.probes", "record": "suspike.inspect", "summary": "suspike.inspect",
}  # fmt: skip
__all__ = ["__version__", *_MODULES, *_NAMES]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: what needs no torch does not load it (a second)."""
    if name in _MODULES:
        return importlib.import_module(f"suspike.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'suspike' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
