r"""The ordinary updates of recurrent cells in torch, the readable reference: what a unit becomes when it is open.

Weights are in torch's layout, chunks of rows, of all units or of some. Sources: Elman 1990 (RNN); Cho et al. 2014,
arXiv:1406.1078, in the variant that resets behind the product (GRU); Hochreiter & Schmidhuber 1997 with Gers et al.'s
forget gate (LSTM): the equations of torch.nn.RNN, GRU and LSTM.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from suspike_kernels import cells


class Weights(NamedTuple):
    """A cell's parameters, in torch's layout: chunks of rows, one for each unit.

    Attributes
    ----------
    given : Tensor [chunks * K, I]
        Of the input.
    own : Tensor [chunks * K, H]
        Of the state.
    given_bias, own_bias : Tensor [chunks * K] or None
    """

    given: Tensor
    own: Tensor
    given_bias: Tensor | None
    own_bias: Tensor | None

    def of(self, rows: Tensor) -> Weights:
        """Return the rows that are named."""
        return Weights._make(None if p is None else p.index_select(0, rows) for p in self)


States = tuple[Tensor, ...]
Update = Callable[[Tensor, Tensor, States, Weights], tuple[States, Tensor]]
"""``update(x, h, old, weights)``: from the input [B, I], all of the state h [B, H] and the K units' own old states
[B, K] to their new ones, and to the drive [B, K] that a `DriveGate` sees: the argument of what makes a new value."""


def tanh(x: Tensor, h: Tensor, old: States, w: Weights) -> tuple[States, Tensor]:
    r"""RNN: :math:`h' = \tanh(W x + b + U h + c)`."""
    drive = linear(x, w.given, w.given_bias) + linear(h, w.own, w.own_bias)
    return (torch.tanh(drive),), drive


def relu(x: Tensor, h: Tensor, old: States, w: Weights) -> tuple[States, Tensor]:
    r"""RNN: :math:`h' = \max(0, W x + b + U h + c)`."""
    drive = linear(x, w.given, w.given_bias) + linear(h, w.own, w.own_bias)
    return (torch.relu(drive),), drive


def gru(x: Tensor, h: Tensor, old: States, w: Weights) -> tuple[States, Tensor]:
    r"""GRU: :math:`n = \tanh(W_n x + b_n + r (U_n h + c_n)),\; h' = n + z (h - n)`."""
    r, z, n = linear(x, w.given, w.given_bias).chunk(3, -1)
    by_r, by_z, by_n = linear(h, w.own, w.own_bias).chunk(3, -1)
    drive = n + torch.sigmoid(r + by_r) * by_n
    return (cells.mix(old[0], torch.sigmoid(z + by_z), torch.tanh(drive)),), drive


def lstm(x: Tensor, h: Tensor, old: States, w: Weights) -> tuple[States, Tensor]:
    r"""LSTM: :math:`c' = f c + i g,\; h' = o \tanh c'`."""
    i, f, g, o = (linear(x, w.given, w.given_bias) + linear(h, w.own, w.own_bias)).chunk(4, -1)
    c = cells.remember(old[1], torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g))
    return (torch.sigmoid(o) * torch.tanh(c), c), g


UPDATES: dict[str, Update] = {"tanh": tanh, "relu": relu, "gru": gru, "lstm": lstm}
"""By name, as in `suspike_kernels.cells.CELLS`."""
