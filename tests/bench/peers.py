"""The libraries beside suspike that stand on torch, each as its own documentation uses it, in its fastest such form.

No suspike here: these run in an environment of their own (peers.txt). `train_step.py` says what each computes otherwise
than suspike; where it says nothing, loss and gradients are compared before anything is timed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from work import Built, Work

AsOurs = Callable[[list[Any]], list[Any]]


def _linear(weight: Any) -> nn.Linear:
    n_in, n_out = weight.shape
    linear = nn.Linear(n_in, n_out, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight).T)
    return linear


def _built(library: str, run: Callable[[], Tensor], work: Work, params: list[Tensor], as_ours: AsOurs) -> Built:
    """Make a step of `run`, which returns the spike counts [B, N]."""
    mask = torch.from_numpy(work.mask)

    def step() -> tuple[Tensor, list[Tensor], Tensor]:
        counts = run()
        loss = (counts * mask).sum()
        return loss.detach(), list(torch.autograd.grad(loss, params)), counts.detach()

    return Built(step, as_ours, {"version": version(library)})


def _alone(library: str, run: Callable[[], Tensor], work: Work, cur: Tensor) -> Built:
    """Make a step of `run`, which returns the spikes of neurons alone on a current."""
    mask = torch.from_numpy(work.mask)

    def step() -> tuple[None, list[Tensor], Tensor]:
        spk = run()
        return None, list(torch.autograd.grad(spk, [cur], mask)), spk.detach()

    return Built(step, list, {"version": version(library)})


def _turned(grads: list[Any]) -> list[Any]:
    return [g.T for g in grads]


def snntorch(work: Work, threads: int) -> Built:
    """Linear inside of the loop, spikes recorded in a list, as in its tutorials."""
    import snntorch as snn

    torch.set_num_threads(threads)
    linear, x = _linear(work.weight), torch.from_numpy(work.x).float()
    settings: dict[str, Any] = {"beta": work.beta, "threshold": work.threshold}
    if len(work.recurrent):
        neuron = snn.RLeaky(all_to_all=True, linear_features=len(work.recurrent), **settings)
        neuron.recurrent = _linear(work.recurrent)
    else:
        neuron = snn.Leaky(**settings)

    def run() -> Tensor:
        spk = mem = torch.zeros(work.mask.shape)
        out = []
        for x_t in x.unbind(0):
            state = (spk, mem) if len(work.recurrent) else (mem,)
            spk, mem = neuron(linear(x_t), *state)
            out.append(spk)
        return torch.stack(out).sum(0)

    params = [linear.weight, *([neuron.recurrent.weight] if len(work.recurrent) else [])]
    return _built("snntorch", run, work, params, _turned)


def snntorch_neuron(work: Work, threads: int) -> Built:
    """Leaky in a loop over a dense current."""
    import snntorch as snn

    torch.set_num_threads(threads)
    neuron = snn.Leaky(beta=work.beta, threshold=work.threshold)
    cur = torch.from_numpy(work.x).requires_grad_()

    def run() -> Tensor:
        mem = torch.zeros(cur.shape[1:])
        out = []
        for cur_t in cur.unbind(0):
            spk, mem = neuron(cur_t, mem)
            out.append(spk)
        return torch.stack(out)

    return _alone("snntorch", run, work, cur)


def _lif_node(work: Work, step_mode: str) -> Any:
    from spikingjelly.activation_based import neuron, surrogate

    return neuron.LIFNode(
        tau=1 / (1 - work.beta), decay_input=False, v_threshold=work.threshold, v_reset=None, detach_reset=True,
        surrogate_function=surrogate.PiecewiseQuadratic(alpha=1 / work.width), step_mode=step_mode,
    )  # fmt: skip


def spikingjelly(work: Work, threads: int) -> Built:
    """LIFNode over all steps at once, or a LinearRecurrentContainer step by step.

    The container over all steps at once takes three times as long at this T: each ``x[t]`` adds a tensor of all steps
    to the backward pass.
    """
    from spikingjelly.activation_based import functional, layer

    torch.set_num_threads(threads)
    linear, x = _linear(work.weight), torch.from_numpy(work.x).float()
    n = len(work.recurrent)
    if not n:
        node = _lif_node(work, "m")

        def run() -> Tensor:
            functional.reset_net(node)
            counts: Tensor = node(linear(x)).sum(0)
            return counts

        return _built("spikingjelly", run, work, [linear.weight], _turned)

    cell = layer.LinearRecurrentContainer(_lif_node(work, "s"), n, n, bias=False, step_mode="s")
    with torch.no_grad():
        cell.rc.weight.copy_(torch.cat([torch.eye(n), torch.from_numpy(work.recurrent).T], 1))

    def run_recurrent() -> Tensor:
        functional.reset_net(cell)
        return torch.stack([cell(cur_t) for cur_t in linear(x).unbind(0)]).sum(0)

    def as_ours(grads: list[Any]) -> list[Any]:
        return [grads[0].T, grads[1][:, n:].T]

    return _built("spikingjelly", run_recurrent, work, [linear.weight, cell.rc.weight], as_ours)


def spikingjelly_neuron(work: Work, threads: int) -> Built:
    """LIFNode over all steps at once, on a dense current."""
    from spikingjelly.activation_based import functional

    torch.set_num_threads(threads)
    node, cur = _lif_node(work, "m"), torch.from_numpy(work.x).requires_grad_()

    def run() -> Tensor:
        functional.reset_net(node)
        spk: Tensor = node(cur)
        return spk

    return _alone("spikingjelly", run, work, cur)


def norse(work: Work, threads: int) -> Built:
    """LIFRecurrent, its synaptic current gone within a step; without recurrence Linear and LIFBoxCell step by step.

    Norse takes its input in units of what it settles at, so the weights grow by 1 / (1 - beta).
    """
    import norse.torch as norse
    from norse.torch.functional.lif import LIFParameters
    from norse.torch.functional.lif_box import LIFBoxParameters
    from norse.torch.functional.reset import reset_subtract

    torch.set_num_threads(threads)
    leak = 1 - work.beta
    x = torch.from_numpy(work.x).float()
    if len(work.recurrent):
        p = LIFParameters(
            tau_syn_inv=torch.tensor(1000.0), tau_mem_inv=torch.tensor(1000 * leak), v_th=torch.tensor(work.threshold)
        )
        layer = norse.LIFRecurrent(*work.weight.shape, p=p, autapses=True)
        with torch.no_grad():
            layer.input_weights.copy_(torch.from_numpy(work.weight).T / leak)
            layer.recurrent_weights.copy_(torch.from_numpy(work.recurrent).T / leak)

        def run_recurrent() -> Tensor:
            counts: Tensor = layer(x)[0].sum(0)
            return counts

        return _built("norse", run_recurrent, work, [layer.input_weights, layer.recurrent_weights], _turned)

    box = LIFBoxParameters(
        tau_mem_inv=torch.tensor(1000 * leak), v_th=torch.tensor(work.threshold), reset_method=reset_subtract
    )
    linear, cell = _linear(work.weight / leak), norse.LIFBoxCell(p=box)

    def run() -> Tensor:
        state, out = None, []
        for x_t in x.unbind(0):
            spk, state = cell(linear(x_t), state)
            out.append(spk)
        return torch.stack(out).sum(0)

    return _built("norse", run, work, [linear.weight], _turned)


def sinabs(work: Work, threads: int) -> Built:
    """LIF or LIFRecurrent over whole sequences, batch first; surrogate and reset, which it takes as functions, ours."""
    import sinabs.activation as sa
    import sinabs.layers as sl

    torch.set_num_threads(threads)
    linear = _linear(work.weight)
    x = torch.from_numpy(work.x).float().transpose(0, 1).contiguous()
    width, subtract = work.width, sa.MembraneSubtract()

    def triangle(v: Tensor, threshold: float) -> Tensor:
        return torch.relu(width - (v - threshold).abs()) / width**2

    def detached(spikes: Tensor, state: dict[str, Tensor], threshold: float) -> Any:
        return subtract(spikes.detach(), state, threshold)

    settings: dict[str, Any] = {
        "tau_mem": -1 / math.log(work.beta), "spike_threshold": work.threshold, "spike_fn": sa.SingleSpike,
        "reset_fn": detached, "surrogate_grad_fn": triangle, "norm_input": False,
    }  # fmt: skip
    params = [linear.weight]
    if len(work.recurrent):
        back = _linear(work.recurrent)
        params.append(back.weight)
        lif = sl.LIFRecurrent(rec_connect=back, **settings)
    else:
        lif = sl.LIF(**settings)
    for p in lif.parameters():  # its time constant; beta is fixed here
        p.requires_grad_(any(p is q for q in params))

    def run() -> Tensor:
        lif.reset_states()
        counts: Tensor = lif(linear(x)).sum(1)
        return counts

    return _built("sinabs", run, work, params, _turned)
