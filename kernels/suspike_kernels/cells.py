r"""The updates of recurrent cells and their derivatives, once, as arithmetic on numbers or arrays.

A cell's weights come in chunks of H rows, in torch's order: one of an RNN, three (r, z, n) of a GRU, four (i, f, g, o)
of an LSTM. What the logistic function and tanh make of them enters here.

.. math::
    \text{GRU: } n = \tanh(W_n x + b_n + r \odot (U_n h + c_n)),\quad \tilde h = n + z \odot (h - n) \\
    \text{LSTM: } \tilde c = f \odot c + i \odot g,\quad \tilde h = o \odot \tanh \tilde c
"""

from __future__ import annotations

from typing import Any, NamedTuple

from suspike_kernels.compiling import rule
from suspike_kernels.rules import ONE, ZERO


class Cell(NamedTuple):
    """What kernels have to know of a cell beside its arithmetic.

    Attributes
    ----------
    kind : int
        Index into `CELLS`.
    n_chunks : int
        Chunks of H rows of its weights.
    n_states : int
        State variables of a unit.
    n_kept : int
        Values that the backward pass wants of an update: the old states first.
    """

    kind: int
    n_chunks: int
    n_states: int
    n_kept: int


CELLS = {
    "tanh": Cell(0, 1, 1, 2),
    "relu": Cell(1, 1, 1, 2),
    "gru": Cell(2, 3, 1, 5),
    "lstm": Cell(3, 4, 2, 6),
}
"""Cells by name; the first two are RNNs, named by what is applied to the sum."""


@rule
def mix(h: Any, z: Any, n: Any) -> Any:
    """Return a GRU's new state, ``n + z (h - n)``: all of the old one where z is 1."""
    return n + z * (h - n)


@rule
def remember(c: Any, i: Any, f: Any, g: Any) -> Any:
    """Return an LSTM's new cell state."""
    return f * c + i * g


@rule
def relu(x: Any) -> Any:
    """Return x, or 0 in the place of what is below; NaN stays."""
    return ZERO if x <= ZERO else x


@rule
def logistic_back(grad: Any, y: Any) -> Any:
    """Return the gradient by the argument of a logistic function that returned `y`."""
    return grad * y * (ONE - y)


@rule
def tanh_back(grad: Any, y: Any) -> Any:
    """Return the gradient by the argument of a tanh that returned `y`."""
    return grad * (ONE - y * y)


@rule
def relu_back(grad: Any, y: Any) -> Any:
    """Return the gradient by the argument of a rectifier that returned `y`."""
    return ZERO if y <= ZERO else grad
