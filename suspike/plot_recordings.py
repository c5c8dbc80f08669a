"""Pictures of recordings: a camera's frames and its events over time, a cochlea's spikes and their rates.

Arrays in, a matplotlib Figure out, as in `suspike.plot`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from suspike._validate import fail
from suspike.plot import _HUES, _figure, _plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_FRAMES = 6
"""Equal parts of a camera's recording that are drawn as frames."""

RATE_MS = 10
"""Length of a column of a cochleagram, at least."""

N_COLUMNS = 500
"""At most so many columns are drawn; longer ones where a recording lasts longer than so many times `RATE_MS`."""

RATE_UNITS = 10
"""Neighbouring channels of a row of a cochleagram."""


def recording(t_us: NDArray[Any], unit: NDArray[Any], sensor: tuple[int, int, int], *, title: str = "") -> Figure:
    """Draw one recording.

    Parameters
    ----------
    t_us : int [E], us
    unit : int [E]
        ``(p * H + y) * W + x``.
    sensor : (int, int, int)
        Channels P, rows H, columns W. Of several rows: frames, the first channel's events counted negative where there
        are two, and the columns of the events over time. Of one row: each spike, and rates.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If a unit is none of the sensor's.
    ImportError
        If matplotlib is missing (the `plot` extra).
    """
    n_units = int(np.prod(sensor))
    if len(unit) and not (0 <= unit.min() and unit.max() < n_units):
        fail("unit", f"from 0 to {n_units - 1}", f"{unit.min()} to {unit.max()}")
    t_ms, rest = np.asarray(t_us) / 1000, np.asarray(unit, np.int64)
    p, place = np.divmod(rest, sensor[1] * sensor[2])
    y, x = np.divmod(place, sensor[2])
    draw = _camera if sensor[1] > 1 else _cochlea
    figure: Figure = draw(t_ms, p, y, x, sensor)
    figure.suptitle(title or f"{len(t_ms):,} events")
    return figure


def _camera(t_ms: Any, p: Any, y: Any, x: Any, sensor: tuple[int, int, int]) -> Figure:
    figure = _figure(5.0)
    end = float(t_ms.max(initial=0)) + 1e-3
    grid = figure.add_gridspec(2, N_FRAMES, height_ratios=(1, 1.6))
    edges = np.linspace(0, end, N_FRAMES + 1)
    frames = []
    for low, high in pairwise(edges):
        inside = (t_ms >= low) & (t_ms < high)
        frame = np.zeros(sensor[1:])
        sign = np.where(p[inside] == 0, -1, 1) if sensor[0] == 2 else 1
        np.add.at(frame, (y[inside], x[inside]), sign)
        frames.append(frame)
    most = max(max(np.abs(frame).max() for frame in frames), 1)
    for i, frame in enumerate(frames):
        axes = figure.add_subplot(grid[0, i])
        axes.imshow(frame, cmap="RdBu_r", vmin=-most, vmax=most)
        axes.set_title(f"{edges[i]:.0f} to {edges[i + 1]:.0f} ms", fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    axes = figure.add_subplot(grid[1, :])
    for channel in range(sensor[0]):
        here = p == channel
        name = ("darker", "brighter")[channel] if sensor[0] == 2 else f"channel {channel}"
        axes.scatter(t_ms[here], x[here], s=2, lw=0, color=_HUES[channel % len(_HUES)], label=name)
    axes.set(xlabel="time (ms)", ylabel="column", xlim=(0, end), ylim=(-0.5, sensor[2] - 0.5))
    if sensor[0] > 1:
        figure.legend(markerscale=4, frameon=False, loc="outside lower center", ncols=sensor[0])
    _plain(axes)
    return figure


def _cochlea(t_ms: Any, p: Any, y: Any, x: Any, sensor: tuple[int, int, int]) -> Figure:
    figure = _figure(5.0)
    end = float(t_ms.max(initial=0)) + 1e-3
    spikes, rates = figure.subplots(2, 1, sharex=True, sharey=True)
    spikes.scatter(t_ms, x, s=1, lw=0, color=_HUES[0])
    width = RATE_MS * int(np.ceil(end / RATE_MS / N_COLUMNS))
    columns = np.arange(0, end + width, width)
    rows = np.arange(0, sensor[2] + RATE_UNITS, RATE_UNITS)
    counts, _, _ = np.histogram2d(x, t_ms, bins=(rows, columns))
    per_s = counts / RATE_UNITS / (width / 1000)
    picture = rates.pcolormesh(columns, rows, per_s, cmap="magma")
    figure.colorbar(picture, ax=[spikes, rates], label="spikes a second and channel")
    for axes in (spikes, rates):
        axes.set(ylabel="channel", ylim=(sensor[2], 0), xlim=(0, end))
        _plain(axes)
    rates.set_xlabel("time (ms)")
    return figure
