r"""exp, the logistic function and tanh as arithmetic that a compiler vectorises; a library would be called one by one.

For float32, within 3 units in the last place; other types take the library's. Kernels that use them must not let sums
run in any order: rounding to a whole number rests on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from suspike_kernels.compiling import kernel
from suspike_kernels.cpu.loops import columns, unsigned

_F = np.float32
_ONE, _TWO = _F(1), _F(2)
_LOG2_E = _F(1.4426950408889634)
_LN_2, _LN_2_REST = _F(0.693359375), _F(-2.12194440054690583e-4)  # the first part has few bits: k times it is exact
_MOST, _LEAST = _F(88), _F(-87)
_ROUND = _F(1.5 * 2**23)
"""Added and taken away again, it leaves a whole number."""
_TAYLOR = tuple(_F(1 / math.factorial(i)) for i in range(8))
_SMALL = _F(0.625)


def exp(x: float) -> float:
    """Return ``e ** x``; float32 is bounded to what has a full mantissa, e^-87 to e^88."""
    return math.exp(x)


def logistic(x: float) -> float:
    """Return ``1 / (1 + e ** -x)``; of float32 below -87 a number from 0 to e^-87, as exp is bounded."""
    return 1 / (1 + math.exp(-x))


def tanh(x: float) -> float:
    """Return the hyperbolic tangent."""
    return math.tanh(x)


@intrinsic
def _power_of_two(_: Any, k: Any) -> Any:
    """Return 2 ** k as float32, for a whole number k from -126 to 127."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word = ir.IntType(32)
        exponent = builder.add(args[0], ir.Constant(word, 127))
        return builder.bitcast(builder.shl(exponent, ir.Constant(word, 23)), ir.FloatType())

    return types.float32(types.int32), generate


@overload(exp)
def _exp(x: Any) -> Callable[[Any], Any]:
    def of_float32(x: Any) -> Any:
        x = _MOST if x > _MOST else x
        x = _LEAST if x < _LEAST else x
        k = (x * _LOG2_E + _ROUND) - _ROUND
        r = (x - k * _LN_2) - k * _LN_2_REST
        c = _TAYLOR
        y = c[6] + r * c[7]
        y = c[4] + r * (c[5] + r * y)
        y = c[2] + r * (c[3] + r * y)
        return (_ONE + r * (_ONE + r * y)) * _power_of_two(np.int32(k))

    def of_others(x: Any) -> Any:
        return math.exp(x)

    return of_float32 if x == types.float32 else of_others


@overload(logistic)
def _logistic(x: Any) -> Callable[[Any], Any]:
    def of_any(x: Any) -> Any:
        return _ONE / (_ONE + exp(-x))

    return of_any


@overload(tanh)
def _tanh(x: Any) -> Callable[[Any], Any]:
    def of_float32(x: Any) -> Any:
        # near 0, where 1 - e would cancel, a continued fraction; one division for both
        size, q = abs(x), x * x
        e = exp(-_TWO * size)
        above = (_ONE - e) if x > 0 else (e - _ONE)
        near = x * (_F(10395) + q * (_F(1260) + q * _F(21)))
        below = _F(10395) + q * (_F(4725) + q * (_F(210) + q))
        return (near if size < _SMALL else above) / (below if size < _SMALL else _ONE + e)

    def of_others(x: Any) -> Any:
        return math.tanh(x)

    return of_float32 if x == types.float32 else of_others


@kernel(allocates=False, inline=True)
def each_logistic(x: Any) -> None:
    """Put the logistic function of each entry of a vector into its place: loops over one array are vector loops."""
    for k in columns(0, x.shape[0]):
        x[k] = logistic(x[k])


@kernel(allocates=False, inline=True)
def each_tanh(x: Any) -> None:
    """Put the tanh of each entry of a vector into its place."""
    for k in columns(0, x.shape[0]):
        x[k] = tanh(x[k])


@kernel(allocates=False, inline=True)
def logistic_of(x: Any, first: int, n: int, out: Any) -> None:
    """Set the first `n` entries of `out` to the logistic function of those of x from `first` on."""
    for k in columns(0, n):
        out[k] = logistic(x[unsigned(first) + k])


@kernel(allocates=False, inline=True)
def tanh_of(x: Any, first: int, n: int, out: Any) -> None:
    """Set the first `n` entries of `out` to the tanh of those of x from `first` on."""
    for k in columns(0, n):
        out[k] = tanh(x[unsigned(first) + k])
