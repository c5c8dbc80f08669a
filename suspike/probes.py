r"""Look into a recurrent cell: the gradient by its state at every step, how its state moves, and how often it is open.

.. math:: \lVert \partial L / \partial h_t \rVert_2

is what a step's state still does to the loss, through all later steps. Source: arXiv:2603.02226 (Figures 2a and 4).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from suspike._validate import fail, message
from suspike.nn import GateTable, GateUse
from suspike.nn.recurrent import Recurrent
from suspike.nn.watching import watch


@dataclass(frozen=True, eq=False)
class GradientNorms:
    """Norms of a loss's gradient by the states of a cell, filled in while the loss goes backward.

    Attributes
    ----------
    calls : list of float64 Tensor [states, num_layers, T, B], on the CPU
        One for each call of the cell, in order; the states are h, and of an LSTM c behind it. 0 where no gradient came,
        or one whose squares leave float64 (below 1e-154); a second backward pass of a call writes over the first.
    """

    calls: list[Tensor] = field(default_factory=list)

    @property
    def h(self) -> Tensor:
        """Norms by h after each step of the last call [num_layers, T, B]; over all samples, ``h.norm(dim=-1)``."""
        return self._last()[0]

    @property
    def c(self) -> Tensor:
        """Norms by an LSTM's c after each step of the last call, h held fixed [num_layers, T, B]."""
        last = self._last()
        if len(last) < 2:
            raise AttributeError(message("cell", "an LSTM to have c", "one that has h alone"))
        return last[1]

    def _last(self) -> Tensor:
        if not self.calls:
            cure = "Run the cell, and the loss's backward(), inside of the context."
            fail("calls", "one or more, with gradient", "none", cure)
        return self.calls[-1]


@contextmanager
def probe_gradients(cell: Recurrent) -> Iterator[GradientNorms]:
    r"""Collect :math:`\lVert \partial L / \partial h_t \rVert` of a cell's calls inside the context, at every step.

    It is the whole gradient, through the output of step t and through all later steps, for each layer and each sample
    on its own; a held step does not change it. It comes with one ordinary backward pass, whose gradients stay as they
    are, on whatever path the cell takes; a layer without gate leaves torch's own kernel, which tells no states, for
    this package's.

    Parameters
    ----------
    cell : RNN, GRU or LSTM
        The calls must be made inside of the context, their backward passes may come later.

    Yields
    ------
    GradientNorms

    Raises
    ------
    ValueError
        If `cell` is none, or, when norms are asked for, if none of its calls was made with gradient.

    Examples
    --------
    >>> with su.probe_gradients(gru) as norms:
    ...     out, _ = gru(x)                      # x [T, B, I]
    ...     out[-1].square().sum().backward()
    >>> norms.h[0].mean(1)                       # layer 0 against the step [T], mean over samples
    """
    if not isinstance(cell, Recurrent):
        fail("cell", "an RNN, GRU or LSTM of suspike.nn", f"a {type(cell).__name__}", "Probe each cell of a network.")
    norms = GradientNorms()
    with watch(cell, norms=norms.calls):
        yield norms


def increments(out: Tensor, before: Tensor | None = None) -> Tensor:
    """Return how far each step moved the state, ``h_t - h_{t-1}``, signed [T, B, H]: 0 exactly where a unit was shut.

    Parameters
    ----------
    out : Tensor [T, B, H]
        A layer's states, such as a cell's output.
    before : Tensor [B, H], optional
        The state before the first step; 0 without it.

    Raises
    ------
    ValueError
        If `before` is not of the shape of a step.
    """
    if out.dim() != 3:
        fail("out", "of shape [T, B, H]", f"shape {list(out.shape)}")
    if before is not None and before.shape != out.shape[1:]:
        fail("before", f"of shape {list(out.shape[1:])}", f"shape {list(before.shape)}")
    first = out.new_zeros(out.shape[1:]) if before is None else before
    return out.diff(dim=0, prepend=first[None])


class GateActivity(NamedTuple):
    """How often a gate was open.

    Attributes
    ----------
    by_unit : Tensor [N]
        The share of steps at which each unit was.
    by_step : Tensor [T]
        The share of units that were, at each step.
    """

    by_unit: Tensor
    by_step: Tensor


def gate_activity(gate: GateTable | GateUse) -> GateActivity:
    """Return how often a gate was open, over all samples and their true steps.

    Parameters
    ----------
    gate : GateTable of [T, G], or GateUse of [B, N]
        Of a rhythm, ``gate(n_steps)``; of any call, ``rec[name].gates[layer]`` of `suspike.record`. Units are those of
        the gate: G where some share one in a table.

    Raises
    ------
    ValueError
        If it has no step, or no sample.
    """
    if isinstance(gate, GateTable):
        table = gate.open.detach()
        if not table.numel():
            fail("gate", "of one step or more", f"a table of shape {list(table.shape)}")
        return GateActivity(table.mean(0), table.mean(1))
    share, n_open = gate.share.detach(), gate.open_at
    if not n_open.numel():
        fail("gate", "of one sample and step or more", f"{len(n_open)} samples of {n_open.shape[1]} steps")
    n_samples, n_time = n_open.shape
    n_steps = torch.full((n_samples,), n_time) if gate.n_steps is None else gate.n_steps.cpu()
    weights = (n_steps / n_steps.sum().clamp_min(1)).to(share)
    running = (n_steps[:, None] > torch.arange(n_time)).sum(0)
    by_step = n_open.sum(0) / (running.clamp_min(1) * share.shape[1])
    return GateActivity((share * weights[:, None]).sum(0), by_step)
