"""The network that every simulator is given, what it has to fire, and a look at what it fires: numpy only.

Weights lie on a grid of 2^-8 and the threshold between two of its points. Leaks are no such numbers, so a membrane is
rounded at every step, and simulators of other precision or order may disagree on spikes within `BAND` of the threshold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

N_IN, N_OUT = 700, 20
BETA = 1 - 2**-4
"""``v * beta`` and ``v - v / tau`` then round alike, so that simulators that write the leak so or so agree."""
THRESHOLD = 1 + 2**-9 + 2**-20
"""No membrane of these samples meets it exactly, where ``>`` and ``>=`` differ."""
BAND = 1e-5
"""So far from the threshold rounding may decide."""

Bits = NDArray[np.bool_]


class Network(NamedTuple):
    """Recurrent LIF neurons, LIF neurons behind them, all reset to zero, and the events of B samples.

    Attributes
    ----------
    ptr, idx : int64 [B, T + 1], int32 [E]
        As in `suspike_kernels.layout.Events`.
    weight, recurrent, readout : float32 [n_in, N], [N, N] or [0, N] without recurrence, [N, n_out]
        Rows by source. A recurrent spike arrives a step later, one to the readout in its own step.
    beta, threshold : float
        Of all neurons.
    rhythm : float64 [N + 1, 2 K + 1]
        Amplitudes, phases and bias of a gate of the N neurons, below a row of its K periods; of no rows without a gate.
    is_open : uint8 [T, N], or [0, N] without a gate
    """

    ptr: NDArray[np.int64]
    idx: NDArray[np.int32]
    weight: NDArray[np.float32]
    recurrent: NDArray[np.float32]
    readout: NDArray[np.float32]
    beta: float
    threshold: float
    rhythm: NDArray[np.float64]
    is_open: NDArray[np.uint8]

    @property
    def n_samples(self) -> int:
        return len(self.ptr)

    @property
    def n_steps(self) -> int:
        return self.ptr.shape[1] - 1

    def dense(self, b: int, dtype: Any = np.float32) -> NDArray[Any]:
        """Return the events of sample b: [T, n_in]."""
        x, mine = np.zeros((self.n_steps, len(self.weight)), dtype), slice(*self.ptr[b, [0, -1]])
        np.add.at(x, (np.repeat(np.arange(self.n_steps), np.diff(self.ptr[b])), self.idx[mine]), 1)
        return x


def steps_of(net: Network) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the sample and the step of each event."""
    row = np.repeat(np.arange(net.n_samples * net.n_steps), np.diff(net.ptr).ravel())
    sample, step = np.divmod(row, net.n_steps)
    return sample, step


class Fired(NamedTuple):
    """Which neurons fired: `hidden` [T, B, N] and `out` [T, B, n_out]."""

    hidden: Bits
    out: Bits


def draw(n: int = 256, *, n_samples: int = 16, n_steps: int = 1000, n_events: int = 8000, gain: float = 1) -> Network:
    """Draw the reference workload: Poisson events and Gaussian weights at which some 3 % of 256 neurons fire a step."""
    rng, k = np.random.default_rng(0), np.sqrt(256 / n)
    weight = rng.normal(0.010, 0.165, (N_IN, n)) * gain
    recurrent = rng.normal(-0.016, 0.10, (n, n)) * k
    readout = rng.normal(0.010, 0.20, (n, N_OUT)) * k
    rng = np.random.default_rng(1)
    fired = [rng.random((n_steps, N_IN)) < n_events / (N_IN * n_steps) for _ in range(n_samples)]
    ptr = np.zeros((n_samples, n_steps + 1), np.int64)
    ptr[:, 1:] = np.cumsum([x.sum(1) for x in fired]).reshape(n_samples, n_steps)
    ptr[1:, 0] = ptr[:-1, -1]
    idx = np.concatenate([np.nonzero(x)[1] for x in fired]).astype(np.int32)
    grid = [(np.round(w * 256) / 256).astype(np.float32) for w in (weight, recurrent, readout)]
    return Network(ptr, idx, *grid, BETA, THRESHOLD, np.zeros((0, 1)), np.zeros((0, n), np.uint8))


def stretched(net: Network, by: int) -> Network:
    """Return the same events on a random one of `by` steps for each of theirs, and the leak of a `by`-th of a step."""
    rng, ptr = np.random.default_rng(2), np.zeros((net.n_samples, net.n_steps * by + 1), np.int64)
    for b in range(net.n_samples):
        step = np.repeat(np.arange(net.n_steps), np.diff(net.ptr[b])) * by
        step += rng.integers(0, by, len(step))
        ptr[b, 1:] = np.cumsum(np.bincount(step, minlength=net.n_steps * by))
    return net._replace(ptr=ptr + net.ptr[:, :1], beta=float(np.float32(net.beta ** (1 / by))))


def expected(net: Network) -> tuple[Fired, Fired]:
    """Run a plain loop in float64; return what fires, and the places within `BAND` of the threshold."""
    weight, recurrent, readout = (w.astype(np.float64) for w in (net.weight, net.recurrent, net.readout))
    x = np.stack([net.dense(b, np.float64) for b in range(net.n_samples)], 1)
    v, spk, v_out = (np.zeros((net.n_samples, w.shape[1])) for w in (weight, recurrent, readout))
    found: list[tuple[Bits, Bits]] = []
    near: list[tuple[Bits, Bits]] = []
    for t in range(net.n_steps):
        is_open = net.is_open[t] > 0 if len(net.is_open) else np.ones(v.shape[1], bool)
        cur = x[t] @ weight + (spk @ recurrent if len(recurrent) else 0)
        v = np.where(is_open, net.beta * v + cur, v)
        fires = is_open & (v > net.threshold)
        close = is_open & (np.abs(v - net.threshold) < BAND)
        v, spk = np.where(fires, 0, v), fires.astype(np.float64)
        v_out = net.beta * v_out + spk @ readout
        fires_out, close_out = v_out > net.threshold, np.abs(v_out - net.threshold) < BAND
        v_out = np.where(fires_out, 0, v_out)
        found.append((fires, fires_out))
        near.append((close, close_out))
    fired, around = (Fired(*(np.stack(part) for part in zip(*each, strict=True))) for each in (found, near))
    return fired, around


def unexplained(found: Fired, wanted: Fired, near: Fired) -> int:
    """Count the spikes that differ and that rounding does not explain.

    It explains one close to the threshold, and all in the same sample from that step on.
    """
    hidden, out = (a != b for a, b in zip(found, wanted, strict=True))
    steps = np.arange(len(hidden))[:, None]

    def since(moved: Bits) -> Bits:
        """Return the steps after the first, [T, B], at which rounding moved a spike of a sample."""
        first = np.where(moved.any((0, 2)), moved.any(2).argmax(0), len(steps))
        return np.asarray(steps > first)

    after = since(hidden & near.hidden)
    out_after = after | (hidden & near.hidden).any(2) | since(out & near.out)
    left = hidden & ~near.hidden & ~after[..., None]
    left_out = out & ~near.out & ~out_after[..., None]
    return int(left.sum() + left_out.sum())


def save(net: Network, path: Path) -> None:
    """Write `net` for the workers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **net._asdict())


def load(path: Path) -> Network:
    """Read what `save` wrote."""
    with np.load(path) as found:
        return Network(*(found[key] if found[key].ndim else float(found[key]) for key in Network._fields))
