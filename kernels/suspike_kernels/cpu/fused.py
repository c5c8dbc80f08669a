"""A whole step of gated LIF neurons without leaving the registers: gather, update, compare, reset, list of spikes.

For simulation, where nothing but the spikes is kept of a step: gather and update apart write and read four arrays of
the layer's width at each of them. The update is that of `rules`, evaluated on vectors. `fused_runs` has the steps of
neurons that are always open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from suspike_kernels import rules
from suspike_kernels.compiling import kernel
from suspike_kernels.cpu.blocks import I8, I32, Block, Lanes, listed, pairs, some, zeros
from suspike_kernels.cpu.compress import COMPRESSES, spread
from suspike_kernels.cpu.memory import LINE
from suspike_kernels.cpu.vectors import check_arrays, const, data_of, row_of, width_of

WIDE = 1024 if COMPRESSES else 256
"""Bytes of the widest block: half of the registers; with the other half, rows and parameters go by."""

MOST_INT16 = 256
"""So many int8, -128 each, still fit into an int16."""


def _add_rows(block: Block, totals: list[Any], matrix: Any, n_columns: Any, idx: Any, first: Any, last: Any) -> None:
    """Add the rows ``idx[first:last]`` to the sums, a row at a time: the vectors of a wide block wait for no other.

    Most steps have no row, or one or two: they are not in a loop, whose end a processor guesses worse.
    """
    builder = block.builder

    def add(e: Any) -> None:
        row = row_of(builder, matrix, n_columns, idx, e)
        for j, total in enumerate(totals):
            builder.store(builder.fadd(builder.load(total), block.load(row, j)), total)

    second, third = builder.add(first, const(1)), builder.add(first, const(2))
    with builder.if_then(builder.icmp_signed("<", first, last)):
        add(first)
        with builder.if_then(builder.icmp_signed("<", second, last)):
            add(second)
            with cgutils.for_range_slice(builder, third, last, const(1)) as (e, _):
                add(e)


def _sum_int8(here: Block, rest: Any, gated: bool, sources: list[tuple[Any, ...]]) -> list[Any]:
    """Return the sums of rows of int8 as vectors of floats.

    They are added as int16 where there are too few to overflow it, else as int32. `sources` are a matrix, its width, a
    list of its rows, and from where to where those stand in it that are added.
    """
    builder, n_vectors = here.builder, len(here.columns)
    floats = here.vector(here.scalar)
    out = [cgutils.alloca_once(builder, floats) for _ in range(n_vectors)]
    n_rows = builder.add(*(builder.sub(last, first) for *_, first, last in sources))

    def add(block: Block, bits: int) -> list[Any]:
        word = block.vector(ir.IntType(bits))
        totals = [cgutils.alloca_once_value(builder, zeros(word)) for _ in block.columns]
        for matrix, n_columns, idx, first, last in sources:
            with cgutils.for_range_slice(builder, first, last, const(1)) as (e, _):
                row = row_of(builder, matrix, n_columns, idx, e)
                for j, total in enumerate(totals):
                    part = builder.sext(block.load(row, j, I8), word)
                    builder.store(builder.add(builder.load(total), part), total)
        return [builder.load(total) for total in totals]

    with builder.if_else(builder.icmp_signed("<=", n_rows, const(MOST_INT16))) as (few, many):
        with few:
            sums = add(here if gated else pairs(here, rest), 16)
            for j, to in enumerate(out):
                part = sums[j] if gated else _stretch(builder, sums, j * here.lanes, here.lanes)
                builder.store(builder.sitofp(builder.sext(part, here.vector(I32)), floats), to)
        with many:
            for part, to in zip(add(here, 32), out, strict=True):
                builder.store(builder.sitofp(part, floats), to)
    return [builder.load(to) for to in out]


def _stretch(builder: Any, vectors: list[Any], first: int, lanes: int) -> Any:
    """Return `lanes` lanes, from lane `first` of all vectors on, of one of them."""
    which, at = divmod(first, vectors[0].type.count)
    index = ir.Constant(ir.VectorType(I32, lanes), list(range(at, at + lanes)))
    return builder.shuffle_vector(vectors[which], vectors[which], index)


def check_rows(v: Any, neurons: Any, arriving: Any, own: Any, *lists: Any) -> None:
    """Refuse arguments of a step that an address and a row length do not describe; lists of events may follow."""
    if arriving[0].dtype == types.int8:
        check_arrays((v, *neurons[:3], neurons[4]), arriving[1], own[1], *lists)
        check_arrays((arriving[0], own[0]))
    else:
        check_arrays((v, *neurons[:3], arriving[0], own[0]), arriving[1], own[1], *lists)


def currents(here: Block, rest: Any, gated: bool, biases: list[Any], scale: Any, sources: list[tuple[Any, ...]]) -> Any:
    """Return the current of each vector: `biases`, and the rows of `sources` as of `_sum_int8`."""
    builder = here.builder
    if scale is not None:
        factor = Lanes(builder, spread(builder, scale, here.lanes))
        totals = [Lanes(builder, total) for total in _sum_int8(here, rest, gated, sources)]
        return [rules.scaled(total, factor, bias) for total, bias in zip(totals, biases, strict=True)]  # type: ignore[arg-type]
    sums = [cgutils.alloca_once_value(builder, bias.value) for bias in biases]
    for source in sources:
        _add_rows(here, sums, *source)
    return [Lanes(builder, builder.load(total)) for total in sums]


def _stepper(n_vectors: int, *, whole: bool) -> Callable[..., int]:
    """Make ``step(v, neurons, reset, arriving, own, where, places, used)`` for a block of `n_vectors` vectors.

    They stand in lines of a list, and `where` is that list of columns, the entry of the first, and how many are inside:
    all of them if the block is `whole`.
    """

    @intrinsic
    def step(
        _: Any, v: Any, neurons: Any, reset: Any, arriving: Any, own: Any, where: Any, places: Any, used: Any
    ) -> Any:
        """Do a step of these columns; append who fired to `places`, return how many it has then.

        `neurons` are beta, threshold, bias, who is open (uint8), and the scale of int8 weights; `arriving` and `own` a
        matrix, a list of its rows, and from where to where those stand in it that are added. `reset` is an index into
        `layout.RESETS`.
        """
        check_rows(v, neurons, arriving, own, places, where[0])
        number = types.intp
        rows = [types.Tuple((kind[0], kind[1], number, number)) for kind in (arriving, own)]
        signature = number(v, neurons, number, *rows, types.Tuple((where[0], number, number)), places, number)

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            def array(i: int, j: int) -> Any:
                return data_of(context, builder, sig.args[i][j], builder.extract_value(args[i], j))

            rest = None if whole else builder.extract_value(args[5], 2)
            lines = builder.gep(array(5, 0), [builder.extract_value(args[5], 1)])
            n = builder.extract_value(context.make_array(sig.args[0])(context, builder, args[0]).shape, 0)
            here = listed(context, builder, sig.args[0].dtype, n_vectors, lines, rest, n)
            state, fired_at = (data_of(context, builder, sig.args[i], args[i]) for i in (0, 6))
            leaks, edges, bias, is_open, scale = (array(1, j) for j in range(5))
            sources = []
            for i in (3, 4):
                n_columns = width_of(context, builder, sig.args[i][0], builder.extract_value(args[i], 0))
                span = [builder.extract_value(args[i], j) for j in (2, 3)]
                sources.append((array(i, 0), n_columns, array(i, 1), *span))
            factor = builder.load(scale) if sig.args[3][0].dtype == types.int8 else None
            biases = [Lanes(builder, here.load(bias, j)) for j in range(n_vectors)]
            masks = []
            for j, cur in enumerate(currents(here, rest, True, biases, factor, sources)):
                before, edge, leak = (Lanes(builder, here.load(x, j)) for x in (state, edges, leaks))
                u: Any = rules.leak(before, cur, leak)  # type: ignore[arg-type]
                flags = here.load(is_open, j, I8)
                opened = builder.icmp_unsigned("!=", flags, zeros(flags.type))
                after = Lanes(builder, builder.select(opened, u.value, before.value))
                fired: Any = rules.fires(after, edge)  # type: ignore[arg-type]
                here.store(after.value, state, j)
                masks.append(builder.and_(fired, opened))
            now, end = args[7], cgutils.alloca_once_value(builder, args[7])
            with builder.if_then(some(builder, masks)):
                for mode in range(3):
                    with builder.if_then(builder.icmp_signed("==", args[2], const(mode))):
                        _reset(here, masks, state, edges, mode)
                for j, fired in enumerate(masks):
                    now = here.append(fired, j, fired_at, now)
                builder.store(now, end)
            return builder.load(end)

        return signature, generate

    made: Callable[..., int] = step
    return made


def _reset(here: Block, masks: list[Any], state: Any, edges: Any, mode: int) -> None:
    """Reset the neurons of a block that fired."""
    for j, fired in enumerate(masks):
        u, edge = (Lanes(here.builder, here.load(x, j)) for x in (state, edges))
        after: Any = rules.reset(u, edge, mode)  # type: ignore[arg-type]
        if after is not u:
            here.store(after.value if isinstance(after, Lanes) else zeros(u.value.type), state, j, fired)


SIZES = [min(n, WIDE // LINE) for n in (1, 2, 4, 8, 16)]
open_1, open_2, open_4, open_8, open_16 = (_stepper(n, whole=False) for n in SIZES)
open_12 = _stepper(min(12, WIDE // LINE), whole=False)
open_wide = _stepper(WIDE // LINE, whole=True)


@kernel(allocates=False, inline=True)
def step_lines(
    v: Any, neurons: Any, reset: int, arriving: Any, own: Any, lines: Any, low: int, high: int, places: Any, used: int
) -> int:
    """Do a step of who is open in the lines ``lines[low:high]``, behind which entries for `WIDE` bytes may follow.

    The rest is as of `_stepper`.
    """
    e, n, most = low, v.shape[0], WIDE // LINE
    while e + most <= high and (e + most < high or n % (LINE // v.itemsize) == 0):
        used = open_wide(v, neurons, reset, arriving, own, (lines, e, 0), places, used)
        e += most
    rest = high - e
    if 12 >= rest > 8 and n * v.itemsize <= WIDE:  # in a wider layer more of them would be guessed wrong
        return open_12(v, neurons, reset, arriving, own, (lines, e, rest), places, used)
    if rest > 8:
        return open_16(v, neurons, reset, arriving, own, (lines, e, rest), places, used)
    if rest > 4:
        return open_8(v, neurons, reset, arriving, own, (lines, e, rest), places, used)
    if rest > 2:
        return open_4(v, neurons, reset, arriving, own, (lines, e, rest), places, used)
    if rest > 1:
        return open_2(v, neurons, reset, arriving, own, (lines, e, rest), places, used)
    if rest > 0:
        return open_1(v, neurons, reset, arriving, own, (lines, e, rest), places, used)
    return used
