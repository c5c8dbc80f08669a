"""The scalar rules, compiled for a GPU from the same Python functions."""

from __future__ import annotations

import warnings
from functools import lru_cache
from types import FunctionType
from typing import Any

from numba import cuda
from numba.core import config

from suspike_kernels import places, rules

_IN_ORDER = (
    rules.product, rules.leak, rules.select, rules.fires, rules.reset, rules.leak_adapted, rules.adapt, rules.surrogate,
    rules.carries, places.place, places.place_back,
)  # fmt: skip
"""A rule stands behind those that it calls."""


@lru_cache
def device_rules(bits: int) -> dict[str, Any]:
    """Return the rules by name as device functions of float32 or float64.

    A GPU's compiler fuses ``x * y + z`` into one rounding unless the product is an instruction of its own, and then
    spikes would differ from the CPU's. Only an inlined device function compiles without a driver.
    """
    made: dict[str, Any] = {}
    for rule in _IN_ORDER:
        scope = {**rule.__globals__, **made}
        on_device = FunctionType(rule.__code__, scope, rule.__name__)
        if rule is rules.product and not config.ENABLE_CUDASIM:
            on_device = _rounded(bits)
        made[rule.__name__] = cuda.jit(device=True, inline="always")(on_device)
    return made


def configured(kernel: Any, grid: Any, block: int, stream: int = 0, shared: int = 0) -> Any:
    """Return a kernel with its launch, in the CUDA stream of that handle, with `shared` bytes of dynamic shared memory.

    numba warns of fewer blocks than a GPU could hold; few samples are no mistake.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Grid size .* low occupancy")
        return kernel[grid, block, cuda.external_stream(stream) if stream else 0, shared]


def _rounded(bits: int) -> Any:
    from numba.cuda import libdevice

    multiply = libdevice.fmul_rn if bits == 32 else libdevice.dmul_rn

    def product(x: float, y: float) -> Any:
        return multiply(x, y)

    return product
