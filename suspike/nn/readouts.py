"""Readouts, which never fire: their membrane is the output."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from suspike.nn.gates import Gate
from suspike.nn.neuron import Neuron, Synaptic, choose
from suspike.nn.parameters import Leak, leak_of
from suspike.nn.states import CubaLIState, LIState


class LI(Neuron):
    r"""A leaky readout that never fires: :math:`v_t = \beta v_{t-1} + I_t`.

    Parameters
    ----------
    n_units, beta, tau_ms, dt_ms, gate, learn_beta
        As of `LIF`.
    """

    kind, fires = "lif", False
    state: type[Any] = LIState

    def __init__(
        self,
        n_units: int,
        *,
        beta: float | None = None,
        tau_ms: float | None = None,
        dt_ms: float | None = None,
        gate: Gate | None = None,
        learn_beta: bool = False,
    ) -> None:
        super().__init__(n_units, gate)
        self.leak = Leak(n_units, leak_of("beta", beta, "tau_ms", tau_ms, dt_ms), learn=learn_beta)

    def _step(self, cur: Tensor, state: Any, is_open: Tensor | None) -> tuple[Tensor, Any]:
        old = state.variables
        variables = tuple(choose(is_open, self.candidate(cur, old), old))
        return variables[0], self.state(*variables, state.t + 1)


class CubaLI(Synaptic, LI):
    r"""A readout behind a synaptic current: :math:`i_t = \alpha i_{t-1} + I_t,\; v_t = \beta v_{t-1} + i_t`.

    Parameters
    ----------
    n_units, beta, alpha, tau_ms, tau_syn_ms, dt_ms, gate, learn_beta, learn_alpha
        As of `CubaLIF`.
    """

    state = CubaLIState

    def __init__(
        self,
        n_units: int,
        *,
        beta: float | None = None,
        alpha: float | None = None,
        tau_ms: float | None = None,
        tau_syn_ms: float | None = None,
        dt_ms: float | None = None,
        gate: Gate | None = None,
        learn_beta: bool = False,
        learn_alpha: bool = False,
    ) -> None:
        super().__init__(n_units, beta=beta, tau_ms=tau_ms, dt_ms=dt_ms, gate=gate, learn_beta=learn_beta)
        self.decay = Leak(n_units, leak_of("alpha", alpha, "tau_syn_ms", tau_syn_ms, dt_ms), learn=learn_alpha)
