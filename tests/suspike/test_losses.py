"""Scores, losses and measures: literal arithmetic, lists against dense autograd, padding that counts for nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from suspike_testing.comparing import assert_close, assert_same_bits
from suspike_testing.nets import make_input, make_net, make_state, run_layers
from torch import Tensor

import suspike as su
from suspike import losses
from suspike_kernels.layout import events_from_dense

N_STEPS = torch.tensor([5, 1, 7, 3])  # T = 7: one sample fills it, one has a single step
SCORES = {name: getattr(losses, name) for name in ("mean_over_time", "max_over_time", "last_step")}
OF_SPIKES: dict[str, Callable[..., Tensor]] = {
    "spike_counts": losses.spike_counts,
    "first_spike_times": losses.first_spike_times,
    "rate_penalty": lambda spikes, n_steps=None: losses.rate_penalty(spikes, lower=0.3, upper=0.5, n_steps=n_steps),
}
LABELS = torch.tensor([2, 0, 1])


def as_series(values: list[float]) -> Tensor:
    """One sample, one unit: [T, 1, 1]."""
    return torch.tensor(values, dtype=torch.float64)[:, None, None]


def padded(n_steps: Tensor = N_STEPS, n_time: int = 7) -> Tensor:
    return torch.arange(n_time)[:, None] >= n_steps  # [T, B]


def membrane(seed: int = 0, n_units: int = 3) -> Tensor:
    return torch.randn(7, 4, n_units, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def drawn_spikes(seed: int, n_units: int = 40) -> Tensor:
    """Dense spikes whose units are silent, fire once or often."""
    generator = torch.Generator().manual_seed(seed)
    rate = torch.rand(4, n_units, generator=generator) * 0.6
    return (torch.rand(7, 4, n_units, generator=generator) < rate).double()


def as_lists(spk: Tensor, active: Tensor, values: Tensor) -> tuple[su.Spikes, Tensor, Tensor]:
    """Spikes of dense counts, the leaf that takes the gradient, and where in the dense array it sits."""
    places = events_from_dense(active.numpy())
    at = torch.from_numpy(places.places()[2])
    leaf = values.flatten()[at].clone().requires_grad_()
    return su.Spikes(events_from_dense(spk.numpy()), places, leaf), leaf, at


def weighted_gradient(found: Tensor, leaf: Tensor) -> Tensor:
    """The gradient of a sum of `found` with random weights."""
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=found.dtype)
    return torch.autograd.grad((found * weights).sum(), leaf)[0]


def scattered_gradient(found: Tensor, leaf: Tensor, at: Tensor, shape: Any) -> Tensor:
    """The same by a list's values, as a dense array."""
    flat = torch.zeros(math.prod(shape), dtype=found.dtype)
    return flat.index_add(0, at, weighted_gradient(found, leaf)).reshape(shape)


# -- literal arithmetic


def test_scores_by_hand() -> None:
    out = torch.tensor([[[1.0, -4.0]], [[5.0, -2.0]], [[3.0, 9.0]]])
    assert losses.mean_over_time(out).tolist() == [[3.0, 1.0]]
    assert losses.max_over_time(out).tolist() == [[5.0, 9.0]]
    assert losses.last_step(out).tolist() == [[3.0, 9.0]]
    two = torch.tensor([2])
    assert losses.mean_over_time(out, two).tolist() == [[3.0, -3.0]]
    assert losses.max_over_time(out, two).tolist() == [[5.0, -2.0]]  # not the 0 that a mask by product would give
    assert losses.last_step(out, two).tolist() == [[5.0, -2.0]]


def test_mean_is_torchs_to_the_last_bit() -> None:
    out = torch.randn(250, 32, 20, generator=torch.Generator().manual_seed(0))
    assert_same_bits(losses.mean_over_time(out), out.mean(0))


def test_ties_over_time_share_the_gradient() -> None:
    out = as_series([2.0, 1.0, 2.0, 2.0]).requires_grad_()
    losses.max_over_time(out, torch.tensor([3])).sum().backward()
    assert out.grad is not None
    assert out.grad.flatten().tolist() == [0.5, 0.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("spk", "n_steps", "time", "slope"),
    [
        ([0, 1, 0, 1, 1, 0], 6, 1, [-1, -2, 0, 0, 0, 0]),
        ([1, 0, 0, 0], 4, 0, [-4, 0, 0, 0]),
        ([0, 0, 0, 0], 4, 4, [-4, -3, -2, -1]),
        ([0, 0, 0, 1], 3, 3, [-3, -2, -1, 0]),
        ([0, 1, 0, 1], 3, 1, [-1, -2, 0, 0]),
        ([0, 2, 0, 1], 4, 1, [-1, 0, 0, 0]),  # two spikes in a step: losing one changes nothing
        ([1, 1], 2, 0, [-1, 0]),
    ],
)
def test_first_spike_and_its_slope_by_hand(spk: list[float], n_steps: int, time: int, slope: list[float]) -> None:
    dense = as_series(spk).requires_grad_()
    everywhere = torch.ones_like(dense, dtype=torch.int64)
    lists, leaf, at = as_lists(dense.detach(), everywhere, dense.detach())
    for spikes, of, where in ((dense, dense, None), (lists, leaf, at)):
        times = losses.first_spike_times(spikes, torch.tensor([n_steps]))
        assert times.tolist() == [[time]]
        (grad,) = torch.autograd.grad(times.sum(), of)
        assert (grad.flatten() if where is None else grad[where.argsort()]).tolist() == slope
    if n_steps == len(spk):
        assert losses.first_spike_times(lists).tolist() == losses.first_spike_times(dense).tolist() == [[time]]


def test_losses_by_hand() -> None:
    counts = torch.tensor([[3.0, 1.0], [0.0, 2.0]], dtype=torch.float64)
    # (3 - 4)^2, (1 - 0.1)^2, (0 - 0.1)^2, (2 - 4)^2
    mse = losses.count_mse(counts, torch.tensor([0, 1]), correct=4, incorrect=0.1)
    assert float(mse) == pytest.approx((1 + 0.81 + 0.01 + 4) / 4, rel=1e-14)
    # the softmax of -t at class 0: 1 / (1 + e^(3 - 1)) and 1 / (1 + e^(0 - 5))
    times = torch.tensor([[3.0, 1.0], [0.0, 5.0]], dtype=torch.float64)
    ttfs = losses.ttfs_cross_entropy(times, torch.tensor([0, 0]))
    assert float(ttfs) == pytest.approx((math.log(1 + math.exp(2)) + math.log(1 + math.exp(-5))) / 2, rel=1e-14)


def test_rate_penalty_by_hand() -> None:
    spk = torch.zeros(4, 2, 3, dtype=torch.float64)
    spk[:, :, 1], spk[0, 0, 2], spk[3, 1, 2] = 1, 1, 1  # rates 0, 1 and 2 / 8
    assert float(losses.rate_penalty(spk)) == 0
    bounded = losses.rate_penalty(spk, lower=0.5, upper=0.75)
    assert float(bounded) == pytest.approx((0.5**2 + 0.25**2 + 0.25**2) / 3, rel=1e-14)
    # 4 + 2 true steps: rates 0, 1 and 1 / 6 (the other spike lies in padding)
    short = losses.rate_penalty(spk, lower=0.5, upper=0.75, n_steps=torch.tensor([4, 2]))
    assert float(short) == pytest.approx((0.5**2 + 0.25**2 + (1 / 3) ** 2) / 3, rel=1e-14)
    assert float(losses.rate_penalty(su.Spikes.from_dense(spk), lower=0.5, upper=0.75)) == pytest.approx(float(bounded))


def test_update_budget_by_hand() -> None:
    one = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)  # 3 / 8 open
    two = torch.ones(4, 6, dtype=torch.float64)
    assert float(losses.update_budget(one, 0.25)) == 0.125**2
    assert float(losses.update_budget([one, two], 0.5)) == ((2 * 3 / 8 + 6) / 8 - 0.5) ** 2
    # samples of 1 and 3 steps: (1 + 1 + 2 + 0) open of 2 * 4
    assert float(losses.update_budget(one, 0.1, n_steps=torch.tensor([1, 3]))) == pytest.approx(0.4**2, rel=1e-14)
    wide = losses.update_budget([one, two], 0.1, n_steps=torch.tensor([1, 3]))
    assert float(wide) == pytest.approx(((2 * 0.5 + 6) / 8 - 0.1) ** 2, rel=1e-14)


def test_update_budget_is_the_networks_open_fraction_and_moves_its_gates() -> None:
    net = make_net(dtype=torch.float64)
    layers = list(net)[:2]

    def tables() -> list[Tensor]:
        return [layer.neuron.gate(20).open for layer in layers]

    share = su.train.open_fraction(net, torch.zeros(20, 1, net[0].n_in, dtype=torch.float64))
    assert float(losses.update_budget(tables(), 0.0).detach()) == pytest.approx(share**2, rel=1e-12)
    for target, sign in ((0.0, 1), (1.0, -1)):
        net.zero_grad()
        losses.update_budget(tables(), target).backward()
        for layer in layers:
            assert (sign * layer.neuron.gate.bias.grad >= 0).all()
            assert layer.neuron.gate.bias.grad.any()


def test_measures_by_hand() -> None:
    scores = torch.tensor([[0.0, 1.0, 3.0], [2.0, 2.0, 0.0], [5.0, 1.0, 1.0]], requires_grad=True)
    assert float(losses.accuracy(scores, LABELS)) == pytest.approx(2 / 3)  # the tie goes to class 0
    assert float(losses.accuracy(scores, torch.tensor([2, 1, 0], dtype=torch.uint8))) == pytest.approx(2 / 3)
    times = torch.tensor([[4.0, 4.0, 1.0], [9.0, 9.0, 9.0], [2.0, 1.0, 1.0]], requires_grad=True)
    found = losses.accuracy_by_first_spike(times, LABELS)
    assert float(found) == 1.0  # all silent: class 0; a tie of 1 and 2: class 1
    assert float(losses.accuracy_by_first_spike(times, torch.tensor([2, 1, 2]))) == pytest.approx(1 / 3)
    assert found.dtype == torch.float32
    assert not found.requires_grad


# -- lists against dense autograd


@pytest.mark.parametrize("name", OF_SPIKES)
@pytest.mark.parametrize("short", [False, True], ids=["whole", "short"])
def test_a_gated_networks_gradient_is_that_of_its_dense_path(name: str, short: bool) -> None:
    net = make_net(dtype=torch.float64)
    events, n_steps = make_input(density=0.25), torch.tensor([20, 7, 1, 13]) if short else None
    inputs = {"lists": su.Spikes.from_events(events), "dense": torch.from_numpy(events.dense(np.float64))}
    values, grads = {}, {}
    for path, x in inputs.items():
        net.zero_grad()
        outs, _ = run_layers(net, x, make_state(net, 4))
        parts = [OF_SPIKES[name](out, n_steps) for out in outs[:2]]
        values[path] = [part.detach().numpy() for part in parts]
        sum(
            (part * torch.linspace(-1, 2, part.numel(), dtype=part.dtype).reshape(part.shape)).sum() for part in parts
        ).backward()
        grads[path] = {k: p.grad.numpy().copy() for k, p in net.named_parameters() if p.grad is not None}
        if path == "lists":
            assert isinstance(outs[1], su.Spikes)
            assert len(outs[1].active.idx) > 20
    for found, wanted in zip(values["lists"], values["dense"], strict=True):
        assert_close(found, wanted, 1e-13, name)
    touched = {k for k, g in grads["dense"].items() if g.any()}
    assert {"0.weight", "0.neuron.gate.bias", "1.recurrent", "1.neuron.gate.phase"} <= touched
    for key in touched:
        assert_close(grads["lists"][key], grads["dense"][key], 1e-10, key)


@pytest.mark.parametrize("name", OF_SPIKES)
@pytest.mark.parametrize("n_steps", [None, N_STEPS], ids=["whole", "short"])
def test_lists_against_dense_at_every_kind_of_place(name: str, n_steps: Tensor | None) -> None:
    spk = drawn_spikes(0)
    active = (torch.rand(spk.shape, generator=torch.Generator().manual_seed(2)) < 0.6).long()
    lists, leaf, at = as_lists(spk, active, spk)
    dense = spk.clone().requires_grad_()
    found, wanted = OF_SPIKES[name](lists, n_steps), OF_SPIKES[name](dense, n_steps)
    assert_close(found.detach(), wanted.detach(), 1e-15)
    assert_close(scattered_gradient(found, leaf, at, spk.shape), weighted_gradient(wanted, dense) * active, 1e-13)


# -- padding, batches, smoothness


@pytest.mark.parametrize("fill", [math.nan, math.inf, -math.inf, 1.0, 1e30])
@pytest.mark.parametrize("name", [*SCORES, *OF_SPIKES])
def test_padding_of_a_dense_tensor_reaches_nothing(name: str, fill: float) -> None:
    function = {**SCORES, **OF_SPIKES}[name]
    clean = membrane() if name in SCORES else drawn_spikes(1)
    found = {}
    for key, value in (("clean", 0.0), ("dirty", fill)):
        x = clean.masked_fill(padded()[..., None], value).requires_grad_()
        result = function(x, N_STEPS)
        found[key] = result.detach(), weighted_gradient(result, x)
    for clean_one, dirty_one in zip(found["clean"], found["dirty"], strict=True):
        assert_same_bits(dirty_one, clean_one)
    assert (found["dirty"][1][padded()] == 0).all()
    assert found["dirty"][1][~padded()].any()


@pytest.mark.parametrize("name", OF_SPIKES)
def test_padding_of_lists_reaches_nothing(name: str) -> None:
    rng = torch.Generator().manual_seed(4)
    spk = drawn_spikes(1)
    active = (torch.rand(spk.shape, generator=rng) < 0.6).long()
    pad = padded()[..., None].expand(spk.shape)
    found = []
    for counts, places, values in (
        (spk.masked_fill(pad, 0), active.masked_fill(pad, 0), spk),
        (spk.where(~pad, torch.full_like(spk, 2)), active.masked_fill(pad, 1), spk.masked_fill(pad, math.nan)),
    ):
        lists, leaf, at = as_lists(counts, places, values)
        result = OF_SPIKES[name](lists, N_STEPS)
        found.append((result.detach(), scattered_gradient(result, leaf, at, spk.shape)))
    for clean_one, dirty_one in zip(*found, strict=True):
        assert_same_bits(dirty_one, clean_one)
    assert (found[1][1][pad] == 0).all()
    assert found[1][1].any()


@pytest.mark.parametrize("fill", [math.nan, math.inf, 1.0])
def test_steps_in_which_no_sample_runs_are_no_budget(fill: float) -> None:
    table = (torch.rand(7, 5, generator=torch.Generator().manual_seed(0)) < 0.4).double()
    n_steps = torch.tensor([5, 2, 4])
    x = table.index_fill(0, torch.tensor([5, 6]), fill).requires_grad_()
    loss = losses.update_budget(x, 0.9, n_steps=n_steps)
    loss.backward()
    assert x.grad is not None
    assert (x.grad[5:] == 0).all()
    assert (x.grad[:5] < 0).all()
    open_steps = sum(float(table[:n].sum()) for n in n_steps.tolist())
    assert float(loss.detach()) == pytest.approx((open_steps / (5 * 11) - 0.9) ** 2, rel=1e-13)


@pytest.mark.parametrize("name", [*SCORES, "spike_counts", "first_spike_times"])
def test_each_sample_is_as_if_alone_at_its_length_and_in_any_order(name: str) -> None:
    function = {**SCORES, **OF_SPIKES}[name]
    x = membrane(2) if name in SCORES else drawn_spikes(2)
    whole = function(x, N_STEPS)
    for b, n in enumerate(N_STEPS.tolist()):
        assert_close(whole[b], function(x[:n, b : b + 1])[0], 1e-14, f"sample {b}")
    order = torch.tensor([2, 0, 3, 1])
    assert_same_bits(function(x[:, order], N_STEPS[order]), whole[order])
    assert_close(function(x, torch.full((4,), 7)), function(x), 1e-14)


def test_losses_and_measures_do_not_depend_on_the_order_of_a_batch() -> None:
    order, spk = torch.tensor([2, 0, 1]), drawn_spikes(3, 3)[:, :3]
    values = losses.spike_counts(spk)
    for function in (
        lambda x, y: losses.count_mse(x, y, correct=4, incorrect=1),
        losses.ttfs_cross_entropy,
        losses.accuracy,
        losses.accuracy_by_first_spike,
    ):
        assert float(function(values[order], LABELS[order])) == pytest.approx(
            float(function(values, LABELS)), rel=1e-14
        )
        assert float(function(values[order], LABELS)) != pytest.approx(float(function(values, LABELS)), rel=1e-3)
    n_steps = N_STEPS[:3]
    here = OF_SPIKES["rate_penalty"](spk, n_steps)
    assert float(OF_SPIKES["rate_penalty"](spk[:, order], n_steps[order])) == pytest.approx(float(here), rel=1e-14)


SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    **{name: lambda x, f=f: f(x, N_STEPS) for name, f in {**SCORES, **OF_SPIKES}.items()},  # type: ignore[misc]
    "first_spike_times of whole samples": losses.first_spike_times,
    "count_mse": lambda x: losses.count_mse(x.sum(0)[:3], LABELS, correct=4.5, incorrect=0.5),
    "ttfs_cross_entropy": lambda x: losses.ttfs_cross_entropy(losses.first_spike_times(x)[:3], LABELS),
    "update_budget": lambda x: losses.update_budget([x[:, 0], x[:5, 1]], 0.3),
    "update_budget of short samples": lambda x: losses.update_budget([x[:, 0], x[:5, 1]], 0.3, n_steps=N_STEPS[[1, 3]]),
}  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_by_finite_differences(name: str) -> None:
    generator = torch.Generator().manual_seed(5)
    x = (0.05 + 0.9 * torch.rand(7, 4, 3, dtype=torch.float64, generator=generator)).requires_grad_()
    assert torch.autograd.gradcheck(SMOOTH[name], (x,), raise_exception=True)


# -- types and refusals


def test_whole_numbers_of_any_type() -> None:
    spk = torch.zeros(300, 2, 2)
    spk[[3, 250, 290], [0, 1, 1], [1, 0, 0]] = 1
    long = torch.tensor([200, 255])
    for dtype in (torch.uint8, torch.int32, torch.int64):
        n_steps = long.to(dtype)
        assert losses.spike_counts(spk.to(torch.uint8), n_steps).tolist() == [[0.0, 1.0], [1.0, 0.0]]
        assert losses.first_spike_times(spk.bool(), n_steps).tolist() == [[200.0, 3.0], [250.0, 255.0]]
        assert losses.first_spike_times(su.Spikes.from_dense(spk), n_steps).tolist() == [[200.0, 3.0], [250.0, 255.0]]
        assert float(losses.rate_penalty(spk, upper=0.0, n_steps=n_steps)) == pytest.approx(1 / 455**2)
        ramp = torch.arange(300.0)[:, None, None].expand(300, 2, 1)
        assert losses.last_step(ramp, n_steps).tolist() == [[199.0], [254.0]]
    assert losses.spike_counts(spk.to(torch.float64)).dtype == torch.float64
    assert losses.spike_counts(spk.bool()).dtype == torch.float32


OUT, COUNTS = torch.zeros(3, 2, 4), torch.zeros(3, 4)
REFUSALS: dict[str, tuple[Callable[[], Any], str]] = {
    "two dimensions": (
        lambda: losses.mean_over_time(COUNTS),
        "`out` must be floats of shape [T, B, N], none of them 0, got torch.float32 of shape [3, 4].",
    ),
    "no step": (
        lambda: losses.last_step(OUT[:0]),
        "`out` must be floats of shape [T, B, N], none of them 0, got torch.float32 of shape [0, 2, 4].",
    ),
    "whole membrane": (
        lambda: losses.max_over_time(OUT.long()),
        "`out` must be floats of shape [T, B, N], none of them 0, got torch.int64 of shape [3, 2, 4].",
    ),
    "no step of spikes": (
        lambda: losses.spike_counts(OUT[:0]),
        "`spikes` must be floats of shape [T, B, N], none of them 0, got torch.float32 of shape [0, 2, 4].",
    ),
    "no step of lists": (
        lambda: losses.first_spike_times(su.Spikes.from_dense(OUT[:0])),
        "`spikes` must be of shape [T, B, N], none of them 0, got shape [0, 2, 4].",
    ),
    "length 0": (
        lambda: losses.last_step(OUT, torch.tensor([3, 0])),
        "`n_steps` must be from 1 to T = 3, got 0 at sample 1.",
    ),
    "length above T": (
        lambda: losses.spike_counts(su.Spikes.from_dense(OUT), torch.tensor([4, 1])),
        "`n_steps` must be from 1 to T = 3, got 4 at sample 0.",
    ),
    "length below 0": (
        lambda: losses.update_budget(COUNTS, 0.5, n_steps=torch.tensor([1, 2, 3, -1])),
        "`n_steps` must be from 0 to T = 3, got -1 at sample 3.",
    ),
    "lengths of another batch": (
        lambda: losses.mean_over_time(OUT, torch.tensor([1, 2, 3])),
        "`n_steps` must be whole numbers of shape [2], got torch.int64 of shape [3].",
    ),
    "no lengths": (
        lambda: losses.update_budget(COUNTS, 0.5, n_steps=torch.zeros(0, dtype=torch.int64)),
        "`n_steps` must be whole numbers of shape [1], got torch.int64 of shape [0].",
    ),
    "broken lengths": (
        lambda: losses.rate_penalty(OUT, n_steps=torch.tensor([1.0, 2.0])),
        "`n_steps` must be whole numbers of shape [2], got torch.float32 of shape [2].",
    ),
    "a mask for lengths": (
        lambda: losses.first_spike_times(OUT, torch.tensor([True, True])),
        "`n_steps` must be whole numbers of shape [2], got torch.bool of shape [2].",
    ),
    "counts over time": (
        lambda: losses.count_mse(OUT, torch.tensor([0, 1]), correct=1, incorrect=0),
        "`counts` must be floats of shape [B, N], none of them 0, got torch.float32 of shape [3, 2, 4].",
    ),
    "a label too large": (
        lambda: losses.count_mse(COUNTS, torch.tensor([0, 4, 1]), correct=1, incorrect=0),
        "`labels` must be from 0 to N - 1 = 3, got 4 at sample 1.",
    ),
    "a label below 0": (
        lambda: losses.ttfs_cross_entropy(COUNTS, torch.tensor([0, 3, -100])),
        "`labels` must be from 0 to N - 1 = 3, got -100 at sample 2.",
    ),
    "one label": (
        lambda: losses.accuracy(COUNTS, torch.tensor(1)),
        "`labels` must be whole numbers of shape [3], got torch.int64 of shape [].",
    ),
    "labels as probabilities": (
        lambda: losses.accuracy_by_first_spike(COUNTS, COUNTS),
        "`labels` must be whole numbers of shape [3], got torch.float32 of shape [3, 4].",
    ),
    "an empty batch": (
        lambda: losses.accuracy_by_first_spike(COUNTS[:0], torch.zeros(0, dtype=torch.int64)),
        "`times` must be floats of shape [B, N], none of them 0, got torch.float32 of shape [0, 4].",
    ),
    "scores that are no number": (
        lambda: losses.accuracy(COUNTS / 0, torch.tensor([0, 1, 2])),
        "`scores` must be free of NaN, got 12 of them.",
    ),
    "a target below 0": (
        lambda: losses.count_mse(COUNTS, torch.tensor([0, 1, 2]), correct=1, incorrect=-0.5),
        "`incorrect` must be a finite number of spikes from 0, got -0.5.",
    ),
    "a target without bound": (
        lambda: losses.count_mse(COUNTS, torch.tensor([0, 1, 2]), correct=math.inf, incorrect=0),
        "`correct` must be a finite number of spikes from 0, got inf.",
    ),
    "bounds that cross": (
        lambda: losses.rate_penalty(OUT, lower=0.5, upper=0.25),
        "`lower` must be from 0 to upper = 0.25, got 0.5.",
    ),
    "a bound below 0": (
        lambda: losses.rate_penalty(OUT, lower=-0.5),
        "`lower` must be from 0 to upper = 1.0, got -0.5.",
    ),
    "a share above 1": (
        lambda: losses.update_budget(COUNTS, 1.5),
        "`target` must be a share from 0 to 1, got 1.5.",
    ),
    "no layer": (
        lambda: losses.update_budget([], 0.5),
        "`opened` must be of at least one layer, got none.",
    ),
    "a whole gate": (
        lambda: losses.update_budget(su.nn.RhythmGate(4, open=0.5)(3), 0.5),
        "`opened` must be floats of shape [T, N], none of them 0, got torch.bool of shape [3, 4]. "
        "Pass `gate.share(T)`.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_input_is_one_clear_error(name: str) -> None:
    call, wanted = REFUSALS[name]
    with pytest.raises(ValueError, match=f"^{re.escape(wanted)}$"):
        call()
