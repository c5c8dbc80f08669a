"""The node types of gated neurons in a NIR graph: our own, so that a consumer without gates refuses the network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from suspike._validate import import_extra, require_shape


class GatedNodes(NamedTuple):
    """The two node classes, by what they are called in a file."""

    SuspikeSelectiveLIF: Any
    SuspikeSelectiveIF: Any


@cache
def gated_nodes() -> GatedNodes:
    """Define the node classes; inside a function, since importing suspike.export shall not import nir."""
    base: Any = import_extra("nir", extra="export").NIRNode

    @dataclass(eq=False)
    class SuspikeSelectiveIF(base):  # type: ignore[misc]
        r"""An integrate-and-fire neuron that updates only where its rhythm opens it.

        .. math:: a_t = b + \sum_k \alpha_k \sin(2\pi t/P_k + \varphi_k), \qquad t = 0, 1, 2, \ldots \text{ steps}

        .. math::
            \text{where } a_t > 0: \quad v \leftarrow v + dt\,R\,I_t, \quad z = [v > v_{thr}],
            \quad v \leftarrow v_{reset} \text{ where } z

        Where :math:`a_t \le 0` nothing happens: v is unchanged, the input is lost, z = 0.

        Parameters
        ----------
        r, v_threshold, v_reset : [N]
            As in nir.IF.
        gate_bias : [N]
        gate_amplitude, gate_phase : [N, K]
            Phase in rad.
        gate_period : [K]
            In steps; the graph's metadata holds the step's length.
        """

        r: Any
        v_threshold: Any
        v_reset: Any
        gate_bias: Any
        gate_amplitude: Any
        gate_phase: Any
        gate_period: Any

        def __post_init__(self) -> None:
            _check(self, ("r", "v_threshold", "v_reset"))

    @dataclass(eq=False)
    class SuspikeSelectiveLIF(base):  # type: ignore[misc]
        r"""A leaky integrate-and-fire neuron that updates only where its rhythm opens it.

        .. math:: a_t = b + \sum_k \alpha_k \sin(2\pi t/P_k + \varphi_k), \qquad t = 0, 1, 2, \ldots \text{ steps}

        .. math::
            \text{where } a_t > 0: \quad v \leftarrow v + \frac{dt}{\tau}(v_{leak} - v + R\,I_t),
            \quad z = [v > v_{thr}], \quad v \leftarrow v_{reset} \text{ where } z

        Where :math:`a_t \le 0` nothing happens: v is unchanged (no leak), the input is lost, z = 0.

        Parameters
        ----------
        tau, r, v_leak, v_threshold, v_reset : [N]
            As in nir.LIF; `tau` in s.
        gate_bias, gate_amplitude, gate_phase, gate_period
            As in SuspikeSelectiveIF.
        """

        tau: Any
        r: Any
        v_leak: Any
        v_threshold: Any
        v_reset: Any
        gate_bias: Any
        gate_amplitude: Any
        gate_phase: Any
        gate_period: Any

        def __post_init__(self) -> None:
            _check(self, ("tau", "r", "v_leak", "v_threshold", "v_reset"))

    return GatedNodes(SuspikeSelectiveLIF, SuspikeSelectiveIF)


def _check(node: Any, per_neuron: tuple[str, ...]) -> None:
    """Check a node's shapes and say its input and output shape, as NIR asks of a node."""
    n, k = node.gate_bias.shape[0], node.gate_period.shape[0]
    shapes: dict[str, tuple[int, ...]] = {name: (n,) for name in per_neuron}
    shapes |= {"gate_bias": (n,), "gate_amplitude": (n, k), "gate_phase": (n, k), "gate_period": (k,)}
    for name, shape in shapes.items():
        require_shape(f"{type(node).__name__}.{name}", getattr(node, name), shape)
    node.input_type, node.output_type = {"input": node.gate_bias.shape}, {"output": node.gate_bias.shape}
