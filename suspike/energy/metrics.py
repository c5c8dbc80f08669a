"""Work in other people's terms: NeuroBench's metrics under their own names, and spikes per synapse."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from suspike._validate import fail
from suspike.energy.bill import require_one_run
from suspike_kernels.counts import Counts

COMPETITIVE_SPIKES_PER_SYNAPSE = (0.15, 1.38)
"""Where an integrate-and-fire network competes with an efficient conventional one, depending on the latter's hardware:
"between 0.15 and 1.38 spikes per synapse per inference" (Dampfhoffer et al., "Are SNNs really more energy-efficient
than ANNs? An in-depth hardware-aware study", IEEE TETCI 7(3):731-741, 2023, abstract)."""


class SpikesPerSynapse(NamedTuple):
    """Spikes per synapse and inference: all that reached a synapse, and those whose target was open."""

    delivered: float
    integrated: float


def synaptic_operations(counts: Sequence[Counts]) -> dict[str, float]:
    r"""Return NeuroBench's `synaptic_operations`, per sample, and one figure that it does not have.

    .. math:: \text{Effective\_ACs} = (\text{done} + \text{skipped}) / B

    NeuroBench knows no closed gates: its Effective_ACs hold the operations at closed neurons too.
    ``Effective_ACs_open_gates`` holds those at open ones only. Effective_MACs are 0, since every input is an event.
    NeuroBench counts a place that holds several events once, and a weight of 0 not at all; here each event counts at
    each target.

    Parameters
    ----------
    counts : sequence of Counts
        One a layer, of one run.

    Returns
    -------
    dict
        Effective_ACs, Effective_MACs, Dense, Effective_ACs_open_gates, all per sample.

    Raises
    ------
    ValueError
        The counts are not those of one run (see `bill`).
    """
    require_one_run(counts)
    samples, done = counts[0].samples, sum(layer.synops_done for layer in counts)
    return {
        "Effective_ACs": (done + sum(layer.synops_skipped for layer in counts)) / samples,
        "Effective_MACs": 0.0,
        "Dense": sum(layer.dense_synops for layer in counts) / samples,
        "Effective_ACs_open_gates": done / samples,
    }


def activation_sparsity(counts: Sequence[Counts], *, readouts: Collection[str]) -> float:
    r"""Return NeuroBench's `activation_sparsity`: the share of neuron-steps without a spike, 0 where there are none.

    .. math:: 1 - \frac{\sum \text{spikes}}{\sum N\,T\,B}

    Parameters
    ----------
    counts : sequence of Counts
        One a layer, of one run.
    readouts : collection of str
        Names of the layers that have no activation. They stay out; counts cannot tell them from silent layers.

    Raises
    ------
    ValueError
        The counts are not those of one run (see `bill`), or have no layer of a name in `readouts`.
    """
    require_one_run(counts)
    names = [layer.name for layer in counts]
    if unknown := [name for name in readouts if name not in names]:
        fail("readouts", f"of {', '.join(names)}", ", ".join(unknown))
    spiking = [layer for layer in counts if layer.name not in readouts]
    places = sum(layer.neurons * layer.steps for layer in spiking)
    return 1 - sum(layer.spikes for layer in spiking) / places if places else 0.0


def spikes_per_synapse(counts: Sequence[Counts]) -> SpikesPerSynapse:
    r"""Return the mean number of spikes that a synapse carries in an inference.

    .. math:: \frac{\text{synaptic operations}}{\text{synapses} \cdot B}

    `COMPETITIVE_SPIKES_PER_SYNAPSE` is the published band to hold it against.

    Parameters
    ----------
    counts : sequence of Counts
        One a layer, of one run.

    Raises
    ------
    ValueError
        The counts are not those of one run (see `bill`), or of a network without synapses.
    """
    require_one_run(counts)
    places = counts[0].samples * sum(layer.synapses for layer in counts)
    if not places:
        fail("counts", "of a network with synapses", "0 synapses")
    done = sum(layer.synops_done for layer in counts)
    return SpikesPerSynapse((done + sum(layer.synops_skipped for layer in counts)) / places, done / places)
