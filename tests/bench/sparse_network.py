"""A sparse network, what it has to fire, and a look at what simulators fire: numpy only. As network.py, but one sample.

N neurons, each with `FAN_OUT` random targets, and sources of events with as many each. Few neurons are reached in a
step, so a simulator that visits all of them in every step spends its time on the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from network import BAND, BETA, THRESHOLD
from numpy.typing import NDArray

FAN_OUT, N_SOURCES = 100, 1000


class SparseNetwork(NamedTuple):
    """LIF neurons reset to zero, and the events of one sample.

    Attributes
    ----------
    ptr, idx : int64 [T + 1], int32 [E]
        Events of the sources, as in `network.Network`.
    target, weight : int32, float32 [N_SOURCES, FAN_OUT]
        Where the events of a source go; a target may stand twice.
    recurrent_target, recurrent_weight : int32, float32 [N, FAN_OUT]
        Where the neurons' spikes go, a step later; of no rows without recurrence.
    n, beta, threshold : int, float, float
    """

    ptr: NDArray[np.int64]
    idx: NDArray[np.int32]
    target: NDArray[np.int32]
    weight: NDArray[np.float32]
    recurrent_target: NDArray[np.int32]
    recurrent_weight: NDArray[np.float32]
    n: int
    beta: float
    threshold: float

    @property
    def n_samples(self) -> int:
        return 1

    @property
    def n_steps(self) -> int:
        return len(self.ptr) - 1

    @property
    def steps(self) -> NDArray[np.int64]:
        """Return the step of each event: [E]."""
        return np.repeat(np.arange(self.n_steps), np.diff(self.ptr))


def draw(n: int, *, per_step: float, recurrent: bool = True, n_steps: int = 1000) -> SparseNetwork:
    """Draw a network that `per_step` sources reach in a step, none twice; recurrent weights are a fifth of theirs."""
    rng = np.random.default_rng(4)
    counts = rng.poisson(per_step, n_steps)
    idx = np.concatenate([rng.choice(N_SOURCES, count, replace=False) for count in counts]).astype(np.int32)

    def wired(rows: int, mean: float, spread: float) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        weight = np.round(rng.normal(mean, spread, (rows, FAN_OUT)) * 256) / 256
        return rng.integers(0, n, weight.shape, dtype=np.int32), weight.astype(np.float32)

    into, back = wired(N_SOURCES, 0.5, 0.5), wired(n if recurrent else 0, 0.0, 0.1)
    return SparseNetwork(np.append(0, np.cumsum(counts)), idx, *into, *back, n, BETA, THRESHOLD)


def expected(net: SparseNetwork) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Run a plain loop in float64; return the places t N + i of all spikes, sorted, and those within `BAND` of one."""
    v, fired, places, near = np.zeros(net.n), np.zeros(0, np.int64), [], []
    for t in range(net.n_steps):
        events = net.idx[net.ptr[t] : net.ptr[t + 1]]
        to, by = net.target[events].ravel(), net.weight[events].ravel()
        if len(net.recurrent_target):
            to = np.append(to, net.recurrent_target[fired])
            by = np.append(by, net.recurrent_weight[fired])
        v = net.beta * v + np.bincount(to, by, minlength=net.n)
        near.append(t * net.n + np.flatnonzero(np.abs(v - net.threshold) < BAND))
        fired = np.flatnonzero(v > net.threshold)
        v[fired] = 0
        places.append(t * net.n + fired)
    return np.concatenate(places), np.concatenate(near)


def save(net: SparseNetwork, path: Path) -> None:
    """Write `net` for the workers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **net._asdict())


def load(path: Path) -> SparseNetwork:
    """Read what `save` wrote."""
    with np.load(path) as found:
        scalars = {"n": int(found["n"]), "beta": float(found["beta"]), "threshold": float(found["threshold"])}
        return SparseNetwork(**{key: found[key] for key in SparseNetwork._fields if key not in scalars}, **scalars)
