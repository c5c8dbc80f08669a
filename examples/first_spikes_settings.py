"""How the demo's settings were chosen: gated networks trained on two thirds of the training set, scored on the rest.

``python examples/first_spikes_settings.py FOLDER`` prints the mean over three folds for each setting. The 360 held-out
recordings play no part.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from suspike.augment import shift
from suspike.demo import BATCH, EPOCHS, LR, SHIFT, network, recordings
from suspike.loader import batches
from suspike.train import fit

SETTINGS = [
    {},
    {"shift": 0},
    {"shift": 2},
    {"lr": LR / 4},
    {"lr": LR / 2},
    {"lr": 2 * LR},
    {"batch": BATCH // 2},
    {"epochs": EPOCHS // 2},
]


def main(folder: Path, n_folds: int = 3) -> None:
    data, _ = recordings(folder / "data", Console())
    fold = np.random.default_rng(0).permutation(len(data.labels)) % n_folds
    for i, setting in enumerate(SETTINGS):
        chosen = {"shift": SHIFT, "lr": LR, "batch": BATCH, "epochs": EPOCHS} | setting
        last = []
        for k in range(n_folds):
            torch.manual_seed(0)
            net = network(gated=True)
            part, rest = data.take(np.flatnonzero(fold != k)), data.take(np.flatnonzero(fold == k))
            pixels = int(chosen["shift"])
            drawn = batches(part, batch_size=int(chosen["batch"]), shuffle=True, augment=shift(pixels, pixels))
            last.append(
                fit(
                    net,
                    drawn,
                    batches(rest, batch_size=BATCH),
                    epochs=int(chosen["epochs"]),
                    lr=chosen["lr"],
                    folder=folder / f"setting{i}_fold{k}",
                    progress=False,
                )[-1]
            )
        accuracy, share = (np.mean([epoch[key] for epoch in last]) for key in ("held_out_accuracy", "open_fraction"))
        print(f"{setting or 'as in the demo'!s:20} accuracy {accuracy:.4f}  open {share:.3f}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
