"""A layer on a GPU: in numba's simulator against the reference."""

from __future__ import annotations

from suspike_testing.toolkit import run_python


def in_simulator(function: str) -> str:
    code = f"from suspike_testing import device_layers as d; print(d.{function}())"
    return run_python(code, NUMBA_ENABLE_CUDASIM="1").stdout


def test_simulator_equals_reference() -> None:
    assert int(in_simulator("check_listed")) == 2 * 15 + 2 * 6 + 3


def test_two_stretches_equal_one() -> None:
    in_simulator("check_stretches")
