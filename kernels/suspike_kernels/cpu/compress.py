"""From a vector to a list: which of 64 entries are above 0, or within a width of it, appended to a list of places.

The comparison stays in a register. A processor that can move chosen lanes of a vector to its front (AVX-512) writes 16
entries at once: measured on one such core, a million places of 8 million cost 2 ms instead of 10. Others go from bit to
bit of a word. NaN is neither above 0 nor within a width.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from suspike_kernels.cpu.vectors import INT, const, data_of, load, store

_features = binding.get_host_cpu_features().flatten() if config.CPU_FEATURES is None else config.CPU_FEATURES
COMPRESSES = "+avx512f" in _features
"""Whether this processor can move chosen lanes to the front; elsewhere these would be right, but slow."""

AHEAD = 16
"""So many entries behind those that are kept are overwritten: a list has to have the room."""

_I32 = ir.IntType(32)


@intrinsic
def keep_above(_: Any, x: Any, k: Any, idx: Any, used: Any) -> Any:
    """Append to `idx` (int32) where ``x[k:k + 64]`` is above 0, behind its `used` entries; return how many it has."""
    signature = types.intp(x, types.intp, idx, types.intp)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        found = _found(context, builder, sig.args[0], args[0], args[1], None)
        places = data_of(context, builder, sig.args[2], args[2])
        return _append(builder, found, args[1], places, None, args[3])

    return signature, generate


@intrinsic
def keep_within(_: Any, x: Any, width: Any, k: Any, idx: Any, out: Any, used: Any) -> Any:
    """Append to `idx` (int32) where ``x[k:k + 64]`` lies within `width` of 0, and to `out` what stands there.

    Both have `used` entries; returned is how many they have then.
    """
    signature = types.intp(x, x.dtype, types.intp, idx, out, types.intp)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        found = _found(context, builder, sig.args[0], args[0], args[2], args[1])
        places, kept = (data_of(context, builder, sig.args[i], args[i]) for i in (3, 4))
        return _append(builder, found, args[2], places, kept, args[5])

    return signature, generate


@intrinsic
def word_above(_: Any, x: Any, k: Any) -> Any:
    """Return which of ``x[k:k + 64]`` are above 0, as the bits of a uint64, the first one lowest."""
    signature = types.uint64(x, types.intp)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        ((_, mask),) = _found(context, builder, sig.args[0], args[0], args[1], None, lanes=64)
        return builder.bitcast(mask, INT)

    return signature, generate


@intrinsic
def word_within(_: Any, x: Any, width: Any, k: Any) -> Any:
    """Return which of ``x[k:k + 64]`` lie within `width` of 0, as the bits of a uint64, the first one lowest."""
    signature = types.uint64(x, x.dtype, types.intp)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        ((_, mask),) = _found(context, builder, sig.args[0], args[0], args[2], args[1], lanes=64)
        return builder.bitcast(mask, INT)

    return signature, generate


@intrinsic
def lowest_bit(_: Any, word: Any) -> Any:
    """Return the place of the lowest bit set in a uint64 that is not 0."""
    signature = types.int64(types.uint64)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return signature, generate


def _found(
    context: Any, builder: Any, kind: Any, x: Any, k: Any, width: Any, *, lanes: int | None = None
) -> list[tuple[Any, Any]]:
    """Return 64 entries from `k` on as vectors, each with the mask of those above 0, or within a `width` if given."""
    scalar, size = context.get_data_type(kind.dtype), kind.dtype.bitwidth // 8
    lanes = lanes or 64 // size
    vector, data, found = ir.VectorType(scalar, lanes), data_of(context, builder, kind, x), []
    for low in range(0, 64, lanes):
        values = load(builder, builder.gep(data, [builder.add(k, const(low))]), vector, size)
        if width is None:
            mask = builder.fcmp_ordered(">", values, ir.Constant(vector, [0.0] * lanes))
        else:
            name, kind_of_abs = f"llvm.fabs.v{lanes}f{8 * size}", ir.FunctionType(vector, [vector])
            size_of = builder.call(cgutils.get_or_insert_function(builder.module, kind_of_abs, name), [values])
            mask = builder.fcmp_ordered("<", size_of, spread(builder, width, lanes))
        found.append((values, mask))
    return found


def _append(builder: Any, found: list[tuple[Any, Any]], k: Any, places: Any, kept: Any, used: Any) -> Any:
    """Append the places where the masks are set to `places`, and the values there to `kept` unless it is None."""
    total = cgutils.alloca_once_value(builder, used)
    lanes = found[0][0].type.count
    bits = [builder.bitcast(mask, ir.IntType(lanes)) for _, mask in found]
    some = bits[0]
    for other in bits[1:]:
        some = builder.or_(some, other)
    with builder.if_then(builder.icmp_unsigned("!=", some, ir.Constant(some.type, 0))):
        for i, (values, mask) in enumerate(found):
            first = builder.trunc(builder.add(k, const(i * lanes)), _I32)
            here = builder.add(
                spread(builder, first, lanes), ir.Constant(ir.VectorType(_I32, lanes), list(range(lanes)))
            )
            store(builder, to_front(builder, here, mask), builder.gep(places, [used]), 4)
            if kept is not None:
                align = 8 if str(values.type.element) == "double" else 4
                store(builder, to_front(builder, values, mask), builder.gep(kept, [used]), align)
            used = builder.add(used, builder.zext(builder.ctpop(bits[i]), INT))
        builder.store(used, total)
    return builder.load(total)


def spread(builder: Any, value: Any, lanes: int) -> Any:
    """Return a vector of one value."""
    vector = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes))


def to_front(builder: Any, value: Any, mask: Any) -> Any:
    """Move the lanes of `value` at which `mask` is set to its front; the others are anything."""
    vector = value.type
    letters = {"i32": "i32", "float": "f32", "double": "f64"}[str(vector.element)]
    name = f"llvm.experimental.vector.compress.v{vector.count}{letters}"
    kind = ir.FunctionType(vector, [vector, mask.type, vector])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, [value, mask, ir.Constant(vector, ir.Undefined)])
