"""Surrogate gradients: what stands for the derivative of a spike in training.

Those of compact support are exact in event-driven training, which visits only the places inside of it. The others reach
every place, so layers that use them take a dense path.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from suspike._validate import fail


@dataclass(frozen=True)
class Surrogate:
    r"""A step, :math:`s = [d > 0]`, with a derivative of its own; call it with the distance d above threshold.

    Attributes
    ----------
    shape : str
        Its derivative in `suspike_kernels.rules.surrogate`.
    compact : bool
        Whether the derivative is 0 at :math:`|d| \ge` `width`.
    """

    shape: ClassVar[str]
    compact: ClassVar[bool]

    @property
    def scale(self) -> float:
        """Its only parameter, a width or a slope: the second argument of `suspike_kernels.rules.surrogate`."""
        (scale,) = vars(self).values()
        return float(scale)

    def slope(self, distance: Tensor) -> Tensor:
        """Return the derivative at `distance`, any shape."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                fail(name, "above 0", repr(value))

    def __call__(self, distance: Tensor) -> Tensor:
        """Return the spikes (0 or 1) at `distance` above threshold, any shape, with the surrogate gradient."""
        spk: Tensor = _Step.apply(distance, self)  # type: ignore[no-untyped-call]
        return spk


@dataclass(frozen=True)
class Triangle(Surrogate):
    r"""A triangle of unit area: :math:`\max(0, w - |d|)/w^2`.

    Parameters
    ----------
    width : float
        w, in units of the membrane, above 0.

    References
    ----------
    Bellec et al. 2018, arXiv:1803.09574, eq. 2 (the triangle); Perez-Nieves & Goodman 2021 (only active places).
    """

    width: float = 0.5
    shape: ClassVar[str] = "triangle"
    compact: ClassVar[bool] = True

    def slope(self, distance: Tensor) -> Tensor:
        """Return the triangle at `distance`."""
        return triangle(distance, distance.new_tensor(self.width))


@dataclass(frozen=True)
class Boxcar(Surrogate):
    r"""A box of unit area: :math:`1/(2w)` where :math:`|d| < w`, else 0.

    Parameters
    ----------
    width : float
        w, in units of the membrane, above 0.
    """

    width: float = 0.5
    shape: ClassVar[str] = "boxcar"
    compact: ClassVar[bool] = True

    def slope(self, distance: Tensor) -> Tensor:
        """Return the box at `distance`."""
        return (distance.abs() < self.width).to(distance.dtype) * (0.5 / self.width)


@dataclass(frozen=True)
class ATan(Surrogate):
    r"""An arctangent's derivative: :math:`\frac{\alpha/2}{1 + (\frac{\pi}{2} \alpha d)^2}`, of unit area.

    Parameters
    ----------
    alpha : float
        Slope, above 0.

    References
    ----------
    Fang et al. 2021, arXiv:2007.05785; snnTorch's ``surrogate.atan``, with its default.
    """

    alpha: float = 2.0
    shape: ClassVar[str] = "atan"
    compact: ClassVar[bool] = False

    def slope(self, distance: Tensor) -> Tensor:
        """Return the derivative at `distance`."""
        return 0.5 * self.alpha / (1 + (0.5 * math.pi * self.alpha * distance) ** 2)


@dataclass(frozen=True)
class FastSigmoid(Surrogate):
    r"""A fast sigmoid's derivative: :math:`\frac{1}{(1 + k|d|)^2}`, of height 1.

    Parameters
    ----------
    k : float
        Slope, above 0.

    References
    ----------
    Zenke & Ganguli 2018, arXiv:1705.11146; snnTorch's ``surrogate.fast_sigmoid``, with its default.
    """

    k: float = 25.0
    shape: ClassVar[str] = "fast_sigmoid"
    compact: ClassVar[bool] = False

    def slope(self, distance: Tensor) -> Tensor:
        """Return the derivative at `distance`."""
        return 1 / (1 + self.k * distance.abs()) ** 2


@dataclass(frozen=True)
class Sigmoid(Surrogate):
    r"""A sigmoid's derivative: :math:`k\,\sigma(kd)\,\sigma(-kd)`, of unit area.

    Parameters
    ----------
    k : float
        Slope, above 0.

    References
    ----------
    snnTorch's ``surrogate.sigmoid``, with its default; written so that it does not overflow.
    """

    k: float = 25.0
    shape: ClassVar[str] = "sigmoid"
    compact: ClassVar[bool] = False

    def slope(self, distance: Tensor) -> Tensor:
        """Return the derivative at `distance`."""
        z = torch.exp(-self.k * distance.abs())
        return self.k * z / (1 + z) ** 2


def triangle(distance: Tensor, width: Tensor) -> Tensor:
    """Return a triangle of unit area at `distance`; `width` broadcasts, and where it is 0 there is none."""
    inside = distance.abs() < width  # not a clamp: a width of 0 (a gate without swing) would give 0 / 0
    return torch.where(inside, (width - distance.abs()) / (width * width), 0)


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, distance: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(distance)
        ctx.surrogate = surrogate
        return (distance > 0).to(distance.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (distance,) = ctx.saved_tensors
        return grads[0] * ctx.surrogate.slope(distance), None


class TriangleStep(torch.autograd.Function):
    """A step with a triangle's gradient; `width` may be a tensor that broadcasts against the distance: for gates."""

    @staticmethod
    def forward(ctx: Any, distance: Tensor, width: Tensor) -> Tensor:
        """Return 1 where `distance` is above 0, else 0, in its own type."""
        ctx.save_for_backward(distance, width)
        return (distance > 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Weigh the gradient by the triangle."""
        return grads[0] * triangle(*ctx.saved_tensors), None
