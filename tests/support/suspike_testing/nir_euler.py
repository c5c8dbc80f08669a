"""NIR graphs run by Euler's rule in plain numpy, node by node and step by step: what an importer is compared with.

It shares nothing with `suspike.interop`: convolutions are loops over windows, every value is recomputed at every step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
NEURONS = ("IF", "LIF", "CubaLIF", "I", "LI", "CubaLI", "Threshold")


class Done(NamedTuple):
    """By a population's name: spikes [T, *shape], and membranes; and what arrives at each Output."""

    spk: dict[str, Array]
    v: dict[str, Array]
    out: dict[str, Array]


def run(network: Any, x: Array, dt: float) -> Done:
    """Run a network on x [T, *shape of its Input]; `dt` in s."""
    nodes, edges = unnest(network)
    sources = {name: [a for a, b in edges if b == name] for name in nodes}
    state: dict[str, dict[str, Array]] = {}
    last: dict[str, Any] = {}
    done = Done({}, {}, {})
    for x_t in x:
        values = advance(nodes, sources, x_t, last, state, dt)
        last = {name: value for name, value in values.items() if kind_of(nodes[name]) in NEURONS}
        for name, value in values.items():
            if name in last:
                done.spk.setdefault(name, []).append(value)
                done.v.setdefault(name, []).append(state[name]["v"])
            elif kind_of(nodes[name]) == "Output" and all(a != name for a, _ in edges):
                done.out.setdefault(name, []).append(value)
    return Done(*({name: np.array(rows) for name, rows in part.items()} for part in done))


def advance(
    nodes: dict[str, Any], sources: dict[str, list[str]], x_t: Array, last: dict[str, Array],
    state: dict[str, dict[str, Array]], dt: float,
) -> dict[str, Array]:  # fmt: skip
    """One step: what every node sends; `state` moves on."""
    values: dict[tuple[str, str], Array] = {}

    def value(name: str, late: str) -> Array:
        """What a node sends to a population `late`, whose own spikes are those of the step before."""
        node, kind = nodes[name], kind_of(nodes[name])
        if kind in NEURONS:
            if name == late:
                return last.get(name, np.zeros(np.shape(getattr(node, "threshold", getattr(node, "r", 0)))))
            late = name
        key = name, "" if kind in NEURONS else late
        if key not in values:
            total = np.sum([value(source, late) for source in sources[name]], axis=0) if sources[name] else x_t
            own = state.setdefault(name, {})
            values[key] = step(node, kind, total, own, dt) if kind in NEURONS else stateless(node, kind, total)
        return values[key]

    return {name: value(name, "") for name in nodes}


def kind_of(node: Any) -> str:
    return type(node).__name__


def unnest(network: Any, prefix: str = "") -> tuple[dict[str, Any], list[tuple[str, str]]]:
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    inner = {name for name, node in network.nodes.items() if type(node).__name__ == "NIRGraph"}
    for name, node in network.nodes.items():
        if name in inner:
            more, links = unnest(node, f"{prefix}{name}.")
            nodes |= more
            edges += links
        else:
            nodes[prefix + name] = node

    def end(name: str, kind: str) -> str:
        if name not in inner:
            return prefix + name
        return f"{prefix}{name}." + next(k for k, n in network.nodes[name].nodes.items() if type(n).__name__ == kind)

    return nodes, edges + [(end(a, "Output"), end(b, "Input")) for a, b in network.edges]


def step(node: Any, kind: str, current: Array, state: dict[str, Array], dt: float) -> Array:
    if kind == "Threshold":
        state["v"] = current
        return (current > node.threshold).astype(float)
    reset = node.v_reset if hasattr(node, "v_reset") else 0.0
    v = state.get("v", np.zeros(current.shape) + reset)
    if kind.startswith("Cuba"):
        i = state.get("i", np.zeros(current.shape))
        state["i"] = i = i + dt / node.tau_syn * (node.w_in * current - i)
        v = v + dt / node.tau_mem * (node.v_leak - v + node.r * i)
    elif kind in ("LIF", "LI"):
        v = v + dt / node.tau * (node.v_leak - v + node.r * current)
    else:
        v = v + dt * node.r * current
    spk = np.zeros(v.shape)
    if hasattr(node, "v_threshold"):
        spk = (v > node.v_threshold).astype(float)
        v = np.where(spk > 0, reset, v)
    state["v"] = v
    return spk


def stateless(node: Any, kind: str, x: Array) -> Array:
    if kind in ("Input", "Output"):
        return x
    if kind == "Linear":
        return np.asarray(node.weight @ x.ravel())
    if kind == "Affine":
        return np.asarray(node.weight @ x.ravel() + node.bias)
    if kind == "Scale":
        return np.asarray(node.scale * x)
    if kind == "Flatten":
        return x.reshape(-1)
    if kind == "Conv1d":
        return windows(x[:, None], node.weight[:, :, None], node.stride, node.padding, node.dilation, node.groups,
                       node.bias, flat=True)[:, 0]  # fmt: skip
    if kind == "Conv2d":
        return windows(x, node.weight, node.stride, node.padding, node.dilation, node.groups, node.bias)
    assert kind in ("SumPool2d", "AvgPool2d"), kind
    size = tuple(np.ravel(node.kernel_size)) * (2 // np.size(node.kernel_size))
    one = np.ones((len(x), 1, *size)) / (np.prod(size) if kind == "AvgPool2d" else 1)
    return windows(x, one, node.stride, node.padding, 1, len(x), np.zeros(len(x)))


def windows(
    x: Array, weight: Array, stride: Any, padding: Any, dilation: Any, groups: int, bias: Array, *, flat: bool = False
) -> Array:
    """One output after the other: the sum over its window of the padded image [C, H, W]."""

    def pair(value: Any, neutral: int) -> tuple[int, int]:
        value = [int(n) for n in np.ravel(value)]
        return (neutral, value[0]) if flat else (value[0], value[-1])

    (s_y, s_x), (d_y, d_x) = pair(stride, 1), pair(dilation, 1)
    k_y, k_x = weight.shape[2:]
    span_y, span_x = d_y * (k_y - 1), d_x * (k_x - 1)
    if isinstance(padding, str):
        total = (span_y, span_x) if padding == "same" else (0, 0)
        before = total[0] // 2, total[1] // 2
        pads = [(0, 0), *((low, all_ - low) for low, all_ in zip(before, total, strict=True))]
    else:
        pads = [(0, 0), *((p, p) for p in pair(padding, 0))]
    x = np.pad(x, pads)
    height, width = (x.shape[1] - span_y - 1) // s_y + 1, (x.shape[2] - span_x - 1) // s_x + 1
    out = np.zeros((len(weight), height, width))
    n_in, n_out = len(x) // groups, len(weight) // groups
    for c, row, column in np.ndindex(out.shape):
        first = c // n_out * n_in
        y, x_ = row * s_y, column * s_x
        seen = x[first : first + n_in, y : y + span_y + 1 : d_y, x_ : x_ + span_x + 1 : d_x]
        out[c, row, column] = (seen * weight[c]).sum() + bias[c]
    return out
