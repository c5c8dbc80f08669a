"""The kernels of a layer's forward pass on a GPU; each is compiled for the layer that its maker is told of.

A step's sums are taken in the order of its events, then of the layer's own spikes by unit: the reference's order, so
any weights give its numbers bit for bit. Nothing else is decided by an order: atomics set bits and count whole numbers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import cuda, int64, uint32, uint64  # a global: numba's simulator puts its own in its place
from numba.core import config

from suspike_kernels.cuda.device import device_rules
from suspike_kernels.geometry import Geometry


class Build(NamedTuple):
    """What a forward kernel is compiled for.

    Attributes
    ----------
    bits : int
        Of the floats: 32 or 64.
    kind, reset, gate : int
        Indices into `layout.NEURONS`, `layout.RESETS`, `layout.GATES`.
    geometry : Geometry or None
        Of a convolution.
    several : bool
        Whether a thread has more than one neuron: their state then waits in memory, not in registers.
    given, recurrent, talks, trace, ends : bool
        Whether there is a given current, recurrent rows, recurrent rows of an input gate, a trace to write, lengths.
    """

    bits: int = 32
    kind: int = 0
    reset: int = 0
    gate: int = 0
    geometry: Geometry | None = None
    several: bool = False
    given: bool = False
    recurrent: bool = False
    talks: bool = False
    trace: bool = False
    ends: bool = False


@lru_cache
def forward_kernel(build: Build) -> Any:
    """Return the kernel of a forward pass: see `forward_source`."""
    within = {} if config.ENABLE_CUDASIM else {"max_registers": 64}  # so that a block may have 1024 threads
    return cuda.jit(**within)(forward_source(build))


@lru_cache
def list_kernels() -> tuple[Any, Any]:
    """Return the kernels `offsets_source` and `units_source`."""
    return cuda.jit(offsets_source), cuda.jit(units_source)


def forward_source(build: Build) -> Any:
    """Return the Python function of a forward kernel.

    A block has one sample, or where no neuron hears another a part of its neurons, and goes through all steps. Its
    dynamic shared memory, where neurons hear each other, are uint32: twice the bits of the neurons that fired, by turns
    of the last step and of this one, their two numbers, and the units of the last step in ascending order. Of the
    arrays [.., B, N], [B, T, ..] and [B, G] the two axes are one.
    """
    bits, kind, mode, gate, geometry, several, given, recurrent, talks, trace, ends = build
    place, real = device_rules(bits)["place"], np.float32 if bits == 32 else np.float64
    add_rows = cuda.jit(device=True, inline="always")(rows_source)
    add_events = cuda.jit(device=True, inline="always")(patches_source(geometry)) if geometry else add_rows
    hears = recurrent or talks
    # A range with a step divides at each entry, a signed index is tested for being negative, and a loop that may go on
    # keeps addresses for it: so loops are `while`, numbers unsigned, and those over one neuron are left by `break`.
    # Of a recurrent gated LIF layer this made 48 registers of 120.

    def forward(
        ptr: Any, idx: Any, weight: Any, rows: Any, bias: Any, current: Any, beta: Any, threshold: Any, decay: Any,
        a: Any, b: Any, table: Any, activity: Any, gate_rows: Any, kappa: Any, scale: Any, lengths: Any, before: Any,
        spk_before: Any, after: Any, spk: Any, words: Any, counts: Any, out: Any, n_open: Any, ramp: Any, open_at: Any,
    ) -> None:  # fmt: skip
        sample, thread = uint32(cuda.blockIdx.x), cuda.threadIdx.x
        n, n_time = bias.shape[0], ptr.shape[1] - 1
        n_steps = lengths[sample] if ends else n_time
        first, stride = cuda.blockIdx.y * cuda.blockDim.x + thread, cuda.blockDim.x * cuda.gridDim.y
        one, zero, half = real(1), real(0), real(0.5)
        own = sample if table.shape[0] > 1 else uint32(0)
        lanes, rows_before = uint64(sample) * uint64(n), uint64(sample) * uint64(n_time)
        size = uint32(n // (table.shape[2] if gate == 1 else activity.shape[1] if gate == 2 else n))
        n_words = (n + 31) >> 5
        heard = cuda.shared.array(0, uint32)
        sums = 2 * n_words  # where the two numbers of spikes are; the last step's spikes are heard[low:high]
        low = high = sums + 2
        if hears:
            if thread == 0:
                heard[sums] = uint32(0)
            w = uint32(thread)
            while w < n_words:
                heard[w] = uint32(0)
                if not several:
                    break
                w = uint32(w + stride)
            cuda.syncthreads()
        k = uint32(first)
        while k < n:
            lane = lanes + uint64(k)
            after[0, lane], spk[lane] = before[0, lane], spk_before[lane]
            if kind > 0:
                after[1, lane] = before[1, lane]
            if hears and spk_before[lane] != zero:
                cuda.atomic.or_(heard, k >> 5, uint32(1) << uint32(k & 31))
                cuda.atomic.add(heard, sums, uint32(1))
            if not several:
                break
            k = uint32(k + stride)
        v, x, leak, theta, rho, drive, bump, g = zero, zero, zero, zero, zero, zero, zero, uint32(0)
        t = 0
        while t < n_steps:
            turn = t & 1
            now, then = turn * n_words, (1 - turn) * n_words
            if hears:
                cuda.syncthreads()  # the last step's bits are there, and its list is read
                high = low + int64(heard[uint32(sums + turn)])
                k = uint32(first)
                while k < n:
                    word, bit = heard[uint32(now + (k >> 5))], uint32(1) << uint32(k & 31)
                    if word & bit:
                        at, w = low + cuda.popc(word & (bit - uint32(1))), 0
                        while w < int64(k) >> 5:
                            at += cuda.popc(heard[uint32(now + w)])
                            w += 1
                        heard[uint32(at)] = k
                    if not several:
                        break
                    k = uint32(k + stride)
                if thread == 0:
                    heard[uint32(sums + 1 - turn)] = uint32(0)
                w = uint32(thread)
                while w < n_words:
                    heard[uint32(then + w)] = uint32(0)
                    if not several:
                        break
                    w = uint32(w + stride)
                cuda.syncthreads()
            row, k = rows_before + uint64(t), uint32(first)
            while k < n:
                lane = lanes + uint64(k)
                if several or t == 0:
                    v, leak, theta = after[0, lane], beta[k], threshold[k]
                    g = uint32(k // size) if gate < 3 else k
                    if kind > 0:
                        x, rho = after[1, lane], decay[k]
                    if kind > 1:
                        drive, bump = a[k], b[k]
                is_open, fired, activation = True, False, zero
                if gate == 1:
                    is_open = table[own, t, g] != 0
                if gate == 2:
                    activation = activity[row, g]
                    if talks:
                        activation = add_rows(activation, gate_rows, heard, low, high, g)
                    is_open = activation > zero
                if is_open:  # a warp of closed neurons reads no weights
                    cur = bias[k]
                    if given:
                        cur += current[t, lane]
                    cur = add_events(cur, weight, idx, ptr[sample, t], ptr[sample, t + 1], k)
                    if recurrent:
                        cur = add_rows(cur, rows, heard, low, high, k)
                    if gate == 3:
                        activation = abs(cur) - kappa[k]
                        is_open = activation > zero
                    _, fired, v, x = place(kind, mode, is_open, v, x, cur, leak, theta, rho, drive, bump)
                if gate == 3 or (gate == 2 and k == g * size):
                    tally = lane if gate == 3 else uint64(sample) * uint64(activity.shape[1]) + uint64(g)
                    ramp[tally] += min(max((activation / scale[g] + one) * half, zero), one)
                    if is_open:
                        n_open[tally] += 1
                        cuda.atomic.add(open_at, row, int64(size))
                if fired:
                    cuda.atomic.or_(words, (row, k >> 5), np.int32(1) << np.int32(k & 31))
                    cuda.atomic.add(counts, row, 1)
                    if hears:
                        cuda.atomic.or_(heard, then + (k >> 5), uint32(1) << uint32(k & 31))
                        cuda.atomic.add(heard, sums + 1 - turn, uint32(1))
                if trace:
                    out[t, lane] = v
                if not several:
                    break
                after[0, lane] = v
                if kind > 0:
                    after[1, lane] = x
                k = uint32(k + stride)
            t += 1
        k = uint32(first)
        while n_steps > 0 and k < n:
            lane, row = lanes + uint64(k), rows_before + uint64(n_steps - 1)
            spk[lane] = real((words[row, k >> 5] >> int64(k & 31)) & 1)
            if not several:
                after[0, lane] = v
                if kind > 0:
                    after[1, lane] = x
                break
            k = uint32(k + stride)
        while trace and t < n_time:
            k = uint32(first)
            while k < n:
                lane = lanes + uint64(k)
                out[t, lane] = after[0, lane]
                if not several:
                    break
                k = uint32(k + stride)
            t += 1

    return forward


def rows_source(acc: Any, matrix: Any, idx: Any, first: Any, last: Any, k: Any) -> Any:
    """Add ``matrix[idx[e], k]`` to `acc` for e from `first` to ``last - 1``, in that order."""
    e, end, one = uint64(first), uint64(last), uint64(1)
    while e + uint64(4) <= end:  # four reads are on their way at once
        i0, i1, i2, i3 = idx[e], idx[e + one], idx[e + uint64(2)], idx[e + uint64(3)]
        w0, w1, w2, w3 = matrix[uint32(i0), k], matrix[uint32(i1), k], matrix[uint32(i2), k], matrix[uint32(i3), k]
        acc = acc + w0
        acc = acc + w1
        acc = acc + w2
        acc = acc + w3
        e += uint64(4)
    while e < end:
        acc = acc + matrix[uint32(idx[e]), k]
        e += one
    return acc


def patches_source(geometry: Geometry) -> Any:
    """Return what `rows_source` is for a convolution: output `k` looks at each event, whether it lies in its field."""
    width, channels, out_width, out_channels = geometry[1], geometry[2], geometry[4], geometry[5]
    kernel_h, kernel_w, stride_y, stride_x, pad_y, pad_x = geometry[6:]
    columns = np.argsort(geometry.column_order()) * out_channels  # by dx

    def add_patches(acc: Any, matrix: Any, idx: Any, first: Any, last: Any, k: Any) -> Any:
        column = cuda.const.array_like(columns)
        pixel, c = int64(k) // out_channels, int64(k) % out_channels
        top, left = pixel // out_width * stride_y - pad_y, pixel % out_width * stride_x - pad_x
        e, end = uint64(first), uint64(last)
        while e < end:
            unit = int64(idx[e])
            at, channel = unit // channels, unit % channels
            dy, dx = at // width - top, at % width - left
            if dy >= 0 and dy < kernel_h and dx >= 0 and dx < kernel_w:
                acc = acc + matrix[dy * channels + channel, column[dx] + c]
            e += uint64(1)
        return acc

    return add_patches


def offsets_source(counts: Any, ptr: Any) -> None:
    """Turn the number of spikes of each sample and step, int64 [B * T], into `Events.ptr`: `layout.offsets`, one block.

    Its dynamic shared memory are as many int64 as it has threads.
    """
    thread, n_threads = cuda.threadIdx.x, cuda.blockDim.x
    n_steps, n = ptr.shape[1] - 1, counts.shape[0]
    share = (n + n_threads - 1) // n_threads
    first, last = min(thread * share, n), min((thread + 1) * share, n)
    sums = cuda.shared.array(0, int64)
    total = 0
    for i in range(first, last):
        total += counts[i]
    sums[thread] = total
    cuda.syncthreads()
    total = 0
    for j in range(thread):
        total += sums[j]
    for i in range(first, last):
        b, t = i // n_steps, i % n_steps
        if t == 0:
            ptr[b, 0] = total
        total += counts[i]
        ptr[b, t + 1] = total


def units_source(words: Any, ptr: Any, idx: Any) -> None:
    """Write the units of each sample and step, given as bits, to their place in `idx`: a thread for each step."""
    i, n_steps = cuda.grid(1), ptr.shape[1] - 1
    if i >= words.shape[0]:
        return
    e = ptr[i // n_steps, i % n_steps]
    for w in range(words.shape[1]):
        word = words[i, w]
        if word != 0:
            for j in range(32):
                if (word >> j) & 1:
                    idx[e] = w * 32 + j
                    e += 1
