"""Time of a random recurrent network at some 10 Hz: suspike, Brian2 and NEST, over size and length of a step.

``make bench`` runs it (``simulate_recurrent.py [ROUNDS]``), to build/bench/simulate_recurrent.json. As simulate.py: a
process each on one pinned core, CPU time, medians; nothing is timed before all fire as a plain loop in float64 does.
All neurons have input, and each spike goes to 100 others.

1 ms    1,000 to 1,000,000 neurons, 1000 steps (200 of the largest), a neuron is reached once or so a step
0.1 ms  the same with a leak, and events, of a tenth a step: 10,000 steps, reached every tenth or so

Of 1,000,000 neurons suspike alone is timed. ``bound``: the additions alone, and reading alone, of as many synapses.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from network import BETA, THRESHOLD
from sparse_network import FAN_OUT, SparseNetwork
from sparse_timing import IMPLS, measure
from timing import Impl, report

OURS = {
    "suspike": Impl("ours_sparse:suspike"),
    "suspike, all neurons every step": Impl("ours_sparse:one_way", {"waits": 0}),
    "suspike, touched neurons alone": Impl("ours_sparse:one_way", {"waits": 1}),
    "additions alone": Impl("ours_sparse:bound", {"read": False}),
    "reading alone": Impl("ours_sparse:bound", {"read": True}),
}
INPUT_RATE, INPUT, BACK = 0.02, (0.25, 0.1), (-0.024, 0.06)
"""Events of a source a ms, and mean and spread of the weights that they and the neurons' own spikes meet."""


def draw(n: int, *, n_steps: int = 1000, per_ms: int = 1) -> SparseNetwork:
    """Draw n neurons and n / 10 sources, none of two events a step, each of `FAN_OUT` random targets.

    `per_ms` steps are a ms.
    """
    rng, n_sources = np.random.default_rng(5), n // 10
    counts = rng.poisson(INPUT_RATE * n_sources / per_ms, n_steps)
    idx = np.concatenate([rng.choice(n_sources, count, replace=False) for count in counts]).astype(np.int32)

    def wired(rows: int, mean: float, spread: float) -> tuple[Any, Any]:
        weight = rng.standard_normal((rows, FAN_OUT), dtype=np.float32)
        target = np.sort(rng.integers(0, n, weight.shape, dtype=np.int32), axis=1)
        return target, np.round((weight * np.float32(spread) + np.float32(mean)) * 256) / 256

    into, back = wired(n_sources, *INPUT), wired(n, *BACK)
    beta = float(np.float32(BETA ** (1 / per_ms)))
    return SparseNetwork(np.append(0, np.cumsum(counts)), idx, *into, *back, n, beta, THRESHOLD)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    groups = []
    for n in (1_000, 10_000, 100_000, 1_000_000):
        impls, n_steps = (OURS | IMPLS, 1000) if n < 1_000_000 else (OURS, 200)
        groups.append(measure(f"1 ms, {n} neurons, {n_steps} steps", impls, draw(n, n_steps=n_steps), rounds))
    for n in (1_000, 10_000, 100_000):
        net = draw(n, n_steps=10_000, per_ms=10)
        groups.append(measure(f"0.1 ms, {n} neurons, 10000 steps", OURS | IMPLS, net, rounds))
    report("simulate_recurrent", groups)


if __name__ == "__main__":
    main()
