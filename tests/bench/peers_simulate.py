"""Torch libraries that simulate the network of network.py: batch 1, float32, no gradients, spikes of both layers kept.

Each runs under ``torch.inference_mode``, takes the input product of all steps at once before its loop over the steps,
and the readout's of all steps behind it, which its layers allow as no spike comes back from there. Where a library's
recurrent layer does more work than needed, the recurrent connection is a Linear beside its feed-forward neuron.
No suspike here: these run in an environment of their own (peers.txt).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from network import Network
from torch import Tensor, nn
from work import Built

Run = Callable[[Tensor], tuple[Tensor, Tensor]]


def _linear(weight: Any) -> nn.Linear:
    linear = nn.Linear(*weight.shape, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight).T)
    return linear


def _built(net: Network, threads: int, run: Run, library: str) -> Built:
    """Make a step of `run`, which takes a sample [T, 1, n_in] and returns the spikes of both layers, [T, 1, N]."""
    torch.set_num_threads(threads)
    samples = [torch.from_numpy(net.dense(b))[:, None] for b in range(net.n_samples)]

    def step() -> list[tuple[Tensor, Tensor]]:
        with torch.inference_mode():
            return [run(x) for x in samples]

    def as_ours(done: list[tuple[Tensor, Tensor]]) -> list[Any]:
        return [np.concatenate([spk[i].numpy() for spk in done], 1) > 0 for i in (0, 1)]

    return Built(step, as_ours, {"version": version(library)})


def torch_loop(net: Network, threads: int) -> Built:
    """A dense loop written by hand."""
    into, back, readout = (torch.from_numpy(w) for w in (net.weight, net.recurrent, net.readout))

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        v = spk = torch.zeros(1, back.shape[1])
        hidden, out = [], []
        for cur in (x @ into).unbind(0):
            v = net.beta * v + (cur + spk @ back)
            fires = v > net.threshold
            v, spk = v.masked_fill(fires, 0), fires.float()
            hidden.append(spk)
        all_hidden, v = torch.stack(hidden), torch.zeros(1, readout.shape[1])
        for cur in (all_hidden @ readout).unbind(0):
            v = net.beta * v + cur
            fires = v > net.threshold
            v = v.masked_fill(fires, 0)
            out.append(fires)
        return all_hidden, torch.stack(out)

    return _built(net, threads, run, "torch")


def snntorch(net: Network, threads: int) -> Built:
    """Leaky and a Linear back, in a loop; RLeaky takes the recurrent product twice when it resets to zero."""
    import snntorch as snn

    into, back, readout = map(_linear, (net.weight, net.recurrent, net.readout))
    lif = snn.Leaky(beta=net.beta, threshold=net.threshold, reset_mechanism="zero", reset_delay=False)

    def layer(cur: Tensor, back: nn.Linear | None) -> Tensor:
        spk = mem = torch.zeros(cur.shape[1:])
        out = []
        for cur_t in cur.unbind(0):
            spk, mem = lif(cur_t if back is None else cur_t + back(spk), mem)
            out.append(spk)
        return torch.stack(out)

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = layer(into(x), back)
        return hidden, layer(readout(hidden), None)

    return _built(net, threads, run, "snntorch")


def norse(net: Network, threads: int) -> Built:
    """LIFBoxCell and a Linear back, in a loop; LIFRecurrent would take the input product step by step.

    Norse takes its input in units of what it settles at, so the weights grow by 1 / (1 - beta).
    """
    import norse.torch as library
    from norse.torch.functional.lif_box import LIFBoxParameters
    from norse.torch.functional.reset import reset_value

    leak = 1 - net.beta
    p = LIFBoxParameters(
        tau_mem_inv=torch.tensor(1000 * leak), v_th=torch.tensor(net.threshold), reset_method=reset_value
    )
    into, back, readout = (_linear(w / np.float32(leak)) for w in (net.weight, net.recurrent, net.readout))
    cell = library.LIFBoxCell(p=p)

    def layer(cur: Tensor, back: nn.Linear | None) -> Tensor:
        state, spk, out = None, torch.zeros(cur.shape[1:]), []
        for cur_t in cur.unbind(0):
            spk, state = cell(cur_t if back is None else cur_t + back(spk), state)
            out.append(spk)
        return torch.stack(out)

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = layer(into(x), back)
        return hidden, layer(readout(hidden), None)

    return _built(net, threads, run, "norse")


def spikingjelly(net: Network, threads: int) -> Built:
    """LIFNode with a Linear back, step by step; the readout's LIFNode over all steps at once.

    LinearRecurrentContainer would concatenate spikes and input for one larger product a step.
    """
    from spikingjelly.activation_based import functional, neuron

    def node(step_mode: str) -> Any:
        return neuron.LIFNode(
            tau=1 / (1 - net.beta), decay_input=False, v_threshold=net.threshold, v_reset=0.0, step_mode=step_mode
        ).eval()

    into, back, readout = map(_linear, (net.weight, net.recurrent, net.readout))
    hidden_node, out_node = node("s"), node("m")

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        functional.reset_net(hidden_node)
        functional.reset_net(out_node)
        spk, found = torch.zeros(1, len(net.recurrent)), []
        for cur in into(x).unbind(0):
            spk = hidden_node(cur + back(spk))
            found.append(spk)
        hidden = torch.stack(found)
        return hidden, out_node(readout(hidden))

    return _built(net, threads, run, "spikingjelly")


def sinabs(net: Network, threads: int) -> Built:
    """LIFRecurrent and LIF over whole sequences, batch first; one spike a step, reset to zero."""
    import sinabs.activation as sa
    import sinabs.layers as sl

    settings: dict[str, Any] = {
        "tau_mem": -1 / math.log(net.beta), "spike_threshold": torch.tensor(net.threshold), "spike_fn": sa.SingleSpike,
        "reset_fn": sa.MembraneReset(), "norm_input": False,
    }  # fmt: skip
    into, back, readout = map(_linear, (net.weight, net.recurrent, net.readout))
    hidden_layer, out_layer = sl.LIFRecurrent(rec_connect=back, **settings), sl.LIF(**settings)

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        hidden_layer.reset_states()
        out_layer.reset_states()
        hidden = hidden_layer(into(x).transpose(0, 1))
        return hidden.transpose(0, 1), out_layer(readout(hidden)).transpose(0, 1)

    return _built(net, threads, run, "sinabs")
