"""suspike, a loop over time written by hand, and what bounds them: steps in the project's own environment."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from work import Built, Work

import suspike as su

BLOCK = 16
"""Neurons of a cache line of float32: what a kernel can leave out at once."""


def layer(
    work: Work,
    threads: int,
    *,
    given: str,
    gate: dict[str, Any] | None = None,
    learn_gate: bool = False,
    learn_beta: bool = False,
    learn_threshold: bool = False,
) -> Built:
    """Our layer; `gate` holds the arguments of a RhythmGate.

    It is given event "lists", a "dense" tensor and takes the path that it chooses, or a dense tensor and has to take
    the "fused" or the "torch" path.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    n_in, n = work.weight.shape
    neuron = su.nn.LIF(
        n, beta=work.beta, threshold=work.threshold, reset="subtract",
        gate=None if gate is None else _gate(n, len(work.x), gate, learn=learn_gate),
        surrogate=su.surrogate.Triangle(work.width), learn_beta=learn_beta, learn_threshold=learn_threshold,
    )  # fmt: skip
    dense = su.nn.Dense(n_in, n, neuron, recurrent=len(work.recurrent) > 0, bias=False)
    with torch.no_grad():
        dense.weight.copy_(torch.from_numpy(work.weight))
        if dense.recurrent is not None:
            dense.recurrent.copy_(torch.from_numpy(work.recurrent))
    x = su.Spikes.from_dense(torch.from_numpy(work.x)) if given == "lists" else torch.from_numpy(work.x).float()
    mask = torch.from_numpy(work.mask)
    params = [p for p in dense.parameters() if p.requires_grad]

    def step() -> tuple[Tensor, list[Tensor], Tensor]:
        with su.nn.path(given) if given in su.nn.PATHS else nullcontext():
            out, _ = dense(x)
        counts = out.counts() if isinstance(out, su.Spikes) else out.sum(0)
        loss = (counts * mask).sum()
        return loss.detach(), list(torch.autograd.grad(loss, params)), counts.detach()

    facts = _gate_facts(neuron, len(work.x))
    if given == "lists":
        out, _ = dense(x)
        facts["active"] = len(out.active.idx) / (work.x.shape[0] * work.x.shape[1] * n)
    return Built(step, list, facts)


def halves(work: Work, threads: int) -> Built:
    """Our layer on the two halves of a batch at once, a layer of its own each: what two threads could give at best."""
    parts = [layer(work._replace(x=work.x[:, i::2].copy(), mask=work.mask[i::2]), 1, given="lists") for i in (0, 1)]

    def step() -> tuple[Tensor, list[Tensor], Tensor]:
        with ThreadPoolExecutor(1) as other:
            second = other.submit(parts[1].step)
            loss, grads, counts = parts[0].step()
            by_other = second.result()
        added = [a + b for a, b in zip(grads, by_other[1], strict=True)]
        return loss + by_other[0], added, torch.cat([counts, by_other[2]])

    return Built(step, list, {})


def _gate(n: int, n_steps: int, options: dict[str, Any], *, learn: bool) -> su.nn.RhythmGate:
    gate = su.nn.RhythmGate(n, n_steps=n_steps, **options)
    if gate.amplitude.shape[1] == 1:  # all of the same strength; its phases are sorted
        with torch.no_grad():
            gate.amplitude.fill_(1)
            gate.bias.fill_(-math.cos(math.pi * options["open"]))
    return gate.requires_grad_(learn)


def _gate_facts(neuron: su.nn.LIF, n_steps: int) -> dict[str, Any]:
    """Return the share of open places, and of blocks with an open neuron: the least that a kernel has to touch."""
    if neuron.gate is None:
        return {"open": 1.0, "touched": 1.0}
    is_open = neuron.gate.spread(neuron.gate(n_steps).open).detach().numpy() > 0
    return {"open": float(is_open.mean()), "touched": float(is_open.reshape(n_steps, -1, BLOCK).any(2).mean())}


def loop(work: Work, threads: int) -> Built:
    """The same layer as a user would write it by hand: the input product at once, then a loop over time."""
    torch.set_num_threads(threads)
    x, mask = torch.from_numpy(work.x).float(), torch.from_numpy(work.mask)
    params = [torch.from_numpy(w).requires_grad_() for w in (work.weight, work.recurrent) if len(w)]
    triangle = su.surrogate.Triangle(work.width)

    def step() -> tuple[Tensor, list[Tensor], Tensor]:
        v = spk = counts = torch.zeros(mask.shape)
        for cur in (x @ params[0]).unbind(0):
            v = work.beta * v + (cur + spk @ params[1] if len(params) > 1 else cur)
            spk = triangle(v - work.threshold)
            v = v - work.threshold * spk.detach()
            counts = counts + spk
        loss = (counts * mask).sum()
        return loss.detach(), list(torch.autograd.grad(loss, params)), counts.detach()

    return Built(step, list, {})


def product(work: Work, threads: int, *, precision: str) -> Built:
    """The input product alone, forward and weight gradient: what dense training cannot go below."""
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)  # "medium" sends it to oneDNN
    x, weight = torch.from_numpy(work.x).float(), torch.from_numpy(work.weight).requires_grad_()
    by_out = torch.randn(*work.x.shape[:2], weight.shape[1], generator=torch.Generator().manual_seed(0))

    def step() -> tuple[Tensor, list[Tensor], Tensor]:
        out = x @ weight
        (grad,) = torch.autograd.grad(out, weight, by_out)
        return out[0, 0, 0].detach(), [grad], torch.tensor(torch.nan)

    exact = torch.einsum("tbi,tbn->in", x.double(), by_out.double())
    error = float((step()[1][0] - exact).norm() / exact.norm())
    if error > 1e-5:  # some processors take "medium" for a leave to round to bfloat16
        raise RuntimeError(f"the product at precision {precision!r} is off by {error:.1e}: it is not one of float32")
    return Built(step, list, {})


def neuron(work: Work, threads: int) -> Built:
    """Our neuron alone on a dense current."""
    torch.set_num_threads(threads)
    lif = su.nn.LIF(
        work.x.shape[2], beta=work.beta, threshold=work.threshold, reset="subtract",
        surrogate=su.surrogate.Triangle(work.width),
    )  # fmt: skip
    cur, mask = torch.from_numpy(work.x).requires_grad_(), torch.from_numpy(work.mask)

    def step() -> tuple[None, list[Tensor], Tensor]:
        spk, _ = lif(cur)
        return None, list(torch.autograd.grad(spk, [cur], mask)), spk.detach()

    return Built(step, list, {})


def neuron_copied(work: Work, threads: int) -> Built:
    """What memory alone costs a neuron's step: current to spikes, current and gradient by spikes to gradient."""
    spk, grad = np.empty_like(work.x), np.empty_like(work.x)

    def step() -> tuple[None, list[Any], Any]:
        np.copyto(spk, work.x)
        np.add(work.x, work.mask, out=grad)
        return None, [grad], np.array(np.nan)

    return Built(step, list, {})


def neuron_copied_in_autograd(work: Work, threads: int) -> Built:
    """The same copies in an autograd function, forward and backward: what torch asks of any neuron besides."""
    torch.set_num_threads(threads)
    cur, mask = torch.from_numpy(work.x).requires_grad_(), torch.from_numpy(work.mask)
    made = np.empty_like(work.x), np.empty_like(work.x)

    class Copy(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            np.copyto(made[0], x.detach().numpy())
            return torch.from_numpy(made[0])

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            np.add(grad.numpy(), work.x, out=made[1])
            return torch.from_numpy(made[1])

    def step() -> tuple[None, list[Any], Any]:
        (by,) = torch.autograd.grad(Copy.apply(cur), [cur], mask)
        return None, [by], np.array(np.nan)

    return Built(step, list, {})


def neuron_loop(work: Work, threads: int) -> Built:
    """The neuron alone, as a loop over time written by hand."""
    torch.set_num_threads(threads)
    cur, mask = torch.from_numpy(work.x).requires_grad_(), torch.from_numpy(work.mask)
    triangle = su.surrogate.Triangle(work.width)

    def run(look: Callable[[Tensor], None] = lambda distance: None) -> list[Tensor]:
        v, out = torch.zeros(cur.shape[1:]), []
        for cur_t in cur.unbind(0):
            v = work.beta * v + cur_t
            distance = v - work.threshold
            look(distance)
            out.append(triangle(distance))
            v = v - work.threshold * out[-1].detach()
        return out

    def step() -> tuple[None, list[Tensor], Tensor]:
        spk = torch.stack(run())
        return None, list(torch.autograd.grad(spk, [cur], mask)), spk.detach()

    near: list[int] = []
    with torch.no_grad():
        run(lambda distance: near.append(int((distance.abs() < work.width).sum())))
    return Built(step, list, {"active": sum(near) / work.x.size})
