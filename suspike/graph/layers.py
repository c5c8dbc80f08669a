"""The nodes of a Graph: layers of neurons with the synapses onto them, and routes of events between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suspike._validate import fail, require_finite, require_shape
from suspike.graph import gates, neurons
from suspike.graph.gates import InputGate, Periodic, Rhythm
from suspike.graph.neurons import Neuron
from suspike.graph.ordering import by_gate
from suspike.graph.sparse import Sparse
from suspike_kernels.geometry import Geometry
from suspike_kernels.layout import (
    EVERYWHERE,
    FULL,
    PAGE,
    UNSCALED,
    FloatArray,
    IntArray,
    NeuronArrays,
    SynapseArrays,
    in_lines,
)


@dataclass(frozen=True, eq=False)
class Layer:
    """Neurons and the synapses onto them: fully connected, a convolution, or fan-out lists.

    Parameters
    ----------
    name : str
        Unique in the graph; it names the layer in counts, files and messages.
    weight : float or int8 [n_in, N], or [kernel_h, kernel_w, C_in, C_out] of a convolution, or Sparse
        Row ``i`` holds the weights of source ``i``.
    bias : float [N]
    neuron : Neuron
    recurrent : float [N, N] or Sparse, optional
        Row ``i`` is what unit ``i``'s spike adds one step later. It is int8 where `weight` is.
    geometry : Geometry, optional
        Of a convolution: its units are numbered pixel by pixel, channels innermost, in and out.
    inputs : tuple of str
        The nodes whose spikes it hears, added up; the one before it, or the graph's input, where none is named.
    scale : float
        What an int8 weight of 1 stands for, above 0 (see `to_int8`); 1 for floats.
    """

    name: str
    weight: FloatArray | Sparse
    bias: FloatArray
    neuron: Neuron
    recurrent: FloatArray | Sparse | None = None
    geometry: Geometry | None = None
    inputs: tuple[str, ...] = ()
    scale: float = 1.0

    def __post_init__(self) -> None:
        where, n, g = f"layer {self.name!r}", self.n_units, self.geometry
        shape = (self.n_in, n) if g is None else (g.kernel_h, g.kernel_w, g.channels, g.out_channels)
        weight: Any = self.weight
        require_shape(f"weight of {where}", weight, shape)
        require_shape(f"bias of {where}", self.bias, (n,) if g is None else (g.n_out,))
        require_shape(f"beta of {where}", self.neuron.beta, (n,))
        arrays: dict[str, FloatArray] = {"weight": entries(self.weight), "bias": self.bias}
        if self.recurrent is not None:
            if not self.neuron.fires:
                fail(f"recurrent of {where}", "absent on a readout, which never fires", "an array")
            recurrent: Any = self.recurrent
            require_shape(f"recurrent of {where}", recurrent, (n, n))
            arrays["recurrent"] = entries(self.recurrent)
        gate = self.neuron.gate
        if isinstance(gate, InputGate):
            require_shape(f"gate.weight of {where}", gate.weight, (self.n_in, gate.weight.shape[1]))
            if gate.recurrent is not None and not self.neuron.fires:
                fail(f"gate.recurrent of {where}", "absent on a readout, which never fires", "an array")
        arrays |= neurons.arrays_of(self.neuron) | gates.arrays_of(gate)
        if self.is_int8:
            if isinstance(self.weight, Sparse) or isinstance(self.recurrent, Sparse):
                fail(f"weights of {where}", "floats where there are fan-out lists", "int8")
            if not (np.isfinite(self.scale) and self.scale > 0):
                fail(f"scale of {where}", "above 0", repr(self.scale))
            kinds = {str(arrays.pop(name).dtype) for name in ("weight", "recurrent") if name in arrays}
            if len(kinds) > 1:
                fail(f"weights of {where}", "all int8", ", ".join(sorted(kinds)))
        elif self.scale != 1:
            fail(f"scale of {where}", "1 for weights that are floats", repr(self.scale))
        for name, array in arrays.items():
            require_finite(f"{name} of {where}", array)
        dtypes = {str(a.dtype) for a in arrays.values()}
        if dtypes not in ({"float32"}, {"float64"}):
            fail(f"arrays of {where}", "all float32 or all float64", ", ".join(sorted(dtypes)))

    @property
    def is_int8(self) -> bool:
        """Whether its weights are whole numbers of a byte, times `scale`."""
        return bool(entries(self.weight).dtype == np.int8)

    @property
    def n_in(self) -> int:
        """Number of sources."""
        return int(self.weight.shape[0]) if self.geometry is None else self.geometry.n_in

    @property
    def n_units(self) -> int:
        """Number of neurons N."""
        return int(self.bias.shape[0])

    @property
    def n_synapses(self) -> int:
        """Pairs of a source and a neuron that are connected, recurrent ones included."""
        own = 0 if self.recurrent is None else self.recurrent.size
        return own + (self.weight.size if self.geometry is None else self.geometry.n_synapses)

    @cached_property
    def synapses(self) -> SynapseArrays:
        """The synapses as kernels take them, from the beginning of a page; made once."""
        g, weight = self.geometry, self.weight
        if g is not None:
            assert not isinstance(weight, Sparse), "of a convolution's shape"
            weight = weight[:, g.column_order()].swapaxes(1, 2).reshape(g.row_shape)
        recurrent = np.zeros((0, self.n_units), weight.dtype) if self.recurrent is None else self.recurrent
        (rows, fanout), (own_rows, own_fanout) = (
            x.arrays() if isinstance(x, Sparse) else (in_lines(x, PAGE), EVERYWHERE) for x in (weight, recurrent)
        )
        scale = np.full(1, self.scale, self.bias.dtype) if self.is_int8 else UNSCALED
        return SynapseArrays(rows, own_rows, self.bias, FULL if g is None else g.array(), fanout, own_fanout, scale)

    @cached_property
    def neuron_arrays(self) -> NeuronArrays:
        """The neurons as kernels take them; made once."""
        return neurons.kernel_arrays(self.neuron)

    def open_steps(self, n_steps: int, *, start: int = 0) -> NDArray[np.uint8]:
        """Return who is open from step `start` on, uint8 [T, N], of a gate that is a function of time.

        The last table is kept: batch after batch of a data set begins at step 0.
        """
        gate, asked = self.neuron.gate, (n_steps, start)
        assert isinstance(gate, (Rhythm, Periodic)), "a gate of time"
        key, table = self.__dict__.get("_last_table", (None, None))
        if key != asked:
            table = gate.table(n_steps, start=start)
            self.__dict__["_last_table"] = asked, table
        return table  # type: ignore[no-any-return]

    @cached_property
    def in_gate_order(self) -> tuple[Layer, IntArray | None]:
        """The layer with neurons that open together as neighbours, and their order; itself where that helps nothing."""
        return by_gate(self)


def entries(weight: FloatArray | Sparse) -> FloatArray:
    """Return the weights of synapses, in whichever form they are."""
    return weight.weight if isinstance(weight, Sparse) else weight


@dataclass(frozen=True, eq=False)
class Route:
    """Events passed on under other numbers: a pooling of sums, another order of units, two spike trains joined.

    Parameters
    ----------
    name : str
        Unique in the graph.
    units : whole numbers [n_in]
        The number that an event of unit ``i`` gets; a negative one leaves it out.
    n_units : int
        Units that events have then.
    inputs : tuple of str
        As of `Layer`; where both of two fired, two events count.
    """

    name: str
    units: IntArray
    n_units: int
    inputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = f"units of route {self.name!r}"
        if self.units.ndim != 1 or self.units.dtype.kind != "i":
            fail(where, "whole numbers [n_in]", f"{self.units.dtype} of shape {list(self.units.shape)}")
        if len(self.units) and self.units.max() >= self.n_units:
            fail(where, f"below n_units = {self.n_units}", str(self.units.max()))

    @property
    def n_in(self) -> int:
        """Number of units that it hears."""
        return len(self.units)
