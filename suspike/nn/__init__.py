"""Torch modules: gates, neurons, layers."""

from suspike.nn.gates import GateTable as GateTable
from suspike.nn.gates import RhythmGate as RhythmGate
from suspike.nn.gates import gate_parameters as gate_parameters
from suspike.nn.layers import Dense as Dense
from suspike.nn.layers import Stack as Stack
from suspike.nn.neurons import LI as LI
from suspike.nn.neurons import LIF as LIF
from suspike.nn.neurons import LIFState as LIFState
from suspike.nn.neurons import LIState as LIState
