r"""The ways to run a layer of a recurrent cell, all with the same result: see `suspike.nn.recurrent`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from suspike._lengths import running
from suspike.nn import paths, selecting
from suspike.nn.neuron import choose
from suspike.nn.updates import UPDATES, States, Weights
from suspike.nn.watching import LayerNorms
from suspike_kernels.cells import CELLS
from suspike_kernels.cpu.cells import Units, computed, rows_of

SATURATION = 100.0
"""Added to the argument of a logistic function, it makes 1 of it in float64 too, if the rest is above -60."""

BY_TORCH: dict[str, Any] = {"tanh": torch.rnn_tanh, "relu": torch.rnn_relu, "gru": torch.gru, "lstm": torch.lstm}


def by_torch(kind: str, x: Tensor, old: States, weights: Weights) -> tuple[Tensor, States]:
    """Run a layer that is always open by torch's own kernel, told of one layer, no dropout and one direction."""
    flat, biased = [p for p in weights if p is not None], weights.given_bias is not None
    given: Any = tuple(s[None] for s in old) if len(old) > 1 else old[0][None]
    out, *after = BY_TORCH[kind](x, given, flat, biased, 1, 0.0, torch.is_grad_enabled(), False, False)
    return out, tuple(s[0] for s in after)


def saturated(
    x: Tensor, old: States, weights: Weights, gate: Any, t: int, n_steps: Tensor | None
) -> tuple[Tensor, States]:
    """Run a layer of a GRU by torch's own kernel, shut units held by an input that takes their z to 1.

    The kernel computes ``(h - n) z + n``, which is h but for its last bits: the paper's fused call.
    """
    n = old[0].shape[1]
    shut = (1 - gate.spread(gate(len(x), start=t).open).to(x.dtype))[:, None].expand(-1, x.shape[1], -1)
    if n_steps is not None:
        shut = shut.masked_fill(~running(n_steps, *x.shape[:2], least=0).to(x.device), 1)
    to_z = x.new_zeros(3, n, n)
    to_z[1] = SATURATION * torch.eye(n, dtype=x.dtype, device=x.device)
    given = torch.cat([weights.given, to_z.view(3 * n, n)], 1)
    return by_torch("gru", torch.cat([x, shut], 2), old, weights._replace(given=given))


def open_alone(
    kind: str,
    gate: Any,
    x: Tensor,
    old: States,
    weights: Weights,
    t: int,
    n_steps: Tensor | None,
    norms: LayerNorms | None,
    *,
    outputs: bool,
) -> tuple[Tensor, States]:
    """Run a layer with the open units' rows alone: by kernels on the CPU, by indices on other devices."""
    near = None
    if gate is None:
        table = x.new_ones(len(x), old[0].shape[1])
    else:
        opened = gate(len(x), start=t)
        table = gate.spread(opened.open).to(x.dtype)
        near = gate.spread(opened.near).numpy() if table.requires_grad else None
    units = computed((table.detach() > 0).cpu().numpy(), near)
    if paths.on_cpu(x):
        return _by_index(kind, x, old, weights, table, units, n_steps, norms)
    if n_steps is None:
        out, after = selecting.run(CELLS[kind], x, torch.stack(old), weights, table, units, norms, outputs=outputs)
        return out, after.unbind(0)
    # the longest first: at every step the samples that still run are the first so many
    order = n_steps.argsort(descending=True, stable=True)
    sizes = (n_steps[None] > torch.arange(len(x))[:, None]).sum(1).tolist()
    out, after = selecting.run(
        CELLS[kind], x[:, order], torch.stack(old)[:, order], weights, table, units,
        None if norms is None else norms._replace(samples=order), sizes=sizes, outputs=outputs,
    )  # fmt: skip
    place = order.argsort()
    return out[:, place], after[:, place].unbind(0)


def _by_index(
    kind: str,
    x: Tensor,
    states: States,
    weights: Weights,
    table: Tensor,
    units: Units,
    n_steps: Tensor | None,
    norms: LayerNorms | None,
) -> tuple[Tensor, States]:
    """Run a layer in torch, computing some units at each step: on any device."""
    lasts = None if n_steps is None else running(n_steps, *x.shape[:2], least=0).to(x.device)
    n_chunks, (ptr, _, idx) = CELLS[kind].n_chunks, units
    rows = torch.from_numpy(rows_of(ptr, ptr[1:], idx, np.arange(n_chunks), states[0].shape[1])).to(x.device)
    columns, out = torch.from_numpy(idx).to(x.device), []
    for t, each in enumerate(x.unbind(0)):
        chosen = columns[ptr[t] : ptr[t + 1]]
        if len(chosen):
            old = tuple(s.index_select(1, chosen) for s in states)
            some = weights.of(rows[n_chunks * ptr[t] : n_chunks * ptr[t + 1]])
            new, _ = UPDATES[kind](each, states[0], old, some)
            is_open = table[t].index_select(0, chosen)
            is_open = is_open if lasts is None else is_open * lasts[t]
            now = choose(is_open, new, old)
            states = tuple(s.index_copy(1, chosen, u) for s, u in zip(states, now, strict=True))
        if norms is not None:
            states = norms.hooked(t, states)
        out.append(states[0])
    return torch.stack(out) if out else x.new_zeros(0, x.shape[1], states[0].shape[1]), states


def step_by_step(
    kind: str,
    gate: Any,
    x: Tensor,
    states: States,
    weights: Weights,
    t: int,
    n_steps: Tensor | None,
    norms: LayerNorms | None,
) -> tuple[Tensor, States]:
    """Run a layer step by step in torch: the readable definition, for any gate, on any device."""
    lasts = None if n_steps is None else running(n_steps, *x.shape[:2], least=0).to(x.device)
    opened = None if gate is None else gate.steps(len(x), t, x, lasts)
    update, out = UPDATES[kind], []
    for step, each in enumerate(x.unbind(0)):
        new, drive = update(each, states[0], states, weights)
        is_open = None if lasts is None else lasts[step].to(x.dtype)
        if opened is not None:
            is_open = opened(step, drive, states[0])
        states = tuple(choose(is_open, new, states))
        if norms is not None:
            states = norms.hooked(step, states)
        out.append(states[0])
    if opened is not None:
        opened.finish(x.shape[1])
    return torch.stack(out) if out else x.new_zeros(0, x.shape[1], states[0].shape[1]), states
