"""Vector loops that the compiler does not find by itself, as LLVM vectors: any processor, float32 or float64.

A compiled loop over ``acc[k] += row[k]`` writes its sums back to memory for every four rows and checks at run time
that nothing overlaps; here the sums of 64 columns stay in registers while the rows go by. Measured on one AVX-512
core, rows of 256 float32 from the second-level cache: 28 to 31 G additions/s against 16 to 18; products 29 against 17.

Arrays are contiguous and of one float type, indices int32: anything else is refused when a kernel is compiled. Nothing
more is checked: indices, columns and alignment (any) are the caller's. The order of a sum is free here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

INT = ir.IntType(64)
_ANY_ORDER = ("reassoc", "nsz", "contract")


def const(value: int) -> ir.Constant:
    """Return a whole number as LLVM has it."""
    return ir.Constant(INT, value)


def check_arrays(floats: tuple[Any, ...], *idx: Any) -> None:
    """Refuse arrays that an address and a row length do not describe."""
    if any(x.layout != "C" for x in (*floats, *idx)):
        raise TypingError(f"arrays must be contiguous, got {[str(x) for x in (*floats, *idx)]}")
    if len({x.dtype for x in floats}) > 1 or any(x.dtype != types.int32 for x in idx):
        raise TypingError(f"arrays must be of one float type, idx int32, got {[str(x) for x in (*floats, *idx)]}")


def data_of(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """Return the address of an array's first entry."""
    return context.make_array(kind)(context, builder, value).data


def width_of(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """Return the number of columns of a 2-D array: its rows lie one behind the other."""
    return builder.extract_value(context.make_array(kind)(context, builder, value).shape, 1)


def load(builder: Any, pointer: Any, vector: ir.VectorType, align: int) -> Any:
    """Return the vector at an address that is a multiple of `align` bytes."""
    value = builder.load(builder.bitcast(pointer, vector.as_pointer()))
    value.align = align
    return value


def store(builder: Any, value: Any, pointer: Any, align: int) -> None:
    """Write a vector to an address that is a multiple of `align` bytes."""
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer())).align = align


def row_of(builder: Any, matrix: Any, n_columns: Any, idx: Any, e: Any) -> Any:
    """Return the address of row ``idx[e]``."""
    i = builder.sext(builder.load(builder.gep(idx, [e])), INT)
    return builder.gep(matrix, [builder.mul(i, n_columns)])


def _entry(context: Any, builder: Any, kind: Any, value: Any, row: Any, column: Any) -> Any:
    """Return the address of an entry of a 2-D array."""
    first = builder.mul(row, width_of(context, builder, kind, value))
    return builder.gep(data_of(context, builder, kind, value), [builder.add(first, column)])


def _adder(width: int) -> Callable[..., None]:
    """Make ``add(acc, start, matrix, idx, low, high, column)`` for `width` columns from `column` on."""

    @intrinsic
    def add(_: Any, acc: Any, start: Any, matrix: Any, idx: Any, low: Any, high: Any, column: Any) -> Any:
        """Set ``acc[column:column + width]`` to `start` plus the rows ``idx[low:high]`` of `matrix`, in these columns.

        Four rows are added to each other before the sum waits for them. The order is kept: the compiler, where it may
        choose, adds one by one to the sum (measured: rows in the first-level cache half as fast).
        """
        check_arrays((acc, start, matrix), idx)
        signature = types.void(acc, start, matrix, idx, types.intp, types.intp, types.intp)

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            a, given, m, index = (data_of(context, builder, sig.args[i], args[i]) for i in range(4))
            first, last, column = args[4:]
            scalar, align = context.get_data_type(sig.args[0].dtype), sig.args[0].dtype.bitwidth // 8
            vector = ir.VectorType(scalar, width)
            n_columns = width_of(context, builder, sig.args[2], args[2])
            base, out = builder.gep(m, [column]), builder.gep(a, [column])
            total = cgutils.alloca_once_value(builder, load(builder, builder.gep(given, [column]), vector, align))

            def row(e: Any) -> Any:
                return load(builder, row_of(builder, base, n_columns, index, e), vector, align)

            def add_rows(e: Any, n_rows: int) -> None:
                parts = [row(builder.add(e, const(j))) for j in range(n_rows)]
                while len(parts) > 1:
                    parts = [builder.fadd(p, q) for p, q in zip(parts[::2], parts[1::2], strict=True)]
                builder.store(builder.fadd(builder.load(total), parts[0]), total)

            count = builder.sub(last, first)
            at = builder.add(first, builder.and_(count, const(-4)))
            with cgutils.for_range_slice(builder, first, at, const(4)) as (e, _):
                add_rows(e, 4)
            for n_rows in (2, 1):
                some = builder.and_(count, const(n_rows))
                with builder.if_then(builder.icmp_unsigned("!=", some, const(0))):
                    add_rows(at, n_rows)
                at = builder.add(at, some)
            store(builder, builder.load(total), out, align)
            return context.get_dummy_value()

        return signature, generate

    made: Callable[..., None] = add
    return made


add_64 = _adder(64)
add_16 = _adder(16)


def _dotter(n_rows: int) -> Callable[..., None]:
    """Make ``dot(matrix, idx, e, x, low, high, out, at)`` for `n_rows` rows, a power of two up to 16."""

    @intrinsic
    def dot(_: Any, matrix: Any, idx: Any, e: Any, x: Any, low: Any, high: Any, out: Any, at: Any) -> Any:
        """Add to ``out[at + j]`` the product of ``matrix[idx[e + j]]`` and `x` in the columns low .. high - 1.

        ``high - low`` is a multiple of 16. The sums of all rows end in one vector by a tree of shuffles.
        """
        check_arrays((matrix, x, out), idx)
        signature = types.void(matrix, idx, types.intp, x, types.intp, types.intp, out, types.intp)

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            m, index, by, target = (data_of(context, builder, sig.args[i], args[i]) for i in (0, 1, 3, 6))
            scalar, align = context.get_data_type(sig.args[3].dtype), sig.args[3].dtype.bitwidth // 8
            vector = ir.VectorType(scalar, 16)
            n_columns = width_of(context, builder, sig.args[0], args[0])
            rows = [row_of(builder, m, n_columns, index, builder.add(args[2], const(j))) for j in range(n_rows)]
            sums = [cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * 16)) for _ in rows]
            with cgutils.for_range_slice(builder, args[4], args[5], const(16)) as (k, _):
                factor = load(builder, builder.gep(by, [k]), vector, align)
                for row, total in zip(rows, sums, strict=True):
                    part = load(builder, builder.gep(row, [k]), vector, align)
                    product = builder.fmul(part, factor, flags=_ANY_ORDER)
                    builder.store(builder.fadd(builder.load(total), product, flags=_ANY_ORDER), total)
            parts, lanes = [builder.load(total) for total in sums], 16
            while len(parts) > 1:  # two vectors become one that holds half as many partial sums of each
                parts = [_fold(builder, p, q, 16) for p, q in zip(parts[::2], parts[1::2], strict=True)]
            while lanes > n_rows:
                lanes //= 2
                parts = [_fold(builder, parts[0], parts[0], lanes)]
            place = builder.gep(target, [args[7]])
            before = load(builder, place, ir.VectorType(scalar, n_rows), align)
            store(builder, builder.fadd(before, parts[0]), place, align)
            return context.get_dummy_value()

        return signature, generate

    made: Callable[..., None] = dot
    return made


dot_8 = _dotter(8)
dot_1 = _dotter(1)
dot_2 = _dotter(2)
dot_4 = _dotter(4)


def _fold(builder: Any, p: Any, q: Any, lanes: int) -> Any:
    """Add neighbouring lanes of `p` followed by `q`, and keep the first `lanes` sums."""
    index = ir.VectorType(ir.IntType(32), lanes)
    even = builder.shuffle_vector(p, q, ir.Constant(index, list(range(0, 2 * lanes, 2))))
    odd = builder.shuffle_vector(p, q, ir.Constant(index, list(range(1, 2 * lanes, 2))))
    return builder.fadd(even, odd, flags=_ANY_ORDER)


@intrinsic
def add_run(_: Any, acc: Any, to: Any, matrix: Any, row: Any, column: Any, length: Any) -> Any:
    """Add ``matrix[row, column:column + length]`` to ``acc[to:to + length]``."""
    check_arrays((acc, matrix), types.Array(types.int32, 1, "C"))
    signature = types.void(acc, types.intp, matrix, types.intp, types.intp, types.intp)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target = builder.gep(data_of(context, builder, sig.args[0], args[0]), [args[1]])
        source = _entry(context, builder, sig.args[2], args[2], args[3], args[4])
        scalar, align = context.get_data_type(sig.args[0].dtype), sig.args[0].dtype.bitwidth // 8
        middle = builder.and_(args[5], const(-16))
        for width, low, high in ((16, const(0), middle), (1, middle, args[5])):
            vector = ir.VectorType(scalar, width)
            with cgutils.for_range_slice(builder, low, high, const(width)) as (k, _):
                place, part = builder.gep(target, [k]), builder.gep(source, [k])
                total = builder.fadd(load(builder, place, vector, align), load(builder, part, vector, align))
                store(builder, total, place, align)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def dot_run(_: Any, matrix: Any, row: Any, column: Any, x: Any, at: Any, length: Any) -> Any:
    """Return the product of ``matrix[row, column:column + length]`` and ``x[at:at + length]``."""
    check_arrays((matrix, x), types.Array(types.int32, 1, "C"))
    signature = x.dtype(matrix, types.intp, types.intp, x, types.intp, types.intp)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source = _entry(context, builder, sig.args[0], args[0], args[1], args[2])
        by = builder.gep(data_of(context, builder, sig.args[3], args[3]), [args[4]])
        scalar, align = context.get_data_type(sig.args[3].dtype), sig.args[3].dtype.bitwidth // 8
        middle, sums = builder.and_(args[5], const(-16)), []
        for width, low, high in ((16, const(0), middle), (1, middle, args[5])):
            vector = ir.VectorType(scalar, width)
            total = cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * width))
            with cgutils.for_range_slice(builder, low, high, const(width)) as (k, _):
                p, q = (load(builder, builder.gep(side, [k]), vector, align) for side in (source, by))
                product = builder.fmul(p, q, flags=_ANY_ORDER)
                builder.store(builder.fadd(builder.load(total), product, flags=_ANY_ORDER), total)
            sums.append(builder.load(total))
        for lanes in (8, 4, 2, 1):
            sums[0] = _fold(builder, sums[0], sums[0], lanes)
        return builder.extract_element(builder.fadd(sums[0], sums[1]), ir.Constant(ir.IntType(32), 0))

    return signature, generate


@intrinsic
def address(_: Any, array: Any) -> Any:
    """Return the address of an array's first entry, to align scratch memory by."""
    signature = types.int64(array)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.ptrtoint(data_of(context, builder, sig.args[0], args[0]), INT)

    return signature, generate
