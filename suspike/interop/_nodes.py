"""The nodes of a NIR graph without state, as maps of signals."""

from __future__ import annotations

from typing import Any

import numpy as np

from suspike._validate import fail, require_finite
from suspike.interop._maps import Conv, Dense, Float64, Gain, Signal, behind, pooled
from suspike_kernels.geometry import Geometry

STATELESS = (
    "Affine", "AvgPool2d", "Conv1d", "Conv2d", "Flatten", "Input", "Linear", "Output", "Scale", "SumPool2d"
)  # fmt: skip
"""Nodes that `passed` takes; Input and Output are the ends of a nested graph, which do nothing."""


def passed(name: str, node: Any, signal: Signal) -> Signal:
    """Return what a node without state makes of a signal.

    Raises
    ------
    ValueError
        Naming the node, where its fields break NIR's rules or do not fit the signal.
    """
    kind = type(node).__name__
    if kind in ("Affine", "Linear"):
        return _linear(name, node, signal)
    if kind == "Scale":
        return behind(signal, Gain(spread(name, "scale", node.scale, signal.shape)), signal.shape)
    if kind in ("Conv1d", "Conv2d"):
        return _convolved(name, node, signal)
    if kind in ("AvgPool2d", "SumPool2d"):
        return _pooled(name, node, signal)
    if kind == "Flatten":
        return signal._replace(shape=_flattened(name, node, signal.shape))
    assert kind in ("Input", "Output"), kind
    return signal


def array(name: str, field: str, value: Any) -> Float64:
    """Return a node's field in float64, whatever holds it (Norse hands out torch tensors)."""
    given = np.asarray(value)
    if given.dtype.kind not in "biuf":
        fail(f"{field} of node {name!r}", "real numbers", str(given.dtype))
    found: Float64 = given.astype(np.float64)
    require_finite(f"{field} of node {name!r}", found)
    return found


def whole(name: str, field: str, value: Any) -> int:
    """Return a node's field that is one whole number."""
    found = np.asarray(value)
    if found.size != 1 or found.dtype.kind not in "iu":
        fail(f"{field} of node {name!r}", "a whole number", repr(value))
    return int(found.ravel()[0])


def spread(name: str, field: str, value: Any, shape: tuple[int, ...]) -> Float64:
    """Return a field as one value for each place [n] of a signal, spread over it where it has fewer."""
    found = array(name, field, value)
    try:
        return np.broadcast_to(found, shape).ravel()
    except ValueError:
        fail(f"{field} of node {name!r}", f"of shape {list(shape)} like its input", f"shape {list(found.shape)}")


def _linear(name: str, node: Any, signal: Signal) -> Signal:
    weight = array(name, "weight", node.weight)
    n = len(signal.constant)
    if weight.ndim != 2 or weight.shape[1] != n:
        rule = f"[out, {n}] behind a signal of shape {list(signal.shape)}"
        fail(f"weight of node {name!r}", rule, f"shape {list(weight.shape)}")
    made = behind(signal, Dense(weight.T), (len(weight),))
    if type(node).__name__ == "Linear":
        return made
    return made._replace(constant=made.constant + spread(name, "bias", node.bias, made.shape))


def _convolved(name: str, node: Any, signal: Signal) -> Signal:
    weight, one_d = array(name, "weight", node.weight), type(node).__name__ == "Conv1d"
    if weight.ndim != 3 + (not one_d):
        fail(f"weight of node {name!r}", f"of {3 + (not one_d)} axes", f"shape {list(weight.shape)}")
    channels, height, width = _image(name, signal.shape, one_d=one_d)
    if one_d:
        weight = weight[:, :, None]
    stride, dilation = (_pair(name, field, getattr(node, field), one_d) for field in ("stride", "dilation"))
    kernel = _kernel(name, weight, whole(name, "groups", node.groups), channels, dilation)
    size, out_channels = kernel.shape[:2], kernel.shape[3]
    if isinstance(node.padding, str) and node.padding == "same":
        if stride != (1, 1):
            fail(f"stride of node {name!r}", "1 beside padding 'same'", f"{stride}")
        pad, out = ((size[0] - 1) // 2, (size[1] - 1) // 2), (height, width)
    else:
        valid = isinstance(node.padding, str)
        pad = (0, 0) if valid else _pair(name, "padding", node.padding, one_d, least=0)
        out = _out(name, (height, width), size, stride, pad)
    sizes = (height, width, channels, *out, out_channels, *size, *stride, *pad)
    shape = (out_channels, out[1]) if one_d else (out_channels, *out)
    made = behind(signal, Conv(Geometry(*sizes), kernel), shape)
    bias = array(name, "bias", np.zeros(out_channels) if node.bias is None else node.bias)
    if bias.shape != (out_channels,):
        fail(f"bias of node {name!r}", f"of shape [{out_channels}]", f"shape {list(bias.shape)}")
    return made._replace(constant=made.constant + np.repeat(bias, out[0] * out[1]))


def _kernel(name: str, weight: Float64, groups: int, channels: int, dilation: tuple[int, int]) -> Float64:
    """Return the kernel [kernel_h, kernel_w, C_in, C_out], with zeros between groups and between dilated taps."""
    out_channels, own, height, width = weight.shape
    if groups < 1 or out_channels % groups or own * groups != channels:
        rule = f"[C_out, {channels} / groups, ...], C_out a multiple of groups = {groups}"
        fail(f"weight of node {name!r}", rule, f"shape {list(weight.shape)}")
    size = (height - 1) * dilation[0] + 1, (width - 1) * dilation[1] + 1
    kernel = np.zeros((*size, channels, out_channels))
    part = out_channels // groups
    for i in range(groups):
        taps = weight[i * part : (i + 1) * part].transpose(2, 3, 1, 0)
        kernel[:: dilation[0], :: dilation[1], i * own : (i + 1) * own, i * part : (i + 1) * part] = taps
    return kernel


def _pooled(name: str, node: Any, signal: Signal) -> Signal:
    channels, height, width = _image(name, signal.shape)
    size, stride = (_pair(name, field, getattr(node, field)) for field in ("kernel_size", "stride"))
    pad = _pair(name, "padding", node.padding, least=0)
    out = _out(name, (height, width), size, stride, pad)
    factor = 1 / (size[0] * size[1]) if type(node).__name__ == "AvgPool2d" else 1.0
    kernel = np.zeros((*size, channels, channels)) + np.eye(channels) * factor
    sizes = (height, width, channels, *out, channels, *size, *stride, *pad)
    return pooled(signal, Conv(Geometry(*sizes), kernel))


def _image(name: str, shape: tuple[int, ...], *, one_d: bool = False) -> tuple[int, int, int]:
    """Return C, H, W of a signal; a batch of one, as Norse writes it, is left out."""
    axes = 2 if one_d else 3
    if len(shape) < axes or any(n != 1 for n in shape[:-axes]):
        rule = f"fed by a signal of shape {'[C, L]' if one_d else '[C, H, W]'}"
        fail(f"node {name!r}", rule, f"shape {list(shape)}")
    return (shape[-2], 1, shape[-1]) if one_d else (shape[-3], shape[-2], shape[-1])


def _pair(name: str, field: str, value: Any, one_d: bool = False, *, least: int = 1) -> tuple[int, int]:
    """Return a size for rows and columns; one of a Conv1d is of columns."""
    found = np.asarray(value)
    if found.size not in (1, 2 - one_d) or found.dtype.kind not in "iu" or (found < least).any():
        rule = f"{'a whole number' if one_d else 'one or two whole numbers'} of at least {least}"
        fail(f"{field} of node {name!r}", rule, repr(value))
    first, last = (int(n) for n in (found.ravel()[0], found.ravel()[-1]))
    return (least, last) if one_d else (first, last)


def _out(
    name: str, image: tuple[int, int], size: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int]
) -> tuple[int, int]:
    sides = zip(image, size, stride, pad, strict=True)
    height, width = ((n + 2 * p - k) // s + 1 for n, k, s, p in sides)
    if min(height, width) < 1:
        fail(f"node {name!r}", f"of a kernel within its input of {image[0]} x {image[1]}", f"{size[0]} x {size[1]}")
    return height, width


def _flattened(name: str, node: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    n = len(shape)
    first, last = (whole(name, field, getattr(node, field)) for field in ("start_dim", "end_dim"))
    start, end = (k + n if k < 0 else k for k in (first, last))
    if not 0 <= start <= end < n:
        fail(f"axes of node {name!r}", f"among the {n} of shape {list(shape)}", f"{first} to {last}")
    return (*shape[:start], int(np.prod(shape[start : end + 1])), *shape[end + 1 :])
