"""What open gates cost: time, synaptic operations and updates of a gated network against the share that is open.

``efficiency.py [ROUNDS [PICTURE]]`` runs the reference network of simulate.py with 256 and with 1024 recurrent neurons,
one rhythm a neuron sorted by phase, all samples in one call, on one core: CPU time, interleaved, medians. It writes
build/bench/efficiency.json, prints the table and draws it.

A network that fires less because its neurons are shut does less for two reasons; so each row has the synaptic
operations that were done, and what the same events would have cost had every neuron been open.
"""

from __future__ import annotations

import os
import statistics
import sys
import time

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"))

import json
from pathlib import Path
from typing import Any

from network import Network, draw
from ours_simulate import graph_of
from simulate import gated, one_sine

from suspike.simulate import simulate
from suspike_kernels.layout import Events

OUT = Path("build/bench")
SHARES = (1.0, 0.5, 0.25, 0.17, 0.1, 0.05)
SIZES = (256, 1024)


def networks(n: int) -> dict[float, Network]:
    always = draw(n)
    return {share: always if share == 1 else gated(always, one_sine(n, share)) for share in SHARES}


def measure(rounds: int) -> list[dict[str, Any]]:
    """Return a row for each size and share."""
    runs = {
        (n, share): (graph_of(net), Events(net.ptr, net.idx, len(net.weight)))
        for n in SIZES
        for share, net in networks(n).items()
    }
    counts = {key: simulate(*run, n_threads=1).counts for key, run in runs.items()}
    times: dict[Any, list[float]] = {key: [] for key in runs}
    for _ in range(rounds):
        for key, run in runs.items():
            begin = time.process_time()
            simulate(*run, n_threads=1)
            times[key].append((time.process_time() - begin) / run[1].n_samples * 1e3)
    rows = []
    for (n, share), taken in times.items():
        full, done = statistics.median(times[n, 1.0]), counts[n, share]
        synops, skipped = (sum(getattr(c, f"synops_{kind}") for c in done) for kind in ("done", "skipped"))
        samples, hidden = done[0].samples, done[0]
        rows.append(
            {
                "n": n, "open": hidden.updates_done / (hidden.updates_done + hidden.updates_skipped),
                "ms": statistics.median(taken), "min_ms": min(taken), "max_ms": max(taken),
                "times_faster": full / statistics.median(taken), "synops": synops / samples,
                "skipped": skipped / samples, "updates": hidden.updates_done / samples,
                "spikes": hidden.spikes / samples, "rounds": rounds,
            }
        )  # fmt: skip
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    head = (
        "neurons", "open", "ms a sample", "min to max", "times faster", "synaptic operations", "times fewer", "skipped",
        "updates", "spikes",
    )  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        full = next(r for r in rows if r["n"] == row["n"] and r["open"] == 1)
        cells = (
            str(row["n"]), f"{row['open']:.0%}", f"{row['ms']:.3f}", f"{row['min_ms']:.3f} to {row['max_ms']:.3f}",
            f"{row['times_faster']:.1f}", f"{row['synops']:,.0f}", f"{full['synops'] / row['synops']:.1f}",
            f"{row['skipped']:,.0f}", f"{row['updates']:,.0f}", f"{row['spikes']:,.0f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw time and synaptic operations against the share that is open, both as shares of the network always open."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    for axes, n in zip(figure.subplots(1, 2, sharey=True), SIZES, strict=True):
        mine = sorted((r for r in rows if r["n"] == n), key=lambda r: float(r["open"]))
        x, full = [r["open"] for r in mine], mine[-1]
        axes.plot(x, x, color="0.6", linestyle=":", label="share of neurons open")
        axes.plot(x, [r["synops"] / full["synops"] for r in mine], "s--", color="#b3541e", label="synaptic operations")
        low, high = ([r[k] / full["ms"] for r in mine] for k in ("min_ms", "max_ms"))
        axes.fill_between(x, low, high, color="#0059a6", alpha=0.2, linewidth=0)
        axes.plot(x, [r["ms"] / full["ms"] for r in mine], "o-", color="#0059a6", label="time")
        axes.set(title=f"{n} recurrent neurons", xlabel="share of neurons open", xscale="log", yscale="log")
        axes.set_xticks(SHARES, [f"{share:.0%}" for share in SHARES], minor=False)
        axes.minorticks_off()
    first = figure.axes[0]
    first.set_yticks([0.01, 0.1, 1], ["1 %", "10 %", "100 %"])
    first.set_ylabel("of the network always open")
    first.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "efficiency.json").write_text(json.dumps(rows, indent=1))
    picture(rows, Path(sys.argv[2]) if len(sys.argv) > 2 else OUT / "efficiency.png")
    sys.stdout.write(markdown(rows) + "\n")


if __name__ == "__main__":
    main()
