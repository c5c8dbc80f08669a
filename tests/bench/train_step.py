"""Time of a training step, forward and backward, against snnTorch, a hand-written loop and the dense product alone.

``make bench`` runs it and writes build/bench/train_step.json. One pinned core, CPU time, implementations interleaved,
medians of ROUNDS rounds with the smallest and the largest; a machine's speed drifts, so read the ratios. The loss is
``sum(counts * mask)`` over the layer's spike counts, the gradients those of its weights; beta is fixed.

Before anything is timed, the event path, the plain torch path and the hand-written loop have to give the same rate,
loss and gradients (weights on a grid, so that no sum depends on its order). snnTorch resets a step later and has
another surrogate: it is timed, and its rate is shown, but it computes something else.
"""

from __future__ import annotations

import ctypes
import gc
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import suspike as su

OUT = Path("build/bench/train_step.json")
ROUNDS = 9
WIDTH, BETA, THRESHOLD = 0.5, 0.95, 1.0
GAIN = {0.02: 0.115, 0.046: 0.07, 0.1: 0.045}
"""Input density and the spread of the input weights at which about 5 % of the neurons fire at a step."""


class Case(NamedTuple):
    """A layer: T steps, B samples, n_in inputs, N neurons."""

    n_steps: int
    n_samples: int
    n_in: int
    n: int
    recurrent: bool


CASES = {"R": Case(250, 128, 700, 256, True), "C": Case(250, 128, 700, 256, False)}
Step = Callable[[], tuple[Tensor, list[Tensor], float]]
"""Runs forward and backward; returns the loss, the gradients by the weights, and the share of places that fire."""


class Work(NamedTuple):
    """What every implementation is given."""

    x: Tensor  # [T, B, n_in]
    weight: Tensor  # [n_in, N]
    recurrent: Tensor  # [N, N]
    mask: Tensor  # [B, N]


def make_work(case: Case, density: float) -> Work:
    """Draw input and weights, the weights on a grid of 2^-10."""
    rng = np.random.default_rng(0)

    def on_grid(*shape: int) -> Tensor:
        return torch.from_numpy((np.round(rng.standard_normal(shape) * 1024) / 1024).astype(np.float32))

    x = torch.from_numpy((rng.random((case.n_steps, case.n_samples, case.n_in)) < density).astype(np.float32))
    weight = torch.round(on_grid(case.n_in, case.n) * GAIN[density] * 1024) / 1024
    recurrent = torch.round(on_grid(case.n, case.n) * 0.05 * 1024) / 1024
    return Work(x, weight, recurrent, on_grid(case.n_samples, case.n) / case.n_samples)


def suspike_layer(case: Case, work: Work) -> su.nn.Dense:
    """Return our layer with the given weights."""
    neuron = su.nn.LIF(case.n, beta=BETA, threshold=THRESHOLD, reset="subtract", surrogate=su.surrogate.Triangle(WIDTH))
    layer = su.nn.Dense(case.n_in, case.n, neuron, recurrent=case.recurrent, bias=False)
    with torch.no_grad():
        layer.weight.copy_(work.weight)
        if layer.recurrent is not None:
            layer.recurrent.copy_(work.recurrent)
    return layer


def active_share(case: Case, work: Work) -> float:
    """Return the share of places that carry a gradient: those that the event path visits in its backward pass."""
    out, _ = suspike_layer(case, work)(su.Spikes.from_dense(work.x))
    return len(out.active.idx) / (case.n_steps * case.n_samples * case.n)


def suspike_step(case: Case, work: Work, *, lists: bool) -> Step:
    """Our layer, on event lists or on the dense tensor."""
    layer = suspike_layer(case, work)
    x = su.Spikes.from_dense(work.x) if lists else work.x
    params = list(layer.parameters())

    def step() -> tuple[Tensor, list[Tensor], float]:
        out, _ = layer(x)
        counts = out.counts() if isinstance(out, su.Spikes) else out.sum(0)
        loss = (counts * work.mask).sum()
        return loss.detach(), list(torch.autograd.grad(loss, params)), counts.detach().mean().item() / case.n_steps

    return step


def loop_step(case: Case, work: Work) -> Step:
    """The same layer as a user would write it by hand: the input product at once, then a loop over time."""
    params = [work.weight.clone().requires_grad_()]
    if case.recurrent:
        params.append(work.recurrent.clone().requires_grad_())
    triangle = su.surrogate.Triangle(WIDTH)

    def step() -> tuple[Tensor, list[Tensor], float]:
        v = spk = torch.zeros(case.n_samples, case.n)
        counts = torch.zeros_like(v)
        for cur in (work.x @ params[0]).unbind(0):
            v = BETA * v + (cur + spk @ params[1] if case.recurrent else cur)
            spk = triangle(v - THRESHOLD)
            v = v - THRESHOLD * spk.detach()
            counts = counts + spk
        loss = (counts * work.mask).sum()
        return loss.detach(), list(torch.autograd.grad(loss, params)), counts.detach().mean().item() / case.n_steps

    return step


def snntorch_step(case: Case, work: Work) -> Step:
    """snnTorch as its tutorials use it: the Linear inside of the loop."""
    import snntorch

    linear = torch.nn.Linear(case.n_in, case.n, bias=False)
    with torch.no_grad():
        linear.weight.copy_(work.weight.T)
    params = [linear.weight]
    neuron: Any
    if case.recurrent:
        neuron = snntorch.RLeaky(beta=BETA, all_to_all=True, linear_features=case.n)
        with torch.no_grad():
            neuron.recurrent.weight.copy_(work.recurrent.T)
            neuron.recurrent.bias.zero_()
        params.append(neuron.recurrent.weight)
    else:
        neuron = snntorch.Leaky(beta=BETA)

    def step() -> tuple[Tensor, list[Tensor], float]:
        spk = mem = torch.zeros(case.n_samples, case.n)
        counts = torch.zeros_like(mem)
        for x_t in work.x.unbind(0):
            cur = linear(x_t)
            spk, mem = neuron(cur, spk, mem) if case.recurrent else neuron(cur, mem)
            counts = counts + spk
        loss = (counts * work.mask).sum()
        return loss.detach(), list(torch.autograd.grad(loss, params)), counts.detach().mean().item() / case.n_steps

    return step


def product_step(case: Case, work: Work, *, precision: str) -> Step:
    """The input product alone, forward and weight gradient: what dense training cannot go below."""
    weight = work.weight.clone().requires_grad_()
    ones = torch.ones(case.n_steps, case.n_samples, case.n)

    def step() -> tuple[Tensor, list[Tensor], float]:
        torch.set_float32_matmul_precision(precision)
        try:
            out = work.x @ weight
            out.backward(ones)
            grad, weight.grad = weight.grad, None
        finally:
            torch.set_float32_matmul_precision("highest")
        assert grad is not None, "the product has a gradient"
        return out.detach().sum(), [grad], float("nan")

    return step


STEPS: dict[str, Callable[[Case, Work], Step]] = {
    "suspike, event lists": lambda c, w: suspike_step(c, w, lists=True),
    "suspike, dense tensor": lambda c, w: suspike_step(c, w, lists=False),
    "snntorch": snntorch_step,
    "torch loop": loop_step,
    "dense product (MKL)": lambda c, w: product_step(c, w, precision="highest"),
    "dense product (oneDNN)": lambda c, w: product_step(c, w, precision="medium"),
}
SAME = ("suspike, event lists", "suspike, dense tensor", "torch loop")


def require_same(steps: dict[str, Step]) -> None:
    """Stop where implementations of the same rule disagree: nothing wrong is timed."""
    loss, grads, rate = steps[SAME[-1]]()
    for name in SAME[:-1]:
        found_loss, found_grads, found_rate = steps[name]()
        worst = max(float((a - b).norm() / b.norm()) for a, b in zip(found_grads, grads, strict=True))
        if found_rate != rate or not torch.isclose(found_loss, loss, rtol=1e-5) or worst > 1e-5:
            sys.exit(
                f"{name}: loss {found_loss} for {loss}, rate {found_rate} for {rate}, gradients off by {worst:.1e}"
            )


def peak_mb(case: str, density: float, impl: str) -> float:
    """Return by how much a step raises the peak resident memory of a process, in MB, after a first step."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return float(pool.apply(_peak_mb, (case, density, impl)))


def _peak_mb(case: str, density: float, impl: str) -> float:
    torch.set_num_threads(1)
    step = STEPS[impl](CASES[case], make_work(CASES[case], density))
    step()
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _status("VmRSS")
    step()
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1])


def measure(case: str, density: float) -> list[dict[str, Any]]:
    """Time every implementation of a case, interleaved."""
    work = make_work(CASES[case], density)
    steps = {name: make(CASES[case], work) for name, make in STEPS.items()}
    require_same(steps)
    active = active_share(CASES[case], work)
    times: dict[str, list[float]] = {name: [] for name in steps}
    rates = {name: step()[2] for name, step in steps.items()}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            started = time.process_time()
            step()
            times[name].append(1e3 * (time.process_time() - started))
    medians = {name: statistics.median(each) for name, each in times.items()}
    return [
        {
            "case": case, "impl": name, "density": density, "threads": 1, "ms": medians[name],
            "min_ms": min(times[name]), "max_ms": max(times[name]), "rounds": ROUNDS,
            "ratio_to_snntorch": medians["snntorch"] / medians[name], "peak_mb": peak_mb(case, density, name),
            "rate": rates[name], "active": active, "width": WIDTH,
        }
        for name in steps
    ]  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows = [row for case in CASES for density in GAIN for row in measure(case, density)]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"machine": platform.processor() or platform.machine(), "rows": rows}, indent=1))
    table = Table(title="Training step, forward and backward: CPU time on one core")
    for column in ("case", "density", "implementation", "ms", "min to max", "x snntorch", "peak MB", "rate"):
        table.add_column(column, justify="left" if column == "implementation" else "right")
    for row in rows:
        spread = f"{row['min_ms']:.0f} to {row['max_ms']:.0f}"
        cells = (
            f"{row['ms']:.1f}",
            spread,
            f"{row['ratio_to_snntorch']:.2f}",
            f"{row['peak_mb']:.0f}",
            f"{row['rate']:.3f}",
        )
        table.add_row(row["case"], f"{row['density']:.1%}", row["impl"], *cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
