"""Steps of LIF neurons that are always open, one after the other without leaving the registers.

A layer that fits into half of the registers keeps its membranes there for as many steps as it is asked for; a wider one
goes step by step, block after block. A step of few rows was measured to take a quarter less so with 256 neurons, and
half as long with 20.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from suspike_kernels import rules
from suspike_kernels.compiling import kernel
from suspike_kernels.cpu.blocks import Block, Lanes, neighbours, some, zeros
from suspike_kernels.cpu.compress import COMPRESSES
from suspike_kernels.cpu.fused import SIZES, WIDE, check_rows, currents
from suspike_kernels.cpu.memory import LINE
from suspike_kernels.cpu.vectors import check_arrays, const, data_of, width_of

CHECKED = 64
"""So many silent steps are done between two looks whether they still change anything."""

SILENCE = 16
"""From so many silent steps on, they are worth leaving the registers for."""

HELD = 4
"""Up to so many vectors, the neurons' parameters stay in registers too."""

FEW = 2 if COMPRESSES else 0
"""Up to so many vectors, adding nobody to a list is faster than a guess whether anybody fired."""


def _runner(n_vectors: int, *, whole: bool) -> Callable[..., int]:
    """Make ``run(v, neurons, reset, arriving, own, where, span, places, used)`` for a block of `n_vectors` vectors.

    `where` is its first column, and how many from there on are inside: all of them if the block is `whole`.
    """

    @intrinsic
    def run(
        _: Any, v: Any, neurons: Any, reset: Any, arriving: Any, own: Any, where: Any, span: Any, places: Any, used: Any
    ) -> Any:
        """Do steps of these columns, append who fired to `places`, and return the step that comes next.

        `neurons` are beta, threshold, bias, nothing, and the scale of int8 weights; `arriving` the weights, the rows of
        all events, and where those of each step begin; `own` the recurrent weights, a list of rows, and from where to
        where those of the step before the first stand in it. `span` are the first step, one behind the last, whether
        it ends early, and an array whose entry t + 1 becomes how many entries `places` has after step t.

        Early is after a step, where no spike is on its way and nothing arrives in the next `SILENCE` steps: `_waiter`
        may do those faster.
        """
        check_rows(v, neurons, arriving, own, places)
        number = types.intp
        rows = (types.Tuple((arriving[0], arriving[1], arriving[2])), types.Tuple((own[0], own[1], number, number)))
        spans = types.Tuple((number, number, types.boolean, span[3]))
        signature = number(v, neurons, number, *rows, types.UniTuple(number, 2), spans, places, number)

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            def part(i: int, j: int) -> Any:
                return builder.extract_value(args[i], j)

            def array(i: int, j: int) -> Any:
                return data_of(context, builder, sig.args[i][j], part(i, j))

            def variable(value: Any) -> Any:
                return cgutils.alloca_once_value(builder, value)

            rest = None if whole else part(5, 1)
            here = neighbours(context, builder, sig.args[0].dtype, n_vectors, part(5, 0), rest)
            parameters = [array(1, i) for i in range(3)]
            held = [_vectors(here, x) for x in parameters] if n_vectors <= HELD else []
            scale = builder.load(array(1, 4)) if sig.args[3][0].dtype == types.int8 else None
            state, fired_at = (data_of(context, builder, sig.args[i], args[i]) for i in (0, 7))
            kept = [variable(u.value) for u in _vectors(here, state)]
            weight, idx, begins, recurrent = array(3, 0), array(3, 1), array(3, 2), array(4, 0)
            widths = [width_of(context, builder, sig.args[i][0], part(i, 0)) for i in (3, 4)]
            n_own = builder.extract_value(context.make_array(sig.args[4][0])(context, builder, part(4, 0)).shape, 0)
            start, until, early, ends = part(6, 0), part(6, 1), part(6, 2), array(6, 3)
            now, used, listed = variable(start), variable(args[8]), variable(array(4, 1))
            first, end = variable(part(4, 2)), variable(part(4, 3))
            head, look, body, done = (builder.function.append_basic_block(x) for x in ("head", "look", "body", "done"))
            builder.branch(head)

            builder.position_at_end(head)
            t = builder.load(now)
            builder.cbranch(builder.icmp_signed("<", t, until), look, done)

            builder.position_at_end(look)
            after = builder.add(t, const(1))
            low, high, low_own, high_own = (
                *(_entry(builder, begins, e) for e in (t, after)),
                *map(builder.load, (first, end)),
            )
            ahead = builder.add(t, const(SILENCE))
            ahead = builder.select(builder.icmp_signed("<", ahead, until), ahead, until)
            silent = builder.icmp_signed("==", _entry(builder, begins, ahead), low)
            for also in (builder.icmp_signed("==", low_own, high_own), builder.icmp_signed(">", t, start), early):
                silent = builder.and_(silent, also)
            builder.cbranch(silent, done, body)

            builder.position_at_end(body)
            leaks, edges, biases = held or [_vectors(here, x) for x in parameters]
            given = (weight, widths[0], idx, low, high)
            own = (recurrent, widths[1], builder.load(listed), low_own, high_own)
            before, masks, moved = builder.load(used), [], []
            for cur, leak, edge, at in zip(
                currents(here, rest, False, biases, scale, [given, own]), leaks, edges, kept, strict=True
            ):
                u: Any = rules.leak(Lanes(builder, builder.load(at)), cur, leak)  # type: ignore[arg-type]
                builder.store(u.value, at)
                masks.append(rules.fires(u, edge))  # type: ignore[arg-type]
                moved.append(u)
            with builder.if_then(some(builder, masks)) if n_vectors > FEW else nullcontext():
                for mode in range(3):
                    with builder.if_then(builder.icmp_signed("==", args[2], const(mode))):
                        _reset(masks, moved, edges, kept, mode)
                total = before
                for j, fired in enumerate(masks):
                    total = here.append(fired, j, fired_at, total)
                builder.store(total, used)
            total = builder.load(used)
            builder.store(total, builder.gep(ends, [after]))
            builder.store(builder.select(builder.icmp_signed(">", n_own, const(0)), before, total), first)
            builder.store(total, end)
            builder.store(fired_at, listed)
            builder.store(after, now)
            builder.branch(head)

            builder.position_at_end(done)
            for j, at in enumerate(kept):
                here.store(builder.load(at), state, j)
            return builder.load(now)

        return signature, generate

    made: Callable[..., int] = run
    return made


def _vectors(here: Block, data: Any) -> list[Lanes]:
    """Return the block's part of an array of floats."""
    return [Lanes(here.builder, here.load(data, j)) for j in range(len(here.columns))]


def _entry(builder: Any, data: Any, i: Any) -> Any:
    """Return entry `i` of an array."""
    return builder.load(builder.gep(data, [i]))


def _reset(masks: list[Any], moved: list[Any], edges: list[Any], kept: list[Any], mode: int) -> None:
    """Reset who fired of the neurons that `moved`, in the variables `kept`."""
    for fired, u, edge, at in zip(masks, moved, edges, kept, strict=True):
        after: Any = rules.reset(u, edge, mode)
        if after is not u:
            value = after.value if isinstance(after, Lanes) else zeros(u.value.type)
            u.builder.store(u.builder.select(fired, value, u.value), at)


def _waiter(n_vectors: int, *, whole: bool) -> Callable[..., None]:
    """Make ``wait(v, beta, bias, n_steps, column, rest)`` for a block as in `_runner`."""

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


run_1, run_2, run_4, run_8, run_16 = (_runner(n, whole=False) for n in SIZES)
wait_1, wait_2, wait_4, wait_8, wait_16 = (_waiter(n, whole=False) for n in SIZES)
run_wide, wait_wide = _runner(WIDE // LINE, whole=True), _waiter(WIDE // LINE, whole=True)


@kernel(allocates=False, inline=True)
def run_columns(v: Any, neurons: Any, reset: int, arriving: Any, own: Any, span: Any, places: Any, used: int) -> int:
    """Do steps of always open neurons, or the first of them, and return the one that comes next: see `_runner`."""
    k, n, size = 0, v.shape[0], v.itemsize
    if n * size == WIDE:
        return run_wide(v, neurons, reset, arriving, own, (0, 0), span, places, used)
    while k + WIDE // size <= n:
        span = (span[0], span[0] + 1, False, span[3])
        run_wide(v, neurons, reset, arriving, own, (k, 0), span, places, used)
        used = span[3][span[1]]
        k += WIDE // size
    rest = n - k
    if rest * size > 8 * LINE:
        return run_16(v, neurons, reset, arriving, own, (k, rest), span, places, used)
    if rest * size > 4 * LINE:
        return run_8(v, neurons, reset, arriving, own, (k, rest), span, places, used)
    if rest * size > 2 * LINE:
        return run_4(v, neurons, reset, arriving, own, (k, rest), span, places, used)
    if rest * size > LINE:
        return run_2(v, neurons, reset, arriving, own, (k, rest), span, places, used)
    if rest > 0:
        return run_1(v, neurons, reset, arriving, own, (k, rest), span, places, used)
    t: int = span[0] + 1
    span[3][t] = used
    return t


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
