"""Arrays of numbers as spikes: by rate, by latency, by change.

::

    rate      P(spike in a step) = x * max_hz * dt
    latency   t = t_max (1 - x)    or    t = tau ln(x / (x - threshold))
    delta     ON, OFF each time the signal has gone up, down by the threshold from where the last event left it

Units are numbered as the values of a recording lie in memory. Those of images, [B, P, H, W], are so numbered as a
camera's: ``events._replace(sensor=(P, H, W))`` says it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from suspike_datasets.checks import check_int, check_number
from suspike_datasets.sets import N_UNITS_END, T_END_US, UNKNOWN, EventSet

Labels = Sequence[int] | NDArray[np.integer] | None

SIGNAL_END = 1e300
"""A signal stays below this, so that no difference of two samples is infinite."""

FINEST = 2.0**-32
"""The smallest threshold, in units of the signal's largest value: a float64 still tells such steps apart."""


def rate_code(
    values: NDArray[Any], *, n_steps: int, dt_us: int, max_hz: float, seed: int | Sequence[int], labels: Labels = None
) -> EventSet:
    """Send spikes at random, ``P(spike in a step) = value * max_hz * dt``: a Poisson process cut into steps.

    Steps and units are independent of each other; the spike of step s is at ``t = s * dt_us``.

    Parameters
    ----------
    values : float [B, ...], from 0 to 1
    n_steps : int
        Steps T.
    dt_us : int, us
        Length of a step; `bin_events` with the same one finds a spike in the step it was drawn for.
    max_hz : float, 1/s
        Rate of the value 1, up to ``1e6 / dt_us``: a spike in every step.
    seed : int or sequence of int, from 0
    labels : int [B], optional

    Returns
    -------
    EventSet
        Of a sensor (1, 1, n), n the number of values of a recording. Recording b follows from `seed` and the values of
        recording b alone.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or out of range; a value, naming its place.

    References
    ----------
    Dayan and Abbott, "Theoretical Neuroscience", MIT Press 2001, section 1.4.
    """
    flat = _checked_values(values)
    dt_us = check_int("dt_us", dt_us, 1, T_END_US)
    n_steps = check_int("n_steps", n_steps, 1, T_END_US // dt_us)
    if check_number("max_hz", max_hz, 0, 1e6) > 1e6 / dt_us:
        raise ValueError(f"`max_hz` must be up to a spike a step, {1e6 / dt_us:g}, got {max_hz:g}. Shorten `dt_us`.")
    seeds = seed if isinstance(seed, (list, tuple)) else [seed]
    seeds = [check_int("seed", s, 0, 2**63 - 1) for s in seeds]
    drawn = []
    for b, x in enumerate(flat):
        rng = np.random.default_rng([*seeds, b])
        drawn.append(np.nonzero(rng.random((n_steps, len(x))) < x * (max_hz * dt_us * 1e-6)))
    of = np.repeat(np.arange(len(flat)), np.array([len(step) for step, _ in drawn], np.int64))
    none = np.empty(0, np.int64)
    t, unit = (np.concatenate([none, *(part[i] for part in drawn)]) for i in range(2))
    return _event_set(of, t * dt_us, unit, (1, 1, flat.shape[1]), len(flat), labels)


def latency_code(
    values: NDArray[Any], *, t_max_us: int, tau_us: float | None = None, threshold: float, labels: Labels = None
) -> EventSet:
    """Send one spike of each unit, the earlier the larger its value x.

    ::

        t = t_max_us (1 - x)                     where x >= threshold, without `tau_us`
        t = tau_us ln(x / (x - threshold))       where x > threshold and t <= t_max_us, with it

    rounded to whole microseconds; other values send nothing. The second is the time at which a leaky membrane of time
    constant `tau_us`, charged by a constant input x, reaches the threshold.

    Parameters
    ----------
    values : float [B, ...], from 0 to 1
    t_max_us : int, us
        The last time a spike may have. It is a step of its own: for T steps of dt, pass ``(T - 1) * dt``.
    tau_us : float, us, optional
    threshold : float, from 0 to 1
        Above 0 with `tau_us`.
    labels : int [B], optional

    Returns
    -------
    EventSet
        Of a sensor (1, 1, n), n the number of values of a recording; spikes of one time in the order of units.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or out of range; a value, naming its place.

    Notes
    -----
    snnTorch's ``spikegen.latency(linear=True, normalize=True, clip=True)`` is the first rule, with ``(T - 1) * dt`` for
    `t_max_us`; ``spikegen.latency(tau=tau_us / dt, clip=True)`` is the second. It rounds to the nearest step,
    `bin_events` down.

    References
    ----------
    VanRullen and Thorpe, "Rate coding versus temporal order coding: what the retinal ganglion cells tell the visual
    cortex", Neural Computation 13(6), 2001, doi 10.1162/08997660152002852. Eshraghian et al., "Training spiking neural
    networks using lessons from deep learning", Proceedings of the IEEE 111(9), 2023, doi 10.1109/JPROC.2023.3308088.
    """
    flat = _checked_values(values)
    t_max_us = check_int("t_max_us", t_max_us, 0, T_END_US - 1)
    threshold = check_number("threshold", threshold, 0, 1)
    if tau_us is None:
        of, unit = np.nonzero(flat >= threshold)
        t = t_max_us * (1 - flat[of, unit])
    else:
        tau_us = check_number("tau_us", tau_us, 1, T_END_US)
        if threshold == 0:
            raise ValueError("`threshold` must be above 0 with `tau_us`, got 0: every value would reach it at once.")
        of, unit = np.nonzero(flat > threshold)
        t = -tau_us * np.log1p(-threshold / flat[of, unit])
    t = np.rint(t)
    order = np.lexsort((t, of))
    order = order[t[order] <= t_max_us]
    return _event_set(of[order], t[order], unit[order], (1, 1, flat.shape[1]), len(flat), labels)


def delta_code(signal: NDArray[Any], *, dt_us: int, threshold: float, label: int = UNKNOWN) -> EventSet:
    """Send an event each time the signal has moved by the threshold from its reference, which follows (send-on-delta).

    ::

        signal[s, c] - ref[c] >=  threshold:    ON   at t = s * dt_us,  ref[c] += threshold
        signal[s, c] - ref[c] <= -threshold:    OFF  at t = s * dt_us,  ref[c] -= threshold        ref[c] = signal[0, c]

    as often as it holds: a sample that jumps sends several. Hence ``|signal[s, c] - ref[c]| < threshold`` after each
    sample, and ``ref[c] = signal[0, c] + threshold * (ON - OFF events of c so far)``: who knows the first sample can
    follow the signal to within the threshold.

    Parameters
    ----------
    signal : float [S, C]
        S samples of C channels, in any unit.
    dt_us : int, us
        From one sample to the next.
    threshold : float, in the signal's unit
        Above 0, and above 2^-32 of the largest value.
    label : int

    Returns
    -------
    EventSet
        One recording of a sensor (2, 1, C): p is 1 for ON, 0 for OFF. Events of one sample are in order of channels.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or out of range; a value, naming its place.

    Notes
    -----
    snnTorch's ``spikegen.delta`` compares each sample with the one before, so that slow changes are lost and a jump is
    one spike. The two agree where every change is 0 or the threshold.

    References
    ----------
    Miskowicz, "Send-on-delta concept: an event-based data reporting strategy", Sensors 6(1), 2006,
    doi 10.3390/s6010049.
    """
    array = _checked_numbers("signal", signal)
    if array.ndim != 2 or not len(array) or not 1 <= array.shape[1] < N_UNITS_END // 2:
        raise ValueError(f"`signal` must be of shape [S, C] with samples and channels, got {list(array.shape)}.")
    dt_us = check_int("dt_us", dt_us, 1, T_END_US)
    if (len(array) - 1) * dt_us >= T_END_US:
        raise ValueError(f"`dt_us` must end {len(array)} samples before {T_END_US} us, got {dt_us}.")
    wrong = np.argwhere(~(np.abs(array) < SIGNAL_END))  # NaN too
    if len(wrong):
        s, c = wrong[0]
        raise ValueError(
            f"`signal` must be finite and below {SIGNAL_END:g}, got {array[s, c]} at sample {s}, channel {c}."
        )
    threshold = check_number("threshold", threshold, 0, SIGNAL_END)
    finest = float(np.abs(array).max()) * FINEST
    if threshold <= finest:
        raise ValueError(f"`threshold` must be above {finest:g}, 2^-32 of the largest value, got {threshold:g}.")
    moved = np.diff(_levels(array, threshold), axis=0)
    sample, channel = np.nonzero(moved)
    change = moved[sample, channel]
    unit = channel + (change > 0) * array.shape[1]
    t, unit = (np.repeat(x, np.abs(change)) for x in ((sample + 1) * dt_us, unit))
    return _event_set(
        np.zeros(len(t), np.int64), t, unit, (2, 1, array.shape[1]), 1, [check_int("label", label, -1, 2**62)]
    )


@numba.njit(nogil=True)
def _levels(signal: NDArray[np.float64], threshold: float) -> NDArray[np.int64]:
    """Return how many thresholds the reference is above the first sample, after each sample: [S, C]."""
    levels = np.zeros(signal.shape, np.int64)
    for s in range(1, len(signal)):
        for c in range(signal.shape[1]):
            x, first = signal[s, c], signal[0, c]
            level = levels[s - 1, c]
            # All at once, then by one: the quotient may be off by one where it is near a whole number.
            level += np.int64((x - (first + level * threshold)) / threshold)
            while x - (first + level * threshold) >= threshold:
                level += 1
            while first + level * threshold - x >= threshold:
                level -= 1
            levels[s, c] = level
    return levels


def _checked_numbers(name: str, given: Any) -> NDArray[np.float64]:
    array = np.asarray(given)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"`{name}` must be an array of numbers, got {array.dtype}.")
    return array.astype(np.float64, order="C")


def _checked_values(values: Any) -> NDArray[np.float64]:
    """Return values from 0 to 1, one row [n] a recording."""
    array = _checked_numbers("values", values)
    n_units = math.prod(array.shape[1:])
    if array.ndim < 2 or not 1 <= n_units < N_UNITS_END:
        raise ValueError(
            f"`values` must be of shape [B, ...] with 1 to {N_UNITS_END - 1} values each, got {list(array.shape)}."
        )
    wrong = np.argwhere(~((array >= 0) & (array <= 1)))  # NaN too
    if len(wrong):
        place = tuple(int(i) for i in wrong[0])
        raise ValueError(f"`values` must be from 0 to 1, got {array[place]} at {list(place)}. Scale them first.")
    return array.reshape(len(array), n_units)


def _event_set(
    of: NDArray[np.int64], t: NDArray[Any], unit: NDArray[Any], sensor: tuple[int, int, int], n: int, labels: Labels
) -> EventSet:
    """Return events of recordings `of` 0 to ``n - 1``, in order of those and of time, as a set."""
    start = np.concatenate([[0], np.cumsum(np.bincount(of, minlength=n))]).astype(np.int64)
    found = np.full(n, UNKNOWN) if labels is None else np.array(labels, np.int64)
    if found.shape != (n,):
        raise ValueError(f"`labels` must be those of {n} recordings, got shape {found.shape}.")
    return EventSet(start, t.astype(np.int32), unit.astype(np.int32), found, np.full(n, UNKNOWN), sensor, ())
