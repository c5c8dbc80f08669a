"""What every recurrent cell is given, and what it gives back: numpy only, for every environment imports it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SEED = 11
PERIOD = float(np.float32(29.3))  # as a gate has it: at 100,000 steps the rest would be a phase
CHUNKS = {"rnn": 1, "gru": 3, "lstm": 4}


class Sequence(NamedTuple):
    """A cell of one layer, its input, and the gradient by its outputs.

    Attributes
    ----------
    kind : str
        "rnn", "gru" or "lstm".
    x : float32 [T, B, I]
    weight_ih, weight_hh, bias_ih, bias_hh : float32 [chunks * H, I], [chunks * H, H], [chunks * H], [chunks * H]
        In torch's layout.
    by_out : float32 [T, B, H]
        At every step: a gradient by the last output alone shrinks on its way to the first step until it is
        denormal, and torch's backward pass takes several times as long.
    is_open : uint8 [T, H]
        The gate that a loop by hand is given: `gate_of`.
    open : float
        Share of open places; 1 of a cell without a gate.
    """

    kind: str
    x: NDArray[np.float32]
    weight_ih: NDArray[np.float32]
    weight_hh: NDArray[np.float32]
    bias_ih: NDArray[np.float32]
    bias_hh: NDArray[np.float32]
    by_out: NDArray[np.float32]
    is_open: NDArray[np.uint8]
    open: float

    @property
    def parameters(self) -> tuple[NDArray[np.float32], ...]:
        """Return weights and biases."""
        return self[2:6]


def gate_of(n: int, is_open: float) -> tuple[float, NDArray[np.float64]]:
    """Return bias and phases [n, 1] of units that differ in phase alone, sorted by it: one sine of amplitude 1 each."""
    return -float(np.cos(np.pi * is_open)), np.arange(n)[:, None] * (2 * np.pi / n)


def draw(kind: str, n_steps: int, batch: int, n: int, *, is_open: float = 1.0, outputs: bool = True) -> Sequence:
    """Draw a cell as torch draws it, with one input; a gradient at every step, or with no `outputs` of none."""
    rng, bound = np.random.default_rng(SEED), n**-0.5
    rows = CHUNKS[kind] * n

    def uniform(*shape: int) -> NDArray[np.float32]:
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    parameters = uniform(rows, 1), uniform(rows, n), uniform(rows), uniform(rows)
    x = rng.standard_normal((n_steps, batch, 1)).astype(np.float32)
    by_out = rng.standard_normal((n_steps if outputs else 1, batch, n), np.float32) / np.float32(batch)
    bias, phase = gate_of(n, is_open)
    swing = np.sin(2 * np.pi / PERIOD * np.arange(n_steps)[:, None] + phase[:, 0])
    table = (bias + swing > 0) if is_open < 1 else np.ones((n_steps, n), bool)
    return Sequence(kind, x, *parameters, by_out, table.astype(np.uint8), is_open)


def save(work: Sequence, path: Path) -> None:
    """Write `work` for the workers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **work._asdict())


def load(path: Path) -> Sequence:
    """Read what `save` wrote."""
    with np.load(path) as found:
        parts: dict[str, Any] = {key: found[key] for key in Sequence._fields}
    return Sequence(**parts | {"kind": str(parts["kind"]), "open": float(parts["open"])})
