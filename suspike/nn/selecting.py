r"""A recurrent cell whose gates are a function of time: the units that are open alone are computed, on the CPU.

.. math:: h_t = h_{t-1} + g_t \odot (f(h_{t-1}, x_t) - h_{t-1})

All samples share the gates of a step, so its products are those of the open units' rows of weights: forward, and
backward by state, weights and input. Units near the threshold of a gate that learns are computed forward, since the
gate's gradient needs them, and nothing else. Of the past, memory holds those units' values alone; the backward pass
finds the state before a step by putting back what the step replaced.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from suspike.nn.updates import Weights
from suspike.nn.watching import LayerNorms
from suspike_kernels.cells import CELLS, Cell
from suspike_kernels.cpu import cell_stream, cells, memory
from suspike_kernels.cpu.cells import Bias, Gradients, Units
from suspike_kernels.pool import over_samples

GRU = CELLS["gru"]

FEW = 8
"""Samples that run one by one faster than together, measured with 128 to 512 units."""


def run(
    cell: Cell,
    x: Tensor,
    state: Tensor,
    weights: Weights,
    table: Tensor,
    units: Units,
    norms: LayerNorms | None = None,
    *,
    sizes: list[int] | None = None,
    outputs: bool = True,
) -> tuple[Tensor, Tensor]:
    """Run a cell over time.

    Parameters
    ----------
    cell : Cell
    x : Tensor [T, B, I]
    state : Tensor [states, B, H]
    weights : Weights
    table : Tensor [T, H]
        The gates, for their gradient; `units` say who is computed.
    units : Units
    norms : LayerNorms, optional
        Gets the norms of the gradients by the states.
    sizes : list of int [T], optional
        Samples that are not yet over at each step, never increasing: the first so many. All without it.
    outputs : bool
        Whether h is wanted at every step.

    Returns
    -------
    out : Tensor [T, B, H], or [0, B, H] without `outputs`
    state : Tensor [states, B, H]
        After each sample's last step.
    """
    sizes = [x.shape[1]] * len(x) if sizes is None else sizes
    if streams(x, state, *weights, table):
        return _stream(cell, x, state, weights, units, sizes, outputs)
    plan = _Plan(cell, units, sizes, outputs, _learns(x, state, *weights, table), norms)
    out, after = _Selected.apply(x, state, *weights, table, plan)  # type: ignore[no-untyped-call]
    return out, after


def streams(x: Tensor, *others: Tensor | None) -> bool:
    """Say whether samples x [T, B, I] run one by one: they are few, and no gradient is wanted."""
    return x.shape[1] <= FEW and not _learns(x, *others)


def _learns(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(p is not None and p.requires_grad for p in tensors)


def _stream(
    cell: Cell, x: Tensor, state: Tensor, weights: Weights, units: Units, sizes: list[int], outputs: bool
) -> tuple[Tensor, Tensor]:
    w, v, b, c = (None if p is None else p.detach().contiguous().numpy() for p in weights)
    after = state.detach().clone(memory_format=torch.contiguous_format)
    assert w is not None, "of every cell"
    assert v is not None, "of every cell"
    n, extra = v.shape[1], np.zeros(0, v.dtype)
    both = np.zeros(len(v), v.dtype) if b is None or c is None else b + c
    if cell is GRU:
        extra = np.zeros(n, v.dtype) if b is None else b[2 * n :]
        both[2 * n :] = 0 if c is None else c[2 * n :]
    n_steps = (np.asarray(sizes, np.int64)[:, None] > np.arange(x.shape[1])).sum(0)
    rows = cells.rows_of(units.ptr, units.ptr[1:], units.idx, np.array(cell_stream.ORDER[cell.kind]), n)
    out = memory.empty((len(x) if outputs else 0, x.shape[1], n), v.dtype)
    given = (x.detach().contiguous().numpy(), n_steps, after.numpy(), w, v, both, extra, units.ptr, units.idx)
    over_samples(
        lambda low, high: cell_stream.stream(cell.kind, *given, rows, out, low, high),
        x.shape[1],
        torch.get_num_threads(),
    )
    return torch.from_numpy(out), after


class _Plan(NamedTuple):
    cell: Cell
    units: Units
    sizes: list[int]
    outputs: bool
    keep: bool
    norms: LayerNorms | None


class _Panel:
    """Scratch memory for matrices of up to so many entries: each as a tensor and as an array."""

    def __init__(self, most: int, like: Tensor) -> None:
        self.flat = like.new_empty(most)
        self.views: dict[tuple[int, int], tuple[Tensor, NDArray[Any]]] = {}

    def __call__(self, n_rows: int, n_columns: int) -> tuple[Tensor, NDArray[Any]]:
        key = n_rows, n_columns
        if key not in self.views:
            view = self.flat[: n_rows * n_columns].view(key)
            self.views[key] = view, view.numpy()
        return self.views[key]


class _Selected(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor]:
        *tensors, plan = args
        held: list[Any] = [None if p is None else p.detach().contiguous() for p in tensors]
        x, state, w, v, b, c, _ = held
        (ptr, _, idx), cell, batch, n = plan.units, plan.cell, x.shape[1], v.shape[1]
        now, bias = state.clone(), Bias(_array(b, x), _array(c, x))
        after, h = now.numpy(), now[0]
        rows = torch.from_numpy(cells.rows_of(ptr, ptr[1:], idx, np.arange(cell.n_chunks), n))
        n_units, n_open = np.diff(ptr), plan.units.ends - ptr[:-1]
        n_kept = (cell.n_kept * n_open + cell.n_states * (n_units - n_open)) * np.asarray(plan.sizes, np.int64)
        kept = memory.empty((int(n_kept.sum() if plan.keep else n_kept.max(initial=0)),), after.dtype)
        out = memory.empty((len(x) if plan.outputs else 0, batch, n), after.dtype)
        given, own = (_Panel(cell.n_chunks * int(n_units.max(initial=0)) * batch, x) for _ in range(2))
        spare, at = _Panel(cell.n_kept * batch, x), 0
        with torch.autocast("cpu", enabled=False):
            for t, size in enumerate(plan.sizes):
                k = int(n_units[t])
                if k:
                    chosen = rows[cell.n_chunks * ptr[t] : cell.n_chunks * ptr[t + 1]]
                    (by_x, by_x_array), (by_h, by_h_array) = given(len(chosen), size), own(len(chosen), size)
                    torch.mm(w.index_select(0, chosen), x[t, :size].T, out=by_x)
                    torch.mm(v.index_select(0, chosen), h[:size].T, out=by_h)
                    parts = _parts(kept[at : at + n_kept[t]], cell, int(n_open[t]), k, size)
                    units, scratch = idx[ptr[t] : ptr[t + 1]], spare(cell.n_kept, size)[1][:, None]
                    cells.advance(cell.kind, by_x_array, by_h_array, bias, units, after, *parts, scratch)
                    at += n_kept[t] if plan.keep else 0
                if plan.outputs:
                    out[t] = after[0]
        if plan.keep:
            ctx.save_for_backward(*tensors, now)
            ctx.plan, ctx.kept, ctx.n_kept = plan, kept, n_kept
        ctx.set_materialize_grads(False)
        return torch.from_numpy(out), now

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *pulled: Tensor | None) -> tuple[Tensor | None, ...]:
        saved: list[Any] = [None if p is None else p.detach().contiguous() for p in ctx.saved_tensors]
        x, _, w, v, *_, table, now = saved
        plan, want, now, (by_out, by_now) = ctx.plan, ctx.needs_input_grad, now.clone(), pulled
        (ptr, ends, idx), cell, batch, n = plan.units, plan.cell, x.shape[1], v.shape[1]
        by_now = torch.zeros_like(now) if by_now is None else by_now.clone(memory_format=torch.contiguous_format)
        both = want[4] or want[5]  # the biases' gradients are added up together
        wanted = {
            name: torch.zeros_like(saved[i])
            for i, name in enumerate("x_wvbc")
            if name != "_" and (both if name in "bc" else want[i])
        }
        by_x, by_w, by_v, by_b, by_c = (wanted.get(name) for name in "xwvbc")
        by_table = x.new_zeros(table.shape if want[6] else (0, 0))
        grads = Gradients(by_now.numpy(), Bias(_array(by_b, x), _array(by_c, x)), by_table.numpy())
        before, h, by_h, nothing = now.numpy(), now[0], by_now[0], now.numpy()[0, :0]
        n_units, n_open = np.diff(ptr), ends - ptr[:-1]
        rows = torch.from_numpy(cells.rows_of(ptr, ends, idx, np.arange(cell.n_chunks), n))
        most = int(n_units.max(initial=0)) * batch
        panel, scratch = _Panel((cell.n_chunks + 1) * most, x), _Panel(2 * cell.n_states * most, x)
        at = len(ctx.kept)
        with torch.autocast("cpu", enabled=False):
            for t in range(len(x) - 1, -1, -1):
                k, size, n_rows = int(n_units[t]), plan.sizes[t], cell.n_chunks * int(n_open[t])
                at -= ctx.n_kept[t]
                parts = _parts(ctx.kept[at : at + ctx.n_kept[t]], cell, int(n_open[t]), k, size)
                by, by_array = panel(n_rows + int(n_open[t]), size)
                work = scratch(2 * cell.n_states * k, size)[1].reshape(2 * cell.n_states, k, size)
                pull = nothing if by_out is None else by_out[t].contiguous().numpy()
                units = idx[ptr[t] : ptr[t + 1]]
                if plan.norms is not None:
                    for s, grad in enumerate(by_now):
                        plan.norms.put(t, s, grad if s or by_out is None else grad + by_out[t])
                cells.go_back(cell.kind, t, *parts, units, pull, before, grads, work, by_array)
                if n_rows:
                    chosen = rows[cell.n_chunks * ptr[t] :][:n_rows]
                    _through(by[:n_rows], v, chosen, h[:size], by_h[:size], by_v)
                    if cell is GRU:
                        by[n_rows - n_open[t] : n_rows] = by[n_rows:]
                    _through(by[:n_rows], w, chosen, x[t, :size], None if by_x is None else by_x[t, :size], by_w)
        return (
            by_x, by_now if want[1] else None, by_w, by_v, by_b, by_c, by_table if want[6] else None, None
        )  # fmt: skip


def _parts(kept: NDArray[Any], cell: Cell, n_open: int, n_units: int, size: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return what is kept of a step's open units [values, n_open, B], and of the others [states, K - n_open, B]."""
    end = cell.n_kept * n_open * size
    others = kept[end:].reshape(cell.n_states, n_units - n_open, size)
    return kept[:end].reshape(cell.n_kept, n_open, size), others


def _through(
    grad: Tensor, matrix: Tensor, chosen: Tensor, y: Tensor, by_y: Tensor | None, by_matrix: Tensor | None
) -> None:
    """Given the gradient by the product of a matrix's chosen rows with y [B, K], add those by both."""
    if by_y is not None:
        by_y.addmm_(grad.T, matrix.index_select(0, chosen))
    if by_matrix is not None:
        cells.add_rows(torch.mm(grad, y).numpy(), chosen.numpy(), by_matrix.numpy())


def _array(p: Tensor | None, like: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = (like.new_empty(0) if p is None else p).numpy()
    return array
