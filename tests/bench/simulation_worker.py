"""One simulator in a process of its own: as worker.py, but ``result PATH`` writes which neurons fired."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import sparse_network
from network import Network, load
from work import Built
from worker import serve


def load_any(path: Path) -> Any:
    """Read a network of either kind."""
    with np.load(path) as found:
        is_sparse = "target" in found
    return sparse_network.load(path) if is_sparse else load(path)


def fired(built: Built, net: Any, path: str) -> dict[str, Any]:
    """Write the spikes of a run to `path`: bits of the two layers, or the places of a sparse network's."""
    found = [np.asarray(spikes) for spikes in built.as_ours(built.step())]
    np.savez(path, *(np.packbits(spikes > 0) for spikes in found) if isinstance(net, Network) else found)
    return {}


if __name__ == "__main__":
    serve(load_any, fired)
