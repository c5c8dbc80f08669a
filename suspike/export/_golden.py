"""Golden runs: recordings with what the network makes of them, as arrays of an npz and as something to compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from suspike._validate import fail
from suspike.export._trains import INPUT, in_order
from suspike.graph import Graph
from suspike.simulate import simulate
from suspike_kernels.layout import Events, FloatArray, check_events


class Golden(NamedTuple):
    """Recordings and the network's answer.

    Attributes
    ----------
    events : Events [B, T]
        The input; the units of a step in the order in which they were added up.
    spikes : dict of str to Events [B, T]
        Of each layer that fires; the units of a step in ascending order.
    output : float [T, B, N] or None
        Membrane of the readout.
    """

    events: Events
    spikes: dict[str, Events]
    output: FloatArray | None

    def trains(self, sample: int, *, with_input: bool) -> dict[str, Events]:
        """Return the populations of one recording."""
        populations = ({INPUT: self.events} if with_input else {}) | self.spikes
        return {name: events.take([sample]) for name, events in populations.items()}

    def first(self, number: int) -> Golden:
        """Return the first recordings alone."""
        samples = range(min(number, self.events.n_samples))
        spikes = {name: events.take(samples) for name, events in self.spikes.items()}
        output = None if self.output is None else self.output[:, : len(samples)]
        return Golden(self.events.take(samples), spikes, output)


def run(graph: Graph, events: Events, *, target: str) -> Golden:
    """Run the network."""
    result = simulate(graph, events, target=target)
    spikes = zip(firing(graph), result.spikes, strict=True)
    return Golden(events, {name: in_order(train) for name, train in spikes}, result.output)


def firing(graph: Graph) -> dict[str, int]:
    """Return the size of each layer that fires, by name."""
    return {layer.name: layer.n_units for layer in graph.neurons if layer.neuron.fires}


def golden_arrays(golden: Golden) -> dict[str, NDArray[Any]]:
    """Return the arrays of the npz."""
    arrays: dict[str, NDArray[Any]] = {"input.ptr": golden.events.ptr, "input.idx": golden.events.idx}
    for name, events in golden.spikes.items():
        arrays |= {f"spikes.{name}.ptr": events.ptr, f"spikes.{name}.idx": events.idx}
    return arrays if golden.output is None else arrays | {"output": golden.output}


def golden_of(arrays: Mapping[str, NDArray[Any]], graph: Graph) -> Golden:
    """Return the golden run in the arrays of an npz; others than that network's are refused."""
    spikes = {}
    events = check_events(Events(arrays["input.ptr"], arrays["input.idx"], graph.n_in), "input")
    for name, n_units in firing(graph).items():
        train = Events(arrays[f"spikes.{name}.ptr"], arrays[f"spikes.{name}.idx"], n_units)
        spikes[name] = check_events(train, f"spikes.{name}")
        if train.ptr.shape != events.ptr.shape:
            fail(f"spikes.{name}.ptr", f"of shape {events.ptr.shape}", f"shape {train.ptr.shape}")
    readout = not graph.neurons[-1].neuron.fires
    golden = Golden(events, spikes, arrays["output"] if readout else None)
    if set(arrays) != set(golden_arrays(golden)):
        fail("arrays", f"{', '.join(golden_arrays(golden))}", ", ".join(arrays))
    return golden


def require_same(found: Golden, golden: Golden) -> str:
    """Return what was compared and is equal: every spike, and every number of the readout.

    Raises
    ------
    ValueError
        With the number of differences, and the first.
    """
    total = 0
    for name, events in golden.spikes.items():
        require_same_train(f"spikes of {name!r}", found.spikes[name], events)
        total += len(events.idx)
    said = f"{total} spikes equal in {golden.events.n_samples} recordings of {golden.events.n_steps} steps"
    if golden.output is None or found.output is None:
        return said
    ours, theirs = found.output, golden.output
    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        fail("readout", f"{theirs.dtype} of shape {theirs.shape}", f"{ours.dtype} of shape {ours.shape}")
    different = np.argwhere(~((ours == theirs) | (np.isnan(ours) & np.isnan(theirs))))
    if len(different):
        step, sample, unit = place = tuple(int(i) for i in different[0])
        found_there = f"{ours[place]!r} at step {step}, sample {sample}, unit {unit} ({len(different)} such places)"
        fail("readout", f"{theirs[place]!r}", found_there)
    return f"{said}; {ours.size} readout values equal"


def require_same_train(what: str, found: Events, golden: Events) -> None:
    """Refuse spikes other than the golden ones, saying how many differ, and where first; `what` names them."""
    shape, there = (found.n_samples, found.n_steps, found.n_units), (golden.n_samples, golden.n_steps, golden.n_units)
    if shape != there:
        fail(what, f"of {there} samples, steps and units", f"{shape}")
    keys, golden_keys = found.places()[2], golden.places()[2]
    if np.array_equal(np.sort(keys), np.sort(golden_keys)):
        return
    different = np.setxor1d(keys, golden_keys)
    if not len(different):
        fail(what, "the golden ones", "the same places other numbers of times")
    row, unit = divmod(int(different[0]), golden.n_units)
    step, sample = divmod(row, golden.n_samples)
    found_there = f"{len(different)} that differ, the first at step {step}, sample {sample}, unit {unit}"
    fail(what, "the golden ones", found_there)
