"""The table of a benchmark's JSON, in Markdown: ``python tests/bench/table.py build/bench/train_step.json``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def markdown(path: Path) -> str:
    """Return the rows of a JSON file as a Markdown table; a column without a value is left out."""
    found = json.loads(path.read_text())
    columns: dict[str, Callable[[Any], Any]] = {
        "case": lambda r: r["case"],
        "input density": lambda r: r.get("density") and f"{r['density']:.1%}",
        "implementation": _name,
        "threads": lambda r: str(r["threads"]),
        "ms": lambda r: _ms(r["ms"]),
        "min to max": lambda r: f"{_ms(r['min_ms'])} to {_ms(r['max_ms'])}",
        "times faster than base": lambda r: r["ratio_to_base"] and f"{r['ratio_to_base']:.2f}",
        "times as long as suspike": lambda r: r.get("ratio_to_suspike") and f"{r['ratio_to_suspike']:.2f}",
        "peak of the process, MB": lambda r: "process_mb" in r and f"{r['process_mb']:.0f}",
        "extra memory, MB": lambda r: "peak_mb" in r and f"{r['peak_mb']:.0f}",
        "rate": lambda r: r.get("rate") is not None and f"{r['rate']:.4f}",
        "active": lambda r: r.get("active") is not None and f"{r['active']:.3f}",
        "G synaptic operations/s": lambda r: "synops" in r and f"{r['synops'] / r['ms'] / 1e6:.2f}",
        "open": lambda r: r.get("open", 1) < 1 and f"{r['open']:.3f}",
        "near": lambda r: r.get("near") and f"{r['near']:.3f}",
        "blocks touched": lambda r: r.get("touched", 1) < 1 and f"{r['touched']:.3f}",
        "1 / blocks touched": lambda r: r.get("touched", 1) < 1 and f"{1 / r['touched']:.2f}",
        "of it the rhythm, ms": lambda r: "table_ms" in r and _ms(r["table_ms"]),
        "compiling, s": lambda r: "compile_s" in r and f"{r['compile_s']:.0f}",
        "spikes that differ": lambda r: "moved" in r and f"{r['moved']} of {r['spikes']}",
        "differs": lambda r: r.get("differs"),
    }
    cells: dict[str, list[str]] = {}
    for head, cell in columns.items():
        column = [str(cell(row) or "") for row in found["rows"]]
        if any(column) and (head != "threads" or set(column) != {"1"}):
            cells[head] = column
    bases = {row["base"] for row in found["rows"]}
    heads = [f"times faster than {bases.copy().pop()}" if "base" in h and len(bases) == 1 else h for h in cells]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in zip(*cells.values(), strict=True)]
    return "\n".join(lines + [f"\n{peer} is left out: {why}" for peer, why in found["left_out"].items()])


def _ms(time: float) -> str:
    return f"{time:.3f}" if time < 1 else f"{time:.1f}" if time < 10 else f"{time:.0f}"


def _name(row: dict[str, Any]) -> str:
    name = f"{row['impl']} {row['version']}" if "version" in row else str(row["impl"])
    return f"{name} (base)" if row["impl"] == row["base"] else name


if __name__ == "__main__":
    for path in sys.argv[1:]:
        sys.stdout.write(markdown(Path(path)) + "\n")
