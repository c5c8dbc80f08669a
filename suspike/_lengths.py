"""True lengths of samples in a batch: what lies behind a sample's end is padding, and counts for nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from suspike._validate import fail


def running(n_steps: Tensor, n_time: int, n_samples: int, *, least: int = 1) -> Tensor:
    """Return where a sample is not yet over, bool [T, B, 1], from true lengths [B]; here they are checked.

    Raises
    ------
    ValueError
        Unless they are whole numbers from `least` to T, one for each sample.
    """
    require_whole("n_steps", n_steps, n_samples, least, n_time, f"T = {n_time}")
    return torch.arange(n_time, device=n_steps.device)[:, None, None] < n_steps[:, None]


def unpadded(x: Tensor, n_steps: Tensor | None, fill: float = 0.0, *, least: int = 1) -> Tensor:
    """Return x [T, B, N] with `fill` for padding; a choice, not a product: NaN stays out and gets no gradient."""
    return x if n_steps is None else x.masked_fill(~running(n_steps, *x.shape[:2], least=least).to(x.device), fill)


def require_whole(name: str, x: Tensor, size: int, low: int, high: int, high_name: str) -> None:
    """Refuse all but a vector of `size` whole numbers from `low` to `high`."""
    if not isinstance(x, Tensor):
        fail(name, f"a Tensor of {size} whole numbers", f"a {type(x).__name__}", "torch.as_tensor makes one.")
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool or x.shape != (size,):
        fail(name, f"whole numbers of shape [{size}]", f"{x.dtype} of shape {list(x.shape)}")
    bad = ((x.long() < low) | (x.long() > high)).nonzero()  # bytes would compare modulo 256
    if len(bad):
        fail(name, f"from {low} to {high_name}", f"{int(x[bad[0, 0]])} at sample {int(bad[0, 0])}")
