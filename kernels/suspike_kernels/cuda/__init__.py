"""A layer's forward pass, and the scan of `suspike_kernels.cpu.scan`, for GPUs.

Importing this loads nothing of CUDA, calling it does.
"""

from suspike_kernels.cuda.forward import forward as forward
from suspike_kernels.cuda.scan import scan_backward as scan_backward
from suspike_kernels.cuda.scan import scan_forward as scan_forward


def is_available() -> bool:
    """Say whether there is a device to run on."""
    from numba import cuda

    return bool(cuda.is_available())
