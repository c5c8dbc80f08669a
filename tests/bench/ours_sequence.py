"""suspike's cells, a loop in C, and the products that bound a training step, in the project's own environment."""

from __future__ import annotations

import ctypes
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from c_program import compiled, compiler
from peers_sequence import parts_of, started, step_by_step, with_weights
from peers_sequence import stream as torch_stream
from peers_sequence import train as torch_train
from sequence_work import CHUNKS, PERIOD, Sequence, gate_of
from torch import Tensor
from work import Built

import suspike as su
from suspike_kernels.cpu import cell_stream

__all__ = ["c_loop", "kernel", "products", "stream", "torch_stream", "torch_train", "train"]

MODULES = {"rnn": su.nn.RNN, "gru": su.nn.GRU, "lstm": su.nn.LSTM}


def gate(work: Sequence, *, learned: bool) -> su.nn.RhythmGate | None:
    """Return the gate of `work`; its table has to be the one that loops by hand are given."""
    if work.open == 1:
        return None
    n_steps, n = work.is_open.shape
    found = su.nn.RhythmGate(n, open=work.open, periods=[PERIOD], n_steps=n_steps)
    bias, phase = gate_of(n, work.open)
    with torch.no_grad():
        found.amplitude.fill_(1)
        found.bias.fill_(bias)
        found.phase.copy_(torch.from_numpy(phase))
        off = int((found(n_steps).open.numpy() != work.is_open).sum())
    if off > 1e-5 * work.is_open.size:  # phases here are float32: a place or two may fall to the other side
        raise RuntimeError(f"{off} of {work.is_open.size} places of the gate are not those of the loops by hand")
    return found.requires_grad_(learned)


def cell_of(work: Sequence, *, learned: bool = False) -> Any:
    """Return our cell with the weights and the gate of `work`."""
    return with_weights(MODULES[work.kind](1, work.weight_hh.shape[1], gate=gate(work, learned=learned)), work)


def facts(cell: Any, n_steps: int) -> dict[str, Any]:
    """Return the share of open places, and of those that are near their threshold and not open."""
    if cell.gates[0] is None:
        return {"open": 1.0, "near": 0.0}
    table = cell.gates[0](n_steps)
    is_open = table.open.detach() > 0
    return {"open": float(is_open.double().mean()), "near": float((table.near & ~is_open).double().mean())}


def stream(work: Sequence, threads: int, *, way: str) -> Built:
    """Our cell on one sample, no gradient wanted.

    `way` is "outputs" (h of every step), "final" (the state alone), "each" (one call a step) or "torch" (that path).
    """
    started(threads, "highest")
    cell, x = cell_of(work), torch.from_numpy(work.x)

    def step() -> tuple[Tensor | None, Any]:
        with torch.inference_mode(), su.nn.path("torch") if way == "torch" else nullcontext():
            if way == "final":
                return None, cell.final(x)
            if way != "each":
                found: tuple[Tensor, Any] = cell(x)
                return found
            return step_by_step(cell, x)

    return Built(step, lambda done: parts_of(done[0], done[1].variables), facts(cell, len(x)))


def kernel(work: Sequence, threads: int) -> Built:
    """The kernel of a stream alone: lists of open units and their rows lie ready, as they do for the C loop."""
    started(threads, "highest")
    cell, given, stream = cell_of(work), [], cell_stream.stream
    cell_stream.stream = lambda *args: given.extend(args) or stream(*args)  # what a call hands it
    try:
        with torch.inference_mode():
            cell(torch.from_numpy(work.x))
    finally:
        cell_stream.stream = stream
    state, out = given[3], given[11]

    def step() -> list[Any]:
        state[:] = 0
        stream(*given)
        return [out, state]

    return Built(step, list, facts(cell, len(work.x)))


def train(work: Sequence, threads: int, *, learned: bool = False, precision: str = "highest", path: str = "") -> Built:
    """Forward and backward of our cell: the gradients of its parameters, those of a gate that learns last."""
    started(threads, precision)
    cell, x, by_out = cell_of(work, learned=learned), torch.from_numpy(work.x), torch.from_numpy(work.by_out)
    parameters = [p for p in cell.parameters() if p.requires_grad]

    def step() -> list[Tensor]:
        with su.nn.path(path) if path else nullcontext():
            out = cell(x)[0] if len(by_out) == len(x) else cell.final(x).h
        return list(torch.autograd.grad(out, parameters, by_out))

    return Built(step, lambda grads: [np.asarray(g) for g in grads], facts(cell, len(x)))


def products(work: Sequence, threads: int, *, precision: str) -> Built:
    """The products of a training step's open rows and nothing else, forward and backward; rows lie ready."""
    started(threads, precision)
    n_open, chunks = work.is_open.sum(1).tolist(), CHUNKS[work.kind]
    rows = torch.from_numpy(work.weight_hh)[: chunks * max(n_open)].clone()
    given = torch.from_numpy(work.weight_ih)[: len(rows)].clone()
    x, h = torch.from_numpy(work.x), torch.from_numpy(work.by_out[0])
    by, by_h = torch.randn(len(rows), len(h), generator=torch.Generator().manual_seed(0)), torch.zeros_like(h)
    by_rows, by_given = torch.empty_like(rows), torch.empty_like(given)

    def step() -> list[Tensor]:
        for each, k in zip(x, n_open, strict=True):
            m = chunks * k
            torch.mm(given[:m], each.T, out=by[:m])
            torch.mm(rows[:m], h.T, out=by[:m])
        for each, k in zip(x, n_open, strict=True):
            m = chunks * k
            torch.mm(by[:m].T, rows[:m], out=by_h)
            torch.mm(by[:m], h, out=by_rows[:m])
            torch.mm(by[:m], each, out=by_given[:m])
        return [by_h, by_rows, by_given]

    return Built(step, list, {})


def c_loop(work: Sequence, threads: int, *, masked: bool) -> Built:
    """gru_loop.c, over all units or those alone that are open."""
    gru = compiled("gru_loop.c", "-ffast-math").gru
    n_steps, _, n = work.by_out.shape
    out, h = np.empty((n_steps, 1, n), np.float32), np.empty((1, 1, n), np.float32)
    ptr = np.append(0, np.cumsum(work.is_open.sum(1))).astype(np.int32)
    lists = (ptr, np.nonzero(work.is_open)[1].astype(np.int32)) if masked else (None, None)
    given = (work.x, *work.parameters, *lists, h, out)

    def step() -> list[Any]:
        h[:] = 0
        gru(n_steps, n, *(p if p is None else ctypes.c_void_p(p.ctypes.data) for p in given))
        return [out, h]

    return Built(step, list, {"compiler": compiler()})
