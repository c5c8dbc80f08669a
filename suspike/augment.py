"""Augmentation of a recording in time steps: functions that return ``(Sample, Generator) -> Sample``.

Events that leave the sensor or the batch's steps are dropped and never come in at the other side; nothing else is lost,
and events that fall together stay two. Steps keep their order, events of one step theirs. The true length grows with
the last event, up to the batch's steps; only `stretch` makes it shorter.

What becomes of a sample follows from the generator it is given, and nothing else; its arrays are left as they are. What
the functions return can be pickled, so a worker of a DataLoader can be handed one::

    augment = chain(stretch(0.9, 1.1), jitter_units(2.0), drop(0.1))
    batches(recordings, batch_size=64, shuffle=True, seed=seed, augment=augment)  # suspike.loader

which gives each recording a generator made from the seed, the epoch and its index.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from suspike._validate import fail


class Sample(NamedTuple):
    """One recording.

    Attributes
    ----------
    step : int64 [E]
        From 0 to ``n_steps - 1``, not decreasing.
    unit : int32 [E]
        ``(p * H + y) * W + x``.
    n_steps : int
        True length, 0 to `n_total`.
    n_total : int
        Steps T of the batch it goes into.
    sensor : (int, int, int)
        Channels P, rows H, columns W; a cochlea is one row of one channel.
    """

    step: NDArray[np.int64]
    unit: NDArray[np.int32]
    n_steps: int
    n_total: int
    sensor: tuple[int, int, int]


Augment = Callable[[Sample, np.random.Generator], Sample]

MOST = 10**9
"""The largest argument; with it no step or column exceeds its integers."""


def jitter_time(std_steps: float) -> Augment:
    """Move each event in time, by itself: ``step' = step + round(std_steps * normal)``.

    Parameters
    ----------
    std_steps : float, steps
        From 0.

    Raises
    ------
    ValueError
        If it is no number from 0 to `MOST`.
    """
    return partial(_jitter_time, std=_number("std_steps", std_steps))


def _jitter_time(sample: Sample, generator: np.random.Generator, *, std: float) -> Sample:
    step = sample.step + np.rint(std * generator.standard_normal(len(sample.step)))
    inside = (step >= 0) & (step < sample.n_total)
    step, unit = step[inside].astype(np.int64), sample.unit[inside]
    order = np.argsort(step.astype(np.uint16) if sample.n_total <= 2**16 else step, kind="stable")  # by radix: faster
    n_steps = max(sample.n_steps, int(step.max(initial=-1)) + 1)
    return sample._replace(step=step[order], unit=unit[order], n_steps=n_steps)


def jitter_units(std: float) -> Augment:
    """Move each event along the columns, by itself: ``x' = x + round(std * normal)``. Columns of a cochlea are pitches.

    Parameters
    ----------
    std : float, columns
        From 0.

    Raises
    ------
    ValueError
        If it is no number from 0 to `MOST`.
    """
    return partial(_jitter_units, std=_number("std", std))


def _jitter_units(sample: Sample, generator: np.random.Generator, *, std: float) -> Sample:
    width = sample.sensor[2]
    by = np.rint(std * generator.standard_normal(len(sample.unit)))
    x = sample.unit % width + by
    inside = (x >= 0) & (x < width)
    unit = sample.unit[inside] + by[inside].astype(np.int32)
    return sample._replace(step=sample.step[inside], unit=unit)


def drop(share: float) -> Augment:
    """Drop each event with a probability, by itself: ``P(event stays) = 1 - share``.

    Parameters
    ----------
    share : float, from 0 to 1

    Raises
    ------
    ValueError
        If it is out of range.

    References
    ----------
    Gu, Sng, Hu and Yu, "EventDrop: data augmentation for event-based learning", IJCAI 2021.
    """
    return partial(_drop, share=_number("share", share, 1))


def _drop(sample: Sample, generator: np.random.Generator, *, share: float) -> Sample:
    stays = generator.random(len(sample.step)) >= share
    return sample._replace(step=sample.step[stays], unit=sample.unit[stays])


def drop_units(share: float) -> Augment:
    """Silence each unit for the whole recording with a probability: ``P(unit stays) = 1 - share``.

    Parameters
    ----------
    share : float, from 0 to 1

    Raises
    ------
    ValueError
        If it is out of range.
    """
    return partial(_drop_units, share=_number("share", share, 1))


def _drop_units(sample: Sample, generator: np.random.Generator, *, share: float) -> Sample:
    p, height, width = sample.sensor
    stays = (generator.random(p * height * width) >= share)[sample.unit]
    return sample._replace(step=sample.step[stays], unit=sample.unit[stays])


def stretch(low: float, high: float) -> Augment:
    """Play the recording slower or faster: ``step' = floor(a * step)``, a drawn evenly from `low` to `high`.

    The length follows: ``n_steps' = min(ceil(a * n_steps), n_total)``.

    Parameters
    ----------
    low, high : float
        Above 0; 2 is half as fast.

    Raises
    ------
    ValueError
        If they are not above 0 and in order.
    """
    high = _number("high", high)
    low = _number("low", low)
    if not 0 < low <= high:
        fail("low", f"above 0 and up to `high` = {high:g}", f"{low:g}")
    return partial(_stretch, low=low, high=high)


def _stretch(sample: Sample, generator: np.random.Generator, *, low: float, high: float) -> Sample:
    factor = low + (high - low) * generator.random()
    step = np.floor(factor * sample.step)
    n = int(np.searchsorted(step, sample.n_total))
    n_steps = int(min(np.ceil(factor * sample.n_steps), sample.n_total))
    return sample._replace(step=step[:n].astype(np.int64), unit=sample.unit[:n], n_steps=n_steps)


def mirror(share: float) -> Augment:
    """Swap left and right with a probability: ``x' = W - 1 - x``.

    Parameters
    ----------
    share : float, from 0 to 1
        Of the recordings.

    Raises
    ------
    ValueError
        If it is out of range.

    References
    ----------
    Li, Kim, Park, Geller and Panda, "Neuromorphic data augmentation for training spiking neural networks", ECCV 2022,
    arXiv 2203.06145; `shift` too.
    """
    return partial(_mirror, share=_number("share", share, 1))


def _mirror(sample: Sample, generator: np.random.Generator, *, share: float) -> Sample:
    if generator.random() >= share:
        return sample
    width = sample.sensor[2]
    return sample._replace(unit=sample.unit + (width - 1 - 2 * (sample.unit % width)))


def shift(rows: int, columns: int) -> Augment:
    """Move the whole recording by whole pixels: ``y' = y + i, x' = x + j``, |i| up to `rows`, |j| up to `columns`.

    Parameters
    ----------
    rows, columns : int, pixels
        From 0. A cochlea has one row: any other than 0 would empty it.

    Raises
    ------
    ValueError
        If they are not whole numbers from 0.
    """
    return partial(_shift, rows=_count("rows", rows), columns=_count("columns", columns))


def _shift(sample: Sample, generator: np.random.Generator, *, rows: int, columns: int) -> Sample:
    i, j = (int(generator.integers(-n, n, endpoint=True)) for n in (rows, columns))
    _, height, width = sample.sensor
    line = sample.unit // width
    y, x = line - line // height * height + i, sample.unit - line * width + j  # numpy's % takes several times as long
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    unit = sample.unit[inside].astype(np.int64) + (i * width + j)
    return sample._replace(step=sample.step[inside], unit=unit.astype(np.int32))


def shift_time(steps: int) -> Augment:
    """Start later: ``step' = step + k, n_steps' = min(n_steps + k, n_total)``, k drawn evenly from 0 to `steps`.

    Parameters
    ----------
    steps : int
        From 0.

    Raises
    ------
    ValueError
        If it is no whole number from 0.
    """
    return partial(_shift_time, steps=_count("steps", steps))


def _shift_time(sample: Sample, generator: np.random.Generator, *, steps: int) -> Sample:
    by = int(generator.integers(0, steps, endpoint=True))
    step = sample.step + by
    n = int(np.searchsorted(step, sample.n_total))
    return sample._replace(step=step[:n], unit=sample.unit[:n], n_steps=min(sample.n_steps + by, sample.n_total))


def chain(*augments: Augment) -> Augment:
    """Apply one after the other, all with the same generator; none: the sample as it is.

    Raises
    ------
    ValueError
        If one of them cannot be called.
    """
    for i, augment in enumerate(augments):
        if not callable(augment):
            fail(f"augments[{i}]", "callable (sample, generator) -> sample", repr(augment))
    return partial(_chain, augments=augments)


def _chain(sample: Sample, generator: np.random.Generator, *, augments: tuple[Augment, ...]) -> Sample:
    for augment in augments:
        sample = augment(sample, generator)
    return sample


def _number(name: str, value: Any, most: float = MOST) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float, np.integer, np.floating))
        or not 0 <= value <= most
    ):
        fail(name, f"a number from 0 to {most:g}", repr(value))
    return float(value)


def _count(name: str, n: Any) -> int:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 0 <= n <= MOST:
        fail(name, f"a whole number from 0 to {MOST:g}", repr(n))
    return int(n)
