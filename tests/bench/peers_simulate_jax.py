"""JAX: the network of network.py as one compiled program, a dense `lax.scan` over the steps, batch 1, float32."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from network import Network
from work import Built


def scan(net: Network, threads: int) -> Built:
    """Both layers in one scan; the input product of all steps before it.

    XLA takes as many threads as the process has cores.
    """
    del threads
    into, back, readout = (jnp.asarray(w) for w in (net.weight, net.recurrent, net.readout))
    samples = [jnp.asarray(net.dense(b)) for b in range(net.n_samples)]

    def fire(v: Any, cur: Any) -> tuple[Any, Any]:
        v = net.beta * v + cur
        fires = v > net.threshold
        return jnp.where(fires, 0, v), fires

    def body(state: Any, cur: Any) -> tuple[Any, Any]:
        v, spk, v_out = state
        v, fires = fire(v, cur + spk @ back)
        spk = fires.astype(jnp.float32)
        v_out, fires_out = fire(v_out, spk @ readout)
        return (v, spk, v_out), (fires, fires_out)

    @jax.jit
    def run(x: Any) -> Any:
        rest = jnp.zeros(back.shape[1]), jnp.zeros(back.shape[1]), jnp.zeros(readout.shape[1])
        return jax.lax.scan(body, rest, x @ into)[1]

    def step() -> list[Any]:
        return [jax.block_until_ready(run(x)) for x in samples]

    def as_ours(done: list[Any]) -> list[Any]:
        return [np.stack([np.asarray(spk[i]) for spk in done], 1) for i in (0, 1)]

    return Built(step, as_ours, {"version": version("jax")})
