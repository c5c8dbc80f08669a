"""The fused scan as a torch function, against a loop in torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from suspike.nn.scan import Scanned, scan
from suspike_kernels.layout import SURROGATES
from suspike_kernels.reference import Surrogate


class Step(torch.autograd.Function):
    """A step with a surrogate gradient, written from its definition."""

    @staticmethod
    def forward(ctx: Any, distance: Tensor, width: float, shape: str) -> Tensor:
        ctx.save_for_backward(distance)
        ctx.width, ctx.shape = width, shape
        return (distance > 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (d,), w = ctx.saved_tensors, ctx.width
        slope = {
            "triangle": lambda: torch.relu(w - d.abs()) / w**2,
            "boxcar": lambda: (d.abs() < w).to(d.dtype) / (2 * w),
            "atan": lambda: w / 2 / (1 + (torch.pi / 2 * w * d) ** 2),
            "fast_sigmoid": lambda: 1 / (1 + w * d.abs()) ** 2,
            "sigmoid": lambda: w * torch.sigmoid(w * d) * torch.sigmoid(-w * d),
        }[ctx.shape]()
        return grad * slope, None, None


def loop(cur: Tensor, state: Tensor, beta: Tensor, threshold: Tensor, *, shape: str, width: float, reset: int,
         attached: bool, table: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    v, spk, trace = state[0], [], []
    for t in range(len(cur)):
        u = beta * v + cur[t]
        gate = torch.ones_like(u) if table is None else table[:, t].repeat_interleave(u.shape[1] // table.shape[2], 1)
        high = v + gate * (u - v)
        high = torch.where(gate.bool(), u, v).detach() + high - high.detach()  # the forward pass bit for bit
        s = Step.apply(high - threshold, width, shape) * gate.detach()
        seen = s if attached else s.detach()
        v = high - seen * (high if reset == 0 else threshold if reset == 1 else 0)
        spk.append(s)
        trace.append(v)
    return torch.stack(spk), torch.stack(trace), v[None]


def tensors(dtype: torch.dtype = torch.float64, n: int = 6) -> dict[str, Tensor]:
    make = torch.Generator().manual_seed(3)

    def rand(*size: int) -> Tensor:
        return torch.rand(*size, generator=make, dtype=torch.float64).to(dtype)

    given = {
        "cur": rand(9, 3, n) - 0.3, "state": rand(1, 3, n), "beta": 0.5 + rand(n) / 2, "threshold": 0.3 + rand(n),
    }  # fmt: skip
    return {name: x.requires_grad_() for name, x in given.items()}


@pytest.mark.parametrize("shape", SURROGATES)
@pytest.mark.parametrize(("reset", "attached"), [(0, True), (1, False)])
def test_loop(shape: str, reset: int, attached: bool) -> None:
    given, width = tensors(), 0.5 if shape in ("triangle", "boxcar") else 4.0
    table = (torch.rand(1, 9, 2, generator=torch.Generator().manual_seed(1)) < 0.7).double().requires_grad_()
    mine = scan(
        **given, table=table, near=torch.ones_like(table, dtype=torch.bool), reset=reset, attached=attached,
        surrogate=Surrogate(SURROGATES.index(shape), width), trace=True,
    )  # fmt: skip
    right = loop(**given, shape=shape, width=width, reset=reset, attached=attached, table=table)
    weights = [torch.rand(x.shape, generator=torch.Generator().manual_seed(7), dtype=x.dtype) for x in right]
    for found, wanted in zip(mine[:3], right, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-13)
    names = [*given.values(), table]
    by = torch.autograd.grad(sum((w * x).sum() for w, x in zip(weights, mine[:3], strict=True)), names)
    wanted = torch.autograd.grad(sum((w * x).sum() for w, x in zip(weights, right, strict=True)), names)
    for found, expected in zip(by, wanted, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_readout_by_finite_differences() -> None:
    given = tensors(n=2)
    threshold = torch.full((2,), torch.inf, dtype=torch.float64)
    del given["threshold"]

    def membrane(*values: Tensor) -> Tensor:
        return scan(
            **dict(zip(given, values, strict=True)), threshold=threshold, reset=2, spikes=False, trace=True
        ).trace

    assert torch.autograd.gradcheck(membrane, tuple(given.values()))


def test_cuba_readout_by_finite_differences() -> None:
    given = tensors(n=2)
    given["decay"] = torch.tensor([0.6, 0.7], dtype=torch.float64, requires_grad=True)
    given["state"] = torch.rand(2, 3, 2, dtype=torch.float64).requires_grad_()
    given["threshold"] = torch.full((2,), torch.inf, dtype=torch.float64)
    free = [name for name in given if name != "threshold"]

    def membrane(*values: Tensor) -> Tensor:
        return scan(**given | dict(zip(free, values, strict=True)), kind=1, reset=2, spikes=False, trace=True).trace

    assert torch.autograd.gradcheck(membrane, tuple(given[name] for name in free))


def test_nothing_is_kept_without_gradients() -> None:
    given = tensors()
    with torch.no_grad():
        assert scan(**given).spk.grad_fn is None
    plain = {name: x.detach() for name, x in given.items()}
    assert scan(**plain).spk.grad_fn is None


def test_only_what_is_wanted() -> None:
    given = {name: x.detach() for name, x in tensors(torch.float32).items()}
    given["cur"].requires_grad_()
    out: Scanned = scan(**given, surrogate=Surrogate(0, 0.5))
    out.spk.sum().backward()
    assert given["cur"].grad is not None
    assert given["beta"].grad is None
    out = scan(**given, surrogate=Surrogate(0, 0.5))
    out.spk.sum().backward()  # a gradient of ones, expanded: no memory of its own
    with pytest.raises(RuntimeError, match="second time"):
        out.spk.sum().backward()


def test_threads_and_layout_change_nothing() -> None:
    given = {name: x.detach() for name, x in tensors(torch.float32, n=70).items()}
    one = scan(**given).spk
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(one, scan(**given).spk)
    finally:
        torch.set_num_threads(threads)
    given["cur"] = given["cur"].transpose(0, 2).contiguous().transpose(0, 2)
    assert torch.equal(one, scan(**given).spk)


def test_drive_gate() -> None:
    given = tensors(torch.float32)
    kappa, width, scale = (torch.full((6,), x, requires_grad=x == 0.2) for x in (0.2, 0.1, 0.5))
    out = scan(**given, kappa=kappa, gate_width=width, gate_scale=scale, surrogate=Surrogate(0, 0.5))
    assert torch.equal(out.n_open, (given["cur"].abs() > kappa).sum(0))
    assert torch.equal(out.open_at.T, (given["cur"].abs() > kappa).sum(2))
    (out.spk.sum() + out.ramp.sum()).backward()
    assert kappa.grad is not None
    assert bool(kappa.grad.any())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu() -> None:
    given = tensors(torch.float32)
    on = {name: x.detach().cuda().requires_grad_() for name, x in given.items()}
    here, there = (scan(**g, surrogate=Surrogate(2, 2.0), trace=True) for g in (given, on))
    assert torch.equal(here.spk, there.spk.cpu())
    for found, mine in ((there, on), (here, given)):
        (found.spk.sum() + found.trace.sum()).backward()
        assert mine["cur"].grad is not None
    for name, x in given.items():
        torch.testing.assert_close(x.grad, on[name].grad.cpu())
