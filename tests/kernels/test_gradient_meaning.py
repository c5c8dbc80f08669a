"""The gradients of the plain loops against automatic differentiation of a layer written anew, in dense torch.

That layer is checked in its turn: with every step smooth (the integral of its surrogate) its gradients must be those of
numbers. What a gradient does not run through, by definition, is held at its value there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from suspike_testing.cases import GATES, SHAPES, Case, forward_gates, make_case
from suspike_testing.comparing import assert_close
from torch import Tensor

from suspike_kernels import reference
from suspike_kernels.layout import NEURONS, RESETS
from suspike_kernels.reference import Layer, LayerGrads


class Step(torch.autograd.Function):
    """1 above 0, with the surrogate for its derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, width: Tensor, shape: str) -> Tensor:
        ctx.save_for_backward(x, width)
        ctx.shape = shape
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, width = ctx.saved_tensors
        slope = 0.5 / width if ctx.shape == "boxcar" else (width - x.abs()) / width**2
        return torch.where(x.abs() < width, grad * slope, torch.zeros_like(x)), None, None


def smooth_step(x: Tensor, width: Tensor, shape: str) -> Tensor:
    """From 0 to 1 within `width` of 0: the integral of the surrogate."""
    z = (x / width).clamp(-1, 1)
    if shape == "boxcar":
        return (z + 1) / 2
    return torch.where(z < 0, (1 + z) ** 2 / 2, 1 - (1 - z) ** 2 / 2)


class Held:
    """The values that a gradient does not run through: kept from a first run, and handed out again in the next ones."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []
        self.at = 0

    def __call__(self, x: Tensor) -> Tensor:
        if self.at == len(self.kept):
            self.kept.append(x.detach())
        self.at += 1
        return self.kept[self.at - 1]


def leaves_of(layer: Layer) -> dict[str, Tensor]:
    """All that a gradient is wanted of, by the names of `LayerGrads`; `source`: the counts of events [T, B, n_in]."""
    gate, neurons = layer.gate, layer.neurons
    arrays = {
        "source": layer.events.dense(np.float64), "current": layer.current,
        **{name: getattr(layer.synapses, name) for name in ("weight", "recurrent", "bias")},
        **{name: getattr(neurons, name) for name in ("beta", "threshold", "decay", "a", "b")},
        "gate": gate.open.astype(np.float64) if gate.kind == 1 else gate.a, "gate_recurrent": gate.recurrent,
        "kappa": gate.kappa, "state": layer.state, "spk": layer.spk,
    }  # fmt: skip
    return {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}


def run(
    case: Case, at: dict[str, Tensor], step: Callable[..., Tensor], constant: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return spikes [T, B, N], state, the last spikes, trace and ramp."""
    layer, shape = case.layer, SHAPES[case.surrogate.shape]
    kind, gate, n = layer.neurons.kind, layer.gate, len(layer.synapses.bias)
    reset, beta, threshold = RESETS[layer.neurons.reset], at["beta"], at["threshold"]
    half, width, scale = (torch.as_tensor(np.float64(x)) for x in (case.surrogate.width, gate.width, gate.scale))
    v, second, last = at["state"][0], at["state"][-1], at["spk"]
    spikes, trace, ramp = [], [], torch.zeros(len(last), forward_gates(layer), dtype=torch.float64)
    for t in range(layer.events.n_steps):
        cur = at["source"][t] @ at["weight"] + at["bias"]
        if len(at["recurrent"]):
            cur = cur + last @ at["recurrent"]
        if len(at["current"]):
            cur = cur + at["current"][t]
        g = torch.ones(1, dtype=torch.float64)
        if gate.kind == 1:
            g = at["gate"][:, t]
        elif gate.kind > 1:
            a = cur.abs() - at["kappa"] if gate.kind == 3 else at["gate"][:, t]
            if len(at["gate_recurrent"]):
                a = a + last @ at["gate_recurrent"]
            g = step(a, width, "triangle")
            ramp = ramp + ((a / scale + 1) / 2).clamp(0, 1)
        g = g.repeat_interleave(n // g.shape[-1], -1)
        if kind == 0:
            u = beta * v + cur
        elif kind == 1:
            candidate = at["decay"] * second + cur
            u = beta * v + candidate
            second = second + g * (candidate - second)
        else:
            u = beta * v + (1 - beta) * (cur - second)
        v = v + g * (u - v)
        s = step(v - threshold, half, shape) * constant(g)
        seen = s if layer.neurons.attached else constant(s)
        v = v * (1 - seen) if reset == "zero" else v - threshold * seen if reset == "subtract" else v
        if kind == 2:
            candidate = at["decay"] * second + (1 - at["decay"]) * (at["a"] * v + at["b"] * s)
            second = second + g * (candidate - second)
        spikes.append(s)
        trace.append(v)
        last = s
    state = torch.stack([v, second][: len(at["state"])])
    return torch.stack(spikes), state, last, torch.stack(trace), ramp


def loss_of(case: Case, outs: tuple[Tensor, ...]) -> Tensor:
    pairs = zip(outs, case.dense_grads(), strict=True)
    return torch.stack([(torch.as_tensor(g) * x).sum() for x, g in pairs]).sum()


KINDS = list(product(RESETS, (False, True), SHAPES))


def small(neuron: str, gate: str, i: int, **sizes: int) -> Case:
    """A layer of the i-th kind, everything else of it changing from one kind to the next."""
    reset, attached, shape = KINDS[i]
    return make_case(
        neuron=neuron, gate=gate, reset=reset, attached=attached, shape=shape, width=(0.5, 0.4, 0.7)[i % 3],
        group=(1, 2, 4)[i % 3], talk=i % 4 > 0, recurrent=i % 5 > 0, current=i % 2 == 0, trace=True, dtype="float64",
        density=0.5, n_in=3, n_units=4, seed=i, **sizes,
    )  # fmt: skip


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("gate", GATES)
def test_gradients_equal_automatic_differentiation(neuron: str, gate: str) -> None:
    seen: Counter[str] = Counter()
    for i in range(len(KINDS)):
        case = small(neuron, gate, i, n_steps=9, n_samples=3)
        found, at = case.forward(reference), leaves_of(case.layer)
        outs = run(case, at, lambda *args: Step.apply(*args), lambda x: x.detach())  # type: ignore[no-untyped-call]
        np.testing.assert_array_equal(outs[0].detach().numpy(), found.spikes.dense(np.float64))
        assert_close(found.state, outs[1].detach().numpy(), 1e-12, "state")
        assert_close(found.trace, outs[3].detach().numpy(), 1e-12, "trace")
        assert_close(found.ramp, outs[4].detach().numpy(), 1e-12, "ramp")
        grads = torch.autograd.grad(loss_of(case, outs), list(at.values()), allow_unused=True)
        wanted = {
            name: np.zeros(x.shape) if grad is None else grad.numpy()
            for (name, x), grad in zip(at.items(), grads, strict=True)
        }
        sample, step, _ = case.sources.places()
        wanted["source"] = wanted["source"][step, sample, case.sources.idx]
        if case.layer.gate.kind == 1:
            wanted["gate"] *= case.layer.gate.near
        by = case.backward(reference, found)
        for name in LayerGrads._fields:
            assert_close(getattr(by, name), wanted[name], 1e-11, name, floor=1e-13)
            seen[name] += np.count_nonzero(wanted[name])
        seen["spikes"] += len(found.spikes.idx)
        seen["silent"] += int((found.value == 0).sum())
    absent = {"decay"} if neuron == "lif" else set()
    absent |= {"a", "b"} if neuron != "adlif" else set()
    absent |= {"gate"} if gate in ("none", "drive") else set()
    absent |= {"gate_recurrent"} if gate != "input" else set()
    absent |= {"kappa"} if gate != "drive" else set()
    for name in {*LayerGrads._fields, "spikes", "silent"} - absent:
        assert seen[name] > 30, (name, seen)


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("gate", ["none", "table", "input", "drive"])
def test_the_layer_in_torch_has_the_gradients_of_numbers(neuron: str, gate: str) -> None:
    for i in range(len(KINDS)):
        case = small(neuron, gate, i, n_steps=4, n_samples=2)
        width = np.maximum(case.layer.gate.width, 0.2)  # a smooth step of no width is none
        case = case.with_gate(case.layer.gate._replace(width=width))
        at, held = {name: x for name, x in leaves_of(case.layer).items() if x.numel()}, Held()
        empty = {name: x for name, x in leaves_of(case.layer).items() if not x.numel()}

        def loss(*arrays: Tensor, case: Case = case, held: Held = held, at: Any = at, empty: Any = empty) -> Tensor:
            held.at = 0
            return loss_of(case, run(case, {**dict(zip(at, arrays, strict=True)), **empty}, smooth_step, held))

        assert torch.autograd.gradcheck(loss, tuple(at.values()), fast_mode=True, atol=1e-6, rtol=1e-5)
        assert len(held.kept) == 4 * (1 if case.layer.neurons.attached else 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_surrogate_is_the_slope_of_the_smooth_step(shape: str) -> None:
    width = torch.tensor(0.4, dtype=torch.float64)
    x = torch.linspace(-0.61, 0.63, 57, dtype=torch.float64, requires_grad=True)
    (smooth,) = torch.autograd.grad(smooth_step(x, width, shape).sum(), x)
    (step,) = torch.autograd.grad(Step.apply(x, width, shape).sum(), x)  # type: ignore[no-untyped-call]
    assert_close(step.numpy(), smooth.numpy(), 1e-12)
    ends = smooth_step(torch.tensor([-0.4, 0.0, 0.4], dtype=torch.float64), width, shape)
    assert ends.tolist() == [0, 0.5, 1], "the area is 1"
