"""Pictures of runs and networks: arrays in, a matplotlib Figure out, built without pyplot and its global state.

A step t is drawn as the bin it is, from ``t * dt_ms`` to ``(t + 1) * dt_ms``; its events stand in the middle.
Figures come from the `plot` extra, which is imported when the first one is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from suspike._validate import fail, import_extra, require_finite, require_shape
from suspike_kernels.layout import Events, IntArray, check_events

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

WIDTH_IN = 8.0
"""Width of a figure in inches: text of 10 pt stays readable where a report shows it across its column."""

# Okabe and Ito's colours, told apart with any colour vision; yellow and black left out. Styles double what hue says.
_HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS, _STYLES = ("o", "s", "^", "D", "v", "P"), ("-", "--", "-.", ":")
_SPIKE, _ASTRAY, _OPEN = "#1A1A1A", "#D55E00", "#BFDDF2"
_UNITS = ((1e12, "J"), (1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ"), (1.0, "pJ"))


def phase_order(open_steps: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Order neurons so that the pattern of their gates can be read: by period, the longest first, then by phase.

    A neuron's period is that of the peak of the layer's summed spectrum at which its own gate is strongest. Gates that
    never change come last.

    Parameters
    ----------
    open_steps : uint8 [T, N]
        1 where a gate is open.

    Returns
    -------
    int64 [N]
        The neuron to draw in each row.

    Raises
    ------
    ValueError
        `open_steps` is no such table.
    """
    table = _require_table(open_steps)
    spectrum = np.fft.rfft(table.astype(np.float64), axis=0)[1:]  # [F, N], without the mean
    if not len(spectrum):
        return np.arange(table.shape[1])
    # Periods are shared by a layer and fall between bins: the layer's peaks, not each neuron's own, keep one together.
    power = np.pad((np.abs(spectrum) ** 2).sum(1), 1, constant_values=-1.0)
    peaks = spectrum[(power[1:-1] >= power[:-2]) & (power[1:-1] >= power[2:])]  # [P, N]
    period = np.abs(peaks).argmax(0)
    # Rounded before it wraps, since -1e-17 is no late phase.
    delay = np.round(-np.angle(np.take_along_axis(peaks, period[None], 0)[0]), 9) % (2 * np.pi)
    return np.lexsort((delay, period, (table == table[:1]).all(0)))


def raster(
    events: Events,
    sample: int,
    *,
    dt_ms: float,
    open_steps: NDArray[np.uint8] | None = None,
    order: IntArray | None = None,
    inputs: Events | None = None,
    title: str = "",
) -> Figure:
    """Draw the spikes of one sample, on the open steps of their gates; a spike in a closed step has its own colour.

    Parameters
    ----------
    events : Events [B, T]
        A layer's spikes.
    sample : int
        0 to B - 1.
    dt_ms : float
        Length of a step in ms.
    open_steps : uint8 [T, N], optional
        1 where a gate is open.
    order : int [N], optional
        The neuron of each row, the lowest first, such as ``phase_order(open_steps)``; by number otherwise.
    inputs : Events [B, T], optional
        What came in, for a panel on top.
    title : str, optional

    Raises
    ------
    ValueError
        Events break their rules, there is no such sample, or shapes do not fit.
    ImportError
        matplotlib is not installed.
    """
    step, neuron = _one_sample("events", events, sample)
    end_ms, n_units = events.n_steps * _require_dt(dt_ms), events.n_units
    table = None if open_steps is None else _require_table(open_steps, (events.n_steps, n_units))
    rows = np.arange(n_units) if order is None else np.asarray(order)
    if not np.array_equal(np.sort(rows), np.arange(n_units)):
        fail("order", f"each neuron from 0 to {n_units - 1} once", f"an array of shape {list(rows.shape)}")
    arrived = None if inputs is None else _one_sample("inputs", inputs, sample)
    if inputs is not None and inputs.n_steps != events.n_steps:
        fail("inputs", f"of {events.n_steps} steps, as `events`", f"{inputs.n_steps}")

    figure = _figure(4.2 if inputs is None else 6.2)
    grid = figure.add_gridspec(1 if inputs is None else 2, 1, height_ratios=[1] if inputs is None else [2, 3])
    axes = figure.add_subplot(grid[-1])
    place = np.empty(n_units, np.int64)
    place[rows] = np.arange(n_units)
    size = float(np.clip(300 / n_units, 2.0, 4.5)) ** 2  # points^2: about a row's height, but never lost
    if table is not None:
        _draw_table(axes, table[:, rows], end_ms)
    closed = np.zeros(len(step), np.bool_) if table is None else table[step, neuron] == 0
    x_ms, y = (step + 0.5) * dt_ms, place[neuron]
    legend = [axes.scatter(x_ms[~closed], y[~closed], s=size, c=_SPIKE, linewidths=0, zorder=3)]
    labels = [f"spikes: {len(step)}" if table is None else f"spikes in open steps: {(~closed).sum()}"]
    if closed.any():
        legend.append(axes.scatter(x_ms[closed], y[closed], s=3 * size, c=_ASTRAY, linewidths=0, zorder=4))
        labels.append(f"spikes in CLOSED steps: {closed.sum()}")
    handles: list[Any] = list(legend)
    if table is not None:
        from matplotlib.patches import Patch

        handles.append(Patch(color=_OPEN))
        labels.append(f"gate open: {table.mean():.1%}")
    axes.set(xlim=(0, end_ms), ylim=(-0.5, n_units - 0.5), xlabel="time / ms")
    axes.set_ylabel("neuron" if order is None else "neuron (sorted)")
    # The layout engine keeps room for a legend outside; markers are too small for their true size.
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, scatterpoints=1, markerscale=2)
    top = axes
    if inputs is not None and arrived is not None:
        top = figure.add_subplot(grid[0], sharex=axes)
        top.scatter((arrived[0] + 0.5) * dt_ms, arrived[1], s=1.5, c=_SPIKE, linewidths=0)
        top.set(ylim=(-0.5, inputs.n_units - 0.5), ylabel="input unit")
        top.tick_params(labelbottom=False)
    for each in figure.axes:
        _plain(each)
    top.set_title(title, parse_math=False)
    return figure


def schedule(open_steps: NDArray[np.uint8], *, dt_ms: float, title: str = "") -> Figure:
    """Draw when each gate is open, neurons in `phase_order`, and below it the share open at each step.

    Parameters
    ----------
    open_steps : uint8 [T, N]
        1 where a gate is open.
    dt_ms : float
        Length of a step in ms.
    title : str, optional

    Raises
    ------
    ValueError
        `open_steps` is no such table, or `dt_ms` is not above 0.
    ImportError
        matplotlib is not installed.
    """
    table = _require_table(open_steps)
    edges_ms = np.arange(len(table) + 1) * _require_dt(dt_ms)
    figure = _figure(5.0)
    grid = figure.add_gridspec(2, 1, height_ratios=[3, 1])
    image = figure.add_subplot(grid[0])
    _draw_table(image, table[:, phase_order(table)], edges_ms[-1], shade=_HUES[0])
    image.set_title(title, parse_math=False)
    image.set_ylabel("neuron (sorted by period, phase)")
    image.tick_params(labelbottom=False)
    share = figure.add_subplot(grid[1], sharex=image)
    share.stairs(table.mean(1), edges_ms, baseline=None, color=_HUES[0], linewidth=1.5)
    mean = float(table.mean())
    share.axhline(mean, color="#666666", linestyle="--", linewidth=1, label=f"mean {mean:.1%}")
    share.set(xlim=(0, edges_ms[-1]), ylim=(0, 1), xlabel="time / ms", ylabel="share open")
    share.yaxis.set_major_formatter(_percent())
    share.legend(frameon=False, loc="upper right")
    _plain(image)
    _plain(share)
    return figure


def learning_curve(
    history: Mapping[str, Sequence[Mapping[str, Any]]] | Sequence[Mapping[str, Any]], *, title: str = ""
) -> Figure:
    """Draw held-out accuracy, training loss and, where given, the open fraction over epochs.

    Parameters
    ----------
    history : sequence of mapping, or mapping of str to such a sequence
        One entry an epoch: `epoch` (int), `train_loss`, `held_out_accuracy` (0 to 1), `open_fraction` (0 to 1); what is
        None or missing is left out. Several runs come by name.
    title : str, optional

    Raises
    ------
    ValueError
        There is no epoch, one has no number, or a fraction is not from 0 to 1.
    ImportError
        matplotlib is not installed.
    """
    runs = dict(history) if isinstance(history, Mapping) else {"": history}
    if not any(runs.values()):
        fail("history", "of one epoch or more", "none")
    panels = {"held_out_accuracy": "held-out accuracy", "train_loss": "training loss", "open_fraction": "open fraction"}
    for name, run in runs.items():
        for epoch in run:
            if "epoch" not in epoch:
                fail(f"history of {name!r}", "of entries with an `epoch`", f"one with {', '.join(epoch) or 'nothing'}")
            for key in ("held_out_accuracy", "open_fraction"):
                value = epoch.get(key)
                if value is not None and (value < 0 or value > 1):  # NaN is drawn as a gap: a run may diverge
                    fail(f"{key} of {name!r}", "from 0 to 1", repr(value))
    keys = [k for k in panels if any(epoch.get(k) is not None for run in runs.values() for epoch in run)]
    if not keys:
        fail("history", f"of entries with {', '.join(panels)}", "none of them")
    figure = _figure(3.2 if len(runs) == 1 else 3.6)
    for axes, key in zip(np.ravel(figure.subplots(1, len(keys))), keys, strict=True):
        lines = []
        looks = zip(cycle(_HUES), cycle(_MARKERS), cycle(_STYLES))
        for run, (hue, marker, style) in zip(runs.values(), looks, strict=False):
            points = [(epoch["epoch"], epoch[key]) for epoch in run if epoch.get(key) is not None]
            x, y = [p[0] for p in points], [p[1] for p in points]
            # Hollow and broken, so that of two equal runs both are seen.
            lines += axes.plot(x, y, color=hue, marker=marker, ls=style, fillstyle="none", markersize=5, linewidth=1.4)
        axes.set(xlabel="epoch", title=panels[key])
        axes.xaxis.get_major_locator().set_params(integer=True)
        if key == "open_fraction":
            axes.set_ylim(0, 1.05)
        if key != "train_loss":
            axes.yaxis.set_major_formatter(_percent())
        axes.grid(axis="y", color="#E0E0E0", linewidth=0.7)
        _plain(axes)
    if len(runs) > 1:
        _literal(figure.legend(lines, list(runs), loc="outside lower center", ncols=4, frameon=False))
    if title:
        figure.suptitle(title, parse_math=False)
    return figure


def confusion(labels: IntArray, predictions: IntArray, n_classes: int, *, title: str = "") -> Figure:
    """Draw how often each class was taken for each: counts as numbers, the share of the true class as colour.

    Parameters
    ----------
    labels, predictions : int [S]
        The true and the predicted class of each sample, 0 to n_classes - 1.
    n_classes : int
    title : str, optional
        The accuracy by default.

    Raises
    ------
    ValueError
        The arrays are of different shapes or empty, or hold anything but classes.
    ImportError
        matplotlib is not installed.
    """
    truth, guess = np.asarray(labels), np.asarray(predictions)
    if truth.ndim != 1 or not len(truth):
        fail("labels", "of shape [S] with one sample or more", f"shape {list(truth.shape)}")
    require_shape("predictions", guess, truth.shape)
    for name, array in (("labels", truth), ("predictions", guess)):
        bad = array if array.dtype.kind not in "iu" else array[(array < 0) | (array >= n_classes)]
        if len(bad):
            fail(name, f"whole numbers from 0 to n_classes - 1 = {n_classes - 1}", f"{bad[0]}")
    counts = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(counts, (truth, guess), 1)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = float(np.clip(0.42 * n_classes + 1.2, 3.6, 16.0))
    size = min(9.0, 22 * (side - 1.2) / n_classes)  # points: a third of a cell
    figure = _figure(side, width_in=side + 0.9)
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.argwhere(counts):  # a number in every cell would hide the few that matter
        colour = "white" if share[i, j] > 0.5 else "black"
        axes.text(j, i, str(counts[i, j]), ha="center", va="center", color=colour, fontsize=size)
    axes.set(xticks=range(n_classes), yticks=range(n_classes), xlabel="predicted class", ylabel="true class")
    axes.set_title(
        title or f"{np.trace(counts)} of {len(truth)} right ({np.trace(counts) / len(truth):.1%})", parse_math=False
    )
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, format=_percent())
    bar.set_label("share of the true class")
    return figure


def energy_bars(rows: Sequence[Mapping[str, Any]], *, title: str = "") -> Figure:
    """Draw the energy of a sample: a group of bars a card, on a logarithmic axis, hue by network, tint by scenario.

    Parameters
    ----------
    rows : sequence of mapping
        Each with `card`, `network`, `scenario` (str) and `energy_pj` (float, of a sample, in pJ); a group leaves out
        what is not given. Everything is drawn in the order in which it first comes.
    title : str, optional

    Raises
    ------
    ValueError
        There are no rows, two of one name, or an energy that is negative or not finite.
    ImportError
        matplotlib is not installed.
    """
    energies: dict[tuple[str, tuple[str, str]], float] = {}
    for row in rows:
        key = (str(row["card"]), (str(row["network"]), str(row["scenario"])))
        if key in energies:
            fail("rows", "of different card, network and scenario", f"{key[0]}, {', '.join(key[1])} twice")
        energies[key] = float(row["energy_pj"])
    values = np.array(list(energies.values()))
    if not len(values):
        fail("rows", "of one bar or more", "none")
    require_finite("energy_pj", values)
    if (values < 0).any():
        fail("energy_pj", "from 0", f"{values.min()}")
    cards = list(dict.fromkeys(card for card, _ in energies))
    bars = list(dict.fromkeys(series for _, series in energies))
    networks, scenarios = (list(dict.fromkeys(names)) for names in zip(*bars, strict=True))
    bars.sort(key=lambda b: (networks.index(b[0]), scenarios.index(b[1])))

    positive = values[values > 0] if (values > 0).any() else np.ones(1)
    # No bar may end at the axis, and the longest leaves room for its number.
    low = float(10.0 ** np.floor(np.log10(positive.min()) - 0.3))
    high = max(positive.max() * (positive.max() / low) ** 0.13, 12 * low)
    figure = _figure(0.9 + len(cards) * (0.24 * len(bars) + 0.2) + 0.25 * len(networks))
    axes = figure.add_subplot()
    height = 0.84 / len(bars)
    for k, (network, scenario) in enumerate(bars):
        shown = {i: energies[card, bars[k]] for i, card in enumerate(cards) if (card, bars[k]) in energies}
        y = [i + (k - (len(bars) - 1) / 2) * height for i in shown]
        hue = _HUES[networks.index(network) % len(_HUES)]
        tint = _tint(hue, 0.65 * scenarios.index(scenario) / max(len(scenarios) - 1, 1))
        label = f"{network}, {scenario.replace('_', ' ')}"
        axes.barh(y, list(shown.values()), height * 0.9, color=tint, edgecolor=hue, linewidth=0.8, label=label)
        for place, energy in zip(y, shown.values(), strict=True):  # no bar for 0, but its number
            at = (max(energy, low), place)
            axes.annotate(_energy(energy), at, (3, 0), textcoords="offset points", va="center", fontsize=8.5)
    # Limits first: a scale that is set before them looks for positive data, and may find none.
    axes.set(xlim=(low, high), xscale="log", ylim=(len(cards) - 0.5, -0.5), xlabel="energy of a sample")
    axes.xaxis.set_major_formatter(lambda pj, _: _energy(pj, "g"))
    axes.xaxis.set_minor_formatter(lambda *_: "")
    axes.set_yticks(range(len(cards)), labels=cards, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#E0E0E0", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_title(title, parse_math=False)
    _plain(axes)
    _literal(figure.legend(loc="outside lower center", ncols=2, frameon=False))
    return figure


def increments(
    moved: NDArray[Any],
    shape: tuple[int, int],
    *,
    open_steps: NDArray[Any] | None = None,
    images: NDArray[Any] | None = None,
    title: str = "",
) -> Figure:
    """Draw how a recurrent cell's state moved while it read images pixel by pixel, laid out as the images.

    A row for each sample: the image, the share of units that were open at each pixel, and the mean over units of the
    state's increment at each pixel, signed and by size. Source: arXiv:2603.02226 (Figure 4).

    Parameters
    ----------
    moved : float [T, B, H]
        Increments of the state, ``h_t - h_{t-1}``, as of `suspike.probes.increments`; T is rows times columns.
    shape : (int, int)
        Rows and columns of an image; step t reads pixel ``divmod(t, columns)``.
    open_steps : float [T, H], optional
        1 where a unit was open, the same for all samples.
    images : float [B, rows, columns], optional
        What was read.
    title : str, optional

    Raises
    ------
    ValueError
        Shapes do not fit, or a value is not finite.
    ImportError
        matplotlib is not installed.
    """
    moved, (rows, columns) = np.asarray(moved, np.float64), shape
    if moved.ndim != 3 or not moved.size or len(moved) != rows * columns:
        got = f"shape {list(moved.shape)}"
        fail("moved", f"of shape [{rows * columns}, B, H], a step for each pixel, of one sample and unit or more", got)
    require_finite("moved", moved)
    n_samples = moved.shape[1]
    signed, sizes = (x.mean(2).T.reshape(-1, rows, columns) for x in (moved, np.abs(moved)))
    most = float(np.abs(signed).max())
    panels = [("mean increment", signed, "RdBu_r", (-most, most)), ("mean size", sizes, "magma", (0.0, sizes.max()))]
    if open_steps is not None:
        table = _require_table(open_steps, (len(moved), moved.shape[2]))
        share = np.tile(table.mean(1).reshape(rows, columns), (n_samples, 1, 1))
        panels.insert(0, ("share of units open", share, "viridis", (0.0, share.max())))
    if images is not None:
        read = np.asarray(images, np.float64)
        require_shape("images", read, (n_samples, rows, columns))
        panels.insert(0, ("image", read, "gray", (read.min(), read.max())))
    figure = _figure(1.8 * n_samples + 0.8)
    grid = figure.subplots(n_samples, len(panels), squeeze=False)
    for (name, pictures, colours, (low, high)), column in zip(panels, grid.T, strict=True):
        for axes, picture in zip(column, pictures, strict=True):
            drawn = axes.imshow(picture, cmap=colours, vmin=low, vmax=high)
            axes.set(xticks=[], yticks=[])
        column[0].set_title(name, fontsize=10)
        figure.colorbar(drawn, ax=list(column), location="bottom", shrink=0.8, aspect=15)
    figure.suptitle(title, parse_math=False)
    return figure


def _figure(height_in: float, *, width_in: float = WIDTH_IN) -> Figure:
    import_extra("matplotlib", extra="plot")
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained", facecolor="white")


def _draw_table(axes: Axes, table: NDArray[np.uint8], end_ms: float, *, shade: str = _OPEN) -> None:
    """Draw a table [T, N] in light `shade` where it is 1, a row a neuron from below."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("open", ["white", shade])
    extent = (0, end_ms, -0.5, table.shape[1] - 0.5)
    axes.imshow(table.T, cmap=colours, vmin=0, vmax=1, origin="lower", extent=extent, aspect="auto")


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _literal(legend: Legend) -> None:
    """Take a "$" in the user's names for itself."""
    for text in legend.get_texts():
        text.set_parse_math(False)


def _percent() -> Any:
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(xmax=1)


def _tint(hue: str, white: float) -> tuple[float, ...]:
    """Mix a colour with a share of white."""
    from matplotlib.colors import to_rgb

    return tuple(c + (1 - c) * white for c in to_rgb(hue))


def _energy(energy_pj: float, digits: str = "#.3g") -> str:
    """Write an energy in pJ with the unit that fits it once it is rounded: 999.9 pJ is 1.00 nJ."""
    rounded = float(f"{energy_pj:.3g}")
    factor, unit = next(((f, u) for f, u in _UNITS if rounded >= f), _UNITS[-1])
    return f"{rounded / factor:{digits}}".rstrip(".") + f" {unit}" if rounded else "0 pJ"


def _one_sample(name: str, events: Events, sample: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the step and the unit of each event of a sample."""
    check_events(events, name)
    if not 0 <= sample < events.n_samples:
        fail("sample", f"from 0 to {events.n_samples - 1}, the samples of `{name}`", f"{sample}")
    if not (events.n_steps and events.n_units):
        fail(name, "of one step and unit or more", f"{events.n_steps} steps of {events.n_units} units")
    ptr = events.ptr[sample]
    return np.repeat(np.arange(events.n_steps), np.diff(ptr)), events.idx[ptr[0] : ptr[-1]]


def _require_table(table: NDArray[np.uint8], shape: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    table = np.asarray(table)
    if table.ndim != 2 or not table.size:
        fail("open_steps", "of shape [T, N] with one step and neuron or more", f"shape {list(table.shape)}")
    if shape is not None:
        require_shape("open_steps", table, shape)
    bad = table[(table != 0) & (table != 1)]
    if len(bad):
        fail("open_steps", "0 or 1", f"{bad[0]}")
    return table


def _require_dt(dt_ms: float) -> float:
    if not (np.isfinite(dt_ms) and dt_ms > 0):
        fail("dt_ms", "above 0", repr(dt_ms))
    return dt_ms
