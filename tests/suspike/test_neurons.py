"""Every neuron with every gate: all paths agree, whole and split and step by step; parameters stay in their range."""

from __future__ import annotations

import contextlib
import math
import re
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from suspike_testing.comparing import assert_close, assert_same_bits
from suspike_testing.nets import dense_of
from suspike_testing.zoo import (
    FIRING,
    KINDS,
    N_IN,
    NEURONS,
    PAIRS,
    Found,
    N,
    found_of,
    input_for,
    make_counts,
    make_front,
    make_layer,
    make_start,
    on_path,
    run_all,
    tensors_of,
)
from torch import Tensor

import suspike as su
from suspike import nn

EPSILON = {torch.float32: 1e-5, torch.float64: 1e-9}
RESETS = list(product(("zero", "subtract", "none"), (False, True)))
SURROGATES = (su.surrogate.Triangle(0.4), su.surrogate.Boxcar(0.3))


def assert_same_runs(found: Found, wanted: Found, what: str) -> None:
    """Equal spikes and states to the last bit (but the sign of a zero), gradients close."""
    assert (found.out == wanted.out).all(), f"{what}: {int((found.out != wanted.out).sum())} outputs differ"
    for name, x in wanted.end.items():
        assert (found.end[name] == x).all(), f"{what}: {name}"
    epsilon = EPSILON[wanted.out.dtype]
    floor = epsilon / 10 * max(float(g.norm()) for g in wanted.by.values())
    for name, g in wanted.by.items():
        assert_close(found.by[name].numpy(), g.numpy(), epsilon, f"{what}: {name}", floor=floor)


def variants(neuron: str) -> list[dict[str, Any]]:
    if neuron not in FIRING:
        return [{}]
    return [
        {"reset": reset, "attached": attached, "surrogate": surrogate}
        for (reset, attached), surrogate in product(RESETS, SURROGATES)
    ]


@pytest.mark.parametrize(("neuron", "gate"), PAIRS)
def test_paths_agree(neuron: str, gate: str) -> None:
    counts, front, n_spikes = make_counts(12, 3), make_front(), 0
    nonzero: set[str] = set()
    for options in variants(neuron):
        layer = make_layer(neuron, gate, **options)
        wanted = run_all(layer, "torch", counts, front=front)
        for kind in KINDS[:-1]:
            assert_same_runs(run_all(layer, kind, counts, front=front), wanted, f"{kind} {options}")
        n_spikes += int(wanted.out.count_nonzero())
        nonzero |= {name for name, g in wanted.by.items() if g.abs().max() > 1e-6}
    assert n_spikes > 20 * len(variants(neuron))
    assert nonzero == set(wanted.by), "each parameter and variable takes a gradient"


@pytest.mark.parametrize(("neuron", "gate"), PAIRS)
def test_paths_agree_in_float32(neuron: str, gate: str) -> None:
    layer = make_layer(neuron, gate, dtype=torch.float32)
    counts, front = make_counts(9, 3, dtype=torch.float32, seed=2), make_front(torch.float32)
    wanted = run_all(layer, "torch", counts, front=front)
    for kind in KINDS[:-1]:
        assert_same_runs(run_all(layer, kind, counts, front=front), wanted, kind)


@pytest.mark.parametrize(("neuron", "gate"), PAIRS)
def test_a_neuron_alone_steps_as_it_runs_on_currents_of_any_shape(neuron: str, gate: str) -> None:
    layer = make_layer(neuron, gate)
    alone, counts, options = layer.neuron, make_counts(), {}
    cur = (counts @ layer.weight).detach().requires_grad_()
    if isinstance(alone.gate, nn.InputGate):
        options = {"x": counts}

    def run(how: str) -> Found:
        start = make_start(alone)
        if how == "steps":
            state, outs = start, []
            for t, cur_t in enumerate(cur):
                out, state = alone.step(cur_t, state, **{k: x[t] for k, x in options.items()})
                outs.append(out)
            out = torch.stack(outs)
        elif how == "shaped":
            out, state = alone(cur.reshape(12, 2, 2, 3, 4), start, **options)
            assert out.shape == (12, 2, 2, 3, 4)
            out = out.flatten(2)
        else:
            with contextlib.nullcontext() if how == "free" else nn.path(how):
                out, state = alone(cur, start, **options)
        assert state.t == 17
        leaves = {k: p for k, p in alone.named_parameters() if p.requires_grad}
        return found_of(leaves | tensors_of(start) | {"cur": cur}, out, state)

    wanted = run("torch")
    assert wanted.out.count_nonzero() > 20
    for how in ("free", "fused", "steps", "shaped"):
        if how != "fused" or not isinstance(alone.gate, nn.InputGate):
            assert_same_runs(run(how), wanted, how)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("neuron", "gate"), [p for p in PAIRS if p[1] in ("none", "grouped", "recurrent", "drive")])
def test_two_stretches_equal_one(neuron: str, gate: str, kind: str) -> None:
    layer, counts = make_layer(neuron, gate), make_counts()
    start = make_start(layer.neuron)
    leaves = {k: p for k, p in layer.named_parameters() if p.requires_grad} | tensors_of(start)

    def run(x: Tensor, state: Any) -> Any:
        with on_path(kind):
            out, state = layer(input_for(kind, x), state)
        return out.dense() if isinstance(out, su.Spikes) else out, state

    whole, end = run(counts, start)
    wanted = found_of(leaves, whole, end)
    first, middle = run(counts[:5], start)
    second, last = run(counts[5:], middle)
    assert_same_runs(found_of(leaves, torch.cat([first, second]), last), wanted, kind)
    assert last.t == end.t == 17
    nothing, same = run(counts[:0], start)
    assert nothing.shape == (0, 2, N)
    for name, x in tensors_of(same).items():
        assert_same_bits(x.detach().numpy(), getattr(start, name).detach().numpy(), name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("gate", ["grouped", "input", "drive"])
def test_a_closed_neuron_keeps_all_its_variables(neuron: str, gate: str, kind: str) -> None:
    layer = make_layer(neuron, gate, dtype=torch.float32)
    shut = layer.neuron.gate
    with torch.no_grad():
        (shut.log_kappa if isinstance(shut, nn.DriveGate) else shut.bias).fill_(60 if gate == "drive" else -1e3)
    extremes = torch.tensor([-0.0, 0.0, 1e-45, -1e-40, 1e38, -1e38, 1.5, -2.5]).repeat(2, 3)
    start = layer.neuron.state(*[extremes.clone().requires_grad_() for _ in layer.neuron.state._fields[:-1]], 3)
    if hasattr(start, "spk"):
        start = start._replace(spk=torch.ones(2, N))
    with on_path(kind):
        out, end = layer(input_for(kind, make_counts(dtype=torch.float32) + 1), start)
    if neuron in FIRING:
        assert not dense_of(out).any()
        assert not end.spk.any()
    else:
        assert_same_bits(out.detach().numpy(), np.broadcast_to(extremes.numpy(), out.shape))
    for old, new in zip(start.variables, end.variables, strict=True):
        assert_same_bits(new.detach().numpy(), extremes.numpy())
        weights = torch.rand(2, N)
        (by,) = torch.autograd.grad((new * weights).sum(), old, retain_graph=True)
        assert_same_bits(by.numpy(), weights.numpy())


def test_the_adaptive_neuron_by_hand() -> None:
    """Beta 1/2, rho 3/4, a 1, b 2, threshold 1, reset to 0; the adaptation sees the membrane after its own reset."""
    neuron = nn.AdLIF(1, beta=0.5, rho=0.75, a=1.0, b=2.0)
    cur = torch.tensor([1.0, 4.0, 2.0]).reshape(3, 1, 1)
    start = nn.AdLIFState(*(torch.tensor([[x]]) for x in (0.5, 0.25, 0.0)))
    # u = 0.25 + (1 - 0.25) / 2 = 0.625; w = 0.1875 + 0.625 / 4 = 0.34375
    # u = 0.3125 + (4 - 0.34375) / 2 = 2.140625 fires, v = 0; w = 0.2578125 + (0 + 2) / 4 = 0.7578125
    # u = (2 - 0.7578125) / 2 = 0.62109375; w = 0.568359375 + 0.62109375 / 4 = 0.7236328125
    wanted = [(0.625, 0.34375, 0.0), (0.0, 0.7578125, 1.0), (0.62109375, 0.7236328125, 0.0)]
    for cur_t, each in zip(cur, wanted, strict=True):
        _, start = neuron.step(cur_t, start)
        assert tuple(x.item() for x in start[:3]) == each
    for reset, v in (("subtract", 1.140625), ("none", 2.140625)):
        _, state = nn.AdLIF(1, beta=0.5, rho=0.75, a=1.0, b=2.0, reset=reset)(
            cur[1:2], nn.AdLIFState(*(torch.tensor([[x]]) for x in (0.625, 0.34375, 0.0)))
        )
        assert (state.v.item(), state.w.item()) == (v, 0.2578125 + (v + 2) / 4)


def radius(neuron: nn.AdLIF) -> float:
    """The spectral radius of a step below threshold, from its columns: what v = 1 and w = 1 become."""
    quiet = nn.AdLIFState(torch.eye(2)[:, :1].double(), torch.eye(2)[:, 1:].double(), torch.zeros(2, 1).double())
    _, after = neuron.double().step(torch.zeros(2, 1).double(), quiet)
    return float(np.abs(np.linalg.eigvals(torch.cat([after.v, after.w], 1).detach().numpy())).max())


@pytest.mark.parametrize(("beta", "rho"), [(0.5, 0.5), (0.9, 0.7), (0.2, 0.95), (0.99, 0.99)])
def test_the_adaptive_neuron_is_stable_up_to_its_bound(beta: float, rho: float) -> None:
    bound = (1 + beta) * (1 + rho) / ((1 - beta) * (1 - rho))
    inside = nn.AdLIF(1, beta=beta, rho=rho, a=bound * 0.999, threshold=1e9)
    assert radius(inside) < 1
    for a, is_stable in ((1.001 * bound, False), (0.999 * bound, True), (-0.999, True), (-1.001, False)):
        inside.coupling.fixed.fill_(a)
        assert (radius(inside) < 1) == is_stable, a
    for a in (1.001 * bound, -0.1):
        with pytest.raises(ValueError, match=rf"^`a` must be from 0 and below {re.escape(f'{bound:.4g}')}, where it"):
            nn.AdLIF(1, beta=beta, rho=rho, a=a)
    learned = nn.AdLIF(1, beta=beta, rho=rho, a=bound / 2, learn_a=True)
    assert learned.a.item() == pytest.approx(bound / 2, rel=1e-5)


@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("neuron", NEURONS)
def test_wild_steps_of_an_optimizer_leave_parameters_in_range(neuron: str, direction: float) -> None:
    layer = make_layer(neuron, "none", dtype=torch.float32)
    made: Any = layer.neuron
    optimizer = torch.optim.Adam(made.parameters(), lr=20.0)
    for _ in range(12):
        optimizer.zero_grad()
        total = sum((direction * p).sum() for p in made.parameters())
        total.backward()
        optimizer.step()
    assert all(p.abs().min() > 100 for p in made.parameters())
    for name in ("beta", "alpha", "rho"):
        if hasattr(made, name) and neuron + name != "IFbeta":
            value = getattr(made, name)
            assert ((value > 0) & (value < 1)).all(), f"{name} = {value[0]}"
    for name in ("threshold", "a", "b"):
        if hasattr(made, name):
            value = getattr(made, name)
            assert ((value > 0) & value.isfinite()).all(), f"{name} = {value[0]}"
    if isinstance(made, nn.AdLIF):
        beta, rho, a = (x.detach().double() for x in (made.beta, made.rho, made.a))
        assert (a <= (1 + 1e-6) * (1 + beta) * (1 + rho) / ((1 - beta) * (1 - rho))).all(), "rounded, it may touch"
    for kind in KINDS:
        found = run_all(layer, kind, make_counts(dtype=torch.float32))
        assert found.out.isfinite().all()
        assert all(g.isfinite().all() for g in found.by.values()), kind


SYNAPSE = {"beta": "tau_ms", "alpha": "tau_syn_ms"}
TAUS = {
    "LIF": {"beta": "tau_ms"},
    "LI": {"beta": "tau_ms"},
    "CubaLIF": SYNAPSE,
    "CubaLI": SYNAPSE,
    "AdLIF": {"beta": "tau_ms", "rho": "tau_w_ms"},
}


@pytest.mark.parametrize("neuron", TAUS)
@pytest.mark.parametrize("learn", [False, True])
def test_a_leak_is_given_as_such_or_by_its_time_constant(neuron: str, learn: bool) -> None:
    make = getattr(nn, neuron)
    names = TAUS[neuron]
    leaks, taus = (
        {k: math.exp(-1 / (5 + 3 * i)) for i, k in enumerate(names)},
        dict(zip(names.values(), (10.0, 16.0), strict=False)),
    )
    learned = {f"learn_{k}": learn for k in names}
    by_leak, by_tau = make(3, **leaks, **learned), make(3, **taus, dt_ms=2.0, **learned)
    for name, value in leaks.items():
        assert_same_bits(getattr(by_leak, name).detach().numpy(), getattr(by_tau, name).detach().numpy())
        np.testing.assert_allclose(getattr(by_tau, name).detach().numpy(), value, rtol=1e-6)
    for leak, tau in names.items():
        others = {k: v for k, v in leaks.items() if k != leak}
        both = f"`{leak}` must be given, or {tau} with dt_ms instead, got 0.5 and {tau}=3.0."
        cases: list[tuple[dict[str, Any], str]] = [
            ({}, f"`{leak}` must be given, or {tau} with dt_ms instead, got neither."),
            ({leak: 0.5, tau: 3.0, "dt_ms": 1.0}, both),
            ({tau: 3.0}, f"`dt_ms` must be given with {tau}, got None."),
            ({tau: 0.0, "dt_ms": 1.0}, f"`{tau}` must be above 0 ms, got 0.0."),
            ({tau: math.nan, "dt_ms": 1.0}, f"`{tau}` must be above 0 ms, got nan."),
            ({tau: 3.0, "dt_ms": -1.0}, "`dt_ms` must be above 0 ms, got -1.0."),
            ({leak: 1.0}, f"`{leak}` must be above 0 and below 1, got 1.0. It is exp(-dt_ms / tau_ms)."),
        ]
        for options, message in cases:
            with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
                make(3, **others, **options)


def test_an_input_gate_alone_asks_for_its_input() -> None:
    layer = make_layer("LIF", "input")
    message = f"`x` must be the layer's input [T, B, {N_IN}] for an InputGate, got None. Pass it as x=."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        layer.neuron(torch.zeros(3, 2, N, dtype=torch.float64))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        layer.neuron.step(torch.zeros(2, N, dtype=torch.float64))
