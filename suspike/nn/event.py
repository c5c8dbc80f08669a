"""The event path: a layer as one autograd function from the values at active places to those of its output.

The lists travel beside the values as integer tensors without gradient. Exactly the gradients of the plain torch path
with the same spikes (`suspike_kernels.reference`), in memory that grows with spikes and active places.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from suspike._lengths import require_whole
from suspike.nn.gates import DataGate, DriveGate, InputGate
from suspike.nn.neuron import Neuron
from suspike.nn.rhythms import TableGate
from suspike.spikes import Spikes
from suspike_kernels import cpu
from suspike_kernels.layout import (
    FULL,
    Events,
    GateArrays,
    NeuronArrays,
    SynapseArrays,
    always_open,
    table_gate,
)
from suspike_kernels.reference import ALL_STEPS, NO_SURROGATE, Layer, RunGrads, Surrogate


class _Plan(NamedTuple):
    """What a layer's autograd function needs beside its tensors."""

    events: Events
    sources: Events
    near: np.ndarray  # uint8 [1 or B, T, G] of a table, or empty
    data_gate: int  # kind of a gate that data open, else 0
    kind: int
    reset: int
    attached: bool
    surrogate: Surrogate
    trace: bool
    geometry: np.ndarray = FULL
    n_steps: np.ndarray = ALL_STEPS


class _Tensors(NamedTuple):
    """The autograd function's tensors, in the order of `LayerGrads` as far as that goes; absent ones are empty."""

    values: Tensor  # [A_in]
    current: Tensor  # [T, B, N] or [0, B, N]
    weight: Tensor
    recurrent: Tensor
    bias: Tensor
    beta: Tensor
    threshold: Tensor
    decay: Tensor
    a: Tensor
    b: Tensor
    gate: Tensor  # "table": 0 or 1; "input": what the input adds: [1 or B, T, G]
    gate_recurrent: Tensor
    kappa: Tensor
    state: Tensor  # [S, B, N]
    spk: Tensor  # [B, N]
    width: Tensor  # [G] of a data gate; no gradient
    scale: Tensor


def run_layer(
    x: Spikes,
    weight: Tensor,
    recurrent: Tensor | None,
    bias: Tensor | None,
    neuron: Neuron,
    state: Any,
    *,
    current: Tensor | None = None,
    activation: Tensor | None = None,
    geometry: np.ndarray = FULL,
) -> tuple[Spikes | Tensor, Any]:
    """Run a layer over a spike train by the CPU's kernels.

    Parameters
    ----------
    x : Spikes [T, B, n_in]
    weight : Tensor [n_in, N], or as `geometry` has it
    recurrent : Tensor [N, N], optional
    bias : Tensor [N], optional
    neuron : Neuron
    state : state of [B, N]
    current : Tensor [T, B, N], optional
        Added to what the spikes bring.
    activation : Tensor [T, B, G], optional
        What the input adds to an input gate's activation, its bias included; made of `x` without one.
    geometry : int64 [12], optional
        Of a convolution: `suspike_kernels.geometry.Geometry.array`.

    Returns
    -------
    out : Spikes [T, B, N], or Tensor [T, B, N] (the membrane of a readout)
    state : state
    """
    n_steps, n_samples, _ = x.shape
    n, gate = neuron.n_units, neuron.gate
    none = weight.new_zeros(0)
    table, near, data = none.reshape(0, 0, 0), np.zeros((0, 0, 0), np.uint8), 0
    gate_recurrent, kappa, width, scale = none.reshape(0, 0), none, none, none
    if isinstance(gate, TableGate):
        opened = gate(n_steps, start=state.t)
        table = opened.open.to(weight.dtype)[None]
        if torch.is_grad_enabled() and opened.near.any():
            near = opened.near.numpy().astype(np.uint8)[None]
    elif isinstance(gate, DataGate):
        width, scale = gate.width, gate.get_buffer("scale")
        data = 2 if isinstance(gate, InputGate) else 3
        if isinstance(gate, InputGate):
            given = product(x, gate.weight, gate.bias) if activation is None else activation
            table = given.transpose(0, 1)
            gate_recurrent = none.reshape(0, gate.n_gates) if gate.recurrent is None else gate.recurrent
        elif isinstance(gate, DriveGate):
            kappa = gate.kappa
    rule = neuron.rule()
    spk = state.spk if neuron.fires else weight.new_zeros(n_samples, n)
    tensors = _Tensors(
        x.values, weight.new_zeros(0, n_samples, n) if current is None else current, _scaled(weight, x),
        weight.new_zeros(0, n) if recurrent is None else recurrent, weight.new_zeros(n) if bias is None else bias,
        rule["beta"], rule["threshold"], rule.get("decay", none), rule.get("a", none), rule.get("b", none), table,
        gate_recurrent, kappa, torch.stack(state.variables), spk, width, scale,
    )  # fmt: skip
    tracked = torch.is_grad_enabled() and any(p.requires_grad for p in tensors)
    surrogate, trace = rule["surrogate"] if tracked else NO_SURROGATE, not neuron.fires
    if x.n_steps is not None:
        require_whole("n_steps", x.n_steps, n_samples, 0, n_steps, f"T = {n_steps}")
    plan = _Plan(
        x.events, x.active, near, data, rule["kind"], rule["reset"], rule["attached"], surrogate, trace, geometry,
        ALL_STEPS if x.n_steps is None else x.n_steps.numpy(),
    )  # fmt: skip
    values, after, spk, out, ramp, *lists = _RunLayer.apply(*tensors, plan)  # type: ignore[no-untyped-call]
    ptr, idx, active_ptr, active_idx, n_open, open_at = lists
    if isinstance(gate, DataGate):
        gate(gate.use(n_open.to(weight.dtype), ramp, open_at, x.n_steps))
    variables = after.unbind(0)
    if trace:
        return out, neuron.state(*variables, state.t + n_steps)
    fired, active = Events(ptr.numpy(), idx.numpy(), n), Events(active_ptr.numpy(), active_idx.numpy(), n)
    return Spikes(fired, active, values, n_steps=x.n_steps), neuron.state(*variables, spk, state.t + n_steps)


def _scaled(weight: Tensor, x: Spikes) -> Tensor:
    """Return the weights of events that count `x.scale` each."""
    return weight if x.scale == 1 else weight * x.scale


def product(x: Spikes, weight: Tensor, bias: Tensor) -> Tensor:
    """Return ``x @ weight + bias`` [T, B, N]: a readout that remembers nothing. Behind a sample's end it stays."""
    n = weight.shape[1]
    none = weight.new_zeros(0)
    tensors = _Tensors(
        x.values, none.reshape(0, 0, 0), _scaled(weight, x), none.reshape(0, n), bias, weight.new_zeros(n),
        weight.new_full((n,), torch.inf), none, none, none, none.reshape(0, 0, 0), none.reshape(0, 0), none,
        weight.new_zeros(1, x.shape[1], n), weight.new_zeros(x.shape[1], n), none, none,
    )  # fmt: skip
    n_steps = ALL_STEPS if x.n_steps is None else x.n_steps.numpy()
    near = np.zeros((0, 0, 0), np.uint8)
    plan = _Plan(x.events, x.active, near, 0, 0, 2, False, NO_SURROGATE, True, n_steps=n_steps)
    out: Tensor = _RunLayer.apply(*tensors, plan)[3]  # type: ignore[no-untyped-call]
    return out


class _RunLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:
        *given, plan = args
        tensors = _Tensors(*given)
        run = cpu.forward(_layer(tensors, plan), plan.surrogate, trace=plan.trace, n_threads=torch.get_num_threads())
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(*tensors[1:])  # not the input's values: they are 0 or 1 and enter no gradient
            ctx.plan, ctx.run, ctx.n_threads = plan, run, torch.get_num_threads()
        ctx.set_materialize_grads(False)  # or zeros would be made as long as each list
        lists = tuple(
            torch.from_numpy(x)
            for x in (run.spikes.ptr, run.spikes.idx, run.active.ptr, run.active.idx, run.n_open, run.open_at)
        )
        ctx.mark_non_differentiable(*lists)
        floats = (run.value, run.state, run.spk, run.trace, run.ramp)
        return *(torch.from_numpy(x) for x in floats), *lists

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        plan, run, want = ctx.plan, ctx.run, _Tensors(*ctx.needs_input_grad[:-1])
        tensors = _Tensors(ctx.saved_tensors[0][:0], *ctx.saved_tensors)
        asked = RunGrads(*(
            np.zeros_like(getattr(run, name)) if grad is None else _array(grad)
            for name, grad in zip(RunGrads._fields, grads, strict=False)
        ))  # fmt: skip
        by = cpu.backward(
            asked, run, _layer(tensors, plan), plan.surrogate, plan.sources,
            want_weights=bool(want.weight or want.recurrent),
            want_neurons=bool(want.beta or want.decay or want.a or want.b), want_threshold=bool(want.threshold),
            want_bias=bool(want.bias), want_spk=bool(want.spk), n_threads=ctx.n_threads,
        )  # fmt: skip
        found: Any = _Tensors(*(torch.from_numpy(g) for g in (*by, by.bias[:0], by.bias[:0])))
        if want.gate and found.gate.shape != tensors.gate.shape:  # a table that no gradient is wanted of
            found = found._replace(gate=torch.zeros_like(tensors.gate))
        return *(g if wanted else None for g, wanted in zip(found, want, strict=True)), None


def _layer(tensors: _Tensors, plan: _Plan) -> Layer:
    """Return the kernel's arguments."""
    t: Any = _Tensors(*(_array(x) for x in tensors))  # type: ignore[arg-type]
    neurons = NeuronArrays(plan.kind, t.beta, t.threshold, plan.reset, int(plan.attached), t.decay, t.a, t.b)
    dtype = t.weight.dtype
    gate = always_open(dtype)
    if plan.data_gate:
        none = np.zeros((0, 0, 0), np.uint8)
        gate = GateArrays(plan.data_gate, none, none, t.gate, t.gate_recurrent, t.kappa, t.width, t.scale)
    elif len(t.gate):
        gate = table_gate(t.gate.astype(np.uint8), plan.near, dtype)
    synapses = SynapseArrays(t.weight, t.recurrent, t.bias, plan.geometry)
    return Layer(plan.events, t.current, synapses, neurons, gate, t.state, t.spk, plan.n_steps)


def _array(x: Tensor) -> np.ndarray:
    return np.ascontiguousarray(x.detach().numpy())
