"""What stands between layers and keeps no state: orders of units, pooling, dropout, skip connections.

Spikes in, Spikes out: an index map of events and of active places, whose values pass through unchanged. Dense in,
dense out: the same in plain torch.
"""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from suspike._validate import fail
from suspike.nn.conv import Pair, size_of
from suspike.nn.layer import lengths
from suspike.nn.layers import call
from suspike.spikes import Spikes
from suspike_kernels.editing import chances, keep, renumber
from suspike_kernels.layout import IntArray


class ChannelsLast(nn.Module):
    """Number units pixel by pixel, channels innermost, as `Conv2d` has them: ``(c * H + y) * W + x`` before.

    That is how event-camera recordings come (``suspike.loader``, tonic: the polarity is the channel) and how
    torch flattens images [C, H, W].

    Parameters
    ----------
    in_size : int or (int, int)
        Pixels: H, W.
    channels : int
        C; 2 for a camera's polarities.
    """

    def __init__(self, in_size: Pair, channels: int) -> None:
        super().__init__()
        self.in_size, self.channels = size_of("in_size", in_size), _channels(channels)
        self.n_in = self.n_out = self.in_size[0] * self.in_size[1] * channels

    @overload
    def forward(self, x: Spikes) -> Spikes: ...
    @overload
    def forward(self, x: Tensor) -> Tensor: ...
    def forward(self, x: Spikes | Tensor) -> Spikes | Tensor:
        """Return [T, B, n_out], from Spikes or Tensor [T, B, n_in], or Tensor [T, B, C, H, W]."""
        shape = (self.channels, *self.in_size)
        if isinstance(x, Tensor) and x.dim() == 5 and x.shape[2:] == shape:
            x = x.flatten(2)
        _require_units(x, self.n_in, f", or [T, B, {', '.join(map(str, shape))}]")
        if isinstance(x, Tensor):
            pixels = self.in_size[0] * self.in_size[1]
            return x.reshape(*x.shape[:2], self.channels, pixels).transpose(2, 3).reshape(x.shape)
        return _renumbered(x, self.units(), self.n_in)

    def units(self) -> IntArray:
        """Return the number of each unit behind it."""
        return np.arange(self.n_in).reshape(-1, self.channels).T.ravel()

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"{self.in_size}, {self.channels}"


class Pool2d(nn.Module):
    r"""Add up, or average, the spikes of each patch of pixels, channel by channel.

    Patches do not overlap; pixels at the right and lower edge that fill none are left out. Events are renumbered, no
    more: several in a patch stay several events. An average is a sum of events that count
    :math:`1 / (k_y k_x)` each (`Spikes.scale`).

    Parameters
    ----------
    in_size : int or (int, int)
        Pixels of the input: H, W.
    channels : int
        C; units are numbered ``(y * W + x) * C + c``.
    size : int or (int, int)
        Rows and columns k of a patch, up to the input's.
    mode : "sum" or "avg"

    Attributes
    ----------
    out_size : (int, int)
    n_in, n_out : int
        Units in and out.
    """

    def __init__(self, in_size: Pair, channels: int, size: Pair, *, mode: str = "sum") -> None:
        super().__init__()
        self.in_size, self.channels, self.size = size_of("in_size", in_size), _channels(channels), size_of("size", size)
        if mode not in ("sum", "avg"):
            fail("mode", "sum or avg", repr(mode))
        self.mode, self.out_size = mode, (self.in_size[0] // self.size[0], self.in_size[1] // self.size[1])
        if 0 in self.out_size:
            fail("size", f"at most the input's {self.in_size[0]} x {self.in_size[1]}", repr(size))
        self.n_in = self.in_size[0] * self.in_size[1] * channels
        self.n_out = self.out_size[0] * self.out_size[1] * channels
        self.factor = 1.0 if mode == "sum" else 1 / (self.size[0] * self.size[1])

    @overload
    def forward(self, x: Spikes) -> Spikes: ...
    @overload
    def forward(self, x: Tensor) -> Tensor: ...
    def forward(self, x: Spikes | Tensor) -> Spikes | Tensor:
        """Return [T, B, n_out], from Spikes or Tensor [T, B, n_in]."""
        _require_units(x, self.n_in)
        if isinstance(x, Spikes):
            return _renumbered(x, self.units(), self.n_out, self.factor)
        x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
        images = x.reshape(x.shape[0] * x.shape[1], *self.in_size, self.channels).permute(0, 3, 1, 2)
        sums = nn.functional.avg_pool2d(images, self.size, divisor_override=1).permute(0, 2, 3, 1)
        return sums.reshape(*x.shape[:2], self.n_out) * self.factor

    def units(self) -> IntArray:
        """Return the unit behind it of each unit: its patch, -1 for none."""
        y, x, c = np.indices((*self.in_size, self.channels)).reshape(3, -1)
        (k_y, k_x), (height, width) = self.size, self.out_size
        unit = ((y // k_y) * width + x // k_x) * self.channels + c
        patches: IntArray = np.where((y // k_y < height) & (x // k_x < width), unit, -1)
        return patches

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"{self.in_size}, {self.channels}, size={self.size}, mode={self.mode!r}"


class EventDropout(nn.Module):
    r"""Leave out events in training, each with the probability p; those left count :math:`1 / (1 - p)`.

    What one unit sends in one step stays or goes as a whole, as in dropout on dense tensors, and so does its gradient.
    The draw follows torch's random numbers (``torch.manual_seed``); lists and tensors draw differently. Nothing is
    done in evaluation mode.

    Parameters
    ----------
    p : float
        From 0, and below 1.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            fail("p", "from 0, and below 1", repr(p))
        self.p = p

    @overload
    def forward(self, x: Spikes) -> Spikes: ...
    @overload
    def forward(self, x: Tensor) -> Tensor: ...
    def forward(self, x: Spikes | Tensor) -> Spikes | Tensor:
        """Return [T, B, N] with events left out, from Spikes or Tensor [T, B, N]."""
        if not self.training or self.p == 0:
            return x
        if isinstance(x, Tensor):
            return nn.functional.dropout(x if x.is_floating_point() else x.to(torch.get_default_dtype()), self.p)
        seed = int(torch.randint(2**63 - 1, ()))
        events, active = (chances(each.places()[2], seed) >= self.p for each in (x.events, x.active))
        values = x.values[torch.from_numpy(active)]
        return Spikes(keep(x.events, events), keep(x.active, active), values, x.scale / (1 - self.p), x.n_steps)

    def extra_repr(self) -> str:
        """Show the probability."""
        return f"{self.p}"


class Skip(nn.Module):
    """A skip connection: what `body` puts out and what it was given, added; where both fired, two events count.

    Parameters
    ----------
    body : module
        A layer or a Stack, of as many units out as in, with neurons that fire.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    @overload
    def forward(self, x: Spikes, state: Any = None) -> tuple[Spikes, Any]: ...
    @overload
    def forward(self, x: Tensor, state: Any = None, *, n_steps: Tensor | None = None) -> tuple[Tensor, Any]: ...
    def forward(
        self, x: Spikes | Tensor, state: Any = None, *, n_steps: Tensor | None = None
    ) -> tuple[Spikes | Tensor, Any]:
        """Run over time: Spikes or Tensor [T, B, N] in and out, and the body's state; `n_steps` as of a `Layer`."""
        out, state = call(self.body, x, state, lengths(x, n_steps))
        if isinstance(x, Spikes) != isinstance(out, Spikes):
            fail("body", "of neurons that fire, as its output joins spikes", "a readout")
        if out.shape != x.shape:
            fail("body", f"of as many units out as in, {list(x.shape)}", f"{list(out.shape)}")
        return out + x, state


def _channels(channels: int) -> int:
    if channels < 1:
        fail("channels", "at least 1", repr(channels))
    return channels


def _require_units(x: Spikes | Tensor, n: int, other: str = "") -> None:
    if len(x.shape) != 3 or x.shape[2] != n:
        fail("x", f"of shape [T, B, {n}]{other}", f"shape {list(x.shape)}")


def _renumbered(x: Spikes, units: IntArray, n_units: int, factor: float = 1.0) -> Spikes:
    """Give unit i the number ``units[i]``, or leave it out where that is negative."""
    (events, _), (active, kept) = (renumber(each, units, n_units) for each in (x.events, x.active))
    values = x.values if kept.all() else x.values[torch.from_numpy(kept)]
    return Spikes(events, active, values, x.scale * factor, x.n_steps)
