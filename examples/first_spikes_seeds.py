"""The figures of docs/first_spikes.md: the demo's network and its always-open twin, each trained from several seeds.

``python examples/first_spikes_seeds.py FOLDER [SEEDS]`` trains (it goes on where it was stopped), prints a table and
writes FOLDER/seeds.json.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from suspike.convert import to_graph
from suspike.demo import DT_MS, predictions, recordings, train
from suspike.simulate import simulate


def main(folder: Path, n_seeds: int = 5) -> None:
    data, held_out = recordings(folder / "data", Console())
    rows = []
    for seed in range(n_seeds):
        for title, gated in (("gated", True), ("always open", False)):
            started = time.perf_counter()
            net, history = train(data, held_out, folder / f"{title}{seed}".replace(" ", "_"), gated=gated, seed=seed)
            seconds = time.perf_counter() - started
            graph, _ = to_graph(net, dt_ms=DT_MS, max_count=data.events.max_count())
            result = simulate(graph, held_out.events)
            rows.append({
                "network": title, "seed": seed, "seconds": seconds, "threads": torch.get_num_threads(),
                "accuracy": float((predictions(result) == held_out.labels).mean()),
                "before_rounding": history[-1]["held_out_accuracy"],
                "open_fraction": history[-1]["open_fraction"],
                "spikes": sum(c.spikes for c in result.counts) / len(held_out.labels),
                "synops_done": sum(c.synops_done for c in result.counts) / len(held_out.labels),
                "synops_skipped": sum(c.synops_skipped for c in result.counts) / len(held_out.labels),
            })  # fmt: skip
            (folder / "seeds.json").write_text(json.dumps(rows, indent=1))
    for title in ("gated", "always open"):
        for key in (
            "accuracy",
            "before_rounding",
            "open_fraction",
            "spikes",
            "synops_done",
            "synops_skipped",
            "seconds",
        ):
            values = np.array([row[key] for row in rows if row["network"] == title])
            print(f"{title:12} {key:16} mean {values.mean():.4g}, {values.min():.4g} to {values.max():.4g}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 5)
