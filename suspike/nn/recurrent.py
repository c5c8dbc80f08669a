r"""Recurrent cells whose units choose when to update: the selective-update RNN, GRU and LSTM.

.. math:: h_t = h_{t-1} + g_t \odot (f(h_{t-1}, x_t) - h_{t-1})

g is a unit's gate, 0 or 1, and f the ordinary update. A unit that is shut keeps its state bit for bit, and such a step
is an identity for the gradient: it comes from as many updates ago, not steps. Source: arXiv:2603.02226.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from suspike._lengths import unpadded
from suspike._validate import fail
from suspike.nn import cell_paths, paths, selecting, watching
from suspike.nn.gates import Gate, InputGate
from suspike.nn.layer import lengths
from suspike.nn.rhythms import SoftGate, TableGate
from suspike.nn.states import CellState, LSTMState
from suspike.nn.updates import States, Weights
from suspike.nn.watching import CellRun, LayerNorms
from suspike.spikes import Spikes
from suspike_kernels.cells import CELLS

_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class Recurrent(nn.Module):
    """What the three cells share: torch.nn's parameters and arguments, a gate for each layer, and the choice of a path.

    Attributes
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout
        As of torch.nn.RNN, GRU and LSTM; ``weight_ih_l0``, ``weight_hh_l0``, ``bias_ih_l0``, ``bias_hh_l0`` and so on,
        drawn in the same order: their state_dict loads, with ``strict=False`` beside gates that have parameters.
    gates : ModuleList [num_layers]
        None where a layer is always open.
    """

    kind: str
    state: ClassVar[type[Any]] = CellState

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        *,
        gate: Gate | Sequence[Gate | None] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            if value < 1:
                fail(name, "at least 1", repr(value))
        if not 0 <= dropout < 1:
            fail("dropout", "from 0 and below 1", repr(dropout))
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        for layer in range(num_layers):
            n_rows = CELLS[self.kind].n_chunks * hidden_size
            shapes: list[tuple[int, ...]] = [(n_rows, self._n_in(layer)), (n_rows, hidden_size), (n_rows,), (n_rows,)]
            for name, shape in zip(_NAMES[: 4 if bias else 2], shapes, strict=False):
                drawn = torch.empty(shape).uniform_(-(hidden_size**-0.5), hidden_size**-0.5)
                self.register_parameter(f"{name}_l{layer}", nn.Parameter(drawn))
        self.gates = nn.ModuleList(self._checked_gates(gate))

    def _n_in(self, layer: int) -> int:
        return self.hidden_size if layer else self.input_size

    def _checked_gates(self, gate: Gate | Sequence[Gate | None] | None) -> list[Any]:
        gates: list[Any] = [None] * self.num_layers if gate is None else [gate]
        if isinstance(gate, (Sequence, nn.ModuleList)):
            gates = list(gate)
        if len(gates) != self.num_layers:
            fail("gate", f"one for each of num_layers = {self.num_layers}", f"{len(gates)}", "None: always open.")
        for layer, each in enumerate(gates):
            if each is not None and each.n_units != self.hidden_size:
                fail("gate", f"of hidden_size = {self.hidden_size} units", f"{each.n_units} units in layer {layer}")
            if isinstance(each, InputGate) and each.n_in != self._n_in(layer):
                fail("gate", f"of {self._n_in(layer)} units in layer {layer}, like its input", f"n_in = {each.n_in}")
        return gates

    def weights(self, layer: int) -> Weights:
        """Return the parameters of a layer."""
        return Weights._make(getattr(self, f"{name}_l{layer}", None) for name in _NAMES)

    def forward(
        self, input: Tensor | Spikes, state: Any = None, *, n_steps: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Run over time.

        Parameters
        ----------
        input : Tensor [T, B, I], or [B, T, I] with `batch_first`, or [T, I] of a single sample; or Spikes
        state : state, or Tensor [num_layers, B, H] (of an LSTM two of them), optional
            What the call before returned, or what torch's modules take, then at t = 0; zeros at t = 0 without one. Of
            a single sample [num_layers, H].
        n_steps : int Tensor [B], optional
            True length of each sample, 0 to T; T without it. From there on its units are shut. Spikes hold their own.

        Returns
        -------
        output : Tensor [T, B, H], or [B, T, H], or [T, H]
            h of the last layer at every step.
        state : state
            h (and c) [num_layers, B, H] after each sample's last true step, and the number t of steps so far.
        """
        x, after = self._run(input, state, n_steps, outputs=True)
        return self._shaped(x, input), after

    def _shaped(self, x: Tensor, input: Tensor | Spikes) -> Tensor:
        """Return an output [T, B, H] in the order of the input."""
        if isinstance(input, Spikes):
            return x
        return x[:, 0] if input.dim() == 2 else x.transpose(0, 1) if self.batch_first else x

    def final(self, input: Tensor | Spikes, state: Any = None, *, n_steps: Tensor | None = None) -> Any:
        """Return the state after the last step alone: memory then grows with the last layer's updates, not with T.

        Parameters as of `forward`.
        """
        return self._run(input, state, n_steps, outputs=False)[1]

    def _run(
        self, input: Tensor | Spikes, state: Any, n_steps: Tensor | None, *, outputs: bool, exact: bool = True
    ) -> tuple[Tensor, Any]:
        """Run all layers; the output is [T, B, H]."""
        x, n_steps = self._input(input, n_steps)
        given_x, n_time = x, len(x)
        single = isinstance(input, Tensor) and input.dim() == 2
        given, t = self._given(state, x.shape[1], single)
        after: list[States] = []
        norms = watching.begin(self, len(given), self.num_layers, *x.shape[:2])
        for layer in range(self.num_layers):
            old = tuple(s[layer] for s in given)
            if exact or self.gates[layer] is None:
                watched = None if norms is None else LayerNorms(norms[:, layer])
                x, last = self._layer(layer, x, old, t, n_steps, outputs or layer + 1 < self.num_layers, watched)
            else:
                x, last = cell_paths.saturated(x, old, self.weights(layer), self.gates[layer], t, n_steps)
            x, last = x.to(old[0].dtype), tuple(s.to(old[0].dtype) for s in last)  # not so under autocast
            if layer + 1 < self.num_layers:
                x = dropout(x, self.dropout, self.training)
            after.append(last)
        joined = (torch.stack(each) for each in zip(*after, strict=True))
        last_state = self.state(*(s[:, 0] if single else s for s in joined), t + n_time)
        watching.tell(self, CellRun(given_x, state, x if outputs else None, last_state, n_steps))
        return x, last_state

    def _input(self, input: Tensor | Spikes, n_steps: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the input as [T, B, I], without what lies behind the samples' ends, and their lengths."""
        if isinstance(input, nn.utils.rnn.PackedSequence):
            fail("input", "a padded tensor", "a PackedSequence", "Pass pad_packed_sequence's tensor, and n_steps=.")
        x = input.dense() if isinstance(input, Spikes) else input
        if isinstance(input, Tensor):
            x = x[:, None] if x.dim() == 2 else x.transpose(0, 1) if self.batch_first and x.dim() == 3 else x
        if x.dim() != 3 or x.shape[2] != self.input_size:
            shape = "[B, T, {}]" if self.batch_first else "[T, B, {}]"
            fail("input", f"of shape {shape.format(self.input_size)}", f"shape {list(input.shape)}")
        weight: Any = self.weight_ih_l0
        if x.device != weight.device:
            fail("input", f"on {weight.device} like the weights", f"on {x.device}")
        n_steps = lengths(x if isinstance(input, Tensor) else input, n_steps)
        return unpadded(x.to(weight.dtype), n_steps, least=0), n_steps

    def _given(self, state: Any, batch: int, single: bool) -> tuple[States, int]:
        """Return the states [num_layers, B, H] before the first step, and how many steps came before."""
        weight: Any = self.weight_hh_l0
        fields = self.state._fields[:-1]
        shape = (self.num_layers, self.hidden_size) if single else (self.num_layers, batch, self.hidden_size)
        if state is None:
            return (weight.new_zeros(self.num_layers, batch, self.hidden_size),) * len(fields), 0
        if isinstance(state, self.state):
            variables, t = state.variables, state.t
        else:
            variables, t = (state,) if isinstance(state, Tensor) else state, 0
        tensors = isinstance(variables, tuple) and all(isinstance(x, Tensor) for x in variables)
        if not tensors or len(variables) != len(fields):
            fail("state", f"a {self.state.__name__} or ({', '.join(fields)})", f"a {type(state).__name__}")
        for name, x in zip(fields, variables, strict=True):
            if x.shape != shape or x.dtype != weight.dtype:
                fail(f"state.{name}", f"{weight.dtype} of shape {list(shape)}", f"{x.dtype} of shape {list(x.shape)}")
        return tuple(x[:, None] if single else x for x in variables), t

    def _layer(
        self,
        layer: int,
        x: Tensor,
        old: States,
        t: int,
        n_steps: Tensor | None,
        outputs: bool,
        norms: LayerNorms | None,
    ) -> tuple[Tensor, States]:
        """Run a layer on the path that is forced, or the fastest one that can."""
        gate: Any = self.gates[layer]
        weights, forced, why_not = self.weights(layer), paths.forced(), self._no_kernel(gate)
        if forced == "event" or (forced == "fused" and why_not):
            fail("input", f"fit for the {forced} path", why_not or "a dense one", "Leave the path open.")
        chosen = forced or ("torch" if why_not else "fused")
        if forced is None:
            paths.tell(self, chosen, x.shape, why_not or "time alone opens its gate")
        if chosen == "torch":
            return cell_paths.step_by_step(self.kind, gate, x, old, weights, t, n_steps, norms)
        few = not paths.on_cpu(x) and selecting.streams(x, *old, *weights)
        if gate is None and n_steps is None and norms is None and not few and len(x):
            return cell_paths.by_torch(self.kind, x, old, weights)
        return cell_paths.open_alone(self.kind, gate, x, old, weights, t, n_steps, norms, outputs=outputs)

    def _no_kernel(self, gate: Gate | None) -> str:
        """Say why the path of open units alone cannot run a layer, or return an empty string."""
        if gate is None:
            return ""
        if isinstance(gate, SoftGate):
            return "a SoftGate skips nothing"
        return "" if isinstance(gate, TableGate) else "its gate sees data: samples differ in who is open"

    def extra_repr(self) -> str:
        """Show the sizes, as torch's modules do."""
        text = f"{self.input_size}, {self.hidden_size}"
        for name, value, usual in (
            ("num_layers", self.num_layers, 1), ("bias", self.bias, True), ("batch_first", self.batch_first, False),
            ("dropout", self.dropout, 0.0),
        ):  # fmt: skip
            text += f", {name}={value}" * (value != usual)
        return text


class RNN(Recurrent):
    r"""torch.nn.RNN with a gate for each layer: :math:`f = \tanh(W x_t + b + U h_{t-1} + c)`, or a rectifier.

    Parameters
    ----------
    input_size, hidden_size, num_layers
        I, H, and the number of layers.
    nonlinearity : "tanh" or "relu"
    bias : bool
        Learn b and c.
    batch_first : bool
        Tensors in and out are [B, T, units].
    dropout : float
        Share of each layer's outputs but the last one's that is dropped in training.
    gate : Gate, or sequence of Gate and None [num_layers], optional
        What opens the H units of each layer; always open without one. An `InputGate` sees the layer's input and, if it
        is recurrent, h; a `DriveGate` sees the argument of the tanh (of a GRU and an LSTM, of the tanh that makes the
        new value).

    Notes
    -----
    Bidirectional cells are not causal and have no stream; proj_size is left out.

    Examples
    --------
    >>> rnn = su.nn.RNN(1, 128, gate=su.nn.RhythmGate(128, open=0.17))
    >>> out, state = rnn(x)                    # x [T, B, 1], out [T, B, 128]
    >>> more, state = rnn(x_later, state)      # the rhythm goes on at step T
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        *,
        gate: Gate | Sequence[Gate | None] | None = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            fail("nonlinearity", "tanh or relu", repr(nonlinearity))
        self.kind = nonlinearity
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, gate=gate)


class GRU(Recurrent):
    r"""torch.nn.GRU with a gate for each layer: :math:`f = n + z (h_{t-1} - n)`. See `RNN`."""

    kind = "gru"

    def forward(
        self, input: Tensor | Spikes, state: Any = None, *, n_steps: Tensor | None = None, exact_hold: bool = True
    ) -> tuple[Tensor, Any]:
        """Run over time: see `RNN`.

        Parameters
        ----------
        exact_hold : bool
            False, without gradient: gates that time alone opens enter torch's own GRU kernel as inputs that take z to
            1, one call for all steps. That is for GPUs, where one kernel beats many; shut units keep their state but
            for rounding, whose drift docs/sequence.md reports.
        """
        if exact_hold:
            return super().forward(input, state, n_steps=n_steps)
        if torch.is_grad_enabled() or any(self._no_kernel(gate) for gate in self.gates):  # type: ignore[arg-type]
            rule = "True with gradients, and with gates that are no function of time"
            fail("exact_hold", rule, "False", "Call it under torch.no_grad().")
        x, after = self._run(input, state, n_steps, outputs=True, exact=False)
        return self._shaped(x, input), after


class LSTM(Recurrent):
    r"""torch.nn.LSTM with a gate for each layer, which holds h and c: :math:`c' = f c + i g,\; h' = o \tanh c'`.

    See `RNN`.
    """

    kind = "lstm"
    state = LSTMState
