"""Handwritten digits read pixel by pixel: a GRU with a learned rhythm beside a frozen one and one that is always open.

``python examples/sequence/digits.py`` trains on scikit-learn's digits (1,437 images and 360 held out; not MNIST), made
16 x 16 and read row by row, and prints a table (docs/sequence_digits.md). ``--picture FILE`` draws where the learned
rhythm updates and how the state moves, laid out as the image; ``--out FILE`` writes the figures as JSON; ``--choose``
shows how the settings were chosen, within the training images. ``pip install 'suspike[datasets,plot]'`` brings what it
needs.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

import suspike as su
from suspike.probes import gate_activity, increments

CLASSES, HELD_OUT = 10, 360
SIDE = 16
N_STEPS = SIDE * SIDE

Row = dict[str, str | int | float]
NETWORKS: dict[str, Callable[..., su.nn.Gate] | None] = {
    "learned rhythm": su.nn.RhythmGate,
    "frozen rhythm": su.nn.RandomGate,
    "always open": None,
}


class Settings(NamedTuple):
    """What a training needs; all networks get the same."""

    hidden: int = 64
    open: float = 0.17  # at the start
    gate_width: float = 0.25
    lr: float = 1e-2
    gate_lr: float = 5e-3
    clip: float = 1.0
    batch: int = 64
    epochs: int = 20


class Reader(nn.Module):
    """1 -> GRU -> 10 classes from the state after the last pixel."""

    def __init__(self, kind: Callable[..., su.nn.Gate] | None, chosen: Settings) -> None:
        super().__init__()
        n = chosen.hidden
        gate = None if kind is None else kind(n, open=chosen.open, n_steps=N_STEPS, gate_width=chosen.gate_width)
        self.gru = su.nn.GRU(1, n, gate=gate)
        self.readout = nn.Linear(n, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.gru.final(x).h[-1])


class Images(NamedTuple):
    """x [T, B, 1] from 0 to 1, and labels [B]."""

    x: Tensor
    labels: Tensor

    def take(self, index: Tensor) -> "Images":
        return Images(self.x[:, index], self.labels[index])


def read() -> tuple[Images, Images]:
    """Return the images to train on and those held out, 36 of each digit."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float()[:, None] / 16
    large = functional.interpolate(small, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    data = Images(large.reshape(-1, N_STEPS).T[..., None].contiguous(), torch.from_numpy(bunch.target))
    return split(data, HELD_OUT // CLASSES)


def split(data: Images, n_each: int) -> tuple[Images, Images]:
    """Part images in a fixed random order: all but so many of each digit, and those."""
    generator = np.random.default_rng(0)
    labels = data.labels.numpy()
    held = [generator.permutation(np.flatnonzero(labels == digit))[:n_each] for digit in range(CLASSES)]
    rest = np.setdiff1d(np.arange(len(labels)), np.concatenate(held))
    return data.take(torch.from_numpy(rest)), data.take(torch.from_numpy(np.sort(np.concatenate(held))))


def train(data: Images, kind: Callable[..., su.nn.Gate] | None, *, seed: int, chosen: Settings) -> Reader:
    """Train by cross-entropy; Adam with a cosine schedule, and gradients that are cut to a length."""
    torch.manual_seed(seed)
    net = Reader(kind, chosen)
    gates = su.nn.gates.gate_parameters(net)
    others = [p for p in net.parameters() if all(p is not g for g in gates)]
    learning = [p for p in gates if p.requires_grad]
    groups = [{"params": others, "lr": chosen.lr}, *([{"params": learning, "lr": chosen.gate_lr}] if learning else [])]
    optimizer = torch.optim.Adam(groups)
    n_batches = len(data.labels) // chosen.batch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, chosen.epochs * n_batches)
    for _ in range(chosen.epochs):
        order = torch.randperm(len(data.labels))
        for index in order[: n_batches * chosen.batch].split(chosen.batch):
            batch = data.take(index)
            loss = functional.cross_entropy(net(batch.x), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(net.parameters(), chosen.clip)
            optimizer.step()
            schedule.step()
    return net


def measure(net: Reader, held_out: Images) -> Row:
    """Classify the held-out images, and count how often units were open."""
    with torch.no_grad():
        accuracy = (net(held_out.x).argmax(1) == held_out.labels).double().mean().item()
        gate = net.gru.gates[0]
        is_open = 1.0 if gate is None else gate_activity(gate(N_STEPS)).by_step.double().mean().item()
    return {
        "accuracy": accuracy,
        "open_fraction": is_open,
        "updates_an_image": round(is_open * N_STEPS * net.gru.hidden_size),
    }


def on_strokes(net: Reader, held_out: Images) -> dict[str, float]:
    """Return the share of units open, and the mean size of the state's increments, on ink and on background."""
    bright = held_out.x[..., 0]
    with torch.no_grad():
        sizes = increments(net.gru(held_out.x)[0]).abs().mean(2)
        is_open = gate_activity(net.gru.gates[0](N_STEPS)).by_step[:, None].expand_as(bright)
    places = {"ink": bright > 0.5, "background": bright < 0.1}
    found = {f"open_on_{name}": is_open[place].mean().item() for name, place in places.items()}
    return found | {f"increments_on_{name}": sizes[place].mean().item() for name, place in places.items()}


def draw(net: Reader, held_out: Images, path: Path, digits: tuple[int, ...] = (0, 1, 4, 7)) -> None:
    """Draw the first held-out image of some digits, the gate's activity, and the increments of the state."""
    index = torch.tensor([int((held_out.labels == digit).nonzero()[0, 0]) for digit in digits])
    x = held_out.x[:, index]
    with torch.no_grad():
        moved = increments(net.gru(x)[0])
        table = net.gru.gates[0](N_STEPS).open
    images = x[..., 0].T.reshape(-1, SIDE, SIDE).numpy()
    figure = su.plot.increments(moved.numpy(), (SIDE, SIDE), open_steps=table.numpy(), images=images)
    figure.savefig(path, dpi=110)


def main(
    *,
    seeds: int = 3,
    chosen: Settings | None = None,
    out: Path | None = None,
    picture: Path | None = None,
    parts: tuple[Images, Images] | None = None,
) -> list[Row]:
    """Train every network from each seed, print a table and return the figures of every training."""
    chosen = Settings() if chosen is None else chosen
    data, held_out = read() if parts is None else parts
    name = f"scikit-learn's digits, {SIDE} x {SIDE}, {len(data.labels)}/{len(held_out.labels)} images (not MNIST)"
    rows: list[Row] = []
    for seed in range(seeds):
        for title, kind in NETWORKS.items():
            started = time.process_time()
            net = train(data, kind, seed=seed, chosen=chosen)
            cpu_s = time.process_time() - started
            trained_on = {"accuracy_trained_on": measure(net, data)["accuracy"]}
            rows.append({"network": title, "seed": seed, **measure(net, held_out), **trained_on, "cpu_s": cpu_s})
            print(f"seed {seed}, {title}: {rows[-1]['accuracy']:.1%} right, {cpu_s:.0f} s", flush=True)
            if out is not None:
                out.write_text(json.dumps({"data": name, "settings": chosen._asdict(), "rows": rows}, indent=1) + "\n")
            if picture is not None and seed == 0 and title == "learned rhythm":
                draw(net, held_out, picture)
                print(", ".join(f"{name}: {value:.4g}" for name, value in on_strokes(net, held_out).items()))
    print(f"\n{name}, {seeds} seeds: median, smallest to largest")
    for key in list(rows[0])[2:]:
        for title in NETWORKS:
            x = np.array([row[key] for row in rows if row["network"] == title], float)
            print(f"{key:20} {title:15} {np.median(x):8.4g}, {x.min():.4g} to {x.max():.4g}")
    return rows


CHANGES: list[dict[str, float]] = [
    {"lr": 5e-3, "epochs": 40},
    {"lr": 1e-2, "epochs": 40},
    {"lr": 1e-2, "epochs": 20},
]


def choose() -> None:
    """Print what changes of settings do: trained on part of the training images, scored on 28 others of each digit."""
    data, rest = split(read()[0], 28)
    for change in CHANGES:
        for title, kind in NETWORKS.items():
            found = measure(train(data, kind, seed=0, chosen=Settings(**change)), rest)  # type: ignore[arg-type]
            print(
                f"{change!s:28} {title:15} {found['accuracy']:.1%}, {found['open_fraction']:.1%} open",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=Settings().epochs)
    parser.add_argument("--out", type=Path, help="write the figures of every training to this JSON file")
    parser.add_argument("--picture", type=Path, help="draw what the first seed's learned rhythm does into this file")
    parser.add_argument("--choose", action="store_true", help="show how the settings were chosen")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the order of the gradients' sums, and with it the last digits, hangs on it
    if args.choose:
        choose()
    else:
        main(seeds=args.seeds, chosen=Settings(epochs=args.epochs), out=args.out, picture=args.picture)
