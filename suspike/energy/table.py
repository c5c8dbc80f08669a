"""Networks side by side on every card, always as a range over cards: the same spikes differ by orders of magnitude."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

from suspike._validate import fail
from suspike.energy.bill import SCENARIOS, bill, dense_bill
from suspike.energy.card import Card
from suspike_kernels.counts import Counts

if TYPE_CHECKING:
    from rich.table import Table

_UNITS = ((1e12, "J"), (1e9, "mJ"), (1e6, "uJ"), (1e3, "nJ"), (1.0, "pJ"))


class EnergyRow(TypedDict):
    """One card's row of the table.

    Attributes
    ----------
    card, kind : str
    energy_pj : dict
        Energy of a sample in pJ, by network and scenario.
    ratio : dict
        Energy over that of the first network in the same scenario, by network (without the first) and scenario; None
        where the first one's is 0.
    dense_pj : dict
        Energy of a sample in a dense network of the same shape, in pJ, by network; None where the card prices no `mac`.
    unpriced : list of str
        Operations that occurred in some network and have no price on the card: its energies leave them out.
    scope : list of str
        What the card leaves out altogether.
    """

    card: str
    kind: str
    energy_pj: dict[str, dict[str, float]]
    ratio: dict[str, dict[str, float | None]]
    dense_pj: dict[str, float | None]
    unpriced: list[str]
    scope: list[str]


def energy_rows(networks: Mapping[str, Sequence[Counts]], cards: Sequence[Card]) -> list[EnergyRow]:
    """Price every network on every card in every scenario: plain data, one entry a card.

    Parameters
    ----------
    networks : mapping of str to sequence of Counts
        By title, such as "always open" and "gated". The first is what the others are compared with.
    cards : sequence of Card

    Raises
    ------
    ValueError
        There is no network or no card, or counts are not those of one run (see `bill`).
    """
    if not networks:
        fail("networks", "of one network or more", "none")
    if not cards:
        fail("cards", "of one card or more", "none", "A single figure says little: take several.")
    return [_row(networks, card) for card in cards]


def energy_caption(rows: Sequence[EnergyRow]) -> str:
    """Say the range over cards of every network and ratio, and what each card leaves out.

    Parameters
    ----------
    rows : sequence of EnergyRow
        From `energy_rows`.
    """
    lines = [f"Range over {len(rows)} card{'s' if len(rows) > 1 else ''}, a sample; estimates, no measurement:"]
    for network in rows[0]["energy_pj"]:
        for scenario in SCENARIOS:
            energies = [row["energy_pj"][network][scenario] for row in rows]
            line = f"  {network}, {_words(scenario)}: {format_energy(min(energies))} to {format_energy(max(energies))}"
            if network in rows[0]["ratio"]:
                ratios = [r for row in rows if (r := row["ratio"][network][scenario]) is not None]
                line += f", x{min(ratios):.2f} to x{max(ratios):.2f}" if ratios else ""
            lines.append(line)
    lines += [f"{_words(scenario)}: {meaning}." for scenario, meaning in SCENARIOS.items()]
    lines.append("Not in the figures:")
    lines += [f"  {row['card']}: {', '.join(_unique(row['unpriced'] + row['scope']))}" for row in rows]
    return "\n".join(lines)


def energy_table(networks: Mapping[str, Sequence[Counts]], cards: Sequence[Card]) -> Table:
    """Lay out `energy_rows` as a table with `energy_caption` below it, narrow enough for a terminal of 80 columns.

    A card has a row for each scenario; a network a column, with its ratio to the first one; a first column holds what a
    dense network of the first one's shape would take.

    Parameters
    ----------
    networks, cards
        As in `energy_rows`.

    Raises
    ------
    ValueError
        As in `energy_rows`.
    """
    from rich.table import Table
    from rich.text import Text

    rows = energy_rows(networks, cards)
    first = next(iter(networks))
    # Text, since rich would read a title such as "gated [red]" as markup.
    table = Table(title="Energy of a sample", caption=Text(energy_caption(rows)), caption_justify="left")
    # Titles are folded by hand and nothing else is, so that the figures stay whole in 80 columns.
    for title in ("card", "chip"):
        table.add_column(title, no_wrap=True)
    for title in (f"{first}, dense", *networks):
        table.add_column(Text(title.replace(" ", "\n")), justify="right", no_wrap=True)
    for row in rows:
        dense = row["dense_pj"][first]
        for scenario in SCENARIOS:
            cells = [row["card"], _words(scenario), "-" if dense is None else format_energy(dense)]
            for network in networks:
                ratio = row["ratio"].get(network, {}).get(scenario)
                energy = format_energy(row["energy_pj"][network][scenario])
                cells.append(energy + ("" if ratio is None else f" x{ratio:.2f}"))
            table.add_row(*map(Text, cells), end_section=scenario == list(SCENARIOS)[-1])
    return table


def format_energy(energy_pj: float) -> str:
    """Write an energy of `energy_pj` pJ with three digits and the unit that fits it."""
    factor, unit = next(((f, u) for f, u in _UNITS if energy_pj >= f), _UNITS[-1])
    value = energy_pj / factor
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {unit}"


def _row(networks: Mapping[str, Sequence[Counts]], card: Card) -> EnergyRow:
    bills = {n: {s: bill(counts, card, scenario=s) for s in SCENARIOS} for n, counts in networks.items()}
    dense = {n: dense_bill(counts, card) for n, counts in networks.items()}
    energies = {n: {s: b.sample_energy_pj for s, b in by.items()} for n, by in bills.items()}
    first, *others = networks
    base = energies[first]
    return EnergyRow(
        card=card.name,
        kind=card.kind,
        energy_pj=energies,
        ratio={n: {s: energies[n][s] / base[s] if base[s] else None for s in SCENARIOS} for n in others},
        dense_pj={n: None if b is None else b.sample_energy_pj for n, b in dense.items()},
        unpriced=_unique(op for by in bills.values() for b in by.values() for op in b.unpriced_operations),
        scope=list(card.scope),
    )


def _unique(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


def _words(scenario: str) -> str:
    return scenario.replace("_", " ")
