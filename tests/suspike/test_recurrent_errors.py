"""What the selective-update cells refuse, and what they say then."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from suspike_testing.recurrent import N_IN, N, make_cell, make_input, make_state
from torch.nn.utils.rnn import pack_padded_sequence

import suspike as su
from suspike import nn
from suspike.nn.states import CellState, LIState, LSTMState

MADE: list[tuple[Callable[[], Any], str]] = [
    (lambda: nn.RNN(0, 4), "`input_size` must be at least 1, got 0."),
    (lambda: nn.GRU(3, -1), "`hidden_size` must be at least 1, got -1."),
    (lambda: nn.LSTM(3, 4, 0), "`num_layers` must be at least 1, got 0."),
    (lambda: nn.GRU(3, 4, dropout=1.0), "`dropout` must be from 0 and below 1, got 1.0."),
    (lambda: nn.GRU(3, 4, dropout=-0.1), "`dropout` must be from 0 and below 1, got -0.1."),
    (lambda: nn.RNN(3, 4, nonlinearity="gelu"), "`nonlinearity` must be tanh or relu, got 'gelu'."),
    (
        lambda: nn.GRU(3, 4, 2, gate=nn.RhythmGate(4, open=0.5)),
        "`gate` must be one for each of num_layers = 2, got 1. None: always open.",
    ),
    (lambda: nn.GRU(3, 4, gate=[None] * 3), "`gate` must be one for each of num_layers = 1, got 3. None: always open."),
    (
        lambda: nn.LSTM(3, 4, 2, gate=[None, nn.RhythmGate(5, open=0.5)]),
        "`gate` must be of hidden_size = 4 units, got 5 units in layer 1",
    ),
    (
        lambda: nn.RNN(3, 4, 2, gate=[None, nn.InputGate(3, 4, open=0.5, group_size=2)]),
        "`gate` must be of 4 units in layer 1, like its input, got n_in = 3.",
    ),
]


@pytest.mark.parametrize(("make", "message"), MADE)
def test_what_cannot_be_made(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        make()


X = make_input()


def refused(net: Any, message: str, *given: Any, **options: Any) -> None:
    for method in (net, net.final):
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            method(*given, **options)


def test_inputs_of_another_kind() -> None:
    net, first = make_cell("gru", "rhythm"), make_cell("gru", "rhythm", batch_first=True)
    cure = "Pass pad_packed_sequence's tensor, and n_steps=."
    packed = pack_padded_sequence(X, torch.tensor([9, 7, 3]))
    refused(net, f"`input` must be a padded tensor, got a PackedSequence. {cure}", packed)
    refused(net, f"`input` must be of shape [T, B, {N_IN}], got shape [9, 3, {N_IN - 1}].", X[..., 1:])
    refused(first, f"`input` must be of shape [B, T, {N_IN}], got shape [9, 3, {N_IN - 1}].", X[..., 1:])
    refused(net, f"`input` must be of shape [T, B, {N_IN}], got shape [{N_IN}].", X[0, 0])
    refused(net, f"`input` must be of shape [T, B, {N_IN}], got shape [1, 9, 3, {N_IN}].", X[None])
    refused(first, f"`input` must be of shape [B, T, {N_IN}], got shape [1, 9, 3, {N_IN}].", X[None])
    refused(net, f"`input` must be of shape [T, B, {N_IN}], got shape [9, {N_IN - 1}].", X[:, 0, 1:])
    refused(net, "`input` must be on cpu like the weights, got on meta.", X.to("meta"))


def test_lengths_of_another_kind() -> None:
    net = make_cell("gru", "rhythm")
    refused(net, "`n_steps` must be from 0 to T = 9, got 10 at sample 1.", X, n_steps=torch.tensor([9, 10, 3]))
    refused(net, "`n_steps` must be whole numbers of shape [3]", X, n_steps=torch.tensor([9, 3]))
    refused(net, "`n_steps` must be whole numbers of shape [3]", X, n_steps=torch.tensor([9.0, 3.0, 1.0]))
    spikes = su.Spikes.from_dense((X > 0).double())
    refused(net, "`n_steps` must be left out beside Spikes", spikes, n_steps=torch.tensor([9, 3, 1]))


def test_states_of_another_kind() -> None:
    h = torch.zeros(1, 3, N, dtype=torch.float64)
    gru, lstm = make_cell("gru", "rhythm"), make_cell("lstm", "rhythm")
    refused(gru, "`state` must be a CellState or (h), got a LSTMState.", X, LSTMState(h, h, 3))
    refused(gru, "`state` must be a CellState or (h), got a tuple.", X, (h, h))
    refused(gru, "`state` must be a CellState or (h), got a LIState.", X, LIState(h, 3))
    for wrong in (CellState(h, 3), LIState(h, 3), h, [h, h], (h,), (h, h, h)):
        refused(lstm, f"`state` must be a LSTMState or (h, c), got a {type(wrong).__name__}.", X, wrong)
    wanted = f"must be torch.float64 of shape [1, 3, {N}]"
    refused(gru, f"`state.h` {wanted}, got torch.float64 of shape [3, {N}].", X, h[0])
    refused(gru, f"`state.h` {wanted}, got torch.float32 of shape [1, 3, {N}].", X, h.float())
    refused(lstm, f"`state.c` {wanted}, got torch.float64 of shape [1, 2, {N}].", X, (h, h[:, :2]))
    refused(
        gru, f"`state.h` must be torch.float64 of shape [1, {N}], got torch.float64 of shape [1, 3, {N}].", X[:, 0], h
    )
    refused(make_cell("gru", "none", num_layers=2), f"`state.h` must be torch.float64 of shape [2, 3, {N}]", X, h)


def test_an_impossible_path_says_why() -> None:
    for gate, why in (
        ("rhythm", "a dense one"), ("none", "a dense one"),
        ("input", "its gate sees data: samples differ in who is open"), ("soft", "a SoftGate skips nothing"),
    ):  # fmt: skip
        net = make_cell("gru", gate)
        with nn.path("event"):
            refused(net, f"`input` must be fit for the event path, got {why}. Leave the path open.", X)
        with nn.path("fused"):
            if why == "a dense one":
                net(X, make_state(net))
            else:
                refused(net, f"`input` must be fit for the fused path, got {why}. Leave the path open.", X)
        with nn.path("torch"):
            net(X)
