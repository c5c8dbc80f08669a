"""The kernels of a scan on a GPU; each is compiled for the numbers that its maker is given, at its first launch."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import cuda  # a global: numba's simulator puts its own in its place

from suspike_kernels.cuda.device import device_rules
from suspike_kernels.scanning import STEPS


@lru_cache
def forward_kernel(bits: int, kind: int, mode: int, gate: int, spikes: bool, trace: bool, keep: bool) -> Any:
    """Return the kernel of a forward pass: see `forward_source`."""
    return cuda.jit(forward_source(bits, kind, mode, gate, spikes, trace, keep))


@lru_cache
def backward_kernel(
    bits: int, kind: int, mode: int, attached: int, shape: int, gate: int, table: bool, sums: bool,
    spikes: bool, trace: bool,
) -> Any:  # fmt: skip
    """Return the kernel of a backward pass: see `backward_source`."""
    return cuda.jit(backward_source(bits, kind, mode, attached, shape, gate, table, sums, spikes, trace))


def forward_source(bits: int, kind: int, mode: int, gate: int, spikes: bool, trace: bool, keep: bool) -> Any:
    """Return the Python function of a forward kernel.

    Parameters
    ----------
    bits : int
        Of the floats: 32 or 64.
    kind, mode, gate : int
        Indices into `layout.NEURONS`, `layout.RESETS`, `layout.GATES`.
    spikes, trace, keep : bool
        What to write.
    """
    place, real = device_rules(bits)["place"], np.float32 if bits == 32 else np.float64

    def forward(
        cur: Any, beta: Any, threshold: Any, decay: Any, a: Any, b: Any, kappa: Any, width: Any, scale: Any, table: Any,
        before: Any, after: Any, spk: Any, out: Any, kept: Any, n_open: Any, ramp: Any, open_at: Any,
    ) -> None:  # fmt: skip
        n_steps, n = cur.shape[0], beta.shape[0]
        lane = cuda.grid(1)
        if lane >= cur.shape[1]:
            return
        sample, k = lane // n, lane % n
        one, zero, half = real(1), real(0), real(0.5)
        own = sample if table.shape[0] > 1 else 0
        g = k // (n // table.shape[2]) if gate == 1 else 0
        rho, drive, bump, x = zero, zero, zero, zero
        v = before[0, lane]
        if kind > 0:
            rho, x = decay[k], before[1, lane]
        if kind > 1:
            drive, bump = a[k], b[k]
        leak, theta = beta[k], threshold[k]
        fours = n_steps // STEPS
        count, total = 0, zero
        for t in range(n_steps):
            if keep and (t % STEPS == 0 or t >= fours * STEPS):
                group = t // STEPS if t < fours * STEPS else fours + t - fours * STEPS
                kept[group, 0, lane] = v
                if kind > 0:
                    kept[group, 1, lane] = x
            c = cur[t, lane]
            is_open = True
            if gate == 1:
                is_open = table[own, t, g] != 0
            if gate == 3:
                activation = abs(c) - kappa[k]
                is_open = activation > zero
                if is_open:
                    count += 1
                    cuda.atomic.add(open_at, (sample, t), 1)
                total += min(max((activation / scale[k] + one) * half, zero), one)
            _, fired, v, x = place(kind, mode, is_open, v, x, c, leak, theta, rho, drive, bump)
            if spikes:
                spk[t, lane] = one if fired else zero
            if trace:
                out[t, lane] = v
        after[0, lane] = v
        if kind > 0:
            after[1, lane] = x
        if gate == 3:
            n_open[lane] = count
            ramp[lane] = total

    return forward


def backward_source(
    bits: int, kind: int, mode: int, attached: int, shape: int, gate: int, table: bool, sums: bool,
    spikes: bool, trace: bool,
) -> Any:  # fmt: skip
    """Return the Python function of a backward kernel.

    Parameters
    ----------
    bits, kind, mode, gate
        As in `forward_source`.
    attached, shape
        As in `layout.NeuronArrays` and `rules.surrogate`.
    table, sums : bool
        Whether gradients by a table, and by parameters, are wanted.
    spikes, trace : bool
        What a gradient is given by.
    """
    # `flags` holds 1 where a table is open, 2 where it is near its threshold: one array, for want of registers
    made = device_rules(bits)
    place, place_back, curve = made["place"], made["place_back"], made["surrogate"]
    real = np.float32 if bits == 32 else np.float64

    def backward(
        cur: Any, beta: Any, threshold: Any, decay: Any, a: Any, b: Any, kappa: Any, width: Any, scale: Any, flags: Any,
        kept: Any, d_spk: Any, d_trace: Any, by: Any, d_ramp: Any, d_state: Any, d_gate: Any, out: Any, reach: Any,
    ) -> None:  # fmt: skip
        n_steps, n = cur.shape[0], beta.shape[0]
        lane = cuda.grid(1)
        if lane >= cur.shape[1]:
            return
        sample, k = lane // n, lane % n
        zero = real(0)
        own = sample if flags.shape[0] > 1 else 0
        g = k // (n // flags.shape[2]) if gate == 1 else 0
        dv, dx = d_state[0, lane], zero
        if kind > 0:
            dx = d_state[1, lane]
        by_beta, by_theta, by_rho, by_a, by_b, by_kappa = zero, zero, zero, zero, zero, zero
        fours = n_steps // STEPS
        for group in range(fours + n_steps % STEPS - 1, -1, -1):
            first = group * STEPS if group < fours else fours * STEPS + group - fours
            for s in range(STEPS - 1 if group < fours else 0, -1, -1):
                # parameters are read here, from the nearest cache: held over the loops, they cost registers
                leak, theta, rho, drive, bump = beta[k], threshold[k], zero, zero, zero
                if kind > 0:
                    rho = decay[k]
                if kind > 1:
                    drive, bump = a[k], b[k]
                # from the kept state to step s again: on average two steps
                v, x = kept[group, 0, lane], zero
                if kind > 0:
                    x = kept[group, 1, lane]
                v0, x0, high, fired, c, opened, flag = v, x, v, False, zero, True, 1
                for r in range(s + 1):
                    v0, x0 = v, x
                    c = cur[first + r, lane]
                    if gate == 1:
                        flag = flags[own, first + r, g]
                        opened = flag & 1 != 0
                    if gate == 3:
                        opened = abs(c) - kappa[k] > zero
                    high, fired, v, x = place(kind, mode, opened, v, x, c, leak, theta, rho, drive, bump)
                t = first + s
                if trace:
                    dv += d_trace[t, lane]
                pushed = zero
                if spikes:
                    pushed = d_spk[t, lane]
                by_cur, dv, dx, p, q, r1, r2, r3, through = place_back(
                    kind, mode, attached, shape, reach, opened, dv, dx, pushed, v0, x0, c, high, fired, v, leak, theta,
                    rho, drive, bump,
                )  # fmt: skip
                by_beta, by_theta, by_rho, by_a, by_b = by_beta + p, by_theta + q, by_rho + r1, by_a + r2, by_b + r3
                if table:
                    d_gate[t, lane] = through if flag & 2 != 0 else zero
                if gate == 3:
                    activation = abs(c) - kappa[k]
                    push = zero
                    if abs(activation) < width[k]:
                        push = through * curve(activation, width[k], 0)
                    if abs(activation) < scale[k]:
                        push += d_ramp[lane] / (scale[k] + scale[k])
                    by_kappa -= push
                    if c > zero:
                        by_cur += push
                    elif c < zero:
                        by_cur -= push
                out[t, lane] = by_cur
        d_state[0, lane] = dv
        if kind > 0:
            d_state[1, lane] = dx
        if sums:
            by[0, lane], by[1, lane], by[2, lane] = by_beta, by_theta, by_rho
            by[3, lane], by[4, lane], by[5, lane] = by_a, by_b, by_kappa

    return backward
