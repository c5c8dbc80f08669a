"""What a scan returns and is given: a neuron alone on a dense current, on the CPU or a GPU, forward and backward."""

from __future__ import annotations

from typing import Any, NamedTuple

STEPS = 4
"""Steps of a group: the state before it is kept, and they are run again, in registers, on the way back."""


def n_groups(n_steps: int) -> int:
    """Return the number of groups: of `STEPS` steps, and of one each at the end."""
    return n_steps // STEPS + n_steps % STEPS


class ScanRun(NamedTuple):
    """What a scan's forward pass returns: numpy arrays, or a device's.

    Attributes
    ----------
    spk : float [T, B, N], or [0, B, N] where not asked for
        0 or 1.
    trace : float [T, B, N], or [0, B, N]
        The membrane after each step.
    state : float [S, B, N]
        After the last step.
    kept : float [groups, S, B * N], or [0, S, B * N]
        The state before each group of steps, from which the backward pass runs them again: a fourth of the current's
        size, a state variable.
    n_open : int64 [B, N], or [B, 0]
    ramp : float [B, N], or [B, 0]
    open_at : int64 [B, T], or [B, 0]
        Of a drive gate: as in `reference.Run`.
    """

    spk: Any
    trace: Any
    state: Any
    kept: Any
    n_open: Any
    ramp: Any
    open_at: Any


class ScanPull(NamedTuple):
    """The gradient of a loss by what a scan's forward pass returned; None for one that is 0."""

    spk: Any = None
    trace: Any = None
    state: Any = None
    ramp: Any = None


class ScanGrads(NamedTuple):
    """The gradient of a loss by what a scan was given; None for what was not wanted or is not there.

    Attributes
    ----------
    current : float [T, B, N]
    state : float [S, B, N]
    beta, threshold, decay, a, b, kappa : float [N]
    gate : float [1 or B, T, G]
        By a table's values, 0 where they are not near their threshold.
    """

    current: Any
    state: Any
    beta: Any = None
    threshold: Any = None
    decay: Any = None
    a: Any = None
    b: Any = None
    kappa: Any = None
    gate: Any = None
