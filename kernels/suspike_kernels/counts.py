"""What a layer did, as exact whole numbers; `counting` finds them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Counts(NamedTuple):
    """What one layer did in one run, over all samples; every field an exact whole number.

    A synaptic operation is one event at one target neuron. A closed neuron does not integrate, so operations on it are
    skipped, and so is its update.

    Attributes
    ----------
    name : str
        The layer.
    samples, steps : int
        Samples B, and time steps over all of them: T x B where all are of one length.
    neurons, synapses : int
        Neurons N, and weights (input and recurrent) of the layer.
    events : int
        Events that reached the layer, recurrent ones included.
    rows_fetched : int
        Events with at least one open target: each of them fetches a row of weights.
    synops_done, synops_skipped : int
        Synaptic operations at open and at closed targets.
    updates_done, updates_skipped : int
        Neuron-steps with an open and with a closed gate.
    gate_evaluations : int
        Gate values computed: N for each step of the longest sample for a rhythm (a function of time, shared by the
        batch), 0 without a gate.
    spikes : int
        Spikes fired (0 for a readout).
    gate_synops : int
        Those of `synops_done` that an input gate costs: it has weights of its own.
    state_words : int
        State variables of a neuron: a word each.
    """

    name: str
    samples: int
    steps: int
    neurons: int
    synapses: int
    events: int
    rows_fetched: int
    synops_done: int
    synops_skipped: int
    updates_done: int
    updates_skipped: int
    gate_evaluations: int
    spikes: int
    gate_synops: int = 0
    state_words: int = 1

    @property
    def weight_words_read(self) -> int:
        """Words of weights read, one a synaptic operation."""
        return self.synops_done

    @property
    def state_words_read(self) -> int:
        """Words of state read: all of a neuron's at each update."""
        return self.updates_done * self.state_words

    @property
    def words_read(self) -> int:
        """Words of weights and of state read."""
        return self.weight_words_read + self.state_words_read

    @property
    def words_written(self) -> int:
        """Words of state written: all of a neuron's at each update."""
        return self.updates_done * self.state_words

    @property
    def dense_synops(self) -> int:
        """Multiply-accumulates of a dense network of the same shape: every synapse at every step."""
        return self.synapses * self.steps


class Total(NamedTuple):
    """Sums over the layers of a run: each field is that of `Counts`."""

    events: int
    rows_fetched: int
    synops_done: int
    synops_skipped: int
    updates_done: int
    updates_skipped: int
    gate_evaluations: int
    gate_synops: int
    spikes: int
    words_read: int
    words_written: int


def total(counts: Iterable[Counts]) -> Total:
    """Return the sums over the layers of a run."""
    layers = tuple(counts)
    return Total._make(sum(getattr(layer, name) for layer in layers) for name in Total._fields)
