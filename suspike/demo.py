"""The whole road once, on event-camera digits: train, convert, simulate, price, export, report (`suspike demo`)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from suspike import augment, energy, export, nn, plot, report
from suspike._files import make_folder
from suspike._validate import require_extras
from suspike.convert import Rounding, to_graph, to_nn
from suspike.graph import Graph, Rhythm
from suspike.loader import Recordings, batches, load_digits
from suspike.simulate import Result, simulate
from suspike.train import Epoch, evaluate, fit
from suspike_kernels.layout import Events

SENSOR = (34, 34)
N_IN = 2 * SENSOR[0] * SENSOR[1]
DT_MS, N_STEPS = 3.0, 104
HIDDEN, CLASSES = 128, 10
OPEN = 0.26
"""At the start; learning opens them to about 0.3."""
EPOCHS, BATCH, LR, SHIFT = 20, 64, 4e-3, 1
"""Chosen within the 1,437 training recordings (docs/first_spikes.md)."""

EXTRAS = {
    "sklearn": "datasets", "lightning": "train", "nir": "export", "h5py": "export",
    "matplotlib": "plot",
}  # fmt: skip

N_REFERENCE = 20
"""Recordings run through the plain loops too."""


class Trained(NamedTuple):
    """A network on its way along the road."""

    history: list[Epoch]
    accuracy: float
    graph: Graph
    roundings: tuple[Rounding, ...]
    result: Result


def network(*, gated: bool) -> nn.Stack:
    """Return the demo's network: a hidden layer of LIF neurons, with a learned rhythm or always open, and a readout."""
    gate = nn.RhythmGate(HIDDEN, open=OPEN, n_steps=N_STEPS) if gated else None
    hidden = nn.Dense(N_IN, HIDDEN, nn.LIF(HIDDEN, beta=0.95, gate=gate))
    with torch.no_grad():
        hidden.weight.mul_(2)  # a recording has few events a step: start with neurons that fire
    return nn.Stack(hidden, nn.Dense(HIDDEN, CLASSES, nn.LI(CLASSES, beta=0.98)))


def train(
    data: Recordings, held_out: Recordings, folder: Path, *, gated: bool, seed: int
) -> tuple[nn.Stack, list[Epoch]]:
    """Train the demo's network; it goes on from the last epoch found in `folder`."""
    torch.manual_seed(seed)
    net = network(gated=gated)
    augmented = batches(data, batch_size=BATCH, shuffle=True, seed=seed, augment=augment.shift(SHIFT, SHIFT))
    return net, fit(
        net, augmented, batches(held_out, batch_size=len(held_out.labels)), epochs=EPOCHS, lr=LR, folder=folder
    )


def run(folder: Path, *, cache: Path, seed: int, console: Console) -> None:
    """Run the demo and print what it finds.

    Parameters
    ----------
    folder : path
        Checkpoints, the bundle and the report go here.
    cache : path
        Encoded recordings are kept here.
    seed : int
    console : Console

    Raises
    ------
    ImportError
        If an extra is missing.
    OSError
        If `folder` or `cache` cannot be written.
    RuntimeError
        If two paths disagree about a spike.
    """
    require_extras(EXTRAS)  # now, not after the training
    started = time.perf_counter()
    place = make_folder(folder / f"seed{seed}", "folder")

    console.rule("1 Recordings")
    data, held_out = recordings(cache, console)
    console.rule("2 Training")
    trained: dict[str, Trained] = {}
    for title, gated in (("always open", False), ("gated", True)):
        console.print(f"{title}: {N_IN} -> {HIDDEN} LIF -> {CLASSES} LI, {EPOCHS} epochs, seed {seed}")
        seconds = time.perf_counter()
        net, history = train(data, held_out, place / title.replace(" ", "_"), gated=gated, seed=seed)
        seconds = time.perf_counter() - seconds
        accuracy = evaluate(net, batches(held_out, batch_size=BATCH)).accuracy
        graph, roundings = to_graph(net, dt_ms=DT_MS, max_count=data.events.max_count())
        trained[title] = Trained(history, accuracy, graph, roundings, simulate(graph, held_out.events))
        console.print(f"  {accuracy:.1%} right, {history[-1]['open_fraction']:.1%} of gates open, {seconds:.1f} s")

    console.rule("3 Simulation, event by event")
    for title, each in trained.items():
        _compare(title, each, held_out, console)
    console.rule("4 Energy")
    counts = {title: each.result.counts for title, each in trained.items()}
    console.print(_as_rich(_counted(trained)))
    console.print(energy.energy_table(counts, _cards()))
    console.rule("5 Export")
    bundle = export.write_bundle(place / "bundle", trained["gated"].graph, held_out.events.take(range(N_REFERENCE)))
    checks = export.verify(bundle).checks
    console.print(f"{bundle}: {sum(c.passed for c in checks)} of {len(checks)} checks passed", soft_wrap=True)
    console.rule("6 Report")
    path = _report(place / "report.html", trained, held_out, seed)
    console.print(f"{path} and its pictures in {path.parent / 'figures'}", soft_wrap=True)
    console.print(f"suspike verify {bundle}  runs the bundle again", soft_wrap=True)
    console.print(f"The whole road took {time.perf_counter() - started:.0f} s.")


def recordings(cache: Path, console: Console) -> tuple[Recordings, Recordings]:
    """Encode the digits where that has not been done, and load both parts."""
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("encoding digits before an event camera", total=None)
        data, held_out = load_digits(
            cache, dt_ms=DT_MS, n_steps=N_STEPS, merge=True,
            progress=lambda n, of: bar.update(task, completed=n, total=of),
        )  # fmt: skip
    for title, part in (("training", data), ("held out", held_out)):
        mean = len(part.events.idx) / len(part.labels)
        console.print(
            f"{title}: {len(part.labels)} recordings of {N_STEPS} steps of {DT_MS:g} ms, {mean:.0f} events each"
            " (one at most for each pixel, polarity and step)"
        )
    return data, held_out


def predictions(result: Result) -> np.ndarray:
    """Return the class of each sample: the readout with the largest mean over time."""
    assert result.output is not None, "the demo's network ends in a readout"
    return np.asarray(result.output.mean(0).argmax(1))


def spikes_of_torch(graph: Graph, events: Events) -> np.ndarray:
    """Run a graph's first layer by the plain torch path on dense tensors: its spikes [T, B, N]."""
    layer, parts = to_nn(graph)[0], np.array_split(np.arange(events.n_samples), max(1, events.n_samples // BATCH))
    with torch.no_grad(), nn.path("torch"):  # in parts: dense input is large
        return np.concatenate([layer(torch.from_numpy(events.take(p).dense()))[0].numpy() for p in parts], axis=1)


def _compare(title: str, trained: Trained, held_out: Recordings, console: Console) -> None:
    """Print the accuracy before and after rounding, and how the three paths agree, spike by spike."""
    result, few = trained.result, held_out.events.take(range(N_REFERENCE))
    right = float((predictions(result) == held_out.labels).mean())
    hidden = trained.roundings[0]
    console.print(
        f"{title}: {trained.accuracy:.2%} right before and {right:.2%} after rounding to multiples of "
        f"2^-{hidden.exponent} (largest change {hidden.change:.1e})"
    )
    by_torch = int((spikes_of_torch(trained.graph, held_out.events) != result.spikes[0].dense()).sum())
    slow = simulate(trained.graph, few, target="reference")
    by_loops = int((slow.spikes[0].dense() != result.spikes[0].dense()[:, :N_REFERENCE]).sum())
    console.print(
        f"  {len(result.spikes[0].idx)} spikes on {len(held_out.labels)} recordings, {by_torch} differ from torch's; "
        f"{len(slow.spikes[0].idx)} on {N_REFERENCE}, {by_loops} differ from the plain loops'"
    )
    if by_torch or by_loops:
        raise RuntimeError(f"{title}: the paths disagree about {by_torch} + {by_loops} spikes")


def _counted(trained: dict[str, Trained]) -> report.Table:
    """Return the counted operations of each network, a recording."""
    names = {
        "synops_done": "synaptic operations done", "synops_skipped": "synaptic operations skipped",
        "updates_done": "neuron updates done", "updates_skipped": "neuron updates skipped", "spikes": "spikes",
    }  # fmt: skip
    samples = trained["gated"].result.counts[0].samples
    rows = [
        [name, *(f"{sum(getattr(c, f) for c in each.result.counts) / samples:,.0f}" for each in trained.values())]
        for f, name in names.items()
    ]
    return report.Table("Counted operations, a recording", ["operation", *trained], rows)


def _as_rich(table: report.Table) -> Table:
    """Lay a report's table out for the terminal."""
    rich = Table(title=table.caption, title_justify="left")
    for i, name in enumerate(table.header):
        rich.add_column(name, justify="right" if i else "left")
    for row in table.rows:
        rich.add_row(*map(str, row))
    return rich


def _cards() -> list[energy.Card]:
    return [energy.load_card(name) for name in energy.card_names()]


def _report(path: Path, trained: dict[str, Trained], held_out: Recordings, seed: int) -> Path:
    """Write the report with its pictures."""
    gated = trained["gated"]
    gate = gated.graph.neurons[0].neuron.gate
    assert isinstance(gate, Rhythm), "the demo's hidden layer is gated by time"
    table = gate.table(N_STEPS)
    rows = energy.energy_rows({t: each.result.counts for t, each in trained.items()}, _cards())
    bars = [
        {"card": row["card"], "network": network, "scenario": scenario, "energy_pj": energy_pj}
        for row in rows
        for network, by_scenario in row["energy_pj"].items()
        for scenario, energy_pj in by_scenario.items()
        if (network, scenario) != ("always open", "gate_aware")  # nothing is closed there: the same as "as is"
    ]
    learning = plot.learning_curve({title: each.history for title, each in trained.items()})
    raster = plot.raster(
        gated.result.spikes[0], 0, dt_ms=DT_MS, open_steps=table, order=plot.phase_order(table), inputs=held_out.events
    )
    confusion = plot.confusion(held_out.labels, predictions(gated.result), CLASSES)
    figures = (
        report.Picture("raster", raster, "A held-out recording: its events, and the hidden spikes on the open steps of "
                       "their gates.", "Raster of input events and hidden spikes"),
        report.Picture("learning", learning, "Accuracy on held-out recordings, which nothing was chosen by, training "
                       "loss and open fraction.", "Learning curves"),
        report.Picture("confusion", confusion, "Held-out recordings, gated network.", "Confusion matrix"),
        report.Picture("energy", plot.energy_bars(bars), energy.energy_caption(rows), "Energy of a recording by card"),
        report.Picture("schedule", plot.schedule(table, dt_ms=DT_MS), "When each hidden neuron updates: the learned "
                       "rhythm, as the bundle holds it in bits.", "Gate schedule"),
    )  # fmt: skip
    summary = [("seed", str(seed)), ("recordings", f"{len(held_out.labels)} held out, of scikit-learn's digits")]
    for title, each in trained.items():
        right = (predictions(each.result) == held_out.labels).mean()
        summary.append((f"accuracy, {title}", f"{right:.2%} ({each.accuracy:.2%} before rounding)"))
        summary.append((f"gates open, {title}", f"{each.history[-1]['open_fraction']:.1%}"))
    return report.write_report(path, title="First spikes", summary=summary, tables=[_counted(trained)], figures=figures)
