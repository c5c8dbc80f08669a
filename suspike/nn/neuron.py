"""What all neurons share: the readable definition, a plain loop over time on any device, or a fused kernel for it."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from suspike._lengths import running
from suspike._validate import fail
from suspike.nn import paths
from suspike.nn.gates import DriveGate, Gate
from suspike.nn.parameters import Leak
from suspike.nn.rhythms import SoftGate, TableGate
from suspike.nn.scan import scan
from suspike_kernels.layout import NEURONS, RESETS, SURROGATES
from suspike_kernels.reference import NO_SURROGATE
from suspike_kernels.reference import Surrogate as Shape


class Neuron(nn.Module):
    r"""What all neurons share: candidate, select, fire, reset, at every step, in this order.

    .. math::
        \tilde x_t = u(x_{t-1}, I_t) \text{ if } g_t \text{ else } x_{t-1},\quad
        s_t = g_t \wedge (\tilde v_t > \theta),\quad v_t = \text{reset}(\tilde v_t) \text{ where } s_t

    x are the state variables, v the membrane among them. A closed neuron keeps its state bit for bit, and what reaches
    it at that step is not integrated.

    Attributes
    ----------
    kind : str
        Its rule in `suspike_kernels.layout.NEURONS`.
    fires : bool
        False for a readout.
    """

    kind: str
    fires: bool
    state: type[Any]
    leak: Leak

    def __init__(self, n_units: int, gate: Gate | None) -> None:
        super().__init__()
        if gate is not None and gate.n_units != n_units:
            fail("gate", f"of {n_units} units like its neurons", f"{gate.n_units} units")
        self.n_units, self.gate = n_units, gate

    @property
    def beta(self) -> Tensor:
        """Leak of the membrane a step [N]."""
        beta: Tensor = self.leak()
        return beta

    def candidate(self, cur: Tensor, variables: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the state variables of an open neuron after current `cur` [B, N], before it fires."""
        return (self.beta * variables[0] + cur,)

    def initial_state(self, batch: int) -> Any:
        """Return the state at rest: all variables 0, no spikes, t = 0."""
        zero = self.leak.stored.new_zeros(batch, self.n_units)
        return self.state(*[zero] * (len(self.state._fields) - 1), 0)

    def step(self, cur: Tensor, state: Any = None, *, x: Tensor | None = None) -> tuple[Tensor, Any]:
        """Advance by one step.

        Parameters
        ----------
        cur : Tensor [B, *shape]
            Input current, in units of the threshold; `shape` holds N neurons.
        state : state, optional
            At rest without one.
        x : Tensor [B, n_in], optional
            What an `InputGate` sees.

        Returns
        -------
        out : Tensor [B, *shape]
            Spikes, or the membrane of a readout.
        state : state
        """
        shape, cur = self._checked(cur[None])
        state = self.started(state, shape[1])
        out, state = self._loop(cur, state, None, None if x is None else x[None], None)
        return out.reshape(shape)[0], state

    def forward(
        self,
        cur: Tensor,
        state: Any = None,
        *,
        recurrent: Tensor | None = None,
        x: Tensor | None = None,
        n_steps: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """Run over time.

        Parameters
        ----------
        cur : Tensor [T, B, *shape]
            Input current, in units of the threshold; `shape` holds N neurons.
        state : state, optional
            At rest without one.
        recurrent : Tensor [N, N], optional
            Row i is what unit i's spike adds to the current one step later.
        x : Tensor [T, B, n_in], optional
            What an `InputGate` sees.
        n_steps : int Tensor [B], optional
            True length of each sample, 0 to T; T without it. From there on its neurons are closed.

        Returns
        -------
        out : Tensor [T, B, *shape]
            Spikes, or the membrane of a readout.
        state : state
            After each sample's last true step; its t is that of the batch.
        """
        shape, cur = self._checked(cur)
        state = self.started(state, shape[1])
        lasts = None
        if n_steps is not None:  # what lies behind an end, even NaN, reaches nothing
            lasts = running(n_steps, *shape[:2], least=0).to(cur.device)
            cur = cur.masked_fill(~lasts, 0)
        if self._fuses(cur, recurrent, lasts):
            out, state = self._scan(cur, state, lasts)
        else:
            out, state = self._loop(cur, state, recurrent, x, lasts)
        return out if out.shape == shape else out.reshape(shape), state

    def _checked(self, cur: Tensor) -> tuple[torch.Size, Tensor]:
        """Return the shape of a current, and the current as [T, B, N]."""
        if cur.dim() < 3 or math.prod(cur.shape[2:]) != self.n_units:
            fail("cur", f"of shape [T, B, {self.n_units}]", f"shape {list(cur.shape)}")
        return cur.shape, cur.flatten(2)

    def started(self, state: Any, batch: int, dtype: torch.dtype | None = None) -> Any:
        """Return the state, at rest if it is None; kernels trust its shapes, and those of a layer its type."""
        if state is None:
            return self.initial_state(batch)
        if not isinstance(state, self.state):
            fail("state", f"a {self.state.__name__}", f"a {type(state).__name__}")
        tensors = [x for x in state if isinstance(x, Tensor)]
        if any(x.shape != (batch, self.n_units) for x in tensors):
            got = " and ".join(str(list(x.shape)) for x in tensors)
            fail("state", f"of shape [{batch}, {self.n_units}]", got, "Another batch size needs a state of its own.")
        if dtype is not None and any(x.dtype != dtype for x in tensors):
            got = " and ".join(str(x.dtype) for x in tensors)
            fail("state", f"of the layer's {dtype}", got, "Start from None after a change of type.")
        return state

    def _loop(
        self, cur: Tensor, state: Any, recurrent: Tensor | None, x: Tensor | None, lasts: Tensor | None
    ) -> tuple[Tensor, Any]:
        """Run step by step in torch; samples are not yet over where `lasts` [T, B, 1]."""
        opened = None if self.gate is None else self.gate.steps(len(cur), state.t, x, lasts)
        batch, out = cur.shape[1], []
        for t, total in enumerate(cur.unbind(0)):
            if recurrent is not None:
                total = total + state.spk @ recurrent
            is_open = None if lasts is None else lasts[t].to(cur.dtype)
            if opened is not None:
                is_open = opened(t, total, getattr(state, "spk", None))
            last = getattr(state, "spk", None)
            each, state = self._step(total, state, is_open)
            if lasts is not None and last is not None:
                state = state._replace(spk=torch.where(lasts[t], state.spk, last))
            out.append(each)
        if opened is not None:
            opened.finish(batch)
        return (torch.stack(out) if out else torch.zeros_like(cur)), state

    def _fuses(self, cur: Tensor, recurrent: Tensor | None, lasts: Tensor | None) -> bool:
        """Choose between the fused kernel and the loop."""
        why_not = ""
        if recurrent is not None:
            why_not = "its spikes come back to it"
        elif isinstance(self.gate, SoftGate):
            why_not = "a SoftGate skips nothing"
        elif not (self.gate is None or isinstance(self.gate, (TableGate, DriveGate))):
            why_not = "its gate sees the layer's input"
        elif isinstance(self.gate, DriveGate) and lasts is not None:
            why_not = "its gate sees currents behind the end of samples"
        elif cur.dtype not in (torch.float32, torch.float64) or cur.dtype != self.leak.stored.dtype:
            why_not = f"its current is {cur.dtype}, its parameters are {self.leak.stored.dtype}"
        elif not (cur.device.type == "cpu" or (cur.is_cuda and _has_cuda_kernels())):
            why_not = f"it is on {cur.device}"
        forced = paths.forced()
        if forced == "event" or (forced == "fused" and why_not):
            rule = "events" if forced == "event" else "a current"
            fail("cur", f"{rule} fit for the {forced} path", why_not or "a dense current", "Leave the path open.")
        if forced is None:
            paths.tell(self, "torch" if why_not else "fused", cur.shape, why_not or "it is alone on a dense current")
        return not why_not and forced != "torch"

    def _scan(self, cur: Tensor, state: Any, lasts: Tensor | None) -> tuple[Tensor, Any]:
        """Run all steps in one fused kernel; the end of a sample is a gate that shuts."""
        gate, options = self.gate, dict(self.rule())
        if isinstance(gate, TableGate):
            opened = gate(len(cur), start=state.t)
            options["table"], options["near"] = opened.open.to(cur.dtype)[None], opened.near[None]
            if lasts is not None:
                options["table"] = options["table"] * lasts.transpose(0, 1)
                options["near"] = options["near"] & lasts.transpose(0, 1).to(opened.near.device)
        elif isinstance(gate, DriveGate):
            options |= {"kappa": gate.kappa, "gate_width": gate.width, "gate_scale": gate.get_buffer("scale")}
        elif lasts is not None:
            options["table"] = lasts.transpose(0, 1).to(cur.dtype)
        variables = state.variables
        before = torch.stack(variables) if len(variables) > 1 else variables[0][None]
        run = scan(cur, before, spikes=self.fires, trace=not self.fires, **options)
        if isinstance(gate, DriveGate):
            gate(gate.use(run.n_open.to(cur.dtype), run.ramp, run.open_at, None))
        t, variables = state.t + len(cur), [run.state[i] for i in range(len(variables))]
        if not self.fires:
            return run.trace, self.state(*variables, t)
        spk = run.spk[-1] if len(cur) else state.spk
        if lasts is not None and len(cur):
            n_steps = lasts.sum((0, 2))
            end = run.spk[(n_steps - 1).clamp_min(0), torch.arange(len(n_steps), device=cur.device)]
            spk = torch.where((n_steps > 0)[:, None], end, state.spk)
        return run.spk, self.state(*variables, spk, t)

    def rule(self) -> dict[str, Any]:
        """Return what kernels have to know of the neurons beside their gate: arguments of `suspike.nn.scan.scan`."""
        beta = self.beta
        return {"kind": NEURONS.index(self.kind), "beta": beta, **self.firing_rule(beta), **self.second_rule()}

    def firing_rule(self, beta: Tensor) -> dict[str, Any]:
        """Return threshold, reset and surrogate; a readout never fires."""
        never = torch.full_like(beta, torch.inf)
        return {"threshold": never, "reset": RESETS.index("none"), "attached": False, "surrogate": NO_SURROGATE}

    def second_rule(self) -> dict[str, Tensor]:
        """Return the parameters of the second state variable, if there is one."""
        return {}

    def _step(self, cur: Tensor, state: Any, is_open: Tensor | None) -> tuple[Tensor, Any]:
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Show what the constructor was told."""
        return f"{self.n_units}"


class Synaptic(Neuron):
    r"""Neurons behind a synaptic current: :math:`i_t = \alpha i_{t-1} + I_t,\; u_t = \beta v_{t-1} + i_t`."""

    kind = "cuba"
    decay: Leak

    @property
    def alpha(self) -> Tensor:
        """Decay of the synaptic current a step [N]."""
        alpha: Tensor = self.decay()
        return alpha

    def second_rule(self) -> dict[str, Tensor]:
        """Return the decay of the current."""
        return {"decay": self.alpha}

    def candidate(self, cur: Tensor, variables: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return v and i of an open neuron."""
        i = self.alpha * variables[1] + cur
        return self.beta * variables[0] + i, i


def choose(is_open: Tensor | None, new: tuple[Tensor, ...], old: tuple[Tensor, ...]) -> Iterator[Tensor]:
    """Yield each new variable where the gate is open, else the old one."""
    for u, v in zip(new, old, strict=True):
        if is_open is None or u is v:
            yield u
        else:
            yield Select.apply(is_open, u, v)  # type: ignore[no-untyped-call]


class Select(torch.autograd.Function):
    """``u if g else v``, elementwise and bit for bit, with the gradient of ``v + g (u - v)``; a soft g mixes them."""

    @staticmethod
    def forward(ctx: Any, is_open: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Choose; `is_open` is 0 or 1, or a share between."""
        ctx.save_for_backward(is_open, u, v)
        hard = torch.where(is_open > 0, u, v)
        soft = (is_open > 0) & (is_open < 1)
        return torch.where(soft, v + is_open * (u - v), hard) if soft.any() else hard

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Share the gradient out."""
        is_open, u, v = ctx.saved_tensors
        by_gate = (grads[0] * (u - v)).sum_to_size(is_open.shape)
        return by_gate, grads[0] * is_open, grads[0] * (1 - is_open)


def shape_of(surrogate: Any) -> Shape:
    """Return a surrogate as the kernels know it."""
    return Shape(SURROGATES.index(surrogate.shape), surrogate.scale)


def _has_cuda_kernels() -> bool:
    return importlib.util.find_spec("numba_cuda") is not None
