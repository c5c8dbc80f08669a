"""The same signatures as `suspike_kernels.reference`, compiled for the CPU."""

from suspike_kernels.cpu.backward import backward as backward
from suspike_kernels.cpu.forward import forward as forward
