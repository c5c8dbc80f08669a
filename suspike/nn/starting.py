"""Start a network where it can learn: every layer at a sensible firing rate, every gate open as often as wanted."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from suspike._lengths import running
from suspike._validate import fail
from suspike.nn.event import product
from suspike.nn.gates import DriveGate, InputGate
from suspike.nn.layer import Layer
from suspike.nn.paths import path
from suspike.spikes import Spikes

log = logging.getLogger(__name__)

TRIES = 12
"""Steps of the search for a layer's scale; the rate rises with it, so each one halves the range."""


class Start(NamedTuple):
    """What `start_at_rate` did to a layer.

    Attributes
    ----------
    name : str
        Its path in the module tree.
    scale : float
        What its input weights were multiplied by.
    rate : float
        Spikes per open neuron and step that it has then.
    """

    name: str
    scale: float
    rate: float


@torch.no_grad()
def start_at_rate(net: nn.Module, spikes: Spikes, *, rate: float = 0.05) -> list[Start]:
    """Scale the input weights of every layer that fires, so that it fires at `rate` on real data.

    Layers are fitted in the order of their calls, each one behind those fitted before it. Gates that data open are
    fitted first: the bias of an `InputGate` and kappa of a `DriveGate` become quantiles of what they see, and their
    `scale` its standard deviation. Recurrent weights, biases and everything else stay as they are.

    Parameters
    ----------
    net : module
        On the CPU; called as ``net(spikes)``. Its layers may stand anywhere in its tree.
    spikes : Spikes [T, B, n_in]
        A batch of the training data.
    rate : float
        Spikes per open neuron and step, above 0 and below 1.

    Returns
    -------
    list of Start
        One for each layer, in order. One that stays dead or comes out far from `rate` is named in a warning.
    """
    if not 0 < rate < 1:
        fail("rate", "above 0 and below 1", repr(rate))
    if not len(spikes.events.idx):
        fail("spikes", "a batch with events", "none", "A silent input tells nothing of a rate.")
    names = {layer: name for name, layer in net.named_modules() if isinstance(layer, Layer)}
    done: list[Start] = []
    for layer in _call_order(net, spikes):
        if layer.neuron.fires:
            x = _input_of(net, spikes, layer)
            done.append(Start(names[layer], *_fit(layer, x, rate)))
    for each in done:
        if not rate / 2 < each.rate < 2 * rate:
            log.warning(
                "Layer %s fires at %.2g, not at %.2g: its input, bias or gate does not allow it.",
                each.name or "(net)", each.rate, rate,
            )  # fmt: skip
    return done


def _call_order(net: nn.Module, spikes: Spikes) -> list[Layer]:
    order: dict[Layer, None] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda module, _: order.setdefault(module))
        for layer in net.modules()
        if isinstance(layer, Layer)
    ]
    try:
        net(spikes)
    finally:
        for hook in hooks:
            hook.remove()
    return list(order)


def _input_of(net: nn.Module, spikes: Spikes, layer: Layer) -> Spikes:
    """Return what a layer hears in its first call."""
    heard: list[tuple[Any, Any]] = []
    hook = layer.register_forward_pre_hook(
        lambda _, args, kwargs: heard.append((args[0], kwargs.get("n_steps"))), with_kwargs=True
    )
    try:
        net(spikes)
    finally:
        hook.remove()
    x, n_steps = heard[0]
    return x if isinstance(x, Spikes) else Spikes.from_dense(x, n_steps)


def _fit(layer: Layer, x: Spikes, rate: float) -> tuple[float, float]:
    """Fit a layer's gate and scale; return the scale and the rate found."""
    gate, weight = layer.neuron.gate, layer.weight.clone()
    if isinstance(gate, InputGate):
        seen = product(x, gate.weight, torch.zeros_like(gate.bias))
        seen = _true_steps(seen, x)
        gate.bias.copy_(-_quantile(seen, 1 - gate.open))
        gate.get_buffer("scale").copy_(_swing(seen))

    def rate_at(scale: float) -> float:
        layer.weight.copy_(weight * scale)
        if isinstance(gate, DriveGate):
            cur = _true_steps(layer.current(x.dense().to(layer.weight.dtype)), x)
            gate.log_kappa.copy_(_quantile(cur.abs(), 1 - gate.open).clamp_min(1e-6).log())
            gate.get_buffer("scale").copy_(_swing(cur))
        with path("event"):
            out, _ = layer(x)
        assert isinstance(out, Spikes), "a layer that fires hands on spikes"
        n_places = (out.shape[0] * out.shape[1] if x.n_steps is None else int(x.n_steps.sum())) * out.shape[2]
        share = 1.0 if gate is None else gate.open
        return len(out.events.idx) / max(n_places * share, 1e-9)

    low, high = -10.0, 10.0  # exponents of 2
    for _ in range(TRIES):
        middle = (low + high) / 2
        low, high = (low, middle) if rate_at(2.0**middle) > rate else (middle, high)
    return 2.0 ** ((low + high) / 2), rate_at(2.0 ** ((low + high) / 2))


def _quantile(x: Tensor, share: float) -> Tensor:
    """Return each column's quantile [G] of x [steps, G]; torch's own refuses large inputs."""
    flat = x.sort(0).values
    return flat[min(int(share * len(flat)), len(flat) - 1)]


def _swing(x: Tensor) -> Tensor:
    return x.std(0).clamp_min(1e-6)


def _true_steps(seen: Tensor, x: Spikes) -> Tensor:
    """Return what was seen [T, B, G] at all steps but padding, [steps, G]."""
    return seen.flatten(0, 1) if x.n_steps is None else seen[running(x.n_steps, *x.shape[:2], least=0)[..., 0]]
