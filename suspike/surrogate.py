"""Surrogate gradients: what stands for the derivative of a spike in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from suspike._validate import fail


@dataclass(frozen=True)
class Triangle:
    r"""A step whose gradient is a triangle of unit area and compact support.

    .. math:: s = [d > 0],\qquad \frac{\partial s}{\partial d} := \frac{\max(0, w - |d|)}{w^2}

    Since it is 0 outside of :math:`|d| < w`, event-driven training visits only the places inside, and is exact.

    Parameters
    ----------
    width : float
        w, in units of the membrane, above 0.

    References
    ----------
    Bellec et al. 2018, arXiv:1803.09574, eq. 2 (the triangle); Perez-Nieves & Goodman 2021 (only active places).
    """

    width: float = 0.5

    def __post_init__(self) -> None:
        if not self.width > 0:
            fail("width", "above 0", repr(self.width))

    def __call__(self, distance: Tensor) -> Tensor:
        """Return the spikes (0 or 1) at `distance` above threshold, any shape, with the surrogate gradient."""
        spk: Tensor = TriangleStep.apply(distance, torch.as_tensor(self.width, dtype=distance.dtype))  # type: ignore[no-untyped-call]
        return spk


class TriangleStep(torch.autograd.Function):
    """A step with a triangle's gradient; `width` may be a tensor that broadcasts against the distance."""

    @staticmethod
    def forward(ctx: Any, distance: Tensor, width: Tensor) -> Tensor:
        """Return 1 where `distance` is above 0, else 0, in its own type."""
        ctx.save_for_backward(distance, width)
        return (distance > 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Weigh the gradient by the triangle."""
        distance, width = ctx.saved_tensors
        inside = distance.abs() < width  # not a clamp: a width of 0 (a gate without swing) would give 0 / 0
        return grads[0] * torch.where(inside, (width - distance.abs()) / (width * width), 0), None
