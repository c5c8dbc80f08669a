"""Surrogate gradients: their curves, their area, and who else computes the same."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from suspike_testing.comparing import assert_close
from suspike_testing.zoo import KINDS, input_for, make_counts, make_layer, on_path

import suspike as su
from suspike.surrogate import ATan, Boxcar, FastSigmoid, Sigmoid, Surrogate, Triangle
from suspike_kernels import rules
from suspike_kernels.layout import SURROGATES

FORMULAS: list[tuple[Surrogate, Callable[[float], float], bool]] = [
    (Triangle(), lambda d: max(0.0, 0.5 - abs(d)) / 0.25, True),
    (Triangle(2.0), lambda d: max(0.0, 2.0 - abs(d)) / 4, True),
    (Boxcar(), lambda d: 1.0 if abs(d) < 0.5 else 0.0, True),
    (Boxcar(0.125), lambda d: 4.0 if abs(d) < 0.125 else 0.0, True),
    (ATan(), lambda d: 1 / (1 + (math.pi * d) ** 2), True),
    (ATan(5.0), lambda d: 2.5 / (1 + (math.pi / 2 * 5 * d) ** 2), True),
    (FastSigmoid(), lambda d: 1 / (1 + 25 * abs(d)) ** 2, False),
    (FastSigmoid(2.0), lambda d: 1 / (1 + 2 * abs(d)) ** 2, False),
    (Sigmoid(), lambda d: 25 / (2 + math.exp(25 * d) + math.exp(-25 * d)) if abs(d) < 20 else 0.0, True),
    (Sigmoid(3.0), lambda d: 3 / (2 + math.exp(3 * d) + math.exp(-3 * d)), True),
]
IDS = [str(f[0]) for f in FORMULAS]
POINTS = [-9.0, -1.0, -0.5, -0.3, -0.125, -1e-3, -0.0, 0.0, 1e-3, 0.1, 0.125, 0.25, 0.4999, 0.5, 1.5, 9.0]


def slope_by_autograd(surrogate: Any, distance: torch.Tensor) -> torch.Tensor:
    leaf = distance.clone().requires_grad_()
    surrogate(leaf).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.parametrize(("surrogate", "formula", "has_unit_area"), FORMULAS, ids=IDS)
def test_a_curve_is_its_formula(surrogate: Surrogate, formula: Callable[[float], float], has_unit_area: bool) -> None:
    at = torch.tensor(POINTS, dtype=torch.float64)
    wanted = np.array([formula(d) for d in POINTS])
    found = slope_by_autograd(surrogate, at).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(surrogate.slope(at).numpy(), found)
    assert surrogate(at).tolist() == [float(d > 0) for d in POINTS], "a step, shut at 0 itself"
    if surrogate.compact:
        assert not found[np.abs(POINTS) >= surrogate.scale].any()
    if has_unit_area:
        grid = torch.linspace(-400, 400, 4_000_001, dtype=torch.float64)
        area = torch.trapezoid(surrogate.slope(grid), grid).item()
        tail = 4 / (math.pi**2 * surrogate.scale * 400) if isinstance(surrogate, ATan) else 0
        assert area + tail == pytest.approx(1, abs=2e-3 if isinstance(surrogate, Boxcar) else 1e-6)
    extremes = torch.tensor([1e4, -1e4, 3e38, -3e38])
    assert slope_by_autograd(surrogate, extremes).isfinite().all()


@pytest.mark.parametrize(("surrogate", "formula", "_"), FORMULAS, ids=IDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kernels_have_the_same_curve(surrogate: Surrogate, formula: Any, _: bool, dtype: Any) -> None:
    shape = SURROGATES.index(surrogate.shape)
    for d in POINTS:
        carries = rules.carries(dtype(d), dtype(surrogate.scale), shape)
        assert bool(carries) == (not surrogate.compact or abs(d) < surrogate.scale)
        if carries:
            found = rules.surrogate(dtype(d), dtype(surrogate.scale), shape)
            assert found == pytest.approx(
                formula(float(dtype(d))), rel=1e-5 if dtype is np.float32 else 1e-12, abs=1e-30
            )


@pytest.mark.parametrize("slope", [None, 2.0, 7.5])
@pytest.mark.parametrize(("name", "ours"), [("atan", ATan), ("fast_sigmoid", FastSigmoid), ("sigmoid", Sigmoid)])
def test_snntorch_computes_the_same_gradient(name: str, ours: Any, slope: float | None) -> None:
    theirs = getattr(pytest.importorskip("snntorch.surrogate", reason="snntorch is not installed"), name)
    distance = torch.cat([torch.linspace(-2, 2, 401, dtype=torch.float64), torch.randn(50).double()])
    given = () if slope is None else (slope,)
    found, wanted = slope_by_autograd(ours(*given), distance), slope_by_autograd(theirs(*given), distance)
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-12)
    assert torch.equal(ours(*given)(distance), theirs(*given)(distance).to(distance.dtype))


@pytest.mark.parametrize("surrogate", [ATan(), FastSigmoid(3.0), Sigmoid(4.0)], ids=str)
@pytest.mark.parametrize("gate", ["none", "rhythm", "input"])
def test_one_that_is_not_compact_takes_dense_tensors(surrogate: Surrogate, gate: str) -> None:
    assert not surrogate.compact
    layer, x = make_layer("LIF", gate, surrogate=surrogate), make_counts()
    name = type(surrogate).__name__
    with pytest.raises(
        ValueError, match=f"^`x` must be a dense tensor: the gradient of {name} reaches every place, got"
    ):
        layer(su.Spikes.from_dense(x))
    spk, state = layer(x)
    by_v = torch.autograd.grad(spk.sum() + state.v.sum(), layer.weight)[0]
    assert by_v.abs().sum() > 0
    same = make_layer("LIF", gate)  # a surrogate changes no spike
    assert torch.equal(same(x)[0], spk)
    assert spk.sum() > 20


def test_a_wide_triangle_and_a_wide_atan_see_every_place_alike() -> None:
    """A neuron alone and a layer use the surrogate that they were given, on each path that can take it."""
    x = make_counts()
    for surrogate in (Triangle(0.3), Triangle(1.5), Boxcar(0.2)):
        found = []
        for kind in KINDS:
            layer = make_layer("LIF", "none", surrogate=surrogate)
            with on_path(kind):
                out, _ = layer(input_for(kind, x))
            out = out if isinstance(out, torch.Tensor) else out.dense()
            found.append(torch.autograd.grad((out * x.sum(-1, keepdim=True)).sum(), layer.bias)[0].numpy())
        for g in found[:-1]:
            assert_close(g, found[-1], 1e-9)
    layer = make_layer("LIF", "none", surrogate=ATan(3.0))
    neuron, cur = layer.neuron, (x @ layer.weight).detach().requires_grad_()
    by = []
    for path in ("fused", "torch"):
        with su.nn.path(path):
            by.append(torch.autograd.grad(neuron(cur)[0].sum(), cur)[0])
    assert_close(by[0].numpy(), by[1].numpy(), 1e-9)
    assert (by[1] != 0).all(), "it reaches every place"


@pytest.mark.parametrize(("kind", "name"), [(Triangle, "width"), (Boxcar, "width"), (ATan, "alpha"), (Sigmoid, "k")])
def test_a_bad_width_is_named(kind: Any, name: str) -> None:
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=re.escape(f"`{name}` must be above 0, got {bad!r}.")):
            kind(bad)
