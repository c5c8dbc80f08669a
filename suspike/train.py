"""Train a classifier with Lightning: progress, checkpoints that resume, a history. Any torch loop does as well."""

from __future__ import annotations

import io
import logging
import os
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from suspike._files import make_folder, write_atomic
from suspike._validate import fail, import_extra
from suspike.inspect import record
from suspike.loader import Loader
from suspike.losses import mean_over_time, open_share
from suspike.nn import GateTable, Layer, gate_parameters
from suspike.nn.layer import lengths
from suspike.spikes import Spikes

Epoch = dict[str, float]
"""epoch, train_loss, held_out_loss, held_out_accuracy, open_fraction (1 without a gate)."""


class Evaluation(NamedTuple):
    """Labels and predicted classes, int64 [B], and the mean loss."""

    labels: np.ndarray
    predictions: np.ndarray
    loss: float

    @property
    def accuracy(self) -> float:
        """Share of right predictions, 0 to 1."""
        return float((self.labels == self.predictions).mean())


def evaluate(net: nn.Module, data: Loader) -> Evaluation:
    """Classify all of `data` without gradients."""
    labels, found, loss = [], [], 0.0
    with torch.no_grad():
        for spikes, label in data:
            score = mean_over_time(net(spikes)[0], lengths(spikes))
            loss += float(functional.cross_entropy(score, label, reduction="sum"))
            labels.append(label.numpy())
            found.append(score.argmax(1).numpy())
    all_labels = np.concatenate(labels) if labels else np.zeros(0, np.int64)
    if not len(all_labels):
        fail("data", "of at least one recording", "none")
    return Evaluation(all_labels, np.concatenate(found), loss / len(all_labels))


def open_fraction(net: nn.Module, spikes: Spikes | Tensor) -> float:
    """Run `net` once and return the share of neuron-steps with an open gate, over all layers that fire."""
    shares, sizes = [], []
    with torch.no_grad(), record(net) as rec:
        net(spikes)
    for name, layer in net.named_modules():
        if isinstance(layer, Layer) and layer.neuron.fires:
            call = rec[name]
            gate = call.gate.open if isinstance(call.gate, GateTable) else call.gate
            shares.append(1.0 if gate is None else float(open_share(gate, call.n_steps)))
            sizes.append(layer.n_out)
    return float(np.average(shares, weights=sizes)) if shares else 1.0


def fit(
    net: nn.Module,
    data: Loader,
    held_out: Loader,
    *,
    epochs: int,
    folder: str | os.PathLike[str],
    lr: float = 2e-3,
    weight_decay: float = 0.0,
    progress: bool = True,
) -> list[Epoch]:
    """Train `net` to classify recordings, by cross-entropy on the readout's mean, and return its history.

    AdamW with a cosine schedule. After each epoch the whole training state goes to ``folder/last.ckpt``; a call with
    the same folder goes on from there, as if it had never stopped. The trained weights end in ``folder/weights.pt``, a
    state_dict. `held_out` is only looked at, never chosen by.

    Parameters
    ----------
    net : module
        Spikes [T, B, n_in] in, (membrane [T, B, classes], state) out; trained in place.
    data, held_out : DataLoader of (Spikes, labels)
        See `loader.batches`.
    epochs : int
    folder : path
        Made where missing.
    lr, weight_decay : float
        Of AdamW; gates are not decayed.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of Epoch

    Raises
    ------
    ImportError
        Without Lightning (the `train` extra).
    ValueError
        If the folder holds the checkpoint of another network or of other settings, or a damaged one.
    """
    lightning = import_extra("lightning", extra="train")
    callbacks = import_extra("lightning.pytorch.callbacks", extra="train")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    folder = make_folder(folder, "folder")
    settings = {"epochs": epochs, "lr": lr, "weight_decay": weight_decay, "batches an epoch": len(data)}

    class Learner(lightning.LightningModule):  # type: ignore[misc, name-defined]  # Lightning is imported on use
        def __init__(self) -> None:
            super().__init__()
            self.net = net
            self.history: list[Epoch] = []
            self.losses: list[Tensor] = []

        def training_step(self, batch: tuple[Spikes, Tensor], _: int) -> Tensor:
            spikes, labels = batch
            loss = functional.cross_entropy(mean_over_time(net(spikes)[0], lengths(spikes)), labels)
            self.losses.append(loss.detach() * len(labels))
            return loss

        def on_train_epoch_end(self) -> None:
            seen = evaluate(net, held_out)
            epoch: Epoch = {
                "epoch": self.current_epoch,
                "train_loss": float(torch.stack(self.losses).sum()) / len(data.dataset),  # type: ignore[arg-type]
                "held_out_loss": seen.loss,
                "held_out_accuracy": seen.accuracy,
                "open_fraction": open_fraction(net, next(iter(held_out))[0]),
            }
            self.losses.clear()
            self.history.append(epoch)
            self.log("accuracy", seen.accuracy, prog_bar=True)

        def configure_optimizers(self) -> Any:
            gates = {id(p) for p in gate_parameters(net)}
            params = [p for p in net.parameters() if p.requires_grad]
            groups = [
                {"params": [p for p in params if id(p) not in gates], "weight_decay": weight_decay},
                {"params": [p for p in params if id(p) in gates], "weight_decay": 0.0},
            ]
            optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=lr)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(data))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint |= {"suspike_history": self.history, "suspike_settings": settings}

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            self.history = checkpoint["suspike_history"]

    learner = Learner()
    last = folder / "last.ckpt"
    if last.exists():
        _require_same_run(last, net, settings)
    # the one file that Lightning keeps, replaced after every epoch
    keep = callbacks.ModelCheckpoint(dirpath=folder, filename="last", enable_version_counter=False)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,  # the history is returned, and kept in the checkpoint
        callbacks=[keep],
        enable_progress_bar=progress,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        # a batch is one gather from memory: workers would only copy it
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")  # it goes on from there
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*", FutureWarning)  # within Lightning
        trainer.fit(learner, data, ckpt_path=last if last.exists() else None, weights_only=True)
    weights = io.BytesIO()
    torch.save(net.state_dict(), weights)
    write_atomic(folder / "weights.pt", weights.getvalue())
    return learner.history


def _require_same_run(checkpoint: Path, net: nn.Module, settings: Mapping[str, float]) -> None:
    """Refuse a checkpoint that this run could not have written: going on from it would be a mixture of two."""
    cure = "Choose another folder, or delete this one."
    try:
        saved = torch.load(checkpoint, weights_only=True)
        shapes = {name: tuple(x.shape) for name, x in saved["state_dict"].items()}
        found = saved["suspike_settings"]
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        fail("folder", "free, or hold a whole checkpoint of `fit`", f"{checkpoint} ({type(error).__name__})", cure)
    if shapes != {f"net.{name}": tuple(x.shape) for name, x in net.state_dict().items()}:
        fail("folder", "free, or hold a checkpoint of this network", f"another one's in {checkpoint}", cure)
    differing = [
        f"{name} {found.get(name)} for {value}" for name, value in settings.items() if found.get(name) != value
    ]
    if differing:
        fail("folder", "free, or hold a run of the same settings", f"{', '.join(differing)} in {checkpoint}", cure)
