"""One cell in a process of its own: as worker.py, but ``result PATH`` writes all that a step gives."""

from __future__ import annotations

from typing import Any

import numpy as np
from sequence_work import load
from work import Built
from worker import serve


def result(built: Built, work: Any, path: str) -> dict[str, Any]:
    """Write outputs and state, or the gradients."""
    np.savez(path, *(np.asarray(part) for part in built.as_ours(built.step())))
    return {}


if __name__ == "__main__":
    serve(load, result)
