"""A neuron of torch that computes nothing: our LIF's arguments and results, and two kernels that only copy."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from work import Built, Work

from suspike.nn import LIFState
from suspike_kernels.cpu import memory


@numba.njit(nogil=True)
def _forward(cur: Any, v: Any, beta: Any, threshold: Any, spk: Any, after: Any) -> None:
    for t in range(cur.shape[0]):
        for k in range(cur.shape[1]):
            spk[t, k] = cur[t, k]
    for k in range(after.shape[0]):
        after[k] = v[k]


@numba.njit(nogil=True)
def _backward(cur: Any, by_spk: Any, beta: Any, threshold: Any, out: Any) -> None:
    for t in range(cur.shape[0]):
        for k in range(cur.shape[1]):
            out[t, k] = cur[t, k] + by_spk[t, k]


class _Copy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        given = [x.detach().contiguous() for x in tensors]
        ctx.save_for_backward(*given)
        cur, v, beta, threshold = (x.numpy() for x in given)
        spk, after = memory.empty(cur.shape, cur.dtype), np.empty_like(v)
        rows = len(cur), v.size
        _forward(cur.reshape(rows), v.reshape(-1), beta, threshold, spk.reshape(rows), after.reshape(-1))
        ctx.set_materialize_grads(False)
        return torch.from_numpy(spk), torch.from_numpy(after)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_spk: Tensor, by_state: Tensor | None) -> tuple[Tensor | None, ...]:
        cur, _, beta, threshold = (x.numpy() for x in ctx.saved_tensors)
        out, rows = memory.empty(cur.shape, cur.dtype), (len(cur), cur[0].size)
        by = by_spk.contiguous().numpy()
        _backward(cur.reshape(rows), by.reshape(rows), beta, threshold, out.reshape(rows))
        return torch.from_numpy(out), None, None, None


class Copying(nn.Module):
    """A LIF neuron's parameters, arguments and results, spikes and gradients being copies."""

    beta: Tensor
    threshold: Tensor

    def __init__(self, n_units: int, *, beta: float, threshold: float) -> None:
        super().__init__()
        self.register_buffer("beta", torch.full((n_units,), beta))
        self.register_buffer("threshold", torch.full((n_units,), threshold))

    def forward(self, cur: Tensor, state: LIFState | None = None) -> tuple[Tensor, LIFState]:
        """Copy a current [T, B, N]."""
        if state is None:
            zero = self.beta.new_zeros(cur.shape[1:])
            state = LIFState(zero, zero, 0)
        spk, v = _Copy.apply(cur, state.v, self.beta, self.threshold)  # type: ignore[no-untyped-call]
        return spk, LIFState(v, spk[-1], state.t + len(cur))


def neuron(work: Work, threads: int) -> Built:
    """Our neuron's step on a dense current with such a module in its place."""
    torch.set_num_threads(threads)
    module = Copying(work.x.shape[2], beta=work.beta, threshold=work.threshold)
    cur, mask = torch.from_numpy(work.x).requires_grad_(), torch.from_numpy(work.mask)

    def step() -> tuple[None, list[Tensor], Any]:
        spk, _ = module(cur)
        return None, list(torch.autograd.grad(spk, [cur], mask)), np.array(np.nan)

    return Built(step, list, {})
