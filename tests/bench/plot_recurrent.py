"""Draws build/bench/simulate_recurrent.json: ``python tests/bench/plot_recurrent.py docs/sparse_networks.png``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LOOKS = {
    "suspike": ("tab:blue", "o-"),
    "suspike, all neurons every step": ("tab:cyan", "s--"),
    "suspike, touched neurons alone": ("tab:purple", "^--"),
    "Brian2, C++ standalone": ("tab:orange", "o-"),
    "NEST": ("tab:red", "o-"),
    "additions alone": ("0.5", "o:"),
    "reading alone": ("0.75", "o:"),
}


def main() -> None:
    rows = json.loads(Path("build/bench/simulate_recurrent.json").read_text())["rows"]
    fig, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for ax, step in zip(axes, ("1 ms", "0.1 ms"), strict=True):
        for name, (color, style) in LOOKS.items():
            mine = [row for row in rows if row["impl"] == name and row["case"].startswith(f"{step},")]
            n = [row["neurons"] for row in mine]
            # the case ends in its number of steps
            scale = [1000 / (float(step.split()[0]) * int(row["case"].split()[-2])) for row in mine]
            low, mid, high = (
                [row[key] * x for row, x in zip(mine, scale, strict=True)] for key in ("min_ms", "ms", "max_ms")
            )
            ax.plot(n, mid, style, color=color, label=name, markersize=4)
            ax.fill_between(n, low, high, color=color, alpha=0.2, linewidth=0)
        ax.set(xscale="log", yscale="log", xlabel="neurons, of 100 synapses each", title=f"a step of {step}")
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("CPU time of a simulated second, ms")
    axes[1].legend(fontsize=8, loc="upper left")
    fig.savefig(sys.argv[1], dpi=110)


if __name__ == "__main__":
    main()
