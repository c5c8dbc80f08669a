"""What stands between layers: orders of units, pooling, dropout, skip connections, on lists and on dense tensors."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from suspike_testing.cases import on_grid, random_events
from suspike_testing.comparing import assert_close, assert_same_bits
from suspike_testing.nets import dense_of, input_for, make_input, on_path
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

import suspike as su
from suspike_datasets import bin_events, from_recordings
from suspike_kernels.editing import chances, merge
from suspike_kernels.layout import Events, check_events


def to_grid(net: nn.Module, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith(("weight", "recurrent", "bias")):
                p.copy_(torch.from_numpy(on_grid(rng.standard_normal(p.shape) * 0.35 + 0.05)))


def hidden(n_in: int, n: int, seed: int = 0) -> su.nn.Dense:
    layer = su.nn.Dense(n_in, n, su.nn.LIF(n, beta=0.9, threshold=0.6))
    to_grid(layer, seed)
    return layer.double()


def make_spikes(n_in: int, n: int, seed: int = 0, n_steps: int = 10) -> tuple[su.Spikes, Tensor, list[Any]]:
    """The same spikes with gradient as lists and as a dense tensor, and the parameters behind each."""
    counts = torch.from_numpy(make_input(n_steps, 3, n_in, seed=seed).dense()).double()
    layers = [hidden(n_in, n, seed) for _ in range(2)]
    spikes, _ = layers[0](su.Spikes.from_dense(counts))
    with su.nn.path("torch"):
        dense, _ = layers[1](counts)
    assert dense.sum() > 10
    assert len(spikes.active.idx) > 20
    return spikes, dense, layers


def compare(spikes: su.Spikes, dense: Tensor, layers: list[Any]) -> None:
    """Equal values, and equal gradients behind them."""
    check_events(spikes.events)
    check_events(spikes.active)
    assert len(spikes.values) == len(spikes.active.idx)
    assert spikes.shape == dense.shape
    assert_same_bits(spikes.dense().detach().numpy(), dense.detach().numpy())
    assert_close(spikes.counts().detach().numpy(), dense.sum(0).detach().numpy(), 1e-14)
    weights = torch.randn(dense.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grads = []
    for x, layer in zip((spikes.dense(), dense), layers, strict=True):
        loss = (x * weights).sum() + x.sum(0).square().sum()
        by = torch.autograd.grad(loss, list(layer.parameters()), retain_graph=True)
        grads.append([g.numpy() for g in by])
    for a, b in zip(*grads, strict=True):
        assert np.abs(b).max() > 0.01
        assert_close(a, b, 1e-9)


def test_channels_last_numbers_pixels() -> None:
    height, width, c = 3, 4, 2
    order = su.nn.ChannelsLast((height, width), c)
    images = torch.randint(0, 3, (5, 2, c, height, width), generator=torch.Generator().manual_seed(0)).double()
    wanted = images.permute(0, 1, 3, 4, 2).flatten(2)
    assert_same_bits(order(images).numpy(), wanted.numpy())
    assert_same_bits(order(images.flatten(2)).numpy(), wanted.numpy())
    assert_same_bits(order(su.Spikes.from_dense(images.flatten(2))).dense().double().numpy(), wanted.numpy())
    recording = np.array([(3, 2, 500, 1)], [(name, np.int32) for name in "xytp"])
    binned = bin_events(from_recordings([recording], sensor=(2, height, width)), dt_us=1000)
    one = Events(binned.ptr, binned.idx, binned.n_units)
    assert order(su.Spikes.from_events(one)).events.idx.tolist() == [(2 * width + 3) * c + 1]
    spikes, dense, layers = make_spikes(7, 24)
    compare(order(spikes), order(dense), layers)


@pytest.mark.parametrize("mode", ["sum", "avg"])
@pytest.mark.parametrize("size", [2, (1, 2), (4, 2), (2, 4), 1])
def test_pooling_lists_is_pooling_tensors(mode: str, size: Any) -> None:
    height, width, c = 5, 6, 2
    pool = su.nn.Pool2d((height, width), c, size, mode=mode)
    spikes, dense, layers = make_spikes(7, height * width * c)
    pooled = pool(dense)
    assert pooled.shape == (10, 3, pool.n_out)
    maps = dense.reshape(-1, height, width, c).permute(0, 3, 1, 2)
    k = (size, size) if isinstance(size, int) else size
    wanted = avg_pool2d(maps, k) * (1 if mode == "avg" else k[0] * k[1])
    assert wanted.shape[2:] == pool.out_size
    assert_close(pooled.detach().numpy(), wanted.permute(0, 2, 3, 1).reshape(pooled.shape).detach().numpy(), 1e-12)
    compare(pool(spikes), pooled, layers)


def test_pooled_spikes_reach_a_layer() -> None:
    """What an average makes of events counts in every layer, gate and count, as in dense tensors."""
    gate = su.nn.InputGate(12, 8, open=0.5, rate=0.2, group_size=2)
    behind = su.nn.Stack(
        su.nn.Pool2d((4, 6), 2, 2, mode="avg"),
        su.nn.Dense(12, 8, su.nn.LIF(8, beta=0.9, threshold=0.2, gate=gate)),
        su.nn.Dense(8, 3, su.nn.LI(3, beta=0.8)),
    )
    to_grid(behind, 1)
    behind.double()
    spikes, dense, layers = make_spikes(7, 48)
    found = []
    for kind, x, layer in zip(("event", "torch"), (spikes, dense), layers, strict=True):
        with on_path(kind):
            out, state = behind(x)
        assert state[0] is None
        leaves = [*layer.parameters(), *behind.parameters()]
        by = torch.autograd.grad((out**2).sum() + state[1].v.sum(), leaves)
        found.append((out.detach().numpy(), [g.numpy() for g in by]))
    assert_same_bits(found[0][0], found[1][0])
    for a, b in zip(found[0][1], found[1][1], strict=True):
        assert_close(a, b, 1e-9)
    with su.nn.path("fused"):
        assert_same_bits(dense_of(behind(spikes)[0]), found[1][0])
    assert su.summary(behind, spikes).rows[0].active_share > 0


def test_a_stack_of_all_kinds() -> None:
    """Camera units to classes, with modules that keep a state and such as do not."""
    conv = su.nn.Conv2d((6, 6), 2, 4, 3, su.nn.LIF(64, beta=0.9, threshold=0.6))
    net = su.nn.Stack(
        su.nn.ChannelsLast((6, 6), 2),
        conv,
        su.nn.Pool2d(conv.out_size, 4, 2),
        su.nn.EventDropout(0.5),
        su.nn.Skip(su.nn.Stack(su.nn.Dense(16, 16, su.nn.LIF(16, beta=0.9)), nn.Identity())),
        su.nn.Dense(16, 3, su.nn.LI(3, beta=0.9)),
    )
    to_grid(net)
    net.double().eval()
    counts = torch.from_numpy(make_input(12, 3, 72).dense()).double()
    found = []
    for kind in ("event", "torch"):
        with on_path(kind):
            whole, end = net(input_for(kind, counts))
            first, middle = net(input_for(kind, counts[:5]))
            second, _ = net(input_for(kind, counts[5:]), middle)
        assert [s is None for s in end] == [True, False, True, True, False, False]
        assert_same_bits(torch.cat([first, second]).detach().numpy(), whole.detach().numpy())
        by = torch.autograd.grad((whole**2).sum(), list(net.parameters()))
        found.append((whole.detach().numpy(), [g.numpy() for g in by]))
    assert_same_bits(found[0][0], found[1][0])
    for a, b in zip(found[0][1], found[1][1], strict=True):
        assert np.abs(b).max() > 0.01
        assert_close(a, b, 1e-9)
    images = counts.unflatten(2, (2, 6, 6))
    with su.nn.path("torch"):
        assert_same_bits(net(images)[0].detach().numpy(), found[1][0])
        flat = su.nn.Stack(nn.Flatten(2), *net)
        assert_same_bits(flat(images)[0].detach().numpy(), found[1][0])


def test_merged_lists_are_added_tensors() -> None:
    (a, dense_a, layers_a), (b, dense_b, layers_b) = make_spikes(7, 12), make_spikes(9, 12, seed=1)
    both = [nn.ModuleList(pair) for pair in zip(layers_a, layers_b, strict=True)]
    compare(a + b, dense_a + dense_b, both)
    compare(b.merge(a), dense_a + dense_b, both)
    compare(a + a, 2 * dense_a, layers_a)
    silence = su.Spikes.silence(10, 3, 12)
    compare(a + silence, dense_a, layers_a)
    assert len((a + b).events.idx) == len(a.events.idx) + len(b.events.idx)


@pytest.mark.parametrize(("n_steps", "n_samples"), [(0, 2), (3, 0), (0, 0), (5, 2)])
def test_lists_are_merged_step_by_step(n_steps: int, n_samples: int) -> None:
    rng = np.random.default_rng(0)
    a, b = (random_events(rng, n_steps, n_samples, 6, 0.4) for _ in range(2))
    found, order = merge(a, b)
    check_events(found)
    np.testing.assert_array_equal(found.dense(), a.dense() + b.dense())
    np.testing.assert_array_equal(np.concatenate([a.idx, b.idx])[order], found.idx)
    wanted = [np.concatenate([each.idx[each.ptr[s, t] : each.ptr[s, t + 1]] for each in (a, b)])
              for s in range(n_samples) for t in range(n_steps)]  # fmt: skip
    np.testing.assert_array_equal(found.idx, np.concatenate([*wanted, found.idx[:0]]))


def test_empty_batches_and_stretches() -> None:
    for shape in ((0, 2), (3, 0), (0, 0)):
        dense, spikes = torch.zeros(*shape, 24), su.Spikes.silence(*shape, 24)
        for module in (su.nn.ChannelsLast((3, 4), 2), su.nn.Pool2d((3, 4), 2, 2), su.nn.EventDropout(0.5)):
            assert module(spikes).shape == module(dense).shape
            check_events(module(spikes).events)
        assert (spikes + spikes).shape == (*shape, 24)


def test_skip_adds_what_went_in() -> None:
    skip = su.nn.Skip(hidden(12, 12, 3))
    spikes, dense, layers = make_spikes(7, 12)
    out, state = skip(spikes)
    with su.nn.path("torch"):
        wanted, after = skip(dense)
    assert state.t == after.t == 10
    compare(out, wanted, layers)
    again, _ = skip(spikes, state)
    assert again.shape == out.shape


def test_dropout_leaves_events_out_and_scales_the_rest() -> None:
    drop, p = su.nn.EventDropout(0.3), 0.3
    spikes, _, layers = make_spikes(7, 40, n_steps=60)
    torch.manual_seed(3)
    out, other = drop(spikes), drop(spikes)
    torch.manual_seed(3)
    again = drop(spikes)
    np.testing.assert_array_equal(again.events.idx, out.events.idx)
    np.testing.assert_array_equal(again.events.ptr, out.events.ptr)
    assert len(other.events.idx) != len(out.events.idx) or (other.events.idx != out.events.idx).any()
    for before, after in ((spikes.events, out.events), (spikes.active, out.active)):
        check_events(after)
        n = len(before.idx)
        assert n > 200
        assert abs(len(after.idx) / n - 0.7) < 5 * (0.21 / n) ** 0.5
    assert out.scale == pytest.approx(1 / 0.7)
    # a dense tensor under the same mask: equal values, equal gradients
    mask = (chances(np.arange(60 * 3 * 40), _seed_after(3)) >= p).reshape(60, 3, 40) / (1 - p)
    dense = spikes.dense() * torch.from_numpy(mask)
    compare(out, dense, [layers[0], layers[0]])
    assert drop.eval()(spikes) is spikes
    x = torch.ones(200, 10, 4)
    assert drop(x) is x
    assert drop.train()(x).mean() == pytest.approx(1, abs=0.05)
    assert drop(x.to(torch.int64)).unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert su.nn.EventDropout(0)(spikes) is spikes


def _seed_after(seed: int) -> int:
    torch.manual_seed(seed)
    return int(torch.randint(2**63 - 1, ()))


def test_repeats_share_their_fate() -> None:
    events = random_events(np.random.default_rng(0), 50, 4, 6, 0.5, most=4)
    out = su.nn.EventDropout(0.5)(su.Spikes.from_events(events)).events.dense()
    before = events.dense()
    assert ((out == before) | (out == 0)).all()
    assert 0.3 < (out > 0).sum() / (before > 0).sum() < 0.7


def test_chances_are_even_and_unrelated() -> None:
    place = np.arange(100_000)
    a, b = chances(place, 7), chances(place, 8)
    assert a.min() >= 0
    assert a.max() < 1
    assert np.abs(np.histogram(a, 20)[0] / 5000 - 1).max() < 0.08
    for x, y in ((a, b), (a[1:], a[:-1]), (a, chances(place, 2**63 - 2))):
        assert abs(np.corrcoef(x, y)[0, 1]) < 0.02


def test_losses_see_the_scale() -> None:
    spikes, dense, _ = make_spikes(7, 48)
    pool, n_steps = su.nn.Pool2d((4, 6), 2, 2, mode="avg"), torch.tensor([3, 10, 7])
    for x in (pool(spikes), su.nn.EventDropout(0)(pool(spikes))):
        found, wanted = (su.losses.spike_counts(each, n_steps) for each in (x, pool(dense)))
        assert_same_bits(found.detach().numpy(), wanted.detach().numpy())
    assert wanted.sum() > 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: su.nn.Pool2d((5, 6), 2, 6), "`size` must be at most the input's 5 x 6, got 6."),
        (lambda: su.nn.Pool2d((5, 6), 2, 0), "`size` must be one or two whole numbers from 1, got 0."),
        (lambda: su.nn.Pool2d((5, 6), 2, 2, mode="max"), "`mode` must be sum or avg, got 'max'."),
        (lambda: su.nn.Pool2d((5, 6), 0, 2), "`channels` must be at least 1, got 0."),
        (lambda: su.nn.ChannelsLast((5, 0), 2), "`in_size` must be one or two whole numbers from 1, got (5, 0)."),
        (lambda: su.nn.EventDropout(1.0), "`p` must be from 0, and below 1, got 1.0."),
        (
            lambda: su.nn.Pool2d((5, 6), 2, 2)(torch.zeros(2, 1, 7)),
            "`x` must be of shape [T, B, 60], got shape [2, 1, 7].",
        ),
        (
            lambda: su.nn.ChannelsLast((5, 6), 2)(torch.zeros(2, 1, 6, 5, 2)),
            "`x` must be of shape [T, B, 60], or [T, B, 2, 5, 6], got shape [2, 1, 6, 5, 2].",
        ),
        (
            lambda: su.Spikes.silence(2, 1, 4) + su.Spikes.silence(2, 1, 5),
            "`other` must be of shape [2, 1, 4], got shape [2, 1, 5].",
        ),
        (
            lambda: su.Spikes.silence(2, 1, 4) + su.nn.EventDropout(0.5)(su.Spikes.silence(2, 1, 4)),
            "`other` must be of scale 1, got 2. Averages and dropout set it: pool by sums, or merge before them.",
        ),
        (
            lambda: su.nn.Skip(su.nn.Dense(4, 4, su.nn.LI(4, beta=0.9)))(su.Spikes.silence(2, 1, 4)),
            "`body` must be of neurons that fire, as its output joins spikes, got a readout.",
        ),
        (
            lambda: su.nn.Skip(su.nn.Dense(4, 5, su.nn.IF(5)))(torch.zeros(2, 1, 4)),
            "`body` must be of as many units out as in, [2, 1, 4], got [2, 1, 5].",
        ),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_spikes_and_tensors_do_not_add() -> None:
    with pytest.raises(TypeError):
        su.Spikes.silence(2, 1, 4) + 1  # type: ignore[operator]
