"""The event path: layers as autograd functions from the values at active places to those of their output.

The lists travel beside the values as integer tensors without gradient. Exactly the gradients of the plain torch path
with the same spikes (`suspike_kernels.reference`), in memory that grows with spikes and active places.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from suspike.nn.gates import GateTable
from suspike.nn.neurons import LI, LIF, LIFState, LIState
from suspike.spikes import Spikes
from suspike_kernels.cpu import li, lif
from suspike_kernels.layout import RESETS, DenseArrays, Events, GateArrays, LIFArrays


class _Plan(NamedTuple):
    """What a LIF layer's autograd function needs beside its tensors."""

    events: Events
    sources: Events
    near: np.ndarray
    reset: int
    width: float


def lif_dense(
    spikes: Spikes, weight: Tensor, recurrent: Tensor | None, bias: Tensor | None, neuron: LIF, state: LIFState
) -> tuple[Spikes, LIFState]:
    """Run a fully connected LIF layer over a spike train.

    Parameters
    ----------
    spikes : Spikes [T, B, n_in]
    weight : Tensor [n_in, N]
    recurrent : Tensor [N, N], optional
    bias : Tensor [N], optional
    neuron : LIF
    state : LIFState of [B, N]
    """
    n_steps, n = spikes.shape[0], neuron.n_units
    table = neuron.gate_table(n_steps, state.t)
    if table is None:
        table = GateTable(weight.new_zeros(0, n), torch.zeros(0, n, dtype=torch.bool))
    recurrent = weight.new_zeros(0, n) if recurrent is None else recurrent
    bias = weight.new_zeros(n) if bias is None else bias
    tensors = (spikes.values, weight, recurrent, bias, neuron.beta, neuron.threshold, table.open, state.v, state.spk)
    tracked = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    near = table.near.numpy().astype(np.uint8) if tracked and table.near.any() else np.zeros((0, n), np.uint8)
    width = neuron.surrogate.width if tracked else 0.0
    plan = _Plan(spikes.events, spikes.active, near, RESETS.index(neuron.reset), width)
    values, v, spk, *lists = _LIFDense.apply(*tensors, plan)  # type: ignore[no-untyped-call]
    ptr, idx, active_ptr, active_idx = (x.numpy() for x in lists)
    out = Spikes(Events(ptr, idx, n), Events(active_ptr, active_idx, n), values)
    return out, LIFState(v, spk, state.t + n_steps)


def li_dense(spikes: Spikes, weight: Tensor, bias: Tensor | None, neuron: LI, state: LIState) -> tuple[Tensor, LIState]:
    """Run a fully connected readout over a spike train: membrane [T, B, N] and state; arguments as in `lif_dense`."""
    bias = weight.new_zeros(neuron.n_units) if bias is None else bias
    out: Tensor = _LIDense.apply(spikes.values, weight, bias, neuron.beta, state.v, spikes.events, spikes.active)  # type: ignore[no-untyped-call]
    return out, LIState(out[-1] if len(out) else state.v)


class _LIFDense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:
        *tensors, plan = args
        ctx.save_for_backward(*tensors[1:])  # not the input's values: they are 0 or 1 and enter no gradient
        ctx.plan, ctx.n_threads = plan, torch.get_num_threads()
        ctx.run = lif.lif_forward(plan.events, *_arrays(tensors[1:], plan), width=plan.width, n_threads=ctx.n_threads)
        run = ctx.run
        lists = tuple(torch.from_numpy(x) for x in (run.spikes.ptr, run.spikes.idx, run.active.ptr, run.active.idx))
        ctx.mark_non_differentiable(*lists)
        return torch.from_numpy(run.value), torch.from_numpy(run.v), torch.from_numpy(run.spk), *lists

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        plan, weight = ctx.plan, ctx.saved_tensors[0]
        g_value, g_v, g_spk = (_array(g) for g in grads[:3])
        dense, neurons, gate, v, spk = _arrays(ctx.saved_tensors, plan)
        by = lif.lif_backward(
            g_value, g_v, g_spk, ctx.run, plan.events, plan.sources, dense, neurons, gate, v, spk,
            want_beta=ctx.needs_input_grad[4], n_threads=ctx.n_threads,
        )  # fmt: skip
        by_open = by.gate if len(by.gate) else np.zeros(gate.open.shape, by.bias.dtype)
        found = (by.source, by.weight, by.recurrent, by.bias, by.beta, by.threshold, by_open, by.v, by.spk)
        wanted = zip(found, ctx.needs_input_grad, strict=False)
        return *(torch.from_numpy(g).to(weight.dtype) if want else None for g, want in wanted), None


class _LIDense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        _, weight, bias, beta, v, events, sources = args
        ctx.lists, ctx.n_threads = (events, sources), torch.get_num_threads()
        dense = _no_recurrence(_array(weight), _array(bias))
        out = torch.from_numpy(li.li_forward(events, dense, _array(beta), _array(v), n_threads=ctx.n_threads))
        ctx.save_for_backward(weight, bias, beta, v, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, bias, beta, v, out = (_array(x) for x in ctx.saved_tensors)
        events, sources = ctx.lists
        dense = _no_recurrence(weight, bias)
        by = li.li_backward(_array(grads[0]), out, events, sources, dense, beta, v, n_threads=ctx.n_threads)
        wanted = zip(by, ctx.needs_input_grad, strict=False)
        return *(torch.from_numpy(g) if want else None for g, want in wanted), None, None


def _arrays(tensors: Any, plan: _Plan) -> tuple[DenseArrays, LIFArrays, GateArrays, np.ndarray, np.ndarray]:
    """Return the kernel's arguments after the events, from weight, recurrent, bias, beta, threshold, open, v, spk."""
    weight, recurrent, bias, beta, threshold, is_open, v, spk = (_array(x) for x in tensors)
    gate = GateArrays(is_open.astype(np.uint8), plan.near)
    return DenseArrays(weight, recurrent, bias), LIFArrays(beta, threshold, plan.reset), gate, v, spk


def _no_recurrence(weight: np.ndarray, bias: np.ndarray) -> DenseArrays:
    return DenseArrays(weight, np.zeros((0, len(bias)), bias.dtype), bias)


def _array(x: Tensor) -> np.ndarray:
    return np.ascontiguousarray(x.detach().numpy())
