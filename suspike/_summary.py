"""What a network's layers are and did, as a table; `inspect.summary` fills it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

DEAD_SHARE = 0.9
"""`summary` calls a layer dead when more than this share of its units fires not once."""
SATURATED_RATE = 0.5
"""`summary` calls a layer saturated when it fires at more than this share of its open neuron-steps."""

_HEADERS = ("layer", "kind", "in", "out", "params", "rate", "open", "active", "synops", "skipped")
_LEGEND = """rate: spikes per neuron and step; open, active: shares of neurons and steps;
synops, skipped: synaptic operations per sample, done and spared by closed gates"""


@dataclass(frozen=True)
class Row:
    """One layer in a `Summary`. A figure that has no meaning for it, or could not be told, is None.

    Parameters
    ----------
    name, kind : str
        Path in the module tree; classes of layer and neuron.
    n_in, n_out, parameters : int
        Units in and out; numbers to learn, those of neuron and gate included.
    gated : bool
    rate, rate_open : float or None
        Spikes per neuron-step, and per open neuron-step.
    silent : float or None
        Share of units that fired not once.
    open_fraction : float or None
        Share of neuron-steps with an open gate, 1 without a gate.
    active_share : float or None
        Share of neuron-steps at which training has work to do: open, and within the surrogate's width of the threshold.
    synops_done, synops_skipped : float or None
        Synaptic operations per sample at open and at closed targets; None when the input is no whole counts.
    """

    name: str
    kind: str
    n_in: int
    n_out: int
    parameters: int
    gated: bool
    rate: float | None = None
    rate_open: float | None = None
    silent: float | None = None
    open_fraction: float | None = None
    active_share: float | None = None
    synops_done: float | None = None
    synops_skipped: float | None = None

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table as text."""
        is_open = _share(self.open_fraction) if self.gated or self.open_fraction is None else "always"
        sizes, work = (self.n_in, self.n_out, self.parameters), (self.synops_done, self.synops_skipped)
        shares = (_share(self.rate), is_open, _share(self.active_share))
        return self.name or "(net)", self.kind, *map(_short, sizes), *shares, *map(_short, work)


@dataclass(frozen=True)
class Summary:
    """What the layers are and did in one run; ``str()`` is a plain table of at most 100 columns.

    Parameters
    ----------
    title : str
    rows : tuple of Row
        One for each Dense layer, in the order of the module tree.
    """

    title: str
    rows: tuple[Row, ...]

    @property
    def dead(self) -> tuple[str, ...]:
        """The layers of which more than `DEAD_SHARE` of the units never fired."""
        return tuple(row.name for row in self.rows if row.silent is not None and row.silent > DEAD_SHARE)

    @property
    def saturated(self) -> tuple[str, ...]:
        """The layers that fired at more than `SATURATED_RATE` of their open neuron-steps."""
        return tuple(row.name for row in self.rows if row.rate_open is not None and row.rate_open > SATURATED_RATE)

    def __str__(self) -> str:
        cells = [_HEADERS, *(row.cells() for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        widths[1] = min(widths[1], 19)
        widths[0] = min(widths[0], 100 - 2 * len(widths[1:]) - sum(widths[1:]))
        lines = []
        for row in cells:
            cut = [x if len(x) <= w else ".." + x[len(x) - w + 2 :] for x, w in zip(row, widths, strict=True)]
            aligned = (f"{x:{'<' if i < 2 else '>'}{w}}" for i, (x, w) in enumerate(zip(cut, widths, strict=True)))
            lines.append("  ".join(aligned))
        return "\n".join([self.title, lines[0], "-" * len(lines[0]), *lines[1:], _LEGEND])

    def table(self) -> Table:
        """Return the same as a rich table, for a `rich.console.Console`."""
        from rich.table import Table
        from rich.text import Text  # a name in brackets would pass for markup

        table = Table(title=self.title, caption=_LEGEND, title_justify="left", caption_justify="left")
        for i, header in enumerate(_HEADERS):
            table.add_column(header, justify="left" if i < 2 else "right")
        for row in self.rows:
            table.add_row(*map(Text, row.cells()))
        return table


def _share(x: float | None) -> str:
    return "-" if x is None else f"{x:.4f}"


def _short(x: float | None) -> str:
    """Write a number in at most seven characters, whole ones below 100,000 in full."""
    if x is None:
        return "-"
    if isinstance(x, int) and x < 100_000:
        return str(x)
    power = max(0, min(int(math.log10(x)) // 3, 4)) if x >= 1000 else 0
    return f"{x / 1000**power:.{4 if x >= 1 else 2}g}{' kMGT'[power].strip()}"
