"""Plain loops over the rules: the oracle that every compiled target is compared with. Slow, exact, any float type.

The gradients are those of surrogate-gradient backpropagation through time in which the surrogate has compact support
(`rules.surrogate`): places outside of it are constants, so nothing but the ACTIVE places (gate open and
``|v~ - threshold| < width``) is kept or visited. This is no approximation of dense BPTT with the same surrogate.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from suspike_kernels import rules
from suspike_kernels.geometry import Geometry
from suspike_kernels.layout import (
    Events,
    Fanout,
    FloatArray,
    GateArrays,
    NeuronArrays,
    SynapseArrays,
    is_scaled,
    is_sparse,
    n_gates,
    offsets,
    refuse_scaled,
)


class Surrogate(NamedTuple):
    """What stands for the derivative of a spike.

    Attributes
    ----------
    shape : int
        Index into `layout.SURROGATES`.
    width : float
        Half its support, in units of v; 0 keeps no active places.
    """

    shape: int
    width: float


NO_SURROGATE = Surrogate(0, 0.0)
ALL_STEPS = np.zeros(0, np.int64)
"""The lengths of samples that all last as long as their batch."""


class Run(NamedTuple):
    """What a layer's forward pass returns.

    Attributes
    ----------
    spikes : Events
    active : Events
        The places that carry a gradient; empty lists when the width was 0.
    value : float [A]
        The spike at each active place: 0 or 1.
    distance : float [A]
        How far the membrane was above the threshold there, before its reset.
    state : float [S, B, N]
        The membrane, and the second variable where there is one, after the last step.
    spk : float [B, N]
        The spikes of the last step.
    trace : float [T, B, N], or [0, B, N]
        The membrane after each step, where it was asked for.
    n_open : int64 [B, G]
        How many steps each gate of kind "input" or "drive" was open.
    ramp : float [B, G]
        The sum of ``clip((a / scale + 1) / 2, 0, 1)`` over the steps, for the same gates: differentiable.
    open_at : int64 [B, T], or [B, 0]
        How many neurons such gates opened at each step.
    """

    spikes: Events
    active: Events
    value: FloatArray
    distance: FloatArray
    state: FloatArray
    spk: FloatArray
    trace: FloatArray
    n_open: NDArray[np.int64]
    ramp: FloatArray
    open_at: NDArray[np.int64]


class RunGrads(NamedTuple):
    """The gradient of a loss by what a forward pass returned; an array for each field of `Run` that carries one."""

    value: FloatArray
    state: FloatArray
    spk: FloatArray
    trace: FloatArray
    ramp: FloatArray


class LayerGrads(NamedTuple):
    """The gradient of a loss by what a forward pass was given.

    Attributes
    ----------
    source : float [A_in]
        By the value at each active place of the layer's input.
    current : float [T, B, N] or [0, B, N]
    weight, recurrent, bias, beta, threshold, decay, a, b : float
        In their parameters' shapes.
    gate : float [1 or B, T, G], or [0, 0, 0]
        "table": by the gate's value, where it is near its threshold, 0 elsewhere. "input": by the activation.
    gate_recurrent : float [N, G] or [0, G]
    kappa : float [N] or [0]
    state : float [S, B, N]
    spk : float [B, N]
        By the initial state.
    """

    source: FloatArray
    current: FloatArray
    weight: FloatArray
    recurrent: FloatArray
    bias: FloatArray
    beta: FloatArray
    threshold: FloatArray
    decay: FloatArray
    a: FloatArray
    b: FloatArray
    gate: FloatArray
    gate_recurrent: FloatArray
    kappa: FloatArray
    state: FloatArray
    spk: FloatArray


class Layer(NamedTuple):
    """What a layer is made of and runs on: the arguments that its forward and its backward pass share.

    Attributes
    ----------
    events : Events [B, T], units 0 to n_in - 1
    current : float [T, B, N], or [0, B, N]
        Added to what the events bring.
    synapses : SynapseArrays
    neurons : NeuronArrays
    gate : GateArrays
        For the T steps of `events`.
    state : float [S, B, N]
        State before the first step.
    spk : float [B, N]
        The layer's own spikes at the step before the first.
    n_steps : int64 [B], or [0] where all samples last T steps
        True length of each sample. From there on its neurons are closed, whatever their gate says: nothing arrives,
        no state moves, the trace stays where it is.
    """

    events: Events
    current: FloatArray
    synapses: SynapseArrays
    neurons: NeuronArrays
    gate: GateArrays
    state: FloatArray
    spk: FloatArray
    n_steps: NDArray[np.int64] = ALL_STEPS


def steps_of(layer: Layer, b: int) -> int:
    """Return how many steps sample b lasts."""
    return int(layer.n_steps[b]) if len(layer.n_steps) else layer.events.n_steps


def forward(layer: Layer, surrogate: Surrogate = NO_SURROGATE, *, trace: bool = False) -> Run:
    r"""Run a layer of neurons over the events of a batch.

    .. math:: I_t = W^\top x_t + V^\top s_{t-1} + b

    and then the rules of `suspike_kernels.rules`, in their order. `layer.state` and `layer.spk` stay as they are.
    """
    events, neurons = layer.events, layer.neurons
    dtype, n = layer.state.dtype.type, len(layer.synapses.bias)
    n_samples, n_steps = events.n_samples, events.n_steps
    half: Any = dtype(surrogate.width)  # a number of the arrays' own precision, as in the compiled kernels
    spikes, active = _Lists(events, n), _Lists(events, n)
    values: list[float] = []
    distances: list[float] = []
    state, spk = layer.state.copy(), layer.spk.copy()
    out = np.zeros((n_steps if trace else 0, n_samples, n), dtype)
    out[:] = state[0]
    n_open = np.zeros((n_samples, n_gates(layer.gate, n)), np.int64)
    ramp = np.zeros(n_open.shape, dtype)
    open_at = np.zeros((n_samples, n_steps if layer.gate.kind > 1 else 0), np.int64)
    for b in range(n_samples):
        for t in range(steps_of(layer, b)):
            step = _step(layer, b, t, state[:, b], spk[b])
            if layer.gate.kind > 1:
                n_open[b] += step.gate_open
                open_at[b, t] = step.open.sum()
                ramp[b] += np.clip((step.activation / layer.gate.scale + 1) / 2, 0, 1)
            for k in range(n):
                distance = step.v[k] - neurons.threshold[k]
                if step.open[k] and abs(distance) < half:
                    active.add(b, t, k)
                    values.append(float(step.fired[k]))
                    distances.append(distance)
                if step.fired[k]:
                    spikes.add(b, t, k)
            state[:, b], spk[b] = step.after, step.fired
            if trace:
                out[t:, b] = state[0, b]
    value, distance = np.array(values, dtype), np.array(distances, dtype)
    return Run(spikes.events(), active.events(), value, distance, state, spk, out, n_open, ramp, open_at)


def backward(grads: RunGrads, run: Run, layer: Layer, surrogate: Surrogate, sources: Events) -> LayerGrads:
    """Return the gradients of a loss by everything that `forward` was given.

    Parameters
    ----------
    grads : RunGrads
    run : Run
        What `forward` returned.
    layer, surrogate
        What it was given.
    sources : Events [B, T], units 0 to n_in - 1
        The places of the input whose gradient is wanted.

    Raises
    ------
    ValueError
        For fan-out lists, which are simulated, not trained.
    """
    refuse_fanout(layer)
    events, current, synapses, neurons, gate, state, *_ = layer
    refuse_scaled(synapses)
    n, size = len(synapses.bias), _gate_size(layer)
    width: Any = state.dtype.type(surrogate.width)  # as in `forward`: a slope of the arrays' own precision
    by = empty_grads(layer, sources)
    zero_a = np.zeros(max(n_gates(gate, n), 1), state.dtype)
    for b in range(events.n_samples):
        steps, n_steps = _replay(run.spikes, layer, b), steps_of(layer, b)
        d = grads.state[:, b].copy()
        d[0] += grads.trace[n_steps:, b].sum(0)
        later, later_a = np.zeros(n, state.dtype), zero_a  # gradients by the next step's current and activation
        for t in range(n_steps - 1, -1, -1):
            step = steps[t]
            if len(grads.trace):
                d[0] += grads.trace[t, b]
            d_spk = np.zeros_like(later)
            if len(synapses.recurrent):
                d_spk += synapses.recurrent @ later
            if len(gate.recurrent):
                d_spk += gate.recurrent @ later_a
            if t == n_steps - 1:
                d_spk += grads.spk[b]
            d_gate = np.zeros(n, state.dtype)
            for k in range(n):
                if neurons.kind == 2:
                    rest, w = 1 - neurons.decay[k], step.before[1, k]
                    d_gate[k] += d[1, k] * (step.adapted[k] - w)
                    if step.open[k]:
                        d[0, k] += d[1, k] * rest * neurons.a[k]
                        d_spk[k] += d[1, k] * rest * neurons.b[k]
                        by.a[k] += d[1, k] * rest * step.after[0, k]
                        by.b[k] += d[1, k] * rest * step.fired[k]
                        drive = neurons.a[k] * step.after[0, k] + neurons.b[k] * step.fired[k]
                        by.decay[k] += d[1, k] * (w - drive)
                        d[1, k] *= neurons.decay[k]
            kept = d[0].copy()  # gradient by the membrane before reset
            for k in map(int, np.flatnonzero(step.fired)):
                if neurons.reset == 0:
                    kept[k] = 0
                elif neurons.reset == 1:
                    by.threshold[k] -= d[0, k]
            for e in range(run.active.ptr[b, t], run.active.ptr[b, t + 1]):
                k = int(run.active.idx[e])
                through = grads.value[e] + d_spk[k]
                if neurons.attached and neurons.reset < 2:
                    jump = run.distance[e] + neurons.threshold[k] if neurons.reset == 0 else neurons.threshold[k]
                    through -= d[0, k] * jump
                through *= rules.surrogate(run.distance[e], width, surrogate.shape)
                kept[k] += through
                by.threshold[k] -= through
            cur = np.zeros_like(later)
            for k in range(n):
                d_gate[k] += kept[k] * (step.u[k] - step.before[0, k])
                if neurons.kind == 1:
                    d_gate[k] += d[1, k] * (step.second[k] - step.before[1, k])
                d[0, k] = kept[k]
                if not step.open[k]:
                    continue
                by.beta[k] += kept[k] * step.before[0, k]
                d[0, k] = neurons.beta[k] * kept[k]
                if neurons.kind == 0:
                    cur[k] = kept[k]
                elif neurons.kind == 1:
                    cur[k] = kept[k] + d[1, k]
                    by.decay[k] += cur[k] * step.before[1, k]
                    d[1, k] = neurons.decay[k] * cur[k]
                else:
                    by.beta[k] -= kept[k] * (step.cur[k] - step.before[1, k])
                    cur[k] = (1 - neurons.beta[k]) * kept[k]
                    d[1, k] -= cur[k]
            later_a = zero_a
            if gate.kind == 1 and gate.near.size:
                s = b if len(gate.near) > 1 else 0
                by.gate[s, t] += d_gate.reshape(-1, size).sum(1) * gate.near[s, t]
            elif gate.kind > 1:
                later_a = d_gate.reshape(-1, size).sum(1)
                for g in range(len(later_a)):
                    a, near, scale = step.activation[g], gate.width[g], gate.scale[g]
                    later_a[g] *= rules.surrogate(a, near, 0) if abs(a) < near else 0
                    later_a[g] += grads.ramp[b, g] / (2 * scale) if abs(a) < scale else 0
                if gate.kind == 2:
                    by.gate[b, t] += later_a
                    for i in np.flatnonzero(step.last) if len(gate.recurrent) else ():
                        by.gate_recurrent[i] += later_a
                else:
                    by.kappa[:] -= later_a
                    cur += np.sign(step.cur) * later_a
            for e in range(sources.ptr[b, t], sources.ptr[b, t + 1]):
                for part, whole in _reached(synapses, int(sources.idx[e])):
                    by.source[e] += synapses.weight[part] @ cur[whole]
            for i in events.idx[events.ptr[b, t] : events.ptr[b, t + 1]]:
                for part, whole in _reached(synapses, int(i)):
                    by.weight[part] += cur[whole]
            for i in np.flatnonzero(step.last) if len(synapses.recurrent) else ():
                by.recurrent[i] += cur
            if len(current):
                by.current[t, b] = cur
            by.bias[:] += cur
            later = cur
        by.state[:, b] = d
        if n_steps == 0:
            by.spk[b] = grads.spk[b]
        elif len(synapses.recurrent):
            by.spk[b] += synapses.recurrent @ later
        if n_steps and len(gate.recurrent):
            by.spk[b] += gate.recurrent @ later_a
    return by


def refuse_fanout(layer: Layer) -> None:
    """Refuse synapses that no gradient runs through."""
    if is_sparse(layer.synapses):
        raise ValueError("`synapses` must be a matrix or a convolution for gradients, got fan-out lists.")


def empty_grads(layer: Layer, sources: Events) -> LayerGrads:
    """Return gradients of 0, in the shapes of what they belong to."""
    _, current, synapses, neurons, gate, state, spk, _ = layer
    shape = gate.near.shape if gate.kind == 1 else gate.a.shape
    like = (current, *synapses[:3], neurons.beta, neurons.threshold, neurons.decay, neurons.a, neurons.b)
    arrays: list[Any] = [np.zeros(len(sources.idx), state.dtype), *(np.zeros_like(x) for x in like)]
    arrays += [np.zeros(shape, state.dtype), *(np.zeros_like(x) for x in (gate.recurrent, gate.kappa, state, spk))]
    return LayerGrads(*arrays)


class _Step(NamedTuple):
    """All that happens at one step of one sample; arrays are [N] where no shape stands."""

    before: FloatArray  # [S, N]
    last: FloatArray  # spikes of the step before
    cur: FloatArray
    activation: FloatArray  # [G]: of a gate of kind "input" or "drive"
    gate_open: NDArray[np.bool_]  # [G]
    open: NDArray[np.bool_]
    u: FloatArray  # candidate of the membrane
    second: FloatArray  # candidate of the synaptic current
    adapted: FloatArray  # candidate of the adaptation
    v: FloatArray  # membrane before reset
    fired: NDArray[np.bool_]
    after: FloatArray  # [S, N]


def _step(layer: Layer, b: int, t: int, state: FloatArray, last: FloatArray, fired: Any = None) -> _Step:
    """Do step t of sample b; `fired` [N] replays known spikes."""
    neurons, gate, size = layer.neurons, layer.gate, _gate_size(layer)
    before, n = state.copy(), state.shape[1]
    cur = _current(layer, b, t, last)
    activation, gate_open = np.zeros(0, state.dtype), np.zeros(0, bool)
    if gate.kind == 1:
        gate_open = gate.open[b if len(gate.open) > 1 else 0, t] > 0
    elif gate.kind == 2:
        activation = gate.a[b, t].copy()
        for i in np.flatnonzero(last) if len(gate.recurrent) else ():
            activation += gate.recurrent[i]
    elif gate.kind == 3:
        activation = abs(cur) - gate.kappa
    if gate.kind > 1:
        gate_open = activation > 0
    is_open = np.repeat(gate_open, size) if gate.kind else np.ones(n, bool)
    u, second, adapted, v = (np.zeros_like(cur) for _ in range(4))
    known, fired, after = fired is not None, np.zeros(n, bool) if fired is None else fired, before.copy()
    for k in range(n):
        beta = neurons.beta[k]
        if neurons.kind == 0:
            u[k] = rules.leak(before[0, k], cur[k], beta)
        elif neurons.kind == 1:
            second[k] = rules.leak(before[1, k], cur[k], neurons.decay[k])
            after[1, k] = rules.select(bool(is_open[k]), second[k], before[1, k])
            u[k] = rules.leak(before[0, k], second[k], beta)
        else:
            u[k] = rules.leak_adapted(before[0, k], cur[k], before[1, k], beta)
        v[k] = rules.select(bool(is_open[k]), u[k], before[0, k])
        if not known:
            fired[k] = is_open[k] and rules.fires(v[k], neurons.threshold[k])
        after[0, k] = rules.reset(v[k], neurons.threshold[k], neurons.reset) if fired[k] else v[k]
        if neurons.kind == 2:
            spk: Any = state.dtype.type(fired[k])
            adapted[k] = rules.adapt(before[1, k], after[0, k], spk, neurons.decay[k], neurons.a[k], neurons.b[k])
            after[1, k] = rules.select(bool(is_open[k]), adapted[k], before[1, k])
    return _Step(before, last.copy(), cur, activation, gate_open, is_open, u, second, adapted, v, fired, after)


def _replay(spikes: Events, layer: Layer, b: int) -> list[_Step]:
    """Run sample b again from its known spikes."""
    state, last, steps = layer.state[:, b].copy(), layer.spk[b] > 0, []
    for t in range(steps_of(layer, b)):
        fired = np.zeros(state.shape[1], bool)
        fired[spikes.idx[spikes.ptr[b, t] : spikes.ptr[b, t + 1]]] = True
        steps.append(_step(layer, b, t, state, last, fired))
        state, last = steps[-1].after, fired
    return steps


def _current(layer: Layer, b: int, t: int, last: NDArray[Any]) -> Any:
    """Sum the rows of step t's events and of the spikes `last` [N] of step t - 1, the bias and the given current."""
    events, synapses = layer.events, layer.synapses
    scaled, dtype = is_scaled(synapses), synapses.bias.dtype.type
    cur: Any = np.zeros(len(synapses.bias), np.int64) if scaled else synapses.bias.copy()
    if len(layer.current) and not scaled:
        cur += layer.current[t, b]
    for i in events.idx[events.ptr[b, t] : events.ptr[b, t + 1]]:
        if len(synapses.fanout.ptr):
            _scatter(synapses.fanout, synapses.weight[0], int(i), cur)
            continue
        for part, whole in _reached(synapses, int(i)):
            cur[whole] += synapses.weight[part]
    for i in np.flatnonzero(last) if len(synapses.recurrent) else ():
        if len(synapses.own_fanout.ptr):
            _scatter(synapses.own_fanout, synapses.recurrent[0], int(i), cur)
        else:
            cur += synapses.recurrent[i]
    if not scaled:
        return cur
    scale: Any = dtype(synapses.scale[0])
    cur = rules.scaled(cur.astype(dtype), scale, synapses.bias)  # type: ignore[arg-type]
    return cur + layer.current[t, b] if len(layer.current) else cur


def _scatter(fanout: Fanout, weight: FloatArray, source: int, cur: FloatArray) -> None:
    """Add the weights of a source's fan-out to their targets; one that stands there twice gets both."""
    for e in range(fanout.ptr[source], fanout.ptr[source + 1]):
        cur[fanout.target[e]] += weight[e]


def _reached(synapses: SynapseArrays, source: int) -> Iterator[tuple[Any, Any]]:
    """Yield which weights of a source go to which neurons, as indices into the weights and into [N]."""
    if not len(synapses.geometry):
        yield source, slice(None)
        return
    geometry = Geometry(*map(int, synapses.geometry))
    for row, column, first in geometry.targets(source):
        yield (row, slice(column, column + geometry.out_channels)), slice(first, first + geometry.out_channels)


def _gate_size(layer: Layer) -> int:
    """Return the number of neurons that share a gate."""
    n = len(layer.synapses.bias)
    return n // max(n_gates(layer.gate, n), 1) or 1


class _Lists:
    """Collects (sample, step, unit) in time order into Events."""

    def __init__(self, like: Events, n_units: int) -> None:
        self.counts = np.zeros((like.n_samples, like.n_steps), np.int64)
        self.idx: list[int] = []
        self.n_units = n_units

    def add(self, b: int, t: int, k: int) -> None:
        self.counts[b, t] += 1
        self.idx.append(k)

    def events(self) -> Events:
        return Events(offsets(self.counts), np.array(self.idx, np.int32), self.n_units)
