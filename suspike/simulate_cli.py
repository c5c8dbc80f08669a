"""`suspike simulate`: recordings from event files through a network from a NIR file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from suspike._validate import fail, import_extra
from suspike_kernels.counts import Counts, Total, total

if TYPE_CHECKING:
    from suspike._runs import Run
    from suspike.graph import Graph


def simulate(
    network: Annotated[Path, typer.Argument(help="A .nir file written by suspike.export.write_nir.")],
    recordings: Annotated[
        list[Path], typer.Argument(help="Event files as suspike.export has them: .h5 (SONATA) or .aedat (AEDAT 2.0).")
    ],
    chunk: Annotated[
        int | None, typer.Option(help="One recording after the other in stretches of so many steps: .h5 of any length.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder for NAME.spikes.h5 (SONATA) and NAME.readout.npy of each recording.")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask scheduler, whose workers run it.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="As many as processors by default; 1 for each thread of a cluster.")
    ] = None,
) -> None:
    """Run recordings through a network, as one batch or in stretches: what it did, and what it answers."""
    from suspike import _runs
    from suspike._files import make_folder
    from suspike.export import read_nir

    names = [path.stem for path in recordings]
    if chunk is not None and scheduler is not None:
        fail("chunk", "left out with a scheduler, since stretches follow each other", str(chunk))
    if out is not None and len(set(names)) < len(names):
        fail("recordings", "of different names with --out", ", ".join(names))
    graph, console = read_nir(network), Console()
    # all files are looked at before anything runs or is written
    given = [_runs.read(path, graph, chunk) for path in recordings]
    places = [None if out is None else make_folder(out, "out") / name for name in names]
    with Progress(console=console, transient=True) as bar, _cluster(scheduler) as client:
        task = bar.add_task("simulating", total=None)

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        began = time.perf_counter()
        if chunk is None:
            counts, pieces = _runs.at_once(graph, given, threads, client, report)
            runs = [_runs.finish([piece], place, graph) for piece, place in zip(pieces, places, strict=True)]
        else:
            counts, runs = _runs.one_by_one(graph, given, places, threads, report)
        took = time.perf_counter() - began
    console.print(_counts_table(counts))
    console.print(_runs_table(names, graph, runs))
    steps = sum(run.n_steps for run in runs)
    lasting = f"{steps:,} steps, {steps * graph.dt_ms / 1000:,.3f} s"
    console.print(f"recordings: {len(runs)} ({lasting}); it took {took:,.2f} s", highlight=False, soft_wrap=True)


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Connect to a scheduler; without an address there is no client."""
    if address is None:
        yield None
        return
    distributed = import_extra("distributed", extra="scale")
    with distributed.Client(address) as client:
        try:
            yield client
        except (distributed.KilledWorker, CancelledError) as error:
            raise OSError(str(error)) from None


COUNTED = ("events", "synops_done", "synops_skipped", "updates_done", "updates_skipped", "gate_evaluations", "spikes",
           "words_read", "words_written")  # fmt: skip
"""Fields of `Counts` that are shown."""


def _counts_table(counts: Sequence[Counts]) -> Table:
    # a line each, not a column: nine numbers and a name are wider than a terminal
    table = Table("")
    columns: list[Counts | Total] = [*counts, *([total(counts)] if len(counts) > 1 else [])]
    for each in columns:
        name = "total" if isinstance(each, Total) else escape(each.name)
        table.add_column(name, justify="right", overflow="fold")
    for field in COUNTED:
        table.add_row(field.replace("_", " "), *(f"{getattr(each, field):,}" for each in columns))
    return table


def _runs_table(names: Sequence[str], graph: Graph, runs: Sequence[Run]) -> Table:
    """Return the readout's answers, or without a readout the spikes of each layer."""
    firing = [layer.name for layer in graph.neurons if layer.neuron.fires]
    reads = len(firing) < len(graph.neurons)
    spikes = [] if reads else [escape(f"spikes of {name}") for name in firing]
    table = Table("recording", "steps", *(["argmax of the mean", "argmax at the end"] if reads else spikes))
    for name, run in zip(names, runs, strict=True):
        cells = [f"{n:,}" for n in run.n_spikes]
        if reads:
            cells = ["none" if v is None else str(int(v.argmax())) for v in (run.mean, run.last)]
        table.add_row(escape(name), f"{run.n_steps:,}", *cells)
    return table
