"""Price cards: what one operation costs on one target, with the source of every figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

OPERATIONS: Mapping[str, str] = {
    "synop": "an event at a target neuron: its weight fetched and accumulated",
    "update": "a neuron's step with its gate open",
    "idle_update": "a neuron's step with its gate closed, on a chip that touches every neuron at every step",
    "spike": "a spike fired, and sent",
    "gate_evaluation": "the value of a gate computed",
    "mac": "a multiply-accumulate of the dense network of the same shape",
}
"""The operations that a card may price."""

KINDS: Mapping[str, str] = {
    "silicon": "measured on a chip",
    "spice": "circuit simulation",
    "post-layout": "a laid-out design, simulated",
    "synthesis": "a synthesised design, simulated",
    "calibrated-model": "a model fitted to a chip",
    "arithmetic": "sums of the prices of single circuits, no chip",
}
"""Where a card's figures come from."""


@dataclass(frozen=True)
class Sram:
    """The price of one access to a memory, by the memory's size.

    Parameters
    ----------
    word_bytes : int
        Bytes of a word, the unit of access.
    points : tuple of (float, float)
        Size in bytes and price of an access in pJ; linear in between, held at both ends.
    source : str
    """

    word_bytes: int
    points: tuple[tuple[float, float], ...]
    source: str

    def access_pj(self, words: int) -> float:
        """Return the price in pJ of an access to a memory of that many words."""
        size, pj = zip(*self.points, strict=True)
        return float(np.interp(words * self.word_bytes, size, pj))


@dataclass(frozen=True)
class Price:
    r"""What one operation costs.

    .. math:: E = \text{pj} + r\, E_\text{SRAM}(\text{weights}) + a\, E_\text{SRAM}(\text{state})

    Parameters
    ----------
    pj : float
        The part that is the same for every layer, in pJ.
    source : str
        Paper or program, with its table, equation or entry.
    note : str
    weight_reads, state_accesses : float
        Accesses :math:`r` to the layer's weights and :math:`a` to its state, priced by the card's `Sram`.
    """

    pj: float
    source: str
    note: str = ""
    weight_reads: float = 0.0
    state_accesses: float = 0.0


@dataclass(frozen=True)
class Card:
    """The prices of one target.

    Parameters
    ----------
    name, title, node : str
    kind : str
        One of `KINDS`.
    prices : mapping of str to Price
        By operation, of `OPERATIONS`. An operation that is not here has no price; it does not cost nothing.
    scope : tuple of str
        What the prices leave out.
    sources : tuple of (str, str)
        Reference and address.
    sram : Sram, optional
    """

    name: str
    title: str
    node: str
    kind: str
    prices: Mapping[str, Price]
    scope: tuple[str, ...]
    sources: tuple[tuple[str, str], ...]
    sram: Sram | None = None

    def price_pj(self, operation: str, *, synapses: int, neurons: int) -> float:
        """Return what `operation` costs, in pJ, in a layer of so many weights and neurons.

        Raises
        ------
        KeyError
            The card has no price for it.
        """
        price = self.prices[operation]
        if self.sram is None:
            return price.pj
        weights, state = self.sram.access_pj(synapses), self.sram.access_pj(neurons)
        return price.pj + price.weight_reads * weights + price.state_accesses * state
