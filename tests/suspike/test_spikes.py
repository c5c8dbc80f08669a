"""A spike train as lists against the dense array: values, gradients, refusals."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from suspike_testing.cases import random_events
from suspike_testing.comparing import assert_same_events
from suspike_testing.nets import make_input

import suspike as su
from suspike_kernels.layout import Events

SIZES = st.tuples(*[st.sampled_from([0, 1, 4])] * 3)


def spikes_of(sizes: tuple[int, int, int], seed: int, dtype: Any = torch.float64) -> tuple[su.Spikes, torch.Tensor]:
    """Spikes with gradient at some places, some of them silent, and the leaf that takes it."""
    rng = np.random.default_rng(seed)
    events = random_events(rng, *sizes, 0.5, most=1)
    active = random_events(rng, *sizes, 0.5, most=1)
    values = torch.from_numpy(events.dense().reshape(-1)[active.places()[2]]).to(dtype).requires_grad_()
    return su.Spikes(events, active, values), values


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(SIZES, st.integers(0, 999))
def test_dense_and_counts(sizes: tuple[int, int, int], seed: int) -> None:
    spikes, values = spikes_of(sizes, seed)
    wanted = np.zeros(sizes)
    for b in range(sizes[1]):
        for t in range(sizes[0]):
            for i in spikes.events.idx[spikes.events.ptr[b, t] : spikes.events.ptr[b, t + 1]]:
                wanted[t, b, i] += 1
    assert spikes.shape == sizes
    dense, counts = spikes.dense(), spikes.counts()
    assert dense.dtype == counts.dtype == values.dtype
    np.testing.assert_array_equal(dense.detach().numpy(), wanted)
    np.testing.assert_array_equal(counts.detach().numpy(), wanted.sum(0))

    # the gradient of an active place is that of its spike in the dense array
    weights = torch.from_numpy(np.random.default_rng(seed).standard_normal(sizes))
    at_active = spikes.active.places()[2]
    (by_dense,) = torch.autograd.grad((dense * weights).sum(), values)
    np.testing.assert_array_equal(by_dense.numpy(), weights.reshape(-1).numpy()[at_active])
    (by_counts,) = torch.autograd.grad((counts * weights.sum(0)).sum(), values)
    spread = weights.sum(0).expand(sizes).reshape(-1).numpy()
    np.testing.assert_allclose(by_counts.numpy(), spread[at_active], rtol=1e-14)


def test_repeats_count() -> None:
    events = make_input(density=0.6)
    spikes = su.Spikes.from_events(events)
    assert events.max_count() == 3
    np.testing.assert_array_equal(spikes.dense().numpy(), events.dense())
    assert spikes.counts().sum() == len(events.idx)
    assert not spikes.dense().requires_grad


def test_from_dense_and_back() -> None:
    counts = torch.from_numpy(make_input(density=0.6).dense())
    for dtype in (torch.float32, torch.float64, torch.int64, torch.uint8, torch.float16):
        spikes = su.Spikes.from_dense(counts.to(dtype))
        assert torch.equal(spikes.dense(), counts)
    assert torch.equal(su.Spikes.from_dense(counts > 0).dense(), (counts > 0).float())
    assert torch.equal(su.Spikes.from_dense(counts.transpose(0, 1)).dense(), counts.transpose(0, 1))


@pytest.mark.parametrize("value", [0.5, -1.0, torch.nan, torch.inf])
def test_from_dense_refuses_what_is_no_count(value: float) -> None:
    with pytest.raises(ValueError, match=re.escape("`counts` must be whole numbers from 0")):
        su.Spikes.from_dense(torch.full((1, 1, 1), value))


def test_from_dense_refuses_a_gradient() -> None:
    message = "`spk` must be free of gradient, got a tensor that requires one. Pass it dense, or detach it."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        su.Spikes.from_dense(torch.zeros(1, 1, 1, requires_grad=True))


def test_from_events_checks() -> None:
    with pytest.raises(ValueError, match="units from 0 to n_units - 1 = 1, got 2"):
        su.Spikes.from_events(Events(np.array([[0, 1]]), np.array([2], np.int32), 2))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_input_spikes_can_be_copied(duplicate: Any) -> None:
    spikes = su.Spikes.from_events(make_input())
    other = duplicate(spikes)
    assert_same_events(other.events, spikes.events)
    assert_same_events(other.active, spikes.active)
    assert not np.shares_memory(other.events.idx, spikes.events.idx)
