"""Neurons that fire: integrate-and-fire, leaky, behind a synaptic current, adaptive."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suspike._validate import fail
from suspike.nn.gates import Gate
from suspike.nn.neuron import Neuron, Synaptic, choose, shape_of
from suspike.nn.parameters import Leak, Positive, leak_of
from suspike.nn.states import AdLIFState, CubaLIFState, LIFState
from suspike.surrogate import Surrogate, Triangle
from suspike_kernels.layout import RESETS


class Firing(Neuron):
    """Neurons that fire and are reset: IF, LIF, CubaLIF, AdLIF."""

    fires = True

    def __init__(
        self,
        n_units: int,
        *,
        threshold: float,
        reset: str,
        attached: bool,
        gate: Gate | None,
        surrogate: Surrogate | None,
        learn_threshold: bool,
    ) -> None:
        super().__init__(n_units, gate)
        if reset not in RESETS:
            fail("reset", f"one of {', '.join(RESETS)}", repr(reset))
        if not threshold > 0:
            fail("threshold", "above 0", repr(threshold))
        self.reset, self.attached = reset, attached
        self.surrogate: Surrogate = Triangle() if surrogate is None else surrogate
        self.level = Positive(n_units, threshold, learn=learn_threshold)

    @property
    def threshold(self) -> Tensor:
        """Threshold [N]."""
        threshold: Tensor = self.level()
        return threshold

    def firing_rule(self, beta: Tensor) -> dict[str, Any]:
        """Return threshold, reset and surrogate."""
        reset = {"reset": RESETS.index(self.reset), "attached": self.attached}
        return {"threshold": self.threshold, "surrogate": shape_of(self.surrogate), **reset}

    def settle(
        self, variables: tuple[Tensor, ...], old: tuple[Tensor, ...], spk: Tensor, is_open: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Return the variables after reset, given those before the step."""
        return variables

    def _step(self, cur: Tensor, state: Any, is_open: Tensor | None) -> tuple[Tensor, Any]:
        old = state.variables
        v, *others = choose(is_open, self.candidate(cur, old), old)
        threshold = self.threshold
        spk = self.surrogate(v - threshold)
        if is_open is not None:
            spk = (is_open.detach() > 0).to(spk.dtype) * spk
        v = self._reset(v, spk, threshold)
        variables = self.settle((v, *others), old, spk, is_open)
        return spk, self.state(*variables, spk, state.t + 1)

    def _reset(self, v: Tensor, spk: Tensor, threshold: Tensor) -> Tensor:
        if self.reset == "none":
            return v
        if self.attached:
            return v * (1 - spk) if self.reset == "zero" else v - threshold * spk
        fired = spk.detach() > 0
        return torch.where(fired, torch.zeros_like(v) if self.reset == "zero" else v - threshold, v)

    def extra_repr(self) -> str:
        """Show what the constructor was told."""
        attached = ", attached" if self.attached else ""
        return f"{self.n_units}, reset={self.reset!r}{attached}, surrogate={self.surrogate}"


class LIF(Firing):
    r"""Leaky integrate-and-fire neurons: :math:`u_t = \beta v_{t-1} + I_t`, and then as in `Neuron`.

    Parameters
    ----------
    n_units : int
        Neurons N.
    beta : float, optional
        Leak a step, above 0 and below 1: ``exp(-dt_ms / tau_ms)``; or give those two.
    tau_ms, dt_ms : float, optional
        Time constant of the membrane and length of a step, in ms.
    threshold : float
        Above 0.
    reset : "zero", "subtract" or "none"
        What a spike does to v in the same step.
    attached : bool
        Let the gradient also run through the spike that the reset sees.
    gate : Gate, optional
        Always open without one.
    surrogate : Surrogate
        Stands for the derivative of a spike; `Triangle` by default.
    learn_beta, learn_threshold : bool
        Learn them per neuron, beta through a sigmoid and the threshold through an exponential.
    """

    kind, state = "lif", LIFState

    def __init__(
        self,
        n_units: int,
        *,
        beta: float | None = None,
        tau_ms: float | None = None,
        dt_ms: float | None = None,
        threshold: float = 1.0,
        reset: str = "zero",
        attached: bool = False,
        gate: Gate | None = None,
        surrogate: Surrogate | None = None,
        learn_beta: bool = False,
        learn_threshold: bool = False,
    ) -> None:
        super().__init__(
            n_units, threshold=threshold, reset=reset, attached=attached, gate=gate, surrogate=surrogate,
            learn_threshold=learn_threshold,
        )  # fmt: skip
        self.leak = Leak(n_units, leak_of("beta", beta, "tau_ms", tau_ms, dt_ms), learn=learn_beta)


class IF(Firing):
    r"""Integrate-and-fire neurons, which forget nothing: :math:`u_t = v_{t-1} + I_t`.

    Parameters
    ----------
    n_units, threshold, reset, attached, gate, surrogate, learn_threshold
        As of `LIF`.
    """

    kind, state = "lif", LIFState

    def __init__(
        self,
        n_units: int,
        *,
        threshold: float = 1.0,
        reset: str = "zero",
        attached: bool = False,
        gate: Gate | None = None,
        surrogate: Surrogate | None = None,
        learn_threshold: bool = False,
    ) -> None:
        super().__init__(
            n_units, threshold=threshold, reset=reset, attached=attached, gate=gate, surrogate=surrogate,
            learn_threshold=learn_threshold,
        )  # fmt: skip
        self.leak = Leak(n_units, 1.0, learn=False)


class CubaLIF(Synaptic, Firing):
    r"""LIF neurons behind a synaptic current: :math:`i_t = \alpha i_{t-1} + I_t,\; u_t = \beta v_{t-1} + i_t`.

    Parameters
    ----------
    alpha : float, optional
        Decay of the synaptic current a step, above 0 and below 1: ``exp(-dt_ms / tau_syn_ms)``; or give those two.
    tau_syn_ms : float, optional
        Time constant of the synaptic current in ms.
    learn_alpha : bool
        Learn it per neuron, through a sigmoid.
    n_units, beta, tau_ms, dt_ms, threshold, reset, attached, gate, surrogate, learn_beta, learn_threshold
        As of `LIF`.
    """

    state = CubaLIFState

    def __init__(
        self,
        n_units: int,
        *,
        beta: float | None = None,
        alpha: float | None = None,
        tau_ms: float | None = None,
        tau_syn_ms: float | None = None,
        dt_ms: float | None = None,
        threshold: float = 1.0,
        reset: str = "zero",
        attached: bool = False,
        gate: Gate | None = None,
        surrogate: Surrogate | None = None,
        learn_beta: bool = False,
        learn_alpha: bool = False,
        learn_threshold: bool = False,
    ) -> None:
        super().__init__(
            n_units, threshold=threshold, reset=reset, attached=attached, gate=gate, surrogate=surrogate,
            learn_threshold=learn_threshold,
        )  # fmt: skip
        self.leak = Leak(n_units, leak_of("beta", beta, "tau_ms", tau_ms, dt_ms), learn=learn_beta)
        self.decay = Leak(n_units, leak_of("alpha", alpha, "tau_syn_ms", tau_syn_ms, dt_ms), learn=learn_alpha)


class AdLIF(Firing):
    r"""Adaptive LIF neurons in symplectic Euler steps: the adaptation sees the membrane of its own step.

    .. math::
        u_t = \beta v_{t-1} + (1 - \beta)(I_t - w_{t-1}),\qquad
        w_t = \rho w_{t-1} + (1 - \rho)(a v_t + b s_t)

    :math:`v_t` is the membrane after reset. Below threshold this is stable exactly for
    :math:`-1 < a < \frac{(1+\beta)(1+\rho)}{(1-\beta)(1-\rho)}` (Jury's criterion); a learned a stays between 0 and
    that.

    Parameters
    ----------
    rho : float, optional
        Decay of the adaptation a step, above 0 and below 1: ``exp(-dt_ms / tau_w_ms)``; or give those two.
    tau_w_ms : float, optional
        Time constant of the adaptation in ms.
    a, b : float
        How the membrane and a spike drive the adaptation, from 0 on.
    learn_rho, learn_a, learn_b : bool
        Learn them per neuron, b through an exponential.
    n_units, beta, tau_ms, dt_ms, threshold, reset, attached, gate, surrogate, learn_beta, learn_threshold
        As of `LIF`.

    References
    ----------
    Baronig et al. 2025, arXiv:2408.07517, eq. 6.
    """

    kind, state = "adlif", AdLIFState

    def __init__(
        self,
        n_units: int,
        *,
        beta: float | None = None,
        rho: float | None = None,
        tau_ms: float | None = None,
        tau_w_ms: float | None = None,
        dt_ms: float | None = None,
        a: float = 1.0,
        b: float = 1.0,
        threshold: float = 1.0,
        reset: str = "zero",
        attached: bool = False,
        gate: Gate | None = None,
        surrogate: Surrogate | None = None,
        learn_beta: bool = False,
        learn_rho: bool = False,
        learn_a: bool = False,
        learn_b: bool = False,
        learn_threshold: bool = False,
    ) -> None:
        super().__init__(
            n_units, threshold=threshold, reset=reset, attached=attached, gate=gate, surrogate=surrogate,
            learn_threshold=learn_threshold,
        )  # fmt: skip
        leak, decay = leak_of("beta", beta, "tau_ms", tau_ms, dt_ms), leak_of("rho", rho, "tau_w_ms", tau_w_ms, dt_ms)
        self.leak, self.decay = Leak(n_units, leak, learn=learn_beta), Leak(n_units, decay, learn=learn_rho)
        bound = (1 + leak) * (1 + decay) / ((1 - leak) * (1 - decay))
        if not 0 <= a < bound or (learn_a and a == 0):
            fail("a", f"{'above' if learn_a else 'from'} 0 and below {bound:.4g}, where it stays stable", repr(a))
        if not b >= 0 or (learn_b and b == 0):
            fail("b", "above 0" if learn_b else "from 0 on", repr(b))
        self.learn_a = learn_a
        self.coupling = Leak(n_units, a / bound, learn=True) if learn_a else Positive(n_units, a, learn=False)
        self.jump = Positive(n_units, b, learn=learn_b)

    @property
    def rho(self) -> Tensor:
        """Decay of the adaptation a step [N]."""
        rho: Tensor = self.decay()
        return rho

    @property
    def a(self) -> Tensor:
        """How the membrane drives the adaptation [N]."""
        a: Tensor = self.coupling()
        if self.learn_a:
            a = a * (1 + self.beta) * (1 + self.rho) / ((1 - self.beta) * (1 - self.rho))
        return a

    @property
    def b(self) -> Tensor:
        """How a spike drives the adaptation [N]."""
        b: Tensor = self.jump()
        return b

    def second_rule(self) -> dict[str, Tensor]:
        """Return decay, coupling and jump of the adaptation."""
        return {"decay": self.rho, "a": self.a, "b": self.b}

    def candidate(self, cur: Tensor, variables: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return v of an open neuron, and w as it is: it moves after the reset."""
        v, w = variables
        return self.beta * v + (1 - self.beta) * (cur - w), w

    def settle(
        self, variables: tuple[Tensor, ...], old: tuple[Tensor, ...], spk: Tensor, is_open: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Return v after reset, and the adaptation that it drives."""
        w = self.rho * old[1] + (1 - self.rho) * (self.a * variables[0] + self.b * spk)
        return variables[0], *choose(is_open, (w,), old[1:])
