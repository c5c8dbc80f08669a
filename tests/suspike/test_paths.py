"""Which path a layer takes and why, how it is forced, and that what comes in decides what goes out."""

from __future__ import annotations

import contextlib
import copy
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from suspike_testing.comparing import assert_close
from suspike_testing.nets import dense_of
from suspike_testing.zoo import (
    N_IN,
    PAIRS,
    N,
    make_counts,
    make_front,
    make_layer,
    make_start,
)
from torch import Tensor

import suspike as su
from suspike import nn
from suspike.nn import paths

FIRED = [p for p in PAIRS if p in [("LIF", "none"), ("AdLIF", "recurrent"), ("CubaLIF", "rhythm"), ("CubaLI", "input")]]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    with caplog.at_level(logging.INFO, "suspike.nn.paths"):
        yield lambda: [r.getMessage() for r in caplog.records if r.getMessage().startswith("Dense takes")]


def test_a_path_is_chosen_by_density_and_told_once(told: Any) -> None:
    layer = make_layer("LIF", "none", dtype=torch.float32)
    sparse, dense = torch.zeros(8, 2, N_IN), torch.ones(8, 2, N_IN)
    sparse[::2, :, 0] = 1
    message = f"Dense takes the event path: 0.083 events a unit and step, crossover {paths.CROSSOVER}."
    for x in (sparse, sparse[:, :1], sparse.flip(0)):  # another batch size, other places: the same choice
        layer(su.Spikes.from_dense(x))
    assert told() == [message]
    layer(su.Spikes.from_dense(sparse[:6]))
    assert len(told()) == 2, "another number of steps is told anew"
    layer(su.Spikes.from_dense(dense))
    assert told()[2:] == [f"Dense takes the fused path: 1 events a unit and step, crossover {paths.CROSSOVER}."]
    for x, reason in (
        (sparse, "Dense takes the event path: its input is sparse counts."),
        (dense, "Dense takes the fused path: its input is not sparse counts."),
        (sparse + 0.5, "Dense takes the fused path: its input is not sparse counts."),
        (-sparse, "Dense takes the fused path: its input is not sparse counts."),
        (sparse.clone().requires_grad_(), "Dense takes the fused path: its input is not sparse counts."),
        (sparse.double(), "Dense takes the event path: its input is sparse counts."),
    ):
        fresh = copy.deepcopy(layer).to(x.dtype)
        n_told = len(told())
        for _ in range(2):
            fresh(x)
        assert told()[n_told:] == [reason]
    half = copy.deepcopy(layer).bfloat16()
    half(dense.bfloat16())
    assert told()[-1] == "Dense takes the torch path: of the layer's weights, it is torch.bfloat16."
    smooth = make_layer("LIF", "none", dtype=torch.float32, surrogate=su.surrogate.ATan())
    smooth(dense)
    assert told()[-1] == "Dense takes the torch path: the gradient of ATan reaches every place."


def test_a_path_can_be_forced_and_is_given_back(told: Any) -> None:
    layer, x = make_layer("LIF", "none"), make_counts()
    assert paths.forced() is None
    with nn.path("torch"):
        layer(x)
        with nn.path("event"):
            assert paths.forced() == "event"
        assert paths.forced() == "torch"
        with pytest.raises(RuntimeError, match="mine"), nn.path("fused"):
            raise RuntimeError("mine")
        assert paths.forced() == "torch"
    assert paths.forced() is None
    assert told() == [], "what is forced needs no explanation"
    with pytest.raises(ValueError, match=r"^`name` must be one of event, fused, torch, got 'cuda'\."), nn.path("cuda"):
        pass
    assert paths.forced() is None


def test_an_impossible_path_says_why() -> None:
    layer, x = make_layer("LIF", "none"), make_counts()
    smooth = make_layer("LIF", "none", surrogate=su.surrogate.Sigmoid())
    why = "the gradient of Sigmoid reaches every place"
    lists, learned = su.Spikes.from_dense(x), x.clone().requires_grad_()
    cases: list[tuple[str | None, nn.Dense, Any, str]] = [
        ("torch", layer, lists, "`x` must be a dense tensor: the torch path is forced, got Spikes."),
        (None, smooth, lists, f"`x` must be a dense tensor: {why}, got Spikes."),
        ("event", smooth, x, f"`x` must be fit for the event path, got one that is not: {why}."),
        ("fused", smooth, x, f"`x` must be fit for the fused path, got one that is not: {why}."),
        ("event", layer, x + 0.5, "`x` must be whole counts without gradient for the event path, got others."),
        ("event", layer, learned, "without gradient for the event path, got a tensor that requires one."),
        ("fused", layer, x.to("meta"), "`x` must be fit for the fused path, got one that is not: it is on meta."),
    ]  # fmt: skip
    for forced, module, given, message in cases:
        with contextlib.nullcontext() if forced is None else nn.path(forced):
            with pytest.raises(ValueError, match=re.escape(message)):
                module(given)
    feeding_itself = make_layer("LIF", "input").neuron
    with (
        nn.path("fused"),
        pytest.raises(ValueError, match=r"^`cur` must be a current fit for the fused path, got its gate"),
    ):
        feeding_itself(x @ layer.weight, x=x)
    with (
        nn.path("event"),
        pytest.raises(ValueError, match=r"^`cur` must be events fit for the event path, got a dense"),
    ):
        layer.neuron(x @ layer.weight)


@pytest.mark.parametrize(("neuron", "gate"), FIRED)
def test_what_comes_in_decides_what_goes_out(neuron: str, gate: str) -> None:
    layer, x = make_layer(neuron, gate), make_counts()
    with nn.path("torch"):
        wanted, end = layer(x)
    for path in (None, "event", "fused"):
        for given in (x, su.Spikes.from_dense(x)):
            with contextlib.nullcontext() if path is None else nn.path(path):
                out, state = layer(given)
            is_list = isinstance(given, su.Spikes) and layer.neuron.fires
            assert type(out) is (su.Spikes if is_list else Tensor)
            assert type(state) is type(end)
            assert (torch.from_numpy(dense_of(out)) == wanted).all()


@pytest.mark.parametrize("path", [None, "fused", "torch"])
@pytest.mark.parametrize("neuron", ["LIF", "CubaLI"])
def test_a_neuron_alone_refuses_the_state_of_another(neuron: str, path: str | None) -> None:
    """Kernels check no bounds: a state that is too short would be read behind its end."""
    alone, cur = make_layer(neuron, "none").neuron, torch.zeros(3, 4, N, dtype=torch.float64)
    name = "LIFState" if neuron == "LIF" else "CubaLIState"
    shape = re.escape(f"of shape [4, {N}], got [2, {N}] and")
    other = make_layer("AdLIF", "none").neuron
    with contextlib.nullcontext() if path is None else nn.path(path):
        for state, message in ((make_start(alone, 2), shape), (make_start(other, 4), f"a {name}, got a AdLIFState")):
            for run in (lambda s: alone(cur, s), lambda s: alone.step(cur[0], s)):
                with pytest.raises(ValueError, match=f"^`state` must be {message}"):
                    run(state)


def test_a_front_layer_is_reached_on_every_path() -> None:
    """Mixed: a layer forced onto another path than its neighbour hands gradients on all the same."""
    front, layer, x = make_front(), make_layer("LIF", "input"), make_counts()
    found = []
    for first, second in (("torch", "torch"), ("event", "fused"), ("fused", "event"), ("event", "event")):
        with nn.path(first):
            spk, _ = front(x if first == "torch" else su.Spikes.from_dense(x))
        with nn.path(second):
            out, _ = layer(spk)
        out = out if isinstance(out, Tensor) else out.dense()
        found.append(torch.autograd.grad((out * torch.arange(N)).sum(), [front.weight, layer.weight]))
    assert found[0][0].abs().max() > 0
    for grads in found[1:]:
        for g, wanted in zip(grads, found[0], strict=True):
            assert_close(g.numpy(), wanted.numpy(), 1e-9)
