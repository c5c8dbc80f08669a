"""The plain arrays that every kernel reads and writes, as NamedTuples, with their checks.

Nothing here knows torch. Time is discrete; ``T`` is the number of steps, ``B`` of samples, ``N`` of units.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]

LINE = 64
"""Bytes of a cache line."""

PAGE = 4096
"""Bytes of a page of memory."""

RESETS = ("zero", "subtract", "none")
"""Reset rules by name; a kernel gets the index (see `rules.reset`)."""

NEURONS = ("lif", "cuba", "adlif")
"""Neurons by name; a kernel gets the index. IF is "lif" with beta 1; the readouts LI, CubaLI are "lif" and "cuba"."""

GATES = ("none", "table", "input", "drive")
"""Gates by name; a kernel gets the index."""

SURROGATES = ("triangle", "boxcar", "atan", "fast_sigmoid", "sigmoid")
"""Surrogate derivatives by name; a kernel gets the index (see `rules.surrogate`)."""

N_COMPACT = 2
"""The first so many of `SURROGATES` are of compact support: they alone serve the event path."""


class Events(NamedTuple):
    """Spikes or input events of a batch, as compressed lists, sample after sample.

    The events of sample ``b`` at step ``t`` are ``idx[ptr[b, t] : ptr[b, t + 1]]``. They are a multiset: a unit that
    stands twice in a step counts twice. The order within a step is free.

    Attributes
    ----------
    ptr : int64 [B, T + 1]
        Offsets into `idx`; ``ptr[0, 0] == 0``, ``ptr[b, T] == ptr[b + 1, 0]``, never decreasing.
    idx : int32 [E]
        The unit of each event, 0 to ``n_units - 1``.
    n_units : int
        Number of units that could have sent an event.
    """

    ptr: NDArray[np.int64]
    idx: NDArray[np.int32]
    n_units: int

    @property
    def n_samples(self) -> int:
        """Number of samples B."""
        return int(self.ptr.shape[0])

    @property
    def n_steps(self) -> int:
        """Number of steps T."""
        return int(self.ptr.shape[1]) - 1

    def per_step(self) -> NDArray[np.int64]:
        """Count the events of each sample and step: [B, T]."""
        return np.diff(self.ptr, axis=1)

    def max_count(self) -> int:
        """Return the largest number of times one unit stands in one step of one sample (0 without events)."""
        if not len(self.idx):
            return 0
        _, _, key = self.places()
        return int(np.unique(key, return_counts=True)[1].max())

    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return each event's sample [E], step [E], and flat index into a dense [T, B, N] array [E]."""
        n_samples, n_steps = self.n_samples, self.n_steps
        row = np.repeat(np.arange(n_samples * n_steps), self.per_step().ravel())
        sample, step = np.divmod(row, max(n_steps, 1))
        place = (step * n_samples + sample) * np.int64(self.n_units) + self.idx
        return sample, step, place

    def dense(self, dtype: Any = np.float32) -> NDArray[Any]:
        """Return the counts as a dense array [T, B, N]."""
        out = np.bincount(self.places()[2], minlength=self.n_steps * self.n_samples * self.n_units)
        return out.reshape(self.n_steps, self.n_samples, self.n_units).astype(dtype)

    def take(self, samples: Sequence[int] | IntArray) -> Events:
        """Return the events of the samples named by index, in that order, as a copy.

        Raises
        ------
        TypeError
            If `samples` are no whole numbers; a mask would pass for a list of zeros and ones.
        """
        index = np.asarray(samples)
        if len(index) and index.dtype.kind not in "iu":
            raise TypeError(f"`samples` must be whole numbers, got {index.dtype}. A mask: pass np.flatnonzero(mask).")
        rows = self.ptr[index.astype(np.int64)]
        idx = np.concatenate([self.idx[r[0] : r[-1]] for r in rows]) if len(rows) else self.idx[:0]
        return Events(offsets(np.diff(rows, axis=1)), idx, self.n_units)


def offsets(counts: IntArray) -> NDArray[np.int64]:
    """Turn the number of events of each sample and step, [B, T], into `Events.ptr` [B, T + 1]."""
    n_samples, n_steps = counts.shape
    ptr = np.zeros((n_samples, n_steps + 1), np.int64)
    ptr[:, 1:] = np.cumsum(counts, axis=1)
    ptr[1:] += np.cumsum(ptr[:-1, -1])[:, None]
    return ptr


def in_lines(array: FloatArray, begin: int = LINE) -> FloatArray:
    """Return the array, or a copy of it, that begins at a multiple of `begin` bytes.

    Rows that begin within a cache line take longer to read; and rows of a page that begin within one, a tenth longer.
    """
    if array.flags.c_contiguous and not array.ctypes.data % begin:
        return array
    room = np.empty(array.nbytes + begin, np.uint8)
    skip = -room.ctypes.data % begin
    copy: FloatArray = room[skip : skip + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def events_from_dense(counts: NDArray[Any]) -> Events:
    """Return the events of a dense array [T, B, N] of whole counts, sorted by unit within a step.

    Raises
    ------
    ValueError
        If `counts` is not three-dimensional, or holds anything but whole numbers from 0.
    """
    if counts.ndim != 3:
        raise ValueError(f"`counts` must be of shape [T, B, N], got shape {counts.shape}.")
    with np.errstate(invalid="ignore"):  # NaN and infinity are refused below
        whole = counts.astype(np.int64)
    if not np.array_equal(whole, counts) or (whole < 0).any():
        raise ValueError(
            "`counts` must be whole numbers from 0, got others. Events carry no fractions: "
            "pass currents to a neuron, not to an event path."
        )
    by_sample = np.moveaxis(whole, 1, 0)  # [B, T, N]
    n_samples, n_steps, n_units = by_sample.shape
    idx = np.repeat(np.tile(np.arange(n_units, dtype=np.int32), n_samples * n_steps), by_sample.ravel())
    return Events(offsets(by_sample.sum(2)), idx, int(n_units))


def check_events(events: Events, name: str = "events") -> Events:
    """Return `events` if they keep the rules of `Events`; kernels trust their indices without a look.

    Raises
    ------
    ValueError
        Naming the rule, the place and the value found.
    """
    ptr, idx, n_units = events
    if ptr.ndim != 2 or ptr.shape[1] < 1 or ptr.dtype != np.int64:
        raise ValueError(f"`{name}.ptr` must be int64 of shape [B, T + 1], got {ptr.dtype} of shape {ptr.shape}.")
    if idx.ndim != 1 or idx.dtype != np.int32:
        raise ValueError(f"`{name}.idx` must be int32 of shape [E], got {idx.dtype} of shape {idx.shape}.")
    flat = ptr.ravel()
    gaps = len(ptr) > 1 and bool((ptr[1:, 0] != ptr[:-1, -1]).any())
    if len(flat) and (flat[0] != 0 or flat[-1] != len(idx) or gaps):
        raise ValueError(f"`{name}.ptr` must run from 0 to len(idx) = {len(idx)} without gaps between samples.")
    if not len(flat) and len(idx):
        raise ValueError(f"`{name}.idx` must be empty without samples, got {len(idx)} events.")
    falls = ptr[:, 1:] < ptr[:, :-1]
    if falls.any():
        b, t = np.argwhere(falls)[0]
        raise ValueError(
            f"`{name}.ptr` must not decrease, got a fall at sample {b}, step {t}: sort the events by time."
        )
    if len(idx) and idx.view(np.uint32).max() >= n_units:  # a negative one is above all others then
        e = int(np.flatnonzero((idx < 0) | (idx >= n_units))[0])
        b, t = (int(x[e]) for x in events.places()[:2])
        raise ValueError(
            f"`{name}.idx` must be units from 0 to n_units - 1 = {n_units - 1}, got {idx[e]} at sample {b}, step {t}."
        )
    return events


def check_lengths(n_steps: IntArray, events: Events, name: str = "n_steps") -> NDArray[np.int64]:
    """Return true lengths as contiguous int64 [B]: of each sample, from 0 to T, with no event behind its end.

    Raises
    ------
    ValueError
        Naming the rule, the sample and the value found.
    """
    if n_steps.dtype.kind not in "iu" or n_steps.shape != (events.n_samples,):
        raise ValueError(
            f"`{name}` must be whole numbers of shape [{events.n_samples}], got {n_steps.dtype} of shape "
            f"{list(n_steps.shape)}."
        )
    bad = np.flatnonzero((n_steps < 0) | (n_steps > events.n_steps))
    if len(bad):
        raise ValueError(f"`{name}` must be from 0 to T = {events.n_steps}, got {n_steps[bad[0]]} at sample {bad[0]}.")
    lengths = np.array(n_steps, np.int64)  # a copy: kernels trust it later too
    end = np.take_along_axis(events.ptr, lengths[:, None], 1)[:, 0]
    late = np.flatnonzero(end < events.ptr[:, -1])
    if len(late):
        b = int(late[0])
        raise ValueError(
            f"`events` must be before the end of their sample, `{name}`, got {events.ptr[b, -1] - end[b]} behind it in "
            f"sample {b}. Cut them off, or let the sample last longer."
        )
    return lengths


FULL = np.zeros(0, np.int64)
"""The geometry of a fully connected layer."""


class Fanout(NamedTuple):
    """Where the weights of each source go, as compressed rows; a target may stand in a row more than once.

    Weight ``e`` of source ``i`` goes to neuron ``target[e]``, for e from ``ptr[i]`` to ``ptr[i + 1] - 1``.

    Attributes
    ----------
    ptr : int64 [n_in + 1], or [0] where every source reaches every neuron
    target : int32 [E]
    """

    ptr: NDArray[np.int64]
    target: NDArray[np.int32]


EVERYWHERE = Fanout(np.zeros(0, np.int64), np.zeros(0, np.int32))
"""The targets of sources that reach every neuron."""

UNSCALED = np.zeros(0, np.float32)
"""The scale of weights that are floats."""


class SynapseArrays(NamedTuple):
    """The synapses of a layer; a source's weights are one row, so an event gathers one row.

    Attributes
    ----------
    weight : float or int8 [n_in, N], or [kernel_h * C_in, kernel_w * C_out] of a convolution, or float [1, E] of a
        `fanout`
    recurrent : as `weight`, [N, N], or [1, E] of an `own_fanout`, or [0, N] where there is none
        Row ``i`` is what unit ``i``'s spike adds one step later.
    bias : float [N]
        Added at every step.
    geometry : int64 [12], or [0] without a convolution
        `geometry.Geometry.array`.
    fanout, own_fanout : Fanout
        Of `weight` and of `recurrent`, where a source reaches few neurons.
    scale : float [1] of weights that are int8, or [0] of floats
        Above 0: the current is ``scale * (sum of rows) + bias``, and the sum, of fewer than 2^17 rows a step, is exact.
        A power of two makes it the current of the weights ``scale * weight``, bit for bit where their sums are exact.
        Without gradients: `backward` refuses it.
    """

    weight: NDArray[Any]
    recurrent: NDArray[Any]
    bias: FloatArray
    geometry: NDArray[np.int64] = FULL
    fanout: Fanout = EVERYWHERE
    own_fanout: Fanout = EVERYWHERE
    scale: FloatArray = UNSCALED


def is_sparse(synapses: SynapseArrays) -> bool:
    """Say whether some of the synapses are fan-out lists: no gradient runs through those."""
    return len(synapses.fanout.ptr) + len(synapses.own_fanout.ptr) > 0


def is_scaled(synapses: SynapseArrays) -> bool:
    """Say whether weights are int8, whose sum has a scale.

    Raises
    ------
    ValueError
        If weights are int8 without a scale, or floats with one.
    """
    small = synapses.weight.dtype == np.int8
    if synapses.scale.shape != (int(small),):
        raise ValueError(
            f"`scale` must be of shape [{int(small)}] for weights of {synapses.weight.dtype}, got shape "
            f"{list(synapses.scale.shape)}."
        )
    return bool(small)


def refuse_scaled(synapses: SynapseArrays) -> None:
    """Refuse weights that only a forward pass can have.

    Raises
    ------
    ValueError
        If they are int8.
    """
    if is_scaled(synapses):
        raise ValueError("`weight` must be of floats for gradients, got int8. Pass scale * weight as floats.")


class NeuronArrays(NamedTuple):
    """The neurons of a layer; a parameter that a kind does not have is an empty array.

    Attributes
    ----------
    kind : int
        Index into `NEURONS`; it says how many state variables there are: see `n_states`.
    beta : float [N]
        Leak of the membrane a step, 0 to 1.
    threshold : float [N]
        Infinity for a readout, which never fires.
    reset : int
        Index into `RESETS`.
    attached : int
        1 where the gradient also runs through the spike that a reset sees, 0 where that is a constant.
    decay : float [N] or [0]
        Decay a step of the second variable: synaptic current ("cuba") or adaptation ("adlif").
    a, b : float [N] or [0]
        How the membrane and a spike drive the adaptation ("adlif").
    """

    kind: int
    beta: FloatArray
    threshold: FloatArray
    reset: int
    attached: int
    decay: FloatArray
    a: FloatArray
    b: FloatArray


def lif_arrays(beta: FloatArray, threshold: FloatArray, reset: int, *, attached: bool = False) -> NeuronArrays:
    """Return LIF neurons: one state variable, the membrane."""
    none = beta[:0]
    return NeuronArrays(0, beta, threshold, reset, int(attached), none, none, none)


def n_states(neurons: NeuronArrays) -> int:
    """Return the number of state variables of a neuron: 1 for "lif", else 2."""
    return 1 if neurons.kind == 0 else 2


class GateArrays(NamedTuple):
    """What opens the neurons; G gates stand for N // G neighbouring neurons each.

    Attributes
    ----------
    kind : int
        Index into `GATES`.
    open, near : uint8 [1 or B, T, G], else [0, 0, 0]
        "table": 1 where the gate is open; 1 where it is near its own threshold, so that its gradient is wanted there
        (all 0, or an empty array, when none is). One table for all samples, or one each.
    a : float [B, T, G], else [0, 0, 0]
        "input": what the input adds to the gate's activation, its bias included.
    recurrent : float [N, G] or [0, G]
        "input": row ``i`` is what unit ``i``'s spike adds to the activation one step later.
    kappa : float [N] or [0]
        "drive": the gate opens where ``|cur| > kappa``.
    width : float [G] or [0]
        "input", "drive": half the support of the straight-through gradient, in units of the activation.
    scale : float [G] or [0]
        "input", "drive": half the support of the ramp that stands for the open fraction in a loss.
    """

    kind: int
    open: NDArray[np.uint8]
    near: NDArray[np.uint8]
    a: FloatArray
    recurrent: FloatArray
    kappa: FloatArray
    width: FloatArray
    scale: FloatArray


@cache
def always_open(dtype: Any) -> GateArrays:
    """Return the absence of a gate, always the same one: it has nothing that could be changed."""
    return table_gate(np.zeros((0, 0, 0), np.uint8), np.zeros((0, 0, 0), np.uint8), dtype)


def table_gate(is_open: NDArray[np.uint8], near: NDArray[np.uint8], dtype: Any) -> GateArrays:
    """Return a gate given by its bits: `is_open`, `near` uint8 [1 or B, T, G]; `near` may be empty."""
    if near.size and near.shape != is_open.shape:
        raise ValueError(f"`near` must be of the shape of `is_open`, {is_open.shape}, or empty, got {near.shape}.")
    kind, none = int(is_open.shape[0] > 0), np.zeros(0, dtype)
    return GateArrays(kind, is_open, near, none.reshape(0, 0, 0), none.reshape(0, 0), none, none, none)


def n_gates(gate: GateArrays, n_units: int) -> int:
    """Return the number of gates G of `n_units` neurons: 0 where they are always open."""
    return (0, gate.open.shape[2], gate.a.shape[2], n_units)[gate.kind]
