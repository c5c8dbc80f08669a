"""Spoken digits: a recurrent network with a learned rhythm gate beside its always-open twin, over several seeds.

``python examples/speech_gates.py PATH`` reads PATH/SHD/shd_train.h5 and PATH/SHD/shd_test.h5, files in SHD's layout;
nothing is ever fetched. It trains, prints a table (docs/speech_gates.md) and with ``--out FILE`` writes the figures as
JSON. ``--choose`` shows instead how the settings were chosen, within the training recordings.
``pip install 'suspike[datasets]'`` brings what it needs.
"""

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

import suspike as su
from suspike.augment import chain, shift, shift_time
from suspike.convert import to_graph, to_nn
from suspike.loader import Recordings, batches, load
from suspike.losses import mean_over_time
from suspike.simulate import simulate
from suspike.train import evaluate

CHANNELS, POOL = 700, 5
N_IN, CLASSES = CHANNELS // POOL, 10
DT_MS, N_STEPS = 5, 200  # no recording is longer than a second

Row = dict[str, str | int | float]
NETWORKS = {"gated": True, "always open": False}


class Settings(NamedTuple):
    """What a training needs; both networks get the same (a gate's two have no meaning for the twin)."""

    hidden: int = 128
    beta: float = 0.9
    gain: float = 2.0  # of the initial input weights
    open: float = 0.2  # at the start; learning opens them to a little more
    gate_width: float = 0.5
    lr: float = 8e-3
    recurrent_lr: float = 0.05  # as a share of lr
    clip: float = 0.1
    shift_channels: int = 1
    shift_steps: int = 10
    batch: int = 64
    epochs: int = 60


def read(folder: Path, part: str) -> Recordings:
    """Read a part, "train" or "test", in steps that all recordings have; counts of neighbouring channels are added."""
    data = load("shd", root=folder, split=part, dt_ms=DT_MS, n_steps=N_STEPS, pool=(1, 1, POOL))
    return data._replace(n_steps=None)


def network(with_gate: bool, chosen: Settings) -> su.nn.Stack:
    """Return 140 -> recurrent LIF neurons, with a learned rhythm or always open -> 10 readouts."""
    n = chosen.hidden
    gate = su.nn.RhythmGate(n, open=chosen.open, n_steps=N_STEPS, gate_width=chosen.gate_width) if with_gate else None
    hidden = su.nn.Dense(N_IN, n, su.nn.LIF(n, beta=chosen.beta, gate=gate), recurrent=True)
    with torch.no_grad():
        hidden.weight.mul_(chosen.gain)
    return su.nn.Stack(hidden, su.nn.Dense(n, CLASSES, su.nn.LI(CLASSES, beta=0.98)))


def train(data: Recordings, *, with_gate: bool, seed: int, chosen: Settings) -> su.nn.Stack:
    """Train a network by cross-entropy on the readout's mean; Adam, with a cosine schedule."""
    torch.manual_seed(seed)
    net = network(with_gate, chosen)
    # each recording goes up or down by a few channels and starts a few steps later
    augment = chain(shift(0, chosen.shift_channels), shift_time(chosen.shift_steps))
    drawn = batches(data, batch_size=chosen.batch, shuffle=True, seed=seed, augment=augment)
    recurrent = [p for name, p in net.named_parameters() if name.endswith("recurrent")]
    others = [p for name, p in net.named_parameters() if not name.endswith("recurrent")]
    # recurrent weights that grow fast make gradients explode on their way through 200 steps: they learn slowly, and
    # every batch's gradient is cut to about the same length
    optimizer = torch.optim.Adam(others, lr=chosen.lr)
    optimizer.add_param_group({"params": recurrent, "lr": chosen.lr * chosen.recurrent_lr})
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, chosen.epochs * len(drawn))
    for epoch in range(chosen.epochs):
        drawn.sampler.set_epoch(epoch)  # type: ignore[attr-defined]  # the order hangs on the seed and the epoch alone
        for spikes, labels in drawn:
            loss = functional.cross_entropy(mean_over_time(net(spikes)[0]), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            clip_grad_norm_(net.parameters(), chosen.clip)
            optimizer.step()
            schedule.step()
    return net


def measure(net: su.nn.Stack, held_out: Recordings) -> Row:
    """Classify the held-out recordings with the weights on their exact grid, and count what was done.

    Raises
    ------
    RuntimeError
        If the simulation's spikes are not those of the plain torch path, every one.
    """
    n = len(held_out.labels)
    graph, _ = to_graph(net, dt_ms=DT_MS, max_count=held_out.events.max_count())
    result = simulate(graph, held_out.events)
    with torch.no_grad(), su.nn.path("torch"):
        by_torch = to_nn(graph)[0](torch.from_numpy(held_out.events.dense()))[0].numpy()
    differing = int((by_torch != result.spikes[0].dense()).sum())
    if differing:
        raise RuntimeError(f"{differing} spikes of the simulation are not those of the plain torch path")
    assert result.output is not None, "the network ends in a readout"
    hidden = result.counts[0]
    return {
        "accuracy": float((result.output.mean(0).argmax(1) == held_out.labels).mean()),
        "accuracy_before_rounding": evaluate(net, batches(held_out, batch_size=n)).accuracy,
        "open_fraction": hidden.updates_done / (hidden.updates_done + hidden.updates_skipped),
        "spikes": hidden.spikes / n,
        "synops_done": sum(c.synops_done for c in result.counts) / n,
        "synops_skipped": sum(c.synops_skipped for c in result.counts) / n,
    }


def main(folder: Path, *, seeds: int = 5, chosen: Settings | None = None, out: Path | None = None) -> list[Row]:
    """Train both networks from each seed, print a table and return the figures of every training."""
    chosen = Settings() if chosen is None else chosen
    data, held_out = read(folder, "train"), read(folder, "test")
    name = f"spoken digits, {len(data.labels)}/{len(held_out.labels)} recordings in SHD's format (not SHD)"
    rows: list[Row] = []
    for seed in range(seeds):
        for title, with_gate in NETWORKS.items():
            started = time.perf_counter()
            net = train(data, with_gate=with_gate, seed=seed, chosen=chosen)
            seconds = time.perf_counter() - started
            rows.append({"network": title, "seed": seed, **measure(net, held_out), "seconds": seconds})
            print(f"seed {seed}, {title}: {rows[-1]['accuracy']:.1%} right, {seconds:.0f} s", flush=True)
            if out is not None:
                out.write_text(json.dumps({"data": name, "settings": chosen._asdict(), "rows": rows}, indent=1) + "\n")
    print(f"\n{name}, {seeds} seeds: mean (standard deviation), smallest to largest")
    for key in list(rows[0])[2:]:
        for title in NETWORKS:
            x = np.array([row[key] for row in rows if row["network"] == title], float)
            spread = x.std(ddof=1) if seeds > 1 else np.nan
            print(f"{key:25} {title:12} {x.mean():10.4g} ({spread:.2g}), {x.min():.4g} to {x.max():.4g}")
    print("No spike of the simulation differed from the plain torch path.")
    return rows


FIRST = Settings(open=0.25, shift_channels=4)
CHANGES: list[dict[str, float]] = [
    {},
    {"lr": 4e-3},
    {"lr": 16e-3},
    {"beta": 0.8},
    {"beta": 0.95},
    {"beta": 0.97},
    {"gain": 4.0},
    {"shift_channels": 2},
    {"lr": 4e-3, "beta": 0.8},
    {"lr": 4e-3, "beta": 0.8, "open": 0.2},
    {"lr": 2e-3, "beta": 0.8, "open": 0.2},
    {"shift_channels": 2, "open": 0.2},
    {"shift_channels": 1, "open": 0.2},
]


def choose(folder: Path, first: Settings = FIRST) -> None:
    """Print what changes of settings do: trained on four fifths of the training recordings, scored on the rest.

    The rest has as many recordings of each digit; one seed. The test recordings are not even read.
    """
    data = read(folder, "train")
    generator = np.random.default_rng(0)
    by_digit = [generator.permutation(np.flatnonzero(data.labels == digit)) for digit in range(CLASSES)]
    rest = np.concatenate([index[: len(index) // 5] for index in by_digit])
    part = np.setdiff1d(np.arange(len(data.labels)), rest)
    for change in CHANGES:
        for title, with_gate in NETWORKS.items():
            net = train(data.take(part), with_gate=with_gate, seed=0, chosen=first._replace(**change))  # type: ignore[arg-type]
            found = measure(net, data.take(rest))
            print(
                f"{change or 'first settings'!s:44} {title:12} {found['accuracy']:.1%} right, "
                f"{found['open_fraction']:.1%} open, {found['spikes']:.0f} spikes",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="PATH", help="the folder that holds SHD/shd_{train,test}.h5")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=Settings().epochs)
    parser.add_argument("--out", type=Path, help="write the figures of every training to this JSON file")
    parser.add_argument("--choose", action="store_true", help="show how the settings were chosen")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the order of the gradients' sums, and with it the last digits, hangs on it
    try:
        if args.choose:
            choose(args.folder, FIRST._replace(epochs=args.epochs))
        else:
            main(args.folder, seeds=args.seeds, chosen=Settings(epochs=args.epochs), out=args.out)
    except FileNotFoundError as err:
        parser.error(str(err))
