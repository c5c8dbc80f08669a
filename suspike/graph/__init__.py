"""Graph: a trained network as frozen dataclasses of numpy arrays, simulated, priced and exported without torch."""

from suspike.graph.gates import DriveGate, Gate, InputGate, Periodic, Rhythm
from suspike.graph.graph import INPUT, Graph
from suspike.graph.layers import Layer, Route
from suspike.graph.neurons import LI, LIF, AdLIF, CubaLI, CubaLIF, Neuron
from suspike.graph.quantising import as_float, to_int8
from suspike.graph.sparse import Sparse

__all__ = [
    "INPUT", "LI", "LIF", "AdLIF", "CubaLI", "CubaLIF", "DriveGate", "Gate", "Graph", "InputGate", "Layer", "Neuron",
    "Periodic", "Rhythm", "Route", "Sparse", "as_float", "to_int8",
]  # fmt: skip
