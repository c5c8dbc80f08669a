"""What the tests of kernels and modules share: drawn cases, comparisons that are themselves tested."""
