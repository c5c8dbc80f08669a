"""Blocks of columns in registers, for what is written in the compiler's own language: a whole step of a layer.

A block is some vectors of a cache line each: neighbours, or lines of a list. Lanes outside of the layer, and vectors
outside of the list, are neither read nor written.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils

from suspike_kernels.cpu.compress import COMPRESSES, spread, to_front
from suspike_kernels.cpu.memory import LINE
from suspike_kernels.cpu.vectors import INT, const, load, store

I1, I8, I32 = ir.IntType(1), ir.IntType(8), ir.IntType(32)


class Lanes:
    """Numbers in a register, on which `rules` compute as they do on one: in plain IEEE operations."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def __mul__(self, other: Lanes) -> Lanes:
        return Lanes(self.builder, self.builder.fmul(self.value, other.value))

    def __add__(self, other: Lanes) -> Lanes:
        return Lanes(self.builder, self.builder.fadd(self.value, other.value))

    def __sub__(self, other: Lanes) -> Lanes:
        return Lanes(self.builder, self.builder.fsub(self.value, other.value))

    def __gt__(self, other: Lanes) -> Any:
        return self.builder.fcmp_ordered(">", self.value, other.value)


class Block(NamedTuple):
    """Where a block is, and what of it is inside.

    Attributes
    ----------
    builder
    scalar, size
        Type of a float, and its bytes.
    columns
        The first of each vector.
    masks
        Which lanes of each vector are inside; None where all are.
    """

    builder: Any
    scalar: Any
    size: int
    columns: list[Any]
    masks: list[Any] | None

    @property
    def lanes(self) -> int:
        """Entries of a vector."""
        return LINE // self.size

    def vector(self, scalar: Any) -> ir.VectorType:
        """Return the type of a vector of `scalar`, as many as floats."""
        return ir.VectorType(scalar, self.lanes)

    def at(self, data: Any, j: int) -> Any:
        """Return the address of vector j in an array that begins at `data`."""
        return self.builder.gep(data, [self.columns[j]])

    def load(self, data: Any, j: int, scalar: Any = None) -> Any:
        """Return vector j of an array of floats, or of `scalar`, that begins at `data`; 0 in lanes outside."""
        scalar, pointer = self.scalar if scalar is None else scalar, self.at(data, j)
        size = self.size if scalar is self.scalar else scalar.width // 8
        vector = self.vector(scalar)
        if self.masks is None:
            return load(self.builder, pointer, vector, size)
        letter = "f" if scalar is self.scalar else "i"
        kind = ir.FunctionType(vector, [vector.as_pointer(), I32, self.vector(I1), vector])
        name = f"llvm.masked.load.v{self.lanes}{letter}{8 * size}.p0"
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        address = self.builder.bitcast(pointer, vector.as_pointer())
        return self.builder.call(function, [address, ir.Constant(I32, size), self.masks[j], zeros(vector)])

    def store(self, value: Any, data: Any, j: int, mask: Any = None) -> None:
        """Write vector j of an array of floats, in lanes inside; with a `mask` of lanes inside, in these."""
        pointer, vector = self.at(data, j), self.vector(self.scalar)
        if mask is None and self.masks is None:
            store(self.builder, value, pointer, self.size)
            return
        mask = self.masks[j] if mask is None and self.masks is not None else mask
        kind = ir.FunctionType(ir.VoidType(), [vector, vector.as_pointer(), I32, mask.type])
        name = f"llvm.masked.store.v{self.lanes}f{8 * self.size}.p0"
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        address = self.builder.bitcast(pointer, vector.as_pointer())
        self.builder.call(function, [value, address, ir.Constant(I32, self.size), mask])

    def append(self, mask: Any, j: int, places: Any, used: Any) -> Any:
        """Append to `places` the columns of vector j at which `mask` is set; return how many it has then.

        `compress.AHEAD` entries behind them are scratch.
        """
        builder, lanes = self.builder, self.lanes
        first = builder.trunc(self.columns[j], I32)
        here = builder.add(spread(builder, first, lanes), ir.Constant(self.vector(I32), list(range(lanes))))
        if COMPRESSES:
            store(builder, to_front(builder, here, mask), builder.gep(places, [used]), 4)
            bits = builder.bitcast(mask, ir.IntType(lanes))
            return builder.add(used, builder.zext(builder.ctpop(bits), INT))
        for lane in (ir.Constant(I32, i) for i in range(lanes)):  # no branch: written, and kept by moving on
            builder.store(builder.extract_element(here, lane), builder.gep(places, [used]))
            used = builder.add(used, builder.zext(builder.extract_element(mask, lane), INT))
        return used


def neighbours(context: Any, builder: Any, dtype: Any, n_vectors: int, column: Any, rest: Any) -> Block:
    """Return a block that begins at `column` and has `rest` columns, or all if that is None."""
    lanes = LINE * 8 // dtype.bitwidth
    columns = [builder.add(column, const(j * lanes)) for j in range(n_vectors)]
    block = Block(builder, context.get_data_type(dtype), dtype.bitwidth // 8, columns, None)
    return block if rest is None else block._replace(masks=_below(block, columns, builder.add(column, rest)))


def listed(context: Any, builder: Any, dtype: Any, n_vectors: int, lines: Any, rest: Any, n: Any) -> Block:
    """Return a block of the first `rest` lines of a list, or all if that is None, of a layer of `n` columns.

    The list goes on for `n_vectors` entries whatever `rest` is.
    """
    columns = [builder.sext(builder.load(builder.gep(lines, [const(j)])), INT) for j in range(n_vectors)]
    block = Block(builder, context.get_data_type(dtype), dtype.bitwidth // 8, columns, None)
    if rest is None:
        return block
    ends = [builder.select(builder.icmp_signed("<", const(j), rest), n, const(0)) for j in range(n_vectors)]
    return block._replace(masks=_below(block, columns, *ends))


def pairs(whole: Block, rest: Any) -> Block:
    """Return the same neighbouring columns as a block of int16: twice as many lanes, or more, in each vector."""
    lanes = LINE // 2
    n_vectors = -(-len(whole.columns) * whole.lanes // lanes)
    columns = [whole.builder.add(whole.columns[0], const(j * lanes)) for j in range(n_vectors)]
    block = Block(whole.builder, ir.IntType(16), 2, columns, None)
    if rest is None:
        return block
    return block._replace(masks=_below(block, columns, whole.builder.add(whole.columns[0], rest)))


def _below(block: Block, columns: list[Any], *ends: Any) -> list[Any]:
    """Return which lanes of each vector are below its end, or the end of all."""
    builder, lanes, masks = block.builder, block.lanes, []
    counted = ir.Constant(block.vector(I32), list(range(lanes)))
    for j, column in enumerate(columns):
        left = builder.trunc(builder.sub(ends[min(j, len(ends) - 1)], column), I32)
        masks.append(builder.icmp_signed("<", counted, spread(builder, left, lanes)))
    return masks


def zeros(vector: ir.VectorType) -> ir.Constant:
    """Return a vector of zeros."""
    return ir.Constant(vector, [0 if isinstance(vector.element, ir.IntType) else 0.0] * vector.count)


def some(builder: Any, masks: list[Any]) -> Any:
    """Say whether any lane of any of the masks is set."""
    while len(masks) > 1:  # as a tree: what waits for it waits less
        pairs = [builder.or_(*pair) for pair in zip(masks[::2], masks[1::2], strict=False)]
        masks = pairs + masks[2 * len(pairs) :]
    word = ir.IntType(masks[0].type.count)
    return builder.icmp_unsigned("!=", builder.bitcast(masks[0], word), ir.Constant(word, 0))
