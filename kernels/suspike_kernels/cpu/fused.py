"""A whole step of LIF neurons without leaving the registers: gather, update, compare, reset, list of spikes.

For simulation, where nothing but the spikes is kept of a step: gather and update apart write and read four arrays of
the layer's width at each of them. The update is that of `rules`, evaluated on vectors.
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
from suspike_kernels.cpu.blocks import I8, I32, Block, Lanes, listed, neighbours, pairs, some, zeros
from suspike_kernels.cpu.compress import COMPRESSES, spread
from suspike_kernels.cpu.memory import LINE
from suspike_kernels.cpu.vectors import check_arrays, const, data_of, row_of, width_of

WIDE = 1024 if COMPRESSES else 256
"""Bytes of the widest block: half of the registers; with the other half, rows and parameters go by."""

MOST_INT16 = 256
"""So many int8, -128 each, still fit into an int16."""

CHECKED = 64
"""So many silent steps are done between two looks whether they still change anything."""


def _add_rows(block: Block, totals: list[Any], matrix: Any, n_columns: Any, idx: Any, first: Any, last: Any) -> None:
    """Add the rows ``idx[first:last]`` to the sums, a row at a time: the vectors of a wide block wait for no other."""
    builder = block.builder
    with cgutils.for_range_slice(builder, first, last, const(1)) as (e, _):
        row = row_of(builder, matrix, n_columns, idx, e)
        for j, total in enumerate(totals):
            builder.store(builder.fadd(builder.load(total), block.load(row, j)), total)


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


def _stepper(n_vectors: int, *, whole: bool, gated: bool) -> Callable[..., int]:
    """Make ``step(v, neurons, reset, arriving, own, where, places, used)`` for a block of `n_vectors` vectors.

    All of its lanes are inside if it is `whole`. Always open neurons are neighbours, and `where` a column and how many
    from there on are inside; those that are `gated` stand in lines of a list, and `where` that list of columns, the
    entry of the first, and how many are inside.
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
        lists, matrices = (arriving[1], own[1], places, *([where[0]] if gated else [])), (arriving[0], own[0])
        if arriving[0].dtype == types.int8:
            check_arrays((v, *neurons[:3], neurons[4]), *lists)
            check_arrays(matrices)
        else:
            check_arrays((v, *neurons[:3], *matrices), *lists)
        number = types.intp
        rows = [types.Tuple((kind[0], kind[1], number, number)) for kind in (arriving, own)]
        place = types.Tuple((where[0], number, number) if gated else (number, number))
        signature = number(v, neurons, number, *rows, place, places, number)

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            def array(i: int, j: int) -> Any:
                return data_of(context, builder, sig.args[i][j], builder.extract_value(args[i], j))

            dtype, rest = sig.args[0].dtype, None if whole else builder.extract_value(args[5], 1 + gated)
            if gated:
                lines = builder.gep(array(5, 0), [builder.extract_value(args[5], 1)])
                n = builder.extract_value(context.make_array(sig.args[0])(context, builder, args[0]).shape, 0)
                here = listed(context, builder, dtype, n_vectors, lines, rest, n)
            else:
                here = neighbours(context, builder, dtype, n_vectors, builder.extract_value(args[5], 0), rest)
            state, fired_at = (data_of(context, builder, sig.args[i], args[i]) for i in (0, 6))
            leaks, edges, bias, is_open, scale = (array(1, j) for j in range(5))
            sources = []
            for i in (3, 4):
                n_columns = width_of(context, builder, sig.args[i][0], builder.extract_value(args[i], 0))
                span = [builder.extract_value(args[i], j) for j in (2, 3)]
                sources.append((array(i, 0), n_columns, array(i, 1), *span))
            currents: list[Any] = []
            if sig.args[3][0].dtype == types.int8:
                factor = Lanes(builder, spread(builder, builder.load(scale), here.lanes))
                for j, total in enumerate(_sum_int8(here, rest, gated, sources)):
                    offset = Lanes(builder, here.load(bias, j))
                    currents.append(rules.scaled(Lanes(builder, total), factor, offset))  # type: ignore[arg-type]
            else:
                totals = [cgutils.alloca_once_value(builder, here.load(bias, j)) for j in range(n_vectors)]
                for source in sources:
                    _add_rows(here, totals, *source)
                currents = [Lanes(builder, builder.load(total)) for total in totals]
            masks = []
            for j, cur in enumerate(currents):
                before, edge, leak = (Lanes(builder, here.load(x, j)) for x in (state, edges, leaks))
                u: Any = rules.leak(before, cur, leak)  # type: ignore[arg-type]
                fired: Any = rules.fires(u, edge)  # type: ignore[arg-type]
                if gated:
                    flags = here.load(is_open, j, I8)
                    opened = builder.icmp_unsigned("!=", flags, zeros(flags.type))
                    u = Lanes(builder, builder.select(opened, u.value, before.value))
                    fired = builder.and_(fired, opened)
                here.store(u.value, state, j)
                masks.append(fired)
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


def _waiter(n_vectors: int, *, whole: bool) -> Callable[..., None]:
    """Make ``wait(v, beta, bias, n_steps, column, rest)`` for a block as in `_stepper`."""

    @intrinsic
    def wait(_: Any, v: Any, beta: Any, bias: Any, n_steps: Any, column: Any, rest: Any) -> Any:
        """Do `n_steps` steps of the columns from `column` on, in which the current is `bias`, 0, and nobody fires."""
        check_arrays((v, beta, bias))
        signature = types.void(v, beta, bias, types.intp, types.intp, types.intp)

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            rest = None if whole else args[5]
            here = neighbours(context, builder, sig.args[0].dtype, n_vectors, args[4], rest)
            state, leaks, biases = (data_of(context, builder, sig.args[i], args[i]) for i in range(3))
            factors = [Lanes(builder, here.load(leaks, j)) for j in range(n_vectors)]
            kept = [cgutils.alloca_once_value(builder, here.load(state, j)) for j in range(n_vectors)]

            def decay() -> None:
                for factor, at in zip(factors, kept, strict=True):
                    v_ = Lanes(builder, builder.load(at))
                    builder.store(rules.product(factor, v_).value, at)  # type: ignore[arg-type, attr-defined]

            left = cgutils.alloca_once_value(builder, args[3])
            head, body, done = (builder.function.append_basic_block(name) for name in ("head", "body", "done"))
            builder.branch(head)
            builder.position_at_end(head)
            wanted = builder.load(left)
            builder.cbranch(builder.icmp_signed(">", wanted, const(CHECKED)), body, done)
            builder.position_at_end(body)
            with cgutils.for_range_slice(builder, const(1), const(CHECKED), const(1)):
                decay()
            old = [builder.load(at) for at in kept]
            decay()
            moved = [_differ(here, x, builder.load(at)) for x, at in zip(old, kept, strict=True)]
            rest_of = builder.sub(wanted, const(CHECKED))
            builder.store(builder.select(some(builder, moved), rest_of, const(0)), left)
            builder.branch(head)
            builder.position_at_end(done)
            with cgutils.for_range_slice(builder, const(0), builder.load(left), const(1)):
                decay()
            for j, at in enumerate(kept):  # a current of 0 can change the sign of a 0: once is as good as each time
                after = Lanes(builder, builder.load(at)) + Lanes(builder, here.load(biases, j))
                here.store(after.value, state, j)
            return context.get_dummy_value()

        return signature, generate

    made: Callable[..., None] = wait
    return made


def _differ(here: Block, x: Any, y: Any) -> Any:
    """Return in which lanes two vectors differ by a bit: NaN stays NaN."""
    words = here.vector(ir.IntType(8 * here.size))
    return here.builder.icmp_unsigned("!=", *(here.builder.bitcast(vector, words) for vector in (x, y)))


_SIZES = [min(n, WIDE // LINE) for n in (1, 2, 4, 8, 16)]
step_1, step_2, step_4, step_8, step_16 = (_stepper(n, whole=False, gated=False) for n in _SIZES)
open_1, open_2, open_4, open_8, open_16 = (_stepper(n, whole=False, gated=True) for n in _SIZES)
wait_1, wait_2, wait_4, wait_8, wait_16 = (_waiter(n, whole=False) for n in _SIZES)
step_wide, open_wide = (_stepper(WIDE // LINE, whole=True, gated=gated) for gated in (False, True))
wait_wide = _waiter(WIDE // LINE, whole=True)


@kernel(allocates=False, inline=True)
def step_columns(v: Any, neurons: Any, reset: int, arriving: Any, own: Any, places: Any, used: int) -> int:
    """Do a step of always open neurons; append who fired to `places`: see `_stepper`."""
    k, n, size = 0, v.shape[0], v.itemsize
    while k + WIDE // size <= n:
        used = step_wide(v, neurons, reset, arriving, own, (k, 0), places, used)
        k += WIDE // size
    rest = n - k
    if rest * size > 8 * LINE:
        return step_16(v, neurons, reset, arriving, own, (k, rest), places, used)
    if rest * size > 4 * LINE:
        return step_8(v, neurons, reset, arriving, own, (k, rest), places, used)
    if rest * size > 2 * LINE:
        return step_4(v, neurons, reset, arriving, own, (k, rest), places, used)
    if rest * size > LINE:
        return step_2(v, neurons, reset, arriving, own, (k, rest), places, used)
    if rest > 0:
        return step_1(v, neurons, reset, arriving, own, (k, rest), places, used)
    return used


@kernel(allocates=False, inline=True)
def step_lines(
    v: Any, neurons: Any, reset: int, arriving: Any, own: Any, lines: Any, low: int, high: int, places: Any, used: int
) -> int:
    """As `step_columns`, of those that are open in the lines ``lines[low:high]``; `WIDE` bytes of others may follow."""
    e, n, most = low, v.shape[0], WIDE // LINE
    while e + most <= high and (e + most < high or n % (LINE // v.itemsize) == 0):
        used = open_wide(v, neurons, reset, arriving, own, (lines, e, 0), places, used)
        e += most
    rest = high - e
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


@kernel(allocates=False, inline=True)
def wait_columns(v: Any, beta: Any, bias: Any, n_steps: int) -> None:
    """Do `n_steps` steps in which nothing arrives and nobody fires; `bias` is 0."""
    k, n, size = 0, v.shape[0], v.itemsize
    while k + WIDE // size <= n:
        wait_wide(v, beta, bias, n_steps, k, 0)
        k += WIDE // size
    rest = n - k
    if rest * size > 8 * LINE:
        wait_16(v, beta, bias, n_steps, k, rest)
    elif rest * size > 4 * LINE:
        wait_8(v, beta, bias, n_steps, k, rest)
    elif rest * size > 2 * LINE:
        wait_4(v, beta, bias, n_steps, k, rest)
    elif rest * size > LINE:
        wait_2(v, beta, bias, n_steps, k, rest)
    elif rest > 0:
        wait_1(v, beta, bias, n_steps, k, rest)
