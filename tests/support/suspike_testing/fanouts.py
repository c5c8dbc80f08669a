"""Drawn layers with fan-out lists for synapses, and the matrices that mean the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suspike_kernels.layout import EVERYWHERE, Fanout, SynapseArrays

from .cases import Case, on_grid


def random_fanout(rng: np.random.Generator, n_in: int, n: int, most: int) -> Fanout:
    """Rows of 0 to `most` targets in no order; some stand there more than once."""
    ptr = np.concatenate([[0], rng.integers(0, most + 1, n_in).cumsum()])
    return Fanout(ptr.astype(np.int64), rng.integers(0, n, ptr[-1]).astype(np.int32))


def matrix(fanout: Fanout, weight: NDArray[Any], n: int) -> NDArray[Any]:
    out = np.zeros((len(fanout.ptr) - 1, n), weight.dtype)
    for i in range(len(out)):
        for e in range(fanout.ptr[i], fanout.ptr[i + 1]):
            out[i, fanout.target[e]] += weight[0, e]
    return out


def into_lists(case: Case, *, given: bool = True, own: bool = True, most: int = 5, quiet: bool = False) -> Case:
    """The same layer with lists for its input's weights and for its recurrent ones; `quiet` takes its bias away."""
    rng, old = np.random.default_rng([case.seed, 3]), case.layer.synapses
    n_in, n = case.layer.events.n_units, len(old.bias)
    made: dict[str, Any] = {"bias": np.zeros_like(old.bias)} if quiet else {}
    for part, lists, size, wanted in (("weight", "fanout", n_in, given), ("recurrent", "own_fanout", n, own)):
        if wanted and len(getattr(old, part)):
            fanout = random_fanout(rng, size, n, most)
            weight = rng.standard_normal(len(fanout.target)) * 0.4 + 0.15
            made |= {lists: fanout, part: on_grid(weight, old.bias.dtype)[None]}
    return replace(case, layer=case.layer._replace(synapses=old._replace(**made)))


def into_matrices(case: Case) -> Case:
    """The same layer with matrices again."""
    s = case.layer.synapses
    n = len(s.bias)
    weight = matrix(s.fanout, s.weight, n) if len(s.fanout.ptr) else s.weight
    recurrent = matrix(s.own_fanout, s.recurrent, n) if len(s.own_fanout.ptr) else s.recurrent
    full = SynapseArrays(weight, recurrent, s.bias, s.geometry, EVERYWHERE, EVERYWHERE)
    return replace(case, layer=case.layer._replace(synapses=full))
