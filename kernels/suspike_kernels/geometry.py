r"""The geometry of a convolution over event-camera input, and the order in which its weights lie.

Units are numbered pixel by pixel, the channels innermost: ``unit = (y * W + x) * C + c``, for input and output alike.
Output (Y, X) sees the input pixels ``y = Y * stride_y + dy - pad_y`` and ``x = X * stride_x + dx - pad_x``.

An event adds to neighbouring outputs of one row the weights of neighbouring dx, in falling order (of every stride-th
dx where the stride is above 1). So the weights lie in this order: row ``dy * C_in + c_in`` holds [kernel_w, C_out]
numbers, dx in the order `column_order`, and an event adds one unbroken stretch of a row to one of the outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Geometry(NamedTuple):
    """Sizes of a convolution: pixels (rows, columns), channels, kernel, stride and zero padding."""

    height: int
    width: int
    channels: int
    out_height: int
    out_width: int
    out_channels: int
    kernel_h: int
    kernel_w: int
    stride_y: int
    stride_x: int
    pad_y: int
    pad_x: int

    @property
    def n_in(self) -> int:
        """Input units."""
        return self.height * self.width * self.channels

    @property
    def n_out(self) -> int:
        """Output units."""
        return self.out_height * self.out_width * self.out_channels

    @property
    def n_synapses(self) -> int:
        """Pairs of an input and an output unit that are connected."""
        pairs = self.channels * self.out_channels
        for n, n_out, size, stride, pad in zip(*(self[i : i + 2] for i in (0, 3, 6, 8, 10)), strict=True):
            pairs *= sum(0 <= place * stride + d - pad < n for place in range(n_out) for d in range(size))
        return pairs

    @property
    def row_shape(self) -> tuple[int, int]:
        """Shape of the weights as kernels take them: rows, numbers in a row."""
        return self.kernel_h * self.channels, self.kernel_w * self.out_channels

    def array(self) -> NDArray[np.int64]:
        """Return the same as an array, for kernels (`layout.SynapseArrays.geometry`)."""
        return np.array(self, np.int64)

    def column_order(self) -> list[int]:
        """Return the dx of a row of weights, from its beginning: by remainder of the stride, falling."""
        step = self.stride_x
        return [dx for rest in range(step) for dx in range(self.kernel_w - 1, -1, -1) if dx % step == rest]

    def targets(self, unit: int) -> Iterator[tuple[int, int, int]]:
        """Yield (row, first column, first output unit) for each pixel that an event of `unit` reaches.

        It adds C_out weights there. Plain loops: the definition that compiled kernels are compared with.
        """
        pixel, channel = divmod(unit, self.channels)
        y, x = divmod(pixel, self.width)
        order = self.column_order()
        for dy in range(self.kernel_h):
            for column, dx in enumerate(order):
                out_y, rest_y = divmod(y + self.pad_y - dy, self.stride_y)
                out_x, rest_x = divmod(x + self.pad_x - dx, self.stride_x)
                if not rest_y and not rest_x and 0 <= out_y < self.out_height and 0 <= out_x < self.out_width:
                    first = (out_y * self.out_width + out_x) * self.out_channels
                    yield dy * self.channels + channel, column * self.out_channels, first


def convolution(
    in_size: tuple[int, int],
    channels: int,
    out_channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
) -> Geometry:
    r"""Return the geometry of a convolution: :math:`H_{out} = \lfloor (H + 2p - k) / s \rfloor + 1`, W alike."""
    sides = zip(in_size, kernel, stride, padding, strict=True)
    out_height, out_width = ((n + 2 * p - k) // s + 1 for n, k, s, p in sides)
    return Geometry(*in_size, channels, out_height, out_width, out_channels, *kernel, *stride, *padding)
