"""The modules as citizens of torch: saved, copied, doubled, frozen, in workers; and what they refuse."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import re
import threading
from typing import Any

import numpy as np
import pytest
import torch
from suspike_testing.comparing import assert_close, assert_same_bits
from suspike_testing.nets import dense_of, gradients, loss_of, make_input, make_net, make_state, on_path, run_layers
from torch.utils.data import DataLoader, Dataset

import suspike as su
from suspike_kernels.rhythm import spread


def output(net: su.nn.Stack, x: Any) -> np.ndarray:
    with torch.no_grad():
        return dense_of(net(x)[0])


SPIKES = su.Spikes.from_events(make_input())


@pytest.mark.parametrize("learn_periods", [False, True])
def test_a_state_dict_carries_everything(learn_periods: bool) -> None:
    net, other = (make_net(learn_periods=learn_periods, seed=seed) for seed in (0, 1))
    wanted = output(net, SPIKES)
    assert (output(other, SPIKES) != wanted).any()
    other.load_state_dict(net.state_dict())
    assert_same_bits(output(other, SPIKES), wanted)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_a_copy_computes_the_same_and_stands_alone(duplicate: Any) -> None:
    net = make_net()
    other = duplicate(net)
    wanted = output(net, SPIKES)
    assert_same_bits(output(other, SPIKES), wanted)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    assert_same_bits(output(net, SPIKES), wanted)


def test_without_gradient_there_are_no_active_lists() -> None:
    net = make_net()
    with torch.no_grad():
        outs, _ = run_layers(net, SPIKES, (None,) * 3)
    assert len(outs[0].events.idx) > 50
    assert not len(outs[0].active.idx)
    assert not len(outs[1].active.idx)
    net.requires_grad_(False)
    assert not len(net[0](SPIKES)[0].active.idx)
    net[1].weight.requires_grad_()
    first, _ = net[0](SPIKES)
    assert not len(first.active.idx)
    assert len(net[1](first)[0].active.idx) > 50
    net.requires_grad_()
    assert len(net[0](SPIKES)[0].active.idx) > 50
    assert_same_bits(dense_of(net[0](SPIKES)[0]), dense_of(outs[0]))


@pytest.mark.parametrize("frozen", ["gate", "leak", "weight"])
def test_freezing_a_part_leaves_the_other_gradients(frozen: str) -> None:
    state = make_state(make_net(), 4)
    _, _, wanted = gradients(make_net(), SPIKES, state)
    net = make_net()
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(frozen not in name)
    outs, after = run_layers(net, SPIKES, make_state(net, 4))
    loss_of(outs, after).backward()
    n_compared = 0
    for name, parameter in net.named_parameters():
        if frozen in name:
            assert parameter.grad is None
        else:
            assert parameter.grad is not None
            assert_close(parameter.grad.numpy(), wanted[name], 1e-5, name)
            n_compared += 1
    assert n_compared > 8


def test_a_double_network_runs_on_both_paths() -> None:
    net = make_net(dtype=torch.float64)
    out, state = net(SPIKES)
    with su.nn.path("torch"):
        dense, _ = net(SPIKES.dense().double())
    assert out.dtype == dense.dtype == state[0].v.dtype == torch.float64
    assert_same_bits(out.detach().numpy(), dense.detach().numpy())


def test_training_learns_on_both_paths_alike() -> None:
    """Three steps of an optimizer; a parameter changed in place between forward and backward is noticed."""
    nets = [make_net(dtype=torch.float64) for _ in range(2)]
    inputs = [SPIKES, SPIKES.dense().double()]
    losses: list[list[float]] = [[], []]
    for net, x, seen in zip(nets, inputs, losses, strict=True):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            with on_path("event" if isinstance(x, su.Spikes) else "torch"):
                loss = net(x)[0].square().mean()
            loss.backward()
            optimizer.step()
            seen.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    assert losses[0][2] < losses[0][0]


@pytest.mark.parametrize("changed", ["0.weight", "1.recurrent", "2.weight", "2.bias"])
def test_a_parameter_changed_before_the_backward_pass_is_noticed(changed: str) -> None:
    net = make_net()
    out, _ = net(SPIKES)
    with torch.no_grad():
        dict(net.named_parameters())[changed].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.parametrize("part", ["gate", "lif", "li"])
def test_a_second_derivative_is_refused(part: str) -> None:
    """The kernels' gradients are numbers to autograd: a second derivative through them would silently be 0."""
    net = make_net()
    loss = {
        "gate": lambda: net[0].neuron.gate.rhythm(9).square().sum(),
        "lif": lambda: net[0](SPIKES)[1].v.square().sum(),
        "li": lambda: net[2](su.Spikes.from_events(make_input(n_in=6)))[0].square().sum(),
    }[part]()
    parameters = [p for p in net.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        sum(g.square().sum() for g in found if g is not None).backward()


def test_a_gate_without_swing_gives_no_nan() -> None:
    gate = su.nn.RhythmGate(3, open=0.4)
    with torch.no_grad():
        gate.amplitude[0] = 0
    gate(50).open.sum().backward()
    for name, parameter in gate.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("open_share", [0.1, 0.25, 0.5, 0.9])
def test_a_gate_begins_at_its_share(open_share: float) -> None:
    torch.manual_seed(0)
    table = su.nn.RhythmGate(40, open=open_share, n_steps=400)(400).open
    assert (table.sum(0) == 400 * open_share).all()
    assert set(table.unique().tolist()) == {0.0, 1.0}
    # these periods repeat after 60 steps, so that shares come in steps of 1/60
    table = su.nn.RhythmGate(40, open=open_share, n_steps=400, periods=(2.5, 5.0, 12.0, 30.0))(400).open
    assert (table.mean(0) - open_share).abs().max() <= 1.5 / 60


def test_a_gate_keeps_its_bits_when_its_network_changes_its_type() -> None:
    torch.manual_seed(0)
    gate = su.nn.RhythmGate(40, open=0.3, periods=(2.3, 7.1, 33.7))
    before = gate(5000).open
    assert torch.equal(gate.double()(5000).open.float(), before)
    assert torch.equal(gate.float()(5000).open, before)


def test_near_is_where_the_gate_takes_a_gradient() -> None:
    torch.manual_seed(0)
    gate = su.nn.RhythmGate(12, open=0.4, gate_width=0.5, learn_periods=True)
    for start in (0, 37):
        table = gate(60, start=start)
        a = gate.rhythm(60, start=start)
        a.retain_grad()
        width = gate.gate_width * torch.from_numpy(spread(gate.amplitude.detach().double().numpy()))
        assert_same_bits(table.open.detach().double().numpy(), (a > 0).double().numpy())
        (by,) = torch.autograd.grad(su.surrogate.TriangleStep.apply(a, width).sum(), a)
        assert torch.equal(by != 0, table.near)
        assert 0.1 < table.near.double().mean() < 0.9
        np.testing.assert_allclose(by.sum().item(), ((width - a.abs()).clamp(min=0) / width**2).sum().item())
    with torch.no_grad():
        assert not gate(60).near.any()


@pytest.mark.parametrize("piece", [1, 7, 60, 4096])
def test_a_gate_goes_back_in_pieces(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr("suspike.nn.rhythms.PIECE", piece)
    torch.manual_seed(0)
    gate = su.nn.RhythmGate(12, open=0.4, gate_width=0.5, learn_periods=True).double()
    pull, parameters = torch.randn(60, 12).double(), list(gate.parameters())
    at_once = su.surrogate.TriangleStep.apply(gate.rhythm(60, start=37), gate.gate_width * gate.swing())
    found = torch.autograd.grad(gate(60, start=37).open, parameters, pull)
    for by, wanted in zip(found, torch.autograd.grad(at_once, parameters, pull), strict=True):
        torch.testing.assert_close(by, wanted, rtol=1e-12, atol=1e-13)
        assert wanted.abs().min() > 1e-6


def test_periods_are_what_was_asked_for_learned_or_not() -> None:
    for learn in (False, True):
        gate = su.nn.RhythmGate(2, open=0.5, periods=(2.5, 40.0), learn_periods=learn)
        np.testing.assert_allclose(gate.period.detach().numpy(), [2.5, 40], rtol=1e-6)
        assert gate.period.dtype == torch.float64
        assert ("log_period" in dict(gate.named_parameters())) == learn


def test_triangle() -> None:
    triangle = su.surrogate.Triangle(0.25)
    distance = torch.tensor([-1.0, -0.25, -0.125, 0.0, 0.125, 0.25, 1.0], requires_grad=True)
    spk = triangle(distance)
    assert spk.tolist() == [0, 0, 0, 0, 1, 1, 1]
    spk.sum().backward()
    assert distance.grad is not None
    assert distance.grad.tolist() == [0, 0, 2, 4, 2, 0, 0]


LIF, LI, DENSE, GATE = su.nn.LIF, su.nn.LI, su.nn.Dense, su.nn.RhythmGate


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LIF(2, beta=1.0), "`beta` must be above 0 and below 1, got 1.0. It is exp(-dt_ms / tau_ms)."),
        (lambda: LI(2, beta=0.0), "`beta` must be above 0 and below 1, got 0.0. It is exp(-dt_ms / tau_ms)."),
        (lambda: LIF(2, beta=0.5, threshold=0.0), "`threshold` must be above 0, got 0.0."),
        (lambda: LIF(2, beta=0.5, reset="soft"), "`reset` must be one of zero, subtract, none, got 'soft'."),
        (
            lambda: LIF(2, beta=0.5, gate=GATE(3, open=0.5)),
            "`gate` must be of 2 units like its neurons, got 3 units.",
        ),
        (
            lambda: GATE(2, open=1.0),
            "`open` must be above 0 and below 1, got 1.0. A neuron without a gate is always open.",
        ),
        (lambda: GATE(2, open=0.5, periods=(2.0,)), "`periods` must be above 2 steps each, got (2.0,)."),
        (lambda: GATE(2, open=0.5, n_steps=1), "`n_steps` must be at least 2, got 1."),
        (lambda: GATE(2, open=0.5, gate_width=0.0), "`gate_width` must be above 0, got 0.0."),
        (lambda: su.surrogate.Triangle(0.0), "`width` must be above 0, got 0.0."),
        (lambda: DENSE(4, 3, LI(2, beta=0.5)), "`neuron` must be of n_out = 3 units, got 2 units."),
        (
            lambda: DENSE(4, 2, LI(2, beta=0.5), recurrent=True),
            "`recurrent` must be False for a readout, which never fires, got True.",
        ),
        (
            lambda: DENSE(5, 2, LI(2, beta=0.5))(SPIKES),
            "`x` must be of shape [T, B, 5], got shape [20, 4, 11].",
        ),
        (
            lambda: DENSE(5, 2, LI(2, beta=0.5))(torch.zeros(3, 5)),
            "`x` must be of shape [T, B, 5], got shape [3, 5].",
        ),
        (
            lambda: LIF(2, beta=0.5)(torch.zeros(3, 2)),
            "`cur` must be of shape [T, B, 2], got shape [3, 2].",
        ),
        (lambda: make_net()(SPIKES, ()), "`state` must be of 3 layers, got 0."),
    ],
)
def test_a_mistake_is_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


@pytest.mark.parametrize("x", [SPIKES, SPIKES.dense()], ids=["events", "dense"])
@pytest.mark.parametrize("layer", [0, 2])
def test_the_state_of_another_batch_is_refused(x: Any, layer: int) -> None:
    """Kernels check no bounds: a state that is too short would be read and written behind its end."""
    net = make_net()
    states = list(make_state(net, 4))
    states[layer] = make_state(net, 2)[layer]
    with pytest.raises(ValueError, match=re.escape("`state` must be of shape [4, ")):
        net(x, tuple(states))


class _Recordings(Dataset[np.ndarray]):
    """Runs a network inside of the worker that loads."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> np.ndarray:
        torch.set_num_threads(2)  # a pool of threads in the worker, not only its own
        return output(make_net(), su.Spikes.from_events(make_input(seed=i)))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_kernels_run_in_a_worker_process(start: str) -> None:
    wanted = [_Recordings()[i] for i in range(3)]  # the parent's pool has run when a worker is forked
    context = multiprocessing.get_context(start)
    loader = DataLoader(_Recordings(), batch_size=None, num_workers=1, multiprocessing_context=context)
    for a, b in zip(loader, wanted, strict=True):
        assert_same_bits(np.asarray(a), b)


def test_networks_train_in_two_threads_at_once() -> None:
    _, _, wanted = gradients(make_net(), SPIKES, make_state(make_net(), 4))
    failures: list[BaseException] = []

    def work(net: su.nn.Stack) -> None:
        try:
            for _ in range(5):
                _, _, found = gradients(net, SPIKES, make_state(net, 4))
                for name, gradient in wanted.items():
                    assert_close(found[name], gradient, 1e-5, name)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(make_net(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_state_of_another_type_is_refused_on_both_paths() -> None:
    net = make_net()
    state = make_state(make_net(dtype=torch.float64), 4)
    for x in (SPIKES, SPIKES.dense()):
        with pytest.raises(ValueError, match=r"^`state` must be of the layer's torch.float32, got torch.float64 and"):
            net(x, state)


def test_half_precision_takes_dense_tensors_alone() -> None:
    net = make_net().bfloat16()
    with pytest.raises(
        ValueError, match=r"^`x` must be a dense tensor: of the layer's weights, it is torch.bfloat16, got Sp"
    ):
        net(SPIKES)
    assert net(SPIKES.dense().bfloat16())[0].dtype == torch.bfloat16


def test_counts_and_masks_are_as_good_as_floats() -> None:
    net, x = make_net(), SPIKES.dense()
    assert_same_bits(net(x.long())[0].detach().numpy(), net(x)[0].detach().numpy())
    assert_same_bits(net(x > 0)[0].detach().numpy(), net((x > 0).float())[0].detach().numpy())


def test_a_detached_state_ends_the_gradient() -> None:
    net = make_net()
    _, state = net(SPIKES)
    assert all(s.v.requires_grad for s in state)
    again = tuple(s.detach() for s in state)
    for a, b in zip(again, state, strict=True):
        assert not any(x.requires_grad for x in a if isinstance(x, torch.Tensor))
        assert_same_bits(a.v.numpy(), b.v.detach().numpy())
        assert a.t == b.t
