"""What every implementation is given, and what it gives back: numpy only, for every environment imports it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 1 + 2**-11
"""Between two points of the weights' grid."""
SEED = 7
"""No membrane of the cases R, C and of the neurons alone meets the threshold exactly, where ``>`` and ``>=`` differ.

Other gains or sizes may need another seed: SpikingJelly's parity then fails.
"""


class Size(NamedTuple):
    """A layer: T steps, B samples, n_in inputs, N neurons."""

    n_steps: int
    n_samples: int
    n_in: int
    n: int


class Work(NamedTuple):
    """A layer's input and weights, or a neuron's current alone (weights of no rows).

    Attributes
    ----------
    x : array [T, B, n_in] or [T, B, N]
        Input spikes (uint8), or the current (float32).
    weight, recurrent : array [n_in, N], [N, N]
        `recurrent` of no rows in a layer without recurrence.
    mask : array [B, N] or [T, B, N]
        The loss is ``sum(counts * mask)`` over a layer's spike counts. To a neuron alone it is the gradient by its
        spikes: no loss is computed in its step.
    """

    x: NDArray[Any]
    weight: NDArray[np.float32]
    recurrent: NDArray[np.float32]
    mask: NDArray[np.float32]
    beta: float
    threshold: float
    width: float


class Built(NamedTuple):
    """An implementation, ready to be timed.

    Attributes
    ----------
    step : function
        One training step, forward and backward: loss (None of a neuron alone), gradients, spike counts or spikes, as
        its library has them. In simulation, a run over all samples.
    as_ours : function
        From those gradients to arrays of the shapes of `Work`'s. In simulation, from what a step returned to the
        spikes of the hidden neurons, [T, B, N], and of those behind them, [T, B, n_out].
    facts : dict
        What else it can say of itself, for its row.
    clock : function, optional
        From what a step returned to its CPU and wall time in s, where the process around it would time something else.
    """

    step: Callable[[], Any]
    as_ours: Callable[[list[Any]], list[Any]]
    facts: dict[str, Any]
    clock: Callable[[Any], tuple[float, float]] | None = None


def on_grid(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> NDArray[np.float32]:
    """Draw weights on a grid of 2^-10, on which float32 sums depend on no order."""
    return (np.round(rng.standard_normal(shape) * scale * 1024) / 1024).astype(np.float32)


def layer_work(
    size: Size, *, density: float, gain: float, recurrent_gain: float, beta: float, width: float, stretch: int = 1
) -> Work:
    """Draw a layer's work; with `stretch`, the same events fall on a random one of as many steps for each of theirs."""
    rng = np.random.default_rng(SEED)
    x = (rng.random((size.n_steps, size.n_samples, size.n_in)) < density).astype(np.uint8)
    weight = on_grid(rng, (size.n_in, size.n), gain)
    recurrent = on_grid(rng, (size.n if recurrent_gain else 0, size.n), recurrent_gain)
    mask = on_grid(rng, (size.n_samples, size.n), 1) / np.float32(size.n_samples)
    if stretch > 1:
        at = np.nonzero(x)
        x = np.zeros((size.n_steps * stretch, *x.shape[1:]), np.uint8)
        x[at[0] * stretch + rng.integers(0, stretch, len(at[0])), at[1], at[2]] = 1
    return Work(x, weight, recurrent, mask, beta ** (1 / stretch), THRESHOLD, width)


def neuron_work(n_steps: int, n_samples: int, n: int, *, beta: float, width: float) -> Work:
    """Draw a current at which a few per cent of the neurons fire at a step."""
    rng = np.random.default_rng(SEED)
    cur, mask = on_grid(rng, (n_steps, n_samples, n), 0.36), on_grid(rng, (n_steps, n_samples, n), 1)
    none = np.zeros((0, n), np.float32)
    return Work(cur, none, none, mask, beta, THRESHOLD, width)


def save(work: Work, path: Path) -> None:
    """Write `work` for the workers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **work._asdict())


def load(path: Path) -> Work:
    """Read what `save` wrote."""
    with np.load(path) as found:
        scalars = {key: float(found[key]) for key in ("beta", "threshold", "width")}
        return Work(found["x"], found["weight"], found["recurrent"], found["mask"], **scalars)
