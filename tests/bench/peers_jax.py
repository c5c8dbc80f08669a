"""Spyx: one compiled program of forward and backward."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import spyx.axn as axn
import spyx.nn as snn
from flax import nnx
from work import Built, Work


def spyx(work: Work, threads: int, *, linear_in_scan: bool) -> Built:
    """LIF or RLIF under `spyx.nn.run`, with the Linear before it in a Sequential (as documented) or before the scan.

    XLA takes as many threads as the process has cores.
    """
    del threads
    (n_in, n), rngs = work.weight.shape, nnx.Rngs(0)
    kind = snn.RLIF if len(work.recurrent) else snn.LIF
    neuron = kind((n,), beta=work.beta, threshold=work.threshold, activation=axn.triangular(1 / work.width), rngs=rngs)
    linear = nnx.Linear(n_in, n, use_bias=False, rngs=rngs)
    linear.kernel[...] = jnp.asarray(work.weight)
    if len(work.recurrent):
        neuron.recurrent_w[...] = jnp.asarray(work.recurrent)
    model = snn.Sequential(linear, neuron) if linear_in_scan else neuron
    graph, trained, fixed = nnx.split(model, lambda path, _: path[-1] in ("kernel", "recurrent_w"), ...)
    x, mask = jnp.asarray(work.x, jnp.float32), jnp.asarray(work.mask)
    params = (None if linear_in_scan else linear.kernel[...], trained)

    def loss(params: Any, x: Any) -> tuple[Any, Any]:
        before, trained = params
        counts = snn.run(nnx.merge(graph, trained, fixed), x if before is None else x @ before)[0].sum(0)
        return (counts * mask).sum(), counts

    grad = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def step() -> tuple[Any, list[Any], Any]:
        (value, counts), grads = jax.block_until_ready(grad(params, x))
        return value, jax.tree.leaves(grads), counts  # the Linear's, then the recurrent ones

    return Built(step, list, {"version": version("spyx")})
