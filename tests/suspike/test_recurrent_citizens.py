"""The selective-update cells as citizens of torch: copied, compiled, threaded, differentiated again; their budgets."""

from __future__ import annotations

import copy
import logging
import pickle
import shutil
import subprocess
import sys
from typing import Any

import pytest
import torch
from suspike_testing.comparing import assert_close, assert_same_bits
from suspike_testing.recurrent import BY_TIME, CELLS, GATES, N, make_cell, make_input, make_state, on_path
from suspike_testing.zoo import tensors_of, weigh
from torch import Tensor

from suspike import losses, nn

SMOOTH = ("tanh", "gru", "lstm")


def derivatives(net: Any, kind: str, *, n_steps: Tensor | None = None) -> bool:
    """Whether gradients by all parameters, state and input are finite differences."""
    # the swing that measures a rhythm's width takes no gradient
    leaves = {k: p for k, p in net.named_parameters() if p.requires_grad and "amplitude" not in k}
    start = make_state(net)

    def run(x: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        state = net.state(*given[: len(start) - 1], 5)
        parameters = dict(zip(leaves, given[len(start) - 1 :], strict=True))
        with on_path(kind):
            out, end = torch.func.functional_call(net, parameters, (x, state), {"n_steps": n_steps})
        return out, *end.variables

    given = [
        make_input(6).requires_grad_(),
        *start[:-1],
        *(p.detach().clone().requires_grad_() for p in leaves.values()),
    ]
    return torch.autograd.gradcheck(run, given, fast_mode=True)


@pytest.mark.parametrize("cell", SMOOTH)
def test_gradcheck_through_a_soft_gate(cell: str) -> None:
    for n_steps in (None, torch.tensor([2, 6, 0])):
        net = make_cell(cell, "soft", num_layers=2)
        assert any(k.startswith("gates.1") for k, p in net.named_parameters() if p.requires_grad)
        assert derivatives(net, "torch", n_steps=n_steps)


@pytest.mark.parametrize("kind", ["free", "index", "torch"])
@pytest.mark.parametrize("gate", ["random", "together", "none"])
@pytest.mark.parametrize("cell", SMOOTH)
def test_gradcheck_through_a_gate_that_does_not_learn(cell: str, gate: str, kind: str) -> None:
    for n_steps in (None, torch.tensor([2, 6, 0])):
        assert derivatives(make_cell(cell, gate, num_layers=2), kind, n_steps=n_steps)


@pytest.mark.parametrize("frozen", ["bias_ih", "bias_hh", "weight_ih", "weight_hh", "bias", "weight", "gates"])
@pytest.mark.parametrize("cell", CELLS)
def test_some_parameters_may_be_frozen(cell: str, frozen: str) -> None:
    net, x = make_cell(cell, "rhythm"), make_input()
    for name, p in net.named_parameters():
        p.requires_grad_(not name.startswith(frozen))
    found = []
    for kind in ("torch", "free"):
        net.zero_grad(set_to_none=True)
        with on_path(kind):
            weigh([net(x)[0]]).backward()
        found.append({k: p.grad for k, p in net.named_parameters()})
    for name, g in found[0].items():
        assert (g is None) == (found[1][name] is None) == name.startswith(frozen), name
        if g is not None:
            assert_close(found[1][name].numpy(), g.numpy(), 1e-11, name, floor=1e-12)


@pytest.mark.parametrize("wanted", ["x", "h", "weight_hh_l0", "bias_ih_l0", "gates.0.bias"])
def test_a_single_gradient_may_be_wanted(wanted: str) -> None:
    for cell in CELLS:
        net = make_cell(cell, "rhythm").requires_grad_(False)
        x, state = make_input(), make_state(net).detach()
        leaves = {**dict(net.named_parameters()), "x": x, "h": state.h}
        leaf = leaves[wanted].requires_grad_()
        by = []
        for kind in ("torch", "free"):
            with on_path(kind):
                out, end = net(x, state)
            for each in ([out], end.variables):
                by.append(torch.autograd.grad(weigh(each), leaf, retain_graph=True)[0])
        for a, b in zip(by[2:], by[:2], strict=True):
            assert_close(a.numpy(), b.numpy(), 1e-11)
        assert by[0].abs().max() > 0


@pytest.mark.parametrize("gate", ["none", "rhythm"])
@pytest.mark.parametrize("cell", CELLS)
def test_going_back_twice_gives_the_same(cell: str, gate: str) -> None:
    net, x = make_cell(cell, gate, num_layers=2), make_input(9, 9).requires_grad_()
    leaves = [x, *net.parameters()]
    out, end = net(x)
    loss = weigh([out, *end.variables])
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    net(x)  # another call in between, of the same sizes, uses no memory of the first one's
    for a, b in zip(torch.autograd.grad(loss, leaves), first, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["free", "torch", "index"])
@pytest.mark.parametrize("gate", ["none", "rhythm"])
@pytest.mark.parametrize("cell", CELLS)
def test_what_is_returned_may_be_changed_or_refuses(cell: str, gate: str, kind: str) -> None:
    """In place, before the backward pass: autograd refuses, or the gradient is what it would have been."""
    net, x = make_cell(cell, gate), make_input()
    n_right = 0
    for change in ("out", "state", "weight", "input"):
        given = x.clone()
        with on_path(kind):
            out, end = net(given)
        loss = weigh([out, *end.variables])
        wanted = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
        with torch.no_grad():
            {"out": out, "state": end.h, "weight": net.weight_hh_l0, "input": given}[change].add_(1)
        try:
            found = torch.autograd.grad(loss, list(net.parameters()))
        except RuntimeError as error:
            assert "modified by an inplace operation" in str(error)  # noqa: PT017
        else:
            assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
            n_right += 1
    assert n_right < 4


@pytest.mark.parametrize("duplicate", ["deepcopy", "pickle", "state_dict", "double"])
@pytest.mark.parametrize("gate", GATES)
def test_a_copy_computes_the_same(gate: str, duplicate: str) -> None:
    for cell in CELLS:
        net, x = make_cell(cell, gate, num_layers=2, dtype=torch.float32), make_input(dtype=torch.float32)
        wanted, end = net(x)
        if duplicate == "state_dict":
            other = make_cell(cell, gate, num_layers=2, dtype=torch.float32, seed=1)
            assert not torch.equal(other(x)[0], wanted)
            other.load_state_dict(net.state_dict())
        else:
            other = {"deepcopy": copy.deepcopy, "pickle": lambda x: pickle.loads(pickle.dumps(x)),
                     "double": lambda x: copy.deepcopy(x).double().float()}[duplicate](net)  # fmt: skip
        assert str(other) == str(net)
        out, last = other(x)
        assert_same_bits(out.detach().numpy(), wanted.detach().numpy())
        for name, v in tensors_of(end).items():
            assert_same_bits(getattr(last, name).detach().numpy(), v.detach().numpy())


@pytest.mark.parametrize("gate", BY_TIME)
def test_threads_change_no_more_than_the_order_of_sums(gate: str) -> None:
    n_threads = torch.get_num_threads()
    try:
        for cell in CELLS:
            net, x = make_cell(cell, gate, dtype=torch.float32), make_input(20, 8, dtype=torch.float32)
            found = []
            for n in (1, 2):
                torch.set_num_threads(n)
                with torch.no_grad():
                    streamed = net(x)[0]
                net.zero_grad()
                out = net(x)[0]
                weigh([out]).backward()
                found.append([streamed, out.detach(), net.weight_hh_l0.grad])
            for a, b in zip(*found, strict=True):
                assert_close(a.numpy(), b.numpy(), 1e-5)
            if gate != "none":
                assert torch.equal(found[0][0], found[1][0])
    finally:
        torch.set_num_threads(n_threads)


@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("g++")), reason="torch.compile needs a C++ compiler here")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("gate", ["rhythm", "input"])
def test_a_compiled_cell_gives_the_same(gate: str) -> None:
    torch.compiler.reset()
    net, x = make_cell("gru", gate, dtype=torch.float32), make_input(3, dtype=torch.float32)
    found = []
    for module in (net, torch.compile(net, backend="aot_eager")):
        net.zero_grad()
        out, state = module(x)
        assert state.t == 3
        weigh([out]).backward()
        found.append([out.detach(), *(p.grad for p in net.parameters())])
    for a, b in zip(*found, strict=True):
        assert_close(a.numpy(), b.numpy(), 1e-5, floor=1e-6)
    torch.compiler.reset()


def test_gates_are_found_and_held_to_a_budget() -> None:
    net, x = make_cell("gru", "rhythm", num_layers=2), make_input(60)
    gates = nn.gate_parameters(net)
    assert {id(p) for p in gates} == {id(p) for k, p in net.named_parameters() if k.startswith("gates.")}
    assert len(gates) == 8
    optimiser = torch.optim.Adam(gates, lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        budget = losses.update_budget([gate.share(60) for gate in net.gates], 0.1)
        (1e-6 * net(x)[0].square().mean() + budget).backward()
        optimiser.step()
    for gate in net.gates:
        assert abs(float((gate(60).open > 0).double().mean()) - 0.1) < 0.04


def test_a_data_gate_reports_its_use() -> None:
    net, x = make_cell("lstm", "input", num_layers=2), make_input(9, 4)
    n_steps, uses = torch.tensor([4, 9, 0, 7]), []
    for gate in net.gates:
        gate.register_forward_hook(lambda module, given, use: uses.append(use))
    out, _ = net(x, n_steps=n_steps)
    assert len(uses) == 2
    moved = (out.detach().diff(dim=0) != 0).sum((0, 2))
    for use in uses:
        assert use.share.shape == (4, N)
        assert use.n_steps.tolist() == n_steps.tolist()
        assert use.open_at.shape == (4, 9)
        assert (use.share[2] == 0).all()
    counted = (uses[1].share.detach() * n_steps[:, None]).sum(1)
    assert ((counted - moved).abs() <= N).all(), "the first step's moves are not among the differences"
    assert moved.sum() > 20
    losses.update_budget(uses, 0.1).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in nn.gate_parameters(net))


def test_a_path_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "suspike.nn.paths"):
        for gate in ("rhythm", "input", "soft"):
            net = make_cell("gru", gate)
            net(make_input())
            net(make_input())
    assert [r.getMessage() for r in caplog.records] == [
        "GRU takes the fused path: time alone opens its gate.",
        "GRU takes the torch path: its gate sees data: samples differ in who is open.",
        "GRU takes the torch path: a SoftGate skips nothing.",
    ]


MEMORY = """
import resource, sys, torch
import suspike as su
torch.manual_seed(0)
torch.set_num_threads(1)
n_time, batch, n = int(sys.argv[1]), 16, 64
gate = su.nn.PeriodicGate(n, period=50)
net = su.nn.GRU(2, n, gate=gate)
x = torch.randn(n_time, batch, 2)
net.final(x[:64]).h.sum().backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
net.final(x).h.sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")
def test_memory_grows_with_updates() -> None:
    """A unit in fifty: what is kept of 20,000 steps is a tenth of h at all steps, 82 MB."""
    run = subprocess.run([sys.executable, "-c", MEMORY, "20000"], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 30_000, "KB"
