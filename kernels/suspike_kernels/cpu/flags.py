"""From flags to lists: which of 64 flags are set, appended to a list; the entry is written, and kept by moving on.

A processor that can move chosen lanes of a vector to its front (AVX-512) writes 16 entries at once: measured on one
such core, a million places of 8 million cost 2 ms instead of 10. Others go from bit to bit of a word.
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
"""Whether this processor can move chosen lanes to the front; elsewhere `keep` would be right, but slow."""

AHEAD = 16
"""So many entries behind those that are kept are overwritten: a list has to have the room."""


@intrinsic
def keep(_: Any, flags: Any, x: Any, k: Any, idx: Any, out: Any, used: Any) -> Any:
    """Append to `idx` which of ``flags[k:k + 64]`` are set, and their entries of `x` to `out`, unless that is `idx`.

    Parameters
    ----------
    flags : uint8
    x, out : float, or `flags`, `idx` where places alone are wanted
    k : int
    idx : int32
    used : int
        How many entries the two lists have.

    Returns
    -------
    int
        How many they have then.
    """
    signature = types.intp(flags, x, types.intp, idx, out, types.intp)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        marks, entries, places, kept = (
            data_of(context, builder, sig.args[i], args[i]) for i in (0, 1, 3, 4)
        )  # fmt: skip
        k, used = args[2], args[5]
        with_entries = sig.args[1] != sig.args[0]
        scalar = context.get_data_type(sig.args[1].dtype if with_entries else types.int32)
        lanes = 8 if str(scalar) == "double" else 16
        total = cgutils.alloca_once_value(builder, used)
        with builder.if_then(builder.icmp_unsigned("!=", _word(builder, builder.gep(marks, [k])), const(0))):
            for low in range(0, 64, lanes):
                first = builder.add(k, const(low))
                byte = ir.VectorType(ir.IntType(8), lanes)
                flagged = load(builder, builder.gep(marks, [first]), byte, 1)
                mask = builder.icmp_unsigned("!=", flagged, ir.Constant(byte, [0] * lanes))
                here = _count_from(builder, builder.trunc(first, ir.IntType(32)), lanes)
                store(builder, _to_front(builder, here, mask), builder.gep(places, [used]), 4)
                if with_entries:
                    align = sig.args[1].dtype.bitwidth // 8
                    found = load(builder, builder.gep(entries, [first]), ir.VectorType(scalar, lanes), align)
                    store(builder, _to_front(builder, found, mask), builder.gep(kept, [used]), align)
                n = builder.ctpop(builder.bitcast(mask, ir.IntType(lanes)))
                used = builder.add(used, builder.zext(n, INT))
            builder.store(used, total)
        return builder.load(total)

    return signature, generate


def _word(builder: Any, flags: Any) -> Any:
    """Return which of 64 flags are set, as the bits of a word, the first one lowest."""
    vector = ir.VectorType(ir.IntType(8), 64)
    bits = builder.icmp_unsigned("!=", load(builder, flags, vector, 1), ir.Constant(vector, [0] * 64))
    return builder.bitcast(bits, INT)


def _count_from(builder: Any, first: Any, lanes: int) -> Any:
    """Return the vector first, first + 1, ..."""
    vector, zero = ir.VectorType(ir.IntType(32), lanes), ir.Constant(ir.IntType(32), 0)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), first, zero)
    all_ = builder.shuffle_vector(one, one, ir.Constant(vector, [0] * lanes))
    return builder.add(all_, ir.Constant(vector, list(range(lanes))))


def _to_front(builder: Any, value: Any, mask: Any) -> Any:
    """Move the lanes of `value` at which `mask` is set to its front; the others are anything."""
    vector = value.type
    letters = {"i32": "i32", "float": "f32", "double": "f64"}[str(vector.element)]
    name = f"llvm.experimental.vector.compress.v{vector.count}{letters}"
    kind = ir.FunctionType(vector, [vector, mask.type, vector])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, [value, mask, ir.Constant(vector, ir.Undefined)])


@intrinsic
def flag_word(_: Any, flags: Any, k: Any) -> Any:
    """Return which of ``flags[k:k + 64]`` (uint8) are not 0, as the bits of a uint64, the first one lowest."""
    signature = types.uint64(flags, types.intp)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _word(builder, builder.gep(data_of(context, builder, sig.args[0], args[0]), [args[1]]))

    return signature, generate


@intrinsic
def lowest_bit(_: Any, word: Any) -> Any:
    """Return the place of the lowest bit set in a uint64 that is not 0."""
    signature = types.int64(types.uint64)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return signature, generate
