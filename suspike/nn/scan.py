r"""A neuron alone on a dense current, as a function of tensors: fused kernels on the CPU and on CUDA devices.

.. math::
    \tilde v_t = \beta v_{t-1} + I_t \text{ where } g_t, \text{ else } v_{t-1},\qquad
    s_t = g_t \wedge (\tilde v_t > \theta),\qquad v_t = \text{reset}(\tilde v_t) \text{ where } s_t

for LIF neurons; `suspike_kernels.rules` has the others. Gradients are exact for the surrogate, compact or not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from suspike_kernels import cuda
from suspike_kernels.cpu import scan as cpu_scan
from suspike_kernels.layout import GateArrays, NeuronArrays, always_open
from suspike_kernels.reference import NO_SURROGATE, Surrogate
from suspike_kernels.scanning import ScanPull, ScanRun

NONE: dict[torch.dtype, Any] = {torch.float32: np.zeros(0, np.float32), torch.float64: np.zeros(0, np.float64)}


class Scanned(NamedTuple):
    """What a scan returns.

    Attributes
    ----------
    spk : Tensor [T, B, N], or None where not asked for
        0 or 1.
    trace : Tensor [T, B, N], or None
        The membrane after each step.
    state : Tensor [S, B, N]
        After the last step.
    ramp : Tensor [B, N], or None
    n_open, open_at : Tensor, int64 [B, N], [B, T], or None
        Of a drive gate: as in `suspike_kernels.reference.Run`; only `ramp` carries a gradient.
    """

    spk: Any
    trace: Any
    state: Any
    ramp: Any
    n_open: Any
    open_at: Any


class _Given(NamedTuple):
    """The tensors of a scan."""

    cur: Tensor
    state: Tensor
    beta: Tensor
    threshold: Tensor
    decay: Tensor | None
    a: Tensor | None
    b: Tensor | None
    table: Tensor | None
    kappa: Tensor | None
    gate_width: Tensor | None
    gate_scale: Tensor | None


class _Plan(NamedTuple):
    """What a scan is, beside its tensors."""

    near: Tensor | None
    kind: int
    reset: int
    attached: bool
    surrogate: Surrogate
    spikes: bool
    trace: bool
    keep: bool


def scan(
    cur: Tensor,
    state: Tensor,
    *,
    beta: Tensor,
    threshold: Tensor,
    decay: Tensor | None = None,
    a: Tensor | None = None,
    b: Tensor | None = None,
    table: Tensor | None = None,
    near: Tensor | None = None,
    kappa: Tensor | None = None,
    gate_width: Tensor | None = None,
    gate_scale: Tensor | None = None,
    kind: int = 0,
    reset: int = 0,
    attached: bool = False,
    surrogate: Surrogate = NO_SURROGATE,
    spikes: bool = True,
    trace: bool = False,
) -> Scanned:
    """Run neurons on a current.

    Parameters
    ----------
    cur : Tensor [T, B, N]
        float32 or float64; the other tensors are taken to its type.
    state : Tensor [S, B, N]
        The membrane, and the second variable of a "cuba" or "adlif" neuron, before the first step.
    beta, threshold : Tensor [N]
        Leak a step; threshold, infinity for a readout.
    decay, a, b : Tensor [N], optional
        As in `layout.NeuronArrays`.
    table : Tensor [1 or B, T, G], optional
        Gates given by their values 0 and 1; G divides N.
    near : Tensor, bool, as `table`, optional
        Where the table's gradient is wanted; elsewhere it is 0.
    kappa, gate_width, gate_scale : Tensor [N], optional
        A drive gate's: it opens where ``|cur| > kappa``; as in `layout.GateArrays`. Not together with `table`.
    kind, reset : int
        Indices into `layout.NEURONS`, `layout.RESETS`.
    attached : bool
        Whether the gradient also runs through the spike that a reset sees.
    surrogate : Surrogate
        Of any shape in `layout.SURROGATES`; a width of 0 lets no gradient through spikes of compact ones.
    spikes, trace : bool
        What to return.
    """
    given = _Given(cur, state, beta, threshold, decay, a, b, table, kappa, gate_width, gate_scale)
    given = _Given._make(x if x is None or x.dtype == cur.dtype else x.to(cur.dtype) for x in given)
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in given)
    near = near if given.table is not None and given.table.requires_grad else None
    plan = _Plan(near, kind, reset, attached, surrogate, spikes, trace, keep)
    return Scanned(*_Scan.apply(*given, plan))  # type: ignore[no-untyped-call]


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor | None, ...]:
        *tensors, plan = args
        given = _Given._make(None if x is None else x.detach().contiguous() for x in tensors)
        on_device = given.cur.is_cuda
        current, neurons, gate, state = _arrays(given, plan)
        options = {"spikes": plan.spikes, "trace": plan.trace, "keep": plan.keep}
        if on_device:
            run = cuda.scan_forward(current, neurons, gate, state, **options, **_on_device(given.cur))
        else:
            run = cpu_scan.scan_forward(current, neurons, gate, state, **options, n_threads=torch.get_num_threads())
        if plan.keep:
            ctx.save_for_backward(*given)
            ctx.plan, ctx.neurons, ctx.gate, ctx.n_threads = plan, neurons, gate, torch.get_num_threads()
            ctx.run = ScanRun(*(None,) * 2, run.state, run.kept, *(None,) * 3)  # not what is returned: a cycle
        drive = given.kappa is not None
        found = (run.spk, run.trace, run.state, run.ramp, run.n_open, run.open_at)
        asked = (plan.spikes, plan.trace, True, drive, drive, drive)
        out = [_tensor(x) if wanted else None for x, wanted in zip(found, asked, strict=True)]
        if drive:
            ctx.mark_non_differentiable(*out[4:])
        ctx.set_materialize_grads(False)
        return tuple(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        plan, want = ctx.plan, _Given._make(ctx.needs_input_grad[:-1])
        given, neurons, gate = _Given._make(ctx.saved_tensors), ctx.neurons, ctx.gate  # nobody has changed them since
        current: Any = given.cur if given.cur.is_cuda else given.cur.numpy()
        pulled = [g if g is not None and g.numel() else None for g in grads[:4]]
        if given.cur.is_cuda:
            pull = ScanPull(*(None if g is None else g.contiguous() for g in pulled))
        else:
            pull = ScanPull(*(None if g is None else g.contiguous().numpy() for g in pulled))
        params = bool(want.beta or want.threshold or want.decay or want.a or want.b)
        if given.cur.is_cuda:
            by = cuda.scan_backward(
                pull, ctx.run, current, neurons, gate, plan.surrogate, want_neurons=params, **_on_device(given.cur)
            )
        else:
            by = cpu_scan.scan_backward(
                pull, ctx.run, current, neurons, gate, plan.surrogate, want_neurons=params, n_threads=ctx.n_threads
            )
        found = _Given(
            by.current, by.state, by.beta, by.threshold, by.decay, by.a, by.b, by.gate, by.kappa, None, None
        )  # fmt: skip
        return *(_tensor(g) if w and g is not None else None for g, w in zip(found, want, strict=True)), None


def _arrays(given: _Given, plan: _Plan) -> tuple[Any, NeuronArrays, GateArrays, Any]:
    """Return the kernels' arguments: numpy views, or the device's tensors as they are."""
    none = NONE[given.cur.dtype]

    def view(x: Tensor | None) -> Any:
        return none if x is None else x if x.is_cuda else x.numpy()

    cur, state, beta, threshold, decay, a, b, _, kappa, width, scale = (view(x) for x in given)
    neurons = NeuronArrays(plan.kind, beta, threshold, plan.reset, int(plan.attached), decay, a, b)
    gate = always_open(none.dtype)
    if given.kappa is not None:
        gate = gate._replace(kind=3, kappa=kappa, width=width, scale=scale)
    if given.table is not None and 0 not in given.table.shape[::2]:
        gate = gate._replace(kind=1, open=view(given.table.to(torch.uint8)))
        if plan.near is not None:
            gate = gate._replace(near=view(plan.near.to(given.cur.device, torch.uint8).contiguous()))
    return cur, neurons, gate, state


def _tensor(array: Any) -> Tensor:
    return array if isinstance(array, Tensor) else torch.from_numpy(np.ascontiguousarray(array))


def _on_device(cur: Tensor) -> dict[str, Any]:
    """Return how the kernels make arrays and where they queue: in torch's memory, in torch's current stream."""

    def zeros(shape: tuple[int, ...], kind: str) -> Tensor:
        return torch.zeros(shape, dtype=torch.int64 if kind == "int64" else cur.dtype, device=cur.device)

    return {"zeros": zeros, "stream": torch.cuda.current_stream(cur.device).cuda_stream}
