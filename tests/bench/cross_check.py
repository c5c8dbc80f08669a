"""Spike for spike: networks of ours, with and without gates, in Brian2 and in NEST.

``make bench`` runs it (``cross_check.py``), to build/bench/cross_check.json. It is no test of the suite, as these two
need an environment of their own and Brian2 a compiler for a minute a network. Ours runs in float32, the others in
float64; weights lie on a grid, leaks do not, so rounding may move a spike: a difference that it does not explain ends
the program with an error.

plain           recurrent, always open
gated           recurrent, a rhythm of four sines for each neuron, 25 % open; in Brian2 an expression of the gate's bits
gated, grouped  no recurrence, 16 rhythms of one sine; in NEST each rhythm's neurons run over their open steps alone
gated, shared   recurrent, one rhythm for all neurons; in NEST likewise, with a step between open spells that loses the
                recurrent spikes which meet a shut gate
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from network import Fired, Network, draw, expected, save
from ours_simulate import suspike
from simulate import SCRIPT, compared, four_sines, gated, one_sine
from timing import OUT, Absent, Impl, running

BRIAN2, NEST, LOWERED = (Impl(f"peers_{name}") for name in ("brian2:network", "nest:network", "nest:lowered"))


def networks() -> dict[str, tuple[Network, dict[str, Impl]]]:
    """Return what is run, and where."""
    plain, wide = draw(), draw(n_samples=32)
    grouped = wide._replace(recurrent=np.zeros((0, 256), np.float32))
    return {
        "plain": (plain, {"Brian2": BRIAN2, "NEST": NEST}),
        "gated": (gated(wide, four_sines(256, wide.n_steps, 0.25)), {"Brian2": BRIAN2}),
        "gated, grouped": (gated(grouped, one_sine(256, 0.25, group_size=16)), {"Brian2": BRIAN2, "NEST": LOWERED}),
        "gated, shared": (gated(wide, one_sine(256, 0.4, group_size=256)), {"NEST": LOWERED}),
    }


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for case, (net, impls) in networks().items():
        path = OUT / "cross_check.npz"
        save(net, path)
        run = suspike(net, 1, batch=net.n_samples)
        ours = Fired(*(np.asarray(spikes) > 0 for spikes in run.as_ours(run.step())))
        _, near = expected(net)
        for name, impl in impls.items():
            try:
                with running(f"{case}, {name}", impl, path, SCRIPT) as worker:
                    found = compared(case, worker, net, ours, near)
                    rows.append({"network": case, "simulator": name} | found | worker.facts)
            except Absent as why:
                sys.stderr.write(f"{name} is left out: {why}\n")
                continue
            row = rows[-1]
            sys.stdout.write(f"{case}, {name} {row['version']}: {row['moved']} of {row['spikes']} spikes differ\n")
        path.unlink()
    (OUT / "cross_check.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
