"""Other libraries' neurons, spike for spike: what has to be set here to reproduce them.

A leak of few bits in float64 makes every product and sum exact: the order of operations does not matter, and spikes are
compared for equality. With other leaks, the spikes that differ are counted, and each is shown to sit at the threshold.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from suspike_testing.cases import GRID
from suspike_testing.comparing import assert_close
from torch import Tensor

import suspike as su
from suspike import nn
from suspike.surrogate import ATan, FastSigmoid

N, B = 7, 3


def currents(n_steps: int, *, scale: float = 0.4, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    drawn = torch.randn(n_steps, B, N, generator=generator, dtype=torch.float64) * scale + scale / 2
    return ((drawn / GRID).round() * GRID).to(dtype)


def leaky(beta: float, cur: Tensor, *, threshold: float = 1.0, **options: Any) -> tuple[Tensor, Tensor]:
    """snnTorch's spikes [T, B, N], and its membrane before each step's own late reset."""
    snntorch = pytest.importorskip("snntorch", reason="snntorch is not installed")
    neuron = snntorch.Leaky(beta=beta, threshold=threshold, **options).to(cur.dtype)
    neuron.beta = torch.tensor(beta, dtype=cur.dtype)  # its own buffers are float32
    spks, mems, mem = [], [], torch.zeros_like(cur[0])
    for cur_t in cur:
        spk, mem = neuron(cur_t, mem)
        spks.append(spk)
        mems.append(mem)
    return torch.stack(spks), torch.stack(mems)


def self_inhibiting(beta: float, threshold: float, dtype: torch.dtype, **options: Any) -> nn.Dense:
    """A reset by subtraction one step late, as a synapse of each neuron to itself."""
    neuron = nn.LIF(N, beta=beta, threshold=threshold, reset="none", **options)
    layer = nn.Dense(N, N, neuron, recurrent=True, bias=False).to(dtype)
    layer.neuron.leak.fixed = torch.full((N,), beta, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(N))
        layer.recurrent.copy_(-threshold * torch.eye(N))
    return layer


def alone(beta: float, dtype: torch.dtype, **options: Any) -> nn.LIF:
    neuron = nn.LIF(N, beta=beta, **options).to(dtype)
    neuron.leak.fixed = torch.full((N,), beta, dtype=dtype)
    return neuron


def n_moved(found: Tensor, wanted: Tensor, membrane: Tensor, threshold: float, band: float) -> int:
    """Count the neurons whose spikes part; each of them parts at a membrane within `band` of the threshold."""
    n = 0
    for b in range(B):
        for i in range(N):
            at = (found[:, b, i] != wanted[:, b, i]).nonzero()
            if len(at):
                n += 1
                assert abs(membrane[at[0, 0], b, i].item() - threshold) < band
    return n


@pytest.mark.parametrize("path", ["fused", "torch"])
@pytest.mark.parametrize(("beta", "threshold"), [(0.5, 1.0), (0.75, 0.5), (0.75, 1.0)])
def test_snntorch_resets_by_subtraction_one_step_late(beta: float, threshold: float, path: str) -> None:
    cur = currents(20, scale=0.8)
    spk, mem = leaky(beta, cur, threshold=threshold)
    layer = self_inhibiting(beta, threshold, cur.dtype)
    with nn.path(path):
        found, state = layer(cur)
    assert spk.sum() > 50
    assert torch.equal(found, spk)
    assert torch.equal(state.v, mem[-1])
    subtracted, _ = alone(beta, cur.dtype, threshold=threshold, reset="subtract")(cur)
    assert not torch.equal(subtracted, spk), "an early reset is another neuron: it leaks what it subtracts"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_snntorch_with_any_leak_differs_at_the_threshold_alone(dtype: torch.dtype) -> None:
    cur = currents(300, dtype=dtype)
    spk, mem = leaky(0.9, cur)
    found, _ = self_inhibiting(0.9, 1.0, dtype)(cur)
    n = n_moved(found, spk, mem, 1.0, 1e-5 if dtype == torch.float32 else 1e-13)
    assert n <= 2, "of 21 neurons"
    assert spk.sum() > 500


def test_snntorch_counts_as_events() -> None:
    """The same layer on an input of whole counts, over the event path."""
    counts = torch.poisson(torch.full((20, B, N), 0.5), generator=torch.Generator().manual_seed(0)).double()
    spk, _ = leaky(0.75, counts * 0.75)
    layer = self_inhibiting(0.75, 1.0, torch.float64)
    with torch.no_grad():
        layer.weight.mul_(0.75)
    with nn.path("event"):
        found, _ = layer(su.Spikes.from_dense(counts))
    assert torch.equal(found.dense(), spk)
    assert spk.sum() > 50


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mechanism", ["subtract", "zero", "none"])
def test_snntorch_without_its_delay_is_our_reset(mechanism: str, dtype: torch.dtype) -> None:
    """Equal to the last bit, and gradients close (its reset is attached), while no spike leaves v above threshold."""
    leaf = currents(100, scale=0.2 if mechanism == "none" else 0.3, dtype=dtype)
    found = []
    for ours in (True, False):
        cur = leaf.clone().requires_grad_()
        if ours:
            spk, _ = alone(0.9, dtype, reset=mechanism, attached=True, surrogate=ATan())(cur)
        else:
            spk, mem = leaky(0.9, cur, reset_mechanism=mechanism, reset_delay=False)
            if mechanism != "none":
                assert mem.max() <= 1, "else its reset counts such a neuron as reset already"
        (spk * torch.arange(N)).sum().backward()
        found.append((spk.detach(), cur.grad))
    assert found[0][0].sum() > 50
    assert torch.equal(found[0][0], found[1][0])
    # theirs rounds: its spikes are float32 whatever comes in, and so is what comes back through them
    assert_close(found[0][1].numpy(), found[1][1].numpy(), 1e-5 if dtype == torch.float32 else 1e-7)


@pytest.mark.parametrize("surrogate", ["atan", "fast_sigmoid"])
def test_snntorch_late_reset_to_zero_is_our_reset(surrogate: str) -> None:
    """A reset to 0 at the start of the next step is one at the end of this: equal spikes and gradients, detached."""
    theirs = getattr(pytest.importorskip("snntorch.surrogate", reason="snntorch is not installed"), surrogate)()
    ours = {"atan": ATan(), "fast_sigmoid": FastSigmoid()}[surrogate]
    found = []
    for run in (
        lambda cur: alone(0.9, torch.float64, surrogate=ours)(cur)[0],
        lambda cur: leaky(0.9, cur, reset_mechanism="zero", spike_grad=theirs)[0],
    ):
        cur = currents(100).requires_grad_()
        spk = run(cur)
        (spk * torch.arange(N)).sum().backward()
        found.append((spk.detach(), cur.grad))
    assert found[0][0].sum() > 200
    assert torch.equal(found[0][0], found[1][0])
    assert_close(found[0][1].numpy(), found[1][1].numpy(), 1e-12)


def lif_box(cur: Tensor, *, k: float) -> tuple[Tensor, Tensor]:
    """Norse's spikes, and its membrane before reset, for dt * tau_mem_inv = k."""
    box = pytest.importorskip("norse.torch.functional.lif_box", reason="norse is not installed")
    p = box.LIFBoxParameters(tau_mem_inv=torch.tensor(k * 1024, dtype=cur.dtype))
    spks, before = [], []
    state = box.LIFBoxFeedForwardState(v=torch.zeros_like(cur[0]))
    for cur_t in cur:
        before.append(state.v + k * (cur_t - state.v))
        spk, state = box.lif_box_feed_forward_step(cur_t, state, p, dt=1 / 1024)
        spks.append(spk)
    return torch.stack(spks), torch.stack(before)


@pytest.mark.parametrize("path", ["fused", "torch"])
@pytest.mark.parametrize("k", [0.125, 0.25, 0.5])
def test_norse_lif_box(k: float, path: str) -> None:
    """Its leak is 1 - k by Euler's rule, not exp(-k), and its input is scaled by k."""
    cur = currents(14, scale=4.0)
    spk, _ = lif_box(cur, k=k)
    with nn.path(path):
        found, _ = alone(1 - k, cur.dtype)(k * cur)
    assert spk.sum() > 30
    assert torch.equal(found, spk)
    with nn.path(path):
        exponential, _ = alone(float(torch.exp(torch.tensor(-k))), cur.dtype)(k * cur)
    assert not torch.equal(exponential, spk)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norse_lif_box_over_a_long_time_differs_at_the_threshold_alone(dtype: torch.dtype) -> None:
    cur = currents(400, scale=3.0, dtype=dtype)
    spk, before = lif_box(cur, k=0.1)
    found, _ = alone(0.9, dtype)(0.1 * cur)
    assert n_moved(found, spk, before, 1.0, 1e-5 if dtype == torch.float32 else 1e-13) <= 2
    assert spk.sum() > 500
