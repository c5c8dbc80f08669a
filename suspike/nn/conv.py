"""Convolution for event-camera input: an event scatters its kernel, output channels innermost."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from suspike._validate import fail
from suspike.nn import event
from suspike.nn.layer import Layer
from suspike.nn.neuron import Neuron
from suspike.spikes import Spikes
from suspike_kernels.geometry import Geometry, convolution

Pair = int | tuple[int, int]


class Conv2d(Layer):
    r"""A convolution with neurons behind it.

    .. math:: I_{Y,X,c} = b_c + \sum_{d_y,d_x,k} W_{d_y,d_x,k,c}\, x_{Y s_y + d_y - p_y,\; X s_x + d_x - p_x,\; k}

    Spikes in, Spikes out; dense in, dense out (see `Layer`). Units are numbered pixel by pixel with the channels
    innermost, ``(y * W + x) * C + c``, in and out; `ChannelsLast` brings an event camera's units and images [C, H, W]
    into this order. A gate's ``group_size=out_channels`` gives each pixel a gate of its own; what reaches a closed
    neuron is added all the same, and not integrated.

    Parameters
    ----------
    in_size : int or (int, int)
        Pixels of the input: H, W.
    in_channels, out_channels : int
    kernel_size : int or (int, int)
        Rows and columns.
    neuron : Neuron
        With ``H_out * W_out * out_channels`` units (see `conv_size`).
    stride, padding : int or (int, int)
        Padding is of zeros, on all sides.
    bias : bool
        Learn b, one for each output channel.

    Attributes
    ----------
    weight : Parameter [kernel_h, kernel_w, in_channels, out_channels]
        torch.nn.Conv2d's is ``weight.permute(3, 2, 0, 1)``.
    bias : Parameter [out_channels] or None
    out_size : (int, int)
        H_out, W_out.
    n_in, n_out : int
        Units in and out.

    Raises
    ------
    ValueError
        For sizes below 1, a kernel that does not fit, and a neuron or gate of other sizes.

    Examples
    --------
    >>> height, width = su.nn.conv_size((34, 34), 5)
    >>> net = su.nn.Stack(
    ...     su.nn.ChannelsLast((34, 34), 2),
    ...     su.nn.Conv2d((34, 34), 2, 16, 5, su.nn.LIF(height * width * 16, beta=0.95)),
    ...     su.nn.Pool2d((height, width), 16, 2),
    ...     su.nn.Dense(15 * 15 * 16, 10, su.nn.LI(10, beta=0.95)),
    ... )
    """

    crossover = 0.15  # torch's convolution is faster above: docs/training_speed.md
    shape_cure = "Images [T, B, C, H, W] and an event camera's units go through ChannelsLast first."

    def __init__(
        self,
        in_size: Pair,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        neuron: Neuron,
        *,
        stride: Pair = 1,
        padding: Pair = 0,
        bias: bool = True,
    ) -> None:
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            if value < 1:
                fail(name, "at least 1", repr(value))
        geometry = _geometry(in_size, in_channels, out_channels, kernel_size, stride, padding)
        n, (height, width) = geometry.n_out, geometry[3:5]
        if neuron.n_units != n:
            fail("neuron", f"of {height} x {width} pixels x {out_channels} = {n} units", f"{neuron.n_units} units")
        super().__init__(geometry.n_in, n, neuron)
        self.geometry, self.in_size, self.out_size = geometry, geometry[:2], (height, width)
        self.recurrent = None  # it hears no spikes of its own
        shape = geometry.kernel_h, geometry.kernel_w, in_channels, out_channels
        self.weight = nn.Parameter(torch.randn(shape) / (shape[0] * shape[1] * shape[2]) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def run_events(
        self, x: Spikes, state: Any, *, current: Tensor | None = None, activation: Tensor | None = None
    ) -> tuple[Spikes | Tensor, Any]:
        """Run on a spike train: each event scatters its kernel."""
        g, bias = self.geometry, self._bias() if current is None else None
        rows = self.weight[:, g.column_order()].transpose(1, 2).reshape(g.row_shape)
        return event.run_layer(
            x, rows, None, bias, self.neuron, state, current=current, activation=activation, geometry=g.array()
        )

    def _bias(self) -> Tensor | None:
        """Return the bias of each unit [N]."""
        return None if self.bias is None else self.bias.repeat(self.out_size[0] * self.out_size[1])

    def current(self, x: Tensor) -> Tensor:
        """Return the convolution of a dense input, and the bias: [T, B, n_out]."""
        g = self.geometry
        images = x.reshape(x.shape[0] * x.shape[1], *self.in_size, g.channels).permute(0, 3, 1, 2)
        kernel, stride, padding = self.weight.permute(3, 2, 0, 1), (g.stride_y, g.stride_x), (g.pad_y, g.pad_x)
        maps = nn.functional.conv2d(images, kernel, stride=stride, padding=padding).permute(0, 2, 3, 1)
        cur, bias = maps.reshape(*x.shape[:2], self.n_out), self._bias()
        return cur if bias is None else cur + bias

    def extra_repr(self) -> str:
        """Show the sizes."""
        g = self.geometry
        return (
            f"{self.in_size}, {g.channels}, {g.out_channels}, kernel_size={(g.kernel_h, g.kernel_w)}, "
            f"stride={(g.stride_y, g.stride_x)}, padding={(g.pad_y, g.pad_x)}, bias={self.bias is not None}"
        )


def conv_size(in_size: Pair, kernel_size: Pair, *, stride: Pair = 1, padding: Pair = 0) -> tuple[int, int]:
    r"""Return the pixels H_out, W_out of a convolution: :math:`\lfloor (H + 2p - k) / s \rfloor + 1`, W alike.

    Parameters and errors are those of `Conv2d`.
    """
    geometry = _geometry(in_size, 1, 1, kernel_size, stride, padding)
    return geometry.out_height, geometry.out_width


def size_of(name: str, value: Pair, least: int = 1) -> tuple[int, int]:
    """Return a pair of whole numbers from `least`, given as one or two."""
    pair = value if isinstance(value, tuple) else (value, value)
    if len(pair) != 2 or not all(isinstance(x, int) and x >= least for x in pair):
        fail(name, f"one or two whole numbers from {least}", repr(value))
    return pair[0], pair[1]


def _geometry(in_size: Pair, channels: int, out_channels: int, kernel: Pair, stride: Pair, padding: Pair) -> Geometry:
    height, width = size_of("in_size", in_size)
    kernel, padding = size_of("kernel_size", kernel), size_of("padding", padding, 0)
    padded = height + 2 * padding[0], width + 2 * padding[1]
    if kernel[0] > padded[0] or kernel[1] > padded[1]:
        fail("kernel_size", f"within the padded input of {padded[0]} x {padded[1]}", f"{kernel[0]} x {kernel[1]}")
    return convolution((height, width), channels, out_channels, kernel, size_of("stride", stride), padding)
