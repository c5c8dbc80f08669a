"""A layer with its neurons in another order: those that open together become neighbours, and are left out in blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from suspike.graph.gates import DriveGate, Gate, InputGate, Periodic, Rhythm
from suspike.graph.neurons import arrays_of
from suspike.graph.sparse import Sparse
from suspike_kernels.layout import IntArray

if TYPE_CHECKING:
    from suspike.graph.layers import Layer

STEPS = 1024
"""Steps of the gate that are looked at."""

MOST = 4096
"""Neurons above which looking for an order takes too long: it grows with their square."""

GAIN = 0.9
"""An order has to leave this share of the touched blocks or less: spikes are renumbered for it at every run."""


def permuted(layer: Layer, order: IntArray) -> Layer:
    """Return the layer with its neurons in the order `order` [N]; its spikes carry the new numbers.

    Raises
    ------
    ValueError
        For a layer whose neurons stand where they are for a reason: a convolution, fan-out lists, gates of groups.
    """
    neuron, recurrent = layer.neuron, layer.recurrent
    if not can_be_permuted(layer):
        raise ValueError(f"`layer` must be of rows, and of gates of time or of a neuron's own, got {layer.name!r}.")
    arrays: dict[str, Any] = {name: array[order] for name, array in arrays_of(neuron).items()}
    gate = None if neuron.gate is None else _permuted_gate(neuron.gate, order)
    assert not isinstance(layer.weight, Sparse)
    assert not isinstance(recurrent, Sparse)
    return replace(
        layer,
        weight=np.take(layer.weight, order, axis=1),
        bias=layer.bias[order],
        neuron=replace(neuron, **arrays, gate=gate),
        recurrent=None if recurrent is None else np.take(recurrent[order], order, axis=1),
    )


def can_be_permuted(layer: Layer) -> bool:
    """Say whether another order of neurons is just that."""
    sparse = isinstance(layer.weight, Sparse) or isinstance(layer.recurrent, Sparse)
    return layer.geometry is None and not sparse and not isinstance(layer.neuron.gate, InputGate)


def by_gate(layer: Layer) -> tuple[Layer, IntArray | None]:
    """Return the layer in an order that leaves fewer blocks of open neurons, and that order; itself, if none does.

    The gate's first `STEPS` steps are looked at.
    """
    from suspike_kernels.cpu.ordering import BLOCK, order

    gate, n = layer.neuron.gate, layer.n_units
    if not isinstance(gate, (Rhythm, Periodic)) or not BLOCK < n <= MOST or not can_be_permuted(layer):
        return layer, None
    table = gate.table(STEPS)
    found = order(table)

    def touched(each: Any) -> int:
        blocks = np.add.reduceat(each, np.arange(0, n, BLOCK), axis=1)
        return int(np.count_nonzero(blocks))

    if touched(table[:, found]) > GAIN * touched(table):
        return layer, None
    return permuted(layer, found), found


def _permuted_gate(gate: Gate, order: IntArray) -> Gate:
    if isinstance(gate, Rhythm):
        return Rhythm(gate.bias[order], gate.amplitude[order], gate.phase[order], gate.period)
    if isinstance(gate, Periodic):
        return replace(gate, offset=gate.offset[order])
    assert isinstance(gate, DriveGate)
    return DriveGate(gate.kappa[order])
