"""One simulator in a process of its own: as worker.py, but ``result PATH`` writes which neurons fired."""

from __future__ import annotations

from typing import Any

import numpy as np
from network import Network, load
from work import Built
from worker import serve


def fired(built: Built, net: Network, path: str) -> dict[str, Any]:
    """Write the spikes of a run to `path`."""
    hidden, out = (np.asarray(spikes).astype(bool) for spikes in built.as_ours(built.step()))
    np.savez(path, hidden=np.packbits(hidden), out=np.packbits(out))
    return {"shape": [net.n_steps, net.n_samples], "spikes": int(hidden.sum() + out.sum())}


if __name__ == "__main__":
    serve(load, fired)
