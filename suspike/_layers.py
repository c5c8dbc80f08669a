"""A layer of a Graph as kernels take it, and the counts of what it did."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from suspike.graph import DriveGate, InputGate, Layer
from suspike_kernels import gates, reference
from suspike_kernels.counting import count_layer
from suspike_kernels.counts import Counts
from suspike_kernels.cpu.ordering import renumbered
from suspike_kernels.fanout import count_by_fanout
from suspike_kernels.layout import (
    Events,
    FloatArray,
    GateArrays,
    NeuronArrays,
    SynapseArrays,
    always_open,
    is_sparse,
    lif_arrays,
    n_states,
    table_gate,
)


class Runner(Protocol):
    """What runs a layer: a target's forward pass."""

    @property
    def sorts(self) -> bool:
        """Say whether it leaves out closed neurons in blocks."""

    def __call__(self, layer: reference.Layer, *, trace: bool) -> reference.Run:
        """Run it."""


class LayerState(NamedTuple):
    """What a layer carries from one step to the next.

    Attributes
    ----------
    variables : float [S, B, N]
        The membrane, and the second variable of CubaLIF, CubaLI and AdLIF neurons.
    spk : float [B, N]
        The spikes of its last step, 0 or 1: what comes back to a recurrent layer.
    """

    variables: FloatArray
    spk: FloatArray


def at_rest(layer: Layer, n_samples: int) -> LayerState:
    """Return the state of neurons at rest: all variables 0, no spikes."""
    variables = np.zeros((n_variables(layer), n_samples, layer.n_units), layer.bias.dtype)
    return LayerState(variables, variables[0])


def n_variables(layer: Layer) -> int:
    """Return the number of state variables of a layer's neurons."""
    return n_states(layer.neuron_arrays)


class Done(NamedTuple):
    """What a layer did: the kernel's results, the counts, and who was open, uint8 [B, T, N], where that was asked."""

    run: reference.Run
    counts: Counts
    is_open: NDArray[np.uint8] | None


def run_layer(
    layer: Layer, events: Events, state: LayerState, start: int, n_steps: NDArray[np.int64], run: Runner, *, probe: bool
) -> Done:
    """Run a layer: see `arguments`. Its neurons may be computed in another order; what is returned is in their own."""
    inner, order = layer.in_gate_order if run.sorts and layer.neuron.gate is not None else (layer, None)
    if order is not None:
        state = LayerState(*(np.take(x, order, axis=-1) for x in state))
    given = arguments(inner, events, state, start, n_steps, run)
    done = run(given, trace=probe or not layer.neuron.fires)
    counts = count(inner, given, done)
    is_open = opened(given, done) if probe else None
    if order is None:
        return Done(done, counts, is_open)
    place = np.argsort(order)
    done = done._replace(
        spikes=renumbered(done.spikes, order),
        state=np.take(done.state, place, axis=-1),
        spk=np.take(done.spk, place, axis=-1),
        trace=np.take(done.trace, place, axis=-1),
    )
    return Done(done, counts, None if is_open is None else np.take(is_open, place, axis=-1))


def arguments(
    layer: Layer, events: Events, state: LayerState, start: int, n_steps: NDArray[np.int64], run: Runner
) -> reference.Layer:
    """Return a layer with all that it runs on.

    Parameters
    ----------
    events : Events [B, T]
        What it hears.
    state : LayerState
    start : int
        Steps done before.
    n_steps : int64 [B] or [0]
        As of `reference.Layer`.
    run : Runner
        It sums what the input adds to an input gate.
    """
    n, dtype = layer.n_units, layer.bias.dtype
    nothing, gate = np.zeros((0, events.n_samples, n), dtype), _gate(layer, events, n_steps, start, run)
    return reference.Layer(
        events, nothing, layer.synapses, layer.neuron_arrays, gate, state.variables, state.spk, n_steps
    )


def opened(given: reference.Layer, done: reference.Run) -> NDArray[np.uint8]:
    """Return which neurons were open: uint8 [B, T, N]."""
    return gates.opened(given, done.spikes)


def count(layer: Layer, given: reference.Layer, done: reference.Run) -> Counts:
    """Count what a layer did."""
    gate, kind = layer.neuron.gate, given.gate.kind
    by_input, own = isinstance(gate, InputGate), isinstance(gate, InputGate) and gate.recurrent is not None
    # who is open matters where events reach some neurons alone
    in_patches = layer.geometry is not None and by_input
    counts = count_layer(
        layer.name,
        given.events,
        layer.n_units,
        spikes=done.spikes if layer.neuron.fires else None,
        gate=given.gate.open[0] if kind == 1 else None,
        recurrent=layer.recurrent is not None,
        initial_spikes=given.spk,
        open_at=done.open_at if kind > 1 else None,
        input_gates=given.gate.a.shape[2] if by_input else 0,
        recurrent_gates=given.gate.a.shape[2] if own else 0,
        drive_gate=isinstance(gate, DriveGate),
        n_steps=given.n_steps if len(given.n_steps) else None,
        state_words=n_variables(layer),
        geometry=layer.geometry,
        opened=opened(given, done) if in_patches else None,
    )
    if not is_sparse(given.synapses):
        return counts
    lengths = given.n_steps if len(given.n_steps) else None
    sees_all = kind == 0 or isinstance(gate, DriveGate)
    table = None if sees_all else given.gate.open if kind == 1 else opened(given, done)
    return count_by_fanout(
        counts, given.synapses, given.events, done.spikes, given.spk > 0, is_open=table, n_steps=lengths
    )


def _gate(layer: Layer, events: Events, n_steps: NDArray[np.int64], start: int, run: Runner) -> GateArrays:
    gate, dtype = layer.neuron.gate, layer.bias.dtype
    if gate is None:
        return always_open(dtype)
    none = np.zeros(0, dtype)
    no_bits = np.zeros((0, 0, 0), np.uint8)
    if isinstance(gate, InputGate):
        n_gates = len(gate.bias)
        ones = np.ones(n_gates, dtype)
        recurrent = none.reshape(0, n_gates) if gate.recurrent is None else gate.recurrent
        activation = _product(events, n_steps, gate.weight, gate.bias, run)
        return GateArrays(2, no_bits, no_bits, activation, recurrent, none, ones, ones)
    if isinstance(gate, DriveGate):
        ones = np.ones(layer.n_units, dtype)
        return GateArrays(3, no_bits, no_bits, none.reshape(0, 0, 0), none.reshape(0, 0), gate.kappa, ones, ones)
    return table_gate(layer.open_steps(events.n_steps, start=start)[None], no_bits, dtype)


def _product(
    events: Events, n_steps: NDArray[np.int64], weight: FloatArray, bias: FloatArray, run: Runner
) -> FloatArray:
    """Return ``x @ weight + bias`` [B, T, G] of a layer's events x: a readout that remembers nothing."""
    n, dtype, batch = len(bias), bias.dtype, events.n_samples
    zero = np.zeros((1, batch, n), dtype)
    neurons: NeuronArrays = lif_arrays(np.zeros(n, dtype), np.full(n, np.inf, dtype), 2)
    synapses = SynapseArrays(weight, np.zeros((0, n), dtype), bias)
    layer = reference.Layer(events, zero[:0], synapses, neurons, always_open(dtype), zero, zero[0], n_steps)
    return np.ascontiguousarray(run(layer, trace=True).trace.swapaxes(0, 1))
