"""The energy of a run: its exact counts times a card's prices, layer by layer and operation by operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from suspike._validate import fail
from suspike.energy.card import Card
from suspike_kernels.counts import Counts

SCENARIOS: Mapping[str, str] = {
    "as_is": "the chip delivers every event and touches every neuron at every step: a closed gate saves spikes, and "
    "what an idle update costs less than an ordinary one",
    "gate_aware": "the chip fetches and computes nothing for a closed neuron: the most that gates can save, since one "
    "that fetches weights in blocks skips only blocks that are closed as a whole",
}
"""What a chip does about closed gates."""


def operations(counts: Counts, *, scenario: str) -> dict[str, int]:
    r"""Return how often a layer does each operation that a card may price.

    .. math::
        n_\text{synop} = \text{done} + [\text{as is}]\,\text{skipped},\quad
        n_\text{update} = \text{open},\quad n_\text{idle} = [\text{as is}]\,\text{closed}

    Gates are evaluated in both scenarios, on the chip or off it: without that, fewer spikes could not be had either.

    Parameters
    ----------
    counts : Counts
    scenario : str
        One of `SCENARIOS`, or "dense": the multiply-accumulates of a dense network of the same shape.

    Raises
    ------
    ValueError
        There is no such scenario.
    """
    if scenario == "dense":
        return {"mac": counts.dense_synops}
    if scenario not in SCENARIOS:
        fail("scenario", f"one of {', '.join(SCENARIOS)}, dense", repr(scenario))
    as_is = scenario == "as_is"
    return {
        "synop": counts.synops_done + as_is * counts.synops_skipped,
        "update": counts.updates_done,
        "idle_update": as_is * counts.updates_skipped,
        "spike": counts.spikes,
        "gate_evaluation": counts.gate_evaluations,
    }


def bill(counts: Sequence[Counts], card: Card, *, scenario: str) -> Bill:
    r"""Price what the layers of a network did.

    .. math:: E = \sum_\text{layer} \sum_\text{operation} n \cdot \text{price}

    Parameters
    ----------
    counts : sequence of Counts
        One a layer, of one run.
    card : Card
    scenario : str
        One of `SCENARIOS`.

    Raises
    ------
    ValueError
        There is no such scenario, or the counts are not those of one run: none, of several batch sizes, of no sample,
        or with two layers of one name.
    """
    require_one_run(counts)
    if scenario not in SCENARIOS:
        fail("scenario", f"one of {', '.join(SCENARIOS)}", repr(scenario))
    return _bill(counts, card, scenario)


def dense_bill(counts: Sequence[Counts], card: Card) -> Bill | None:
    """Price a dense network of the same shape, each synapse at each step; None where the card prices no `mac`.

    Raises
    ------
    ValueError
        As in `bill`.
    """
    require_one_run(counts)
    if "mac" not in card.prices:
        return None
    return _bill(counts, card, "dense")


def require_one_run(counts: Sequence[Counts]) -> None:
    """Refuse counts that are not those of the layers of one network in one run.

    Raises
    ------
    ValueError
        There are none, of several batch sizes, of no sample, or with two layers of one name.
    """
    if not counts:
        fail("counts", "of one layer or more", "none")
    samples = sorted({layer.samples for layer in counts})
    if len(samples) > 1 or samples[0] < 1:
        fail("counts", "of one run over one sample or more", f"{', '.join(map(str, samples))} samples")
    names = [layer.name for layer in counts]
    if len(set(names)) < len(names):
        fail("counts", "of layers of different names", ", ".join(names))


@dataclass(frozen=True)
class Line:
    """An operation of a layer: `count` times `price_pj` is `energy_pj`."""

    layer: str
    operation: str
    count: int
    price_pj: float

    @property
    def energy_pj(self) -> float:
        """Energy of all samples in pJ."""
        return self.count * self.price_pj


@dataclass(frozen=True)
class Unpriced:
    """An operation of a layer that occurred and has no price on the card. Its energy is unknown, not zero."""

    layer: str
    operation: str
    count: int


@dataclass(frozen=True)
class Bill:
    """The priced operations of a run, and those that have no price.

    Parameters
    ----------
    card : Card
    scenario : str
        One of `SCENARIOS`, or "dense".
    samples : int
        Samples of the run.
    layers : tuple of str
    lines : tuple of Line
        Operations that occurred and have a price, layer after layer.
    unpriced : tuple of Unpriced
        Operations that occurred and have none.
    """

    card: Card
    scenario: str
    samples: int
    layers: tuple[str, ...]
    lines: tuple[Line, ...]
    unpriced: tuple[Unpriced, ...]

    @property
    def energy_pj(self) -> float:
        """Energy of all samples in pJ, without the operations in `unpriced`."""
        return sum(line.energy_pj for line in self.lines)

    @property
    def sample_energy_pj(self) -> float:
        """Energy of a sample in pJ: the mean over the run."""
        return self.energy_pj / self.samples

    @property
    def layer_energy_pj(self) -> dict[str, float]:
        """Energy of all samples in pJ, by layer."""
        return {name: sum(line.energy_pj for line in self.lines if line.layer == name) for name in self.layers}

    @property
    def unpriced_operations(self) -> tuple[str, ...]:
        """The names of the operations in `unpriced`, each once."""
        return tuple(dict.fromkeys(entry.operation for entry in self.unpriced))


def _bill(counts: Sequence[Counts], card: Card, scenario: str) -> Bill:
    lines: list[Line] = []
    unpriced: list[Unpriced] = []
    for layer in counts:
        for operation, n in operations(layer, scenario=scenario).items():
            if n and operation in card.prices:
                price_pj = card.price_pj(operation, synapses=layer.synapses, neurons=layer.neurons)
                lines.append(Line(layer.name, operation, n, price_pj))
            elif n:
                unpriced.append(Unpriced(layer.name, operation, n))
    names = tuple(layer.name for layer in counts)
    return Bill(card, scenario, counts[0].samples, names, tuple(lines), tuple(unpriced))
