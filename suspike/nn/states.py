"""What a layer hands from one stretch of time to the next: plain tuples, passed in and returned."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class LIFState(NamedTuple):
    """State of IF and LIF neurons.

    Attributes
    ----------
    v : Tensor [B, N]
    spk : Tensor [B, N]
        Its spikes at the last step, 0 or 1.
    t : int
        Steps since the start; a rhythm counts from there.
    """

    v: Tensor
    spk: Tensor
    t: int = 0

    @property
    def variables(self) -> tuple[Tensor, ...]:
        """What a closed gate keeps: (v,)."""
        return (self.v,)

    def detach(self) -> LIFState:
        """Return the state without its past: truncated backpropagation through time passes it on so."""
        return LIFState(self.v.detach(), self.spk.detach(), self.t)


class CubaLIFState(NamedTuple):
    """State of CubaLIF neurons: as `LIFState`, with the synaptic current `i` [B, N]."""

    v: Tensor
    i: Tensor
    spk: Tensor
    t: int = 0

    @property
    def variables(self) -> tuple[Tensor, ...]:
        """What a closed gate keeps: (v, i)."""
        return self.v, self.i

    def detach(self) -> CubaLIFState:
        """Return the state without its past."""
        return CubaLIFState(self.v.detach(), self.i.detach(), self.spk.detach(), self.t)


class AdLIFState(NamedTuple):
    """State of AdLIF neurons: as `LIFState`, with the adaptation `w` [B, N]."""

    v: Tensor
    w: Tensor
    spk: Tensor
    t: int = 0

    @property
    def variables(self) -> tuple[Tensor, ...]:
        """What a closed gate keeps: (v, w)."""
        return self.v, self.w

    def detach(self) -> AdLIFState:
        """Return the state without its past."""
        return AdLIFState(self.v.detach(), self.w.detach(), self.spk.detach(), self.t)


class LIState(NamedTuple):
    """State of LI readouts: the membrane `v` [B, N], and the steps `t` since the start."""

    v: Tensor
    t: int = 0

    @property
    def variables(self) -> tuple[Tensor, ...]:
        """What a closed gate keeps: (v,)."""
        return (self.v,)

    def detach(self) -> LIState:
        """Return the state without its past."""
        return LIState(self.v.detach(), self.t)


class CubaLIState(NamedTuple):
    """State of CubaLI readouts: as `LIState`, with the synaptic current `i` [B, N]."""

    v: Tensor
    i: Tensor
    t: int = 0

    @property
    def variables(self) -> tuple[Tensor, ...]:
        """What a closed gate keeps: (v, i)."""
        return self.v, self.i

    def detach(self) -> CubaLIState:
        """Return the state without its past."""
        return CubaLIState(self.v.detach(), self.i.detach(), self.t)


class CellState(NamedTuple):
    """State of `RNN` and `GRU`: `h` [num_layers, B, H], and the steps `t` since the start."""

    h: Tensor
    t: int = 0

    @property
    def variables(self) -> tuple[Tensor, ...]:
        """What a closed gate keeps: (h,)."""
        return (self.h,)

    def detach(self) -> CellState:
        """Return the state without its past."""
        return CellState(self.h.detach(), self.t)


class LSTMState(NamedTuple):
    """State of `LSTM`: as `CellState`, with the cell state `c` [num_layers, B, H]."""

    h: Tensor
    c: Tensor
    t: int = 0

    @property
    def variables(self) -> tuple[Tensor, ...]:
        """What a closed gate keeps: (h, c)."""
        return self.h, self.c

    def detach(self) -> LSTMState:
        """Return the state without its past."""
        return LSTMState(self.h.detach(), self.c.detach(), self.t)


State = LIFState | CubaLIFState | AdLIFState | LIState | CubaLIState | CellState | LSTMState
