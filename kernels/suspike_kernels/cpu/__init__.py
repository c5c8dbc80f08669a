"""Compiled kernels for the CPU, with the signatures of `suspike_kernels.reference`."""
