"""torch.nn's cells, in whichever environment: peers' have another build of torch, or the same one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sequence_work import Sequence
from torch import Tensor, nn
from work import Built

MODULES = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def started(threads: int, precision: str) -> None:
    """Set torch up: precision "medium" sends products to oneDNN, if they are float32 there to a float32's precision."""
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    x, y = (torch.randn(256, 256, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    exact = x.double() @ y.double()
    error = float((x @ y - exact).norm() / exact.norm())
    if error > 1e-5:  # some processors take "medium" for a leave to round to bfloat16
        raise RuntimeError(f"a product at precision {precision!r} is off by {error:.1e}: it is not one of float32")


def with_weights(cell: Any, work: Sequence) -> Any:
    """Give a cell the weights of `work`."""
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(cell, f"{name}_l0").data.copy_(torch.from_numpy(getattr(work, name)))
    return cell


def module(work: Sequence) -> Any:
    """Return torch.nn's cell with the weights of `work`."""
    return with_weights(MODULES[work.kind](1, work.weight_hh.shape[1]), work)


def parts_of(out: Tensor | None, state: Any) -> list[Any]:
    """Return outputs, if there are, and state variables as arrays."""
    variables = state if isinstance(state, tuple) else (state,)
    tensors = [p for p in (out, *variables) if isinstance(p, Tensor)]
    return [p.detach().numpy() for p in tensors]


def step_by_step(cell: Any, x: Tensor) -> tuple[Tensor, Any]:
    """Return outputs and state of a cell, any package's, that is called for each step."""
    state, out = None, []
    for t in range(len(x)):
        y, state = cell(x[t : t + 1], state)
        out.append(y)
    return torch.cat(out), state


def stream(work: Sequence, threads: int, *, each: bool) -> Built:
    """torch.nn's cell on one sample in inference mode: in one call, or with `each` in one call a step."""
    started(threads, "highest")
    cell, x = module(work), torch.from_numpy(work.x)

    def step() -> tuple[Tensor, Any]:
        with torch.inference_mode():
            if not each:
                found: tuple[Tensor, Any] = cell(x)
                return found
            return step_by_step(cell, x)

    return Built(step, lambda done: parts_of(*done), {"version": torch.__version__})


def train(work: Sequence, threads: int, *, precision: str = "highest") -> Built:
    """Forward and backward of torch.nn's cell: the gradients of its parameters."""
    started(threads, precision)
    cell, x, by_out = module(work), torch.from_numpy(work.x), torch.from_numpy(work.by_out)
    parameters = list(cell.parameters())

    def step() -> list[Tensor]:
        out, _ = cell(x)
        return list(torch.autograd.grad(out if len(by_out) == len(x) else out[-1:], parameters, by_out))

    return Built(step, lambda grads: [np.asarray(g) for g in grads], {"version": torch.__version__})
