"""A layer on a GPU: in numba's simulator against the reference, compiled to PTX, and on a GPU where there is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from suspike_testing.toolkit import assemble, has_toolkit, run_python

COMPILE = """
import sys
from numba import cuda, float32, float64, int32, int64, uint8
from suspike_kernels.cuda import layer_kernels as made
from suspike_kernels.geometry import convolution

folder, conv = sys.argv[1], convolution((34, 34), 2, 8, (5, 5), (2, 2), (1, 1))
builds = [
    made.Build(trace=True, ends=True),
    made.Build(gate=1, recurrent=True),
    made.Build(gate=1, recurrent=True, several=True, ends=True),
    made.Build(kind=1, reset=1, gate=2, given=True, recurrent=True, talks=True, trace=True, ends=True),
    made.Build(kind=2, gate=3, given=True, recurrent=True, trace=True, ends=True),
    made.Build(kind=2, reset=1, gate=1, recurrent=True, several=True),
    made.Build(gate=1, geometry=conv),
    made.Build(64, kind=1, reset=1, gate=1, given=True, recurrent=True),
]


def write(name, function, signature):
    for cc in ((8, 0), (9, 0)):
        ptx, _ = cuda.compile_ptx(function, signature, cc=cc, fastmath=False)
        open(f"{folder}/{name}-sm_{cc[0]}{cc[1]}.ptx", "w").write(ptx)


whole, table = int64[:, ::1], uint8[:, :, ::1]
for i, build in enumerate(builds):
    real = float32 if build.bits == 32 else float64
    one, two = real[::1], real[:, ::1]
    parameters, counts = (one, one, one, one, one), int64[::1]
    given = (whole, int32[::1], two, two, one, two, *parameters, table, two, two, one, one, counts)
    taken = (two, one, two, one, int32[:, ::1], counts, two, counts, one, counts)
    write(f"forward{build.bits}-{i}", made.forward_source(build), (*given, *taken))
write("offsets", made.offsets_source, (int64[::1], whole))
write("units", made.units_source, (int32[:, ::1], whole, int32[::1]))
"""


def in_simulator(function: str) -> str:
    code = f"from suspike_testing import device_layers as d; print(d.{function}())"
    return run_python(code, NUMBA_ENABLE_CUDASIM="1").stdout


@pytest.mark.slow
def test_simulator_equals_reference() -> None:
    assert int(in_simulator("check_listed")) == 2 * 15 + 2 * 6 + 3


@pytest.mark.slow
def test_two_stretches_equal_one() -> None:
    in_simulator("check_stretches")


def test_nothing_to_do() -> None:
    in_simulator("check_empty")


def test_what_is_on_the_device_stays_there() -> None:
    in_simulator("check_device")


def test_what_no_block_can_have() -> None:
    in_simulator("check_refused")


def test_few_samples_are_no_mistake() -> None:
    in_simulator("check_few_blocks")


@pytest.mark.gpu
def test_gpu() -> None:
    from numba import cuda

    if not cuda.is_available():
        pytest.skip("needs an NVIDIA GPU and its driver")
    from suspike_testing import device_layers

    device_layers.check_listed()
    device_layers.check_device()
    device_layers.check_band()
    device_layers.check_streams()


@pytest.mark.slow
def test_ptx(tmp_path: Path) -> None:
    if not has_toolkit():
        pytest.skip("needs the toolkit packages: pip install suspike[cuda]")
    run_python(COMPILE, str(tmp_path))
    files = sorted(tmp_path.glob("*.ptx"))
    assert len(files) == 2 * (8 + 2)
    for file in files:
        ptx = file.read_text()
        if bits := re.match("forward([0-9]+)", file.name):
            assert f"mul.rn.f{bits[1]}" in ptx, file.name
            assert not re.search(r"fma\.rn\.f", ptx), file.name
        # as it is launched: a block of 1024 threads has 64 registers each
        registers, spilled = assemble(file, "-maxrregcount=64")
        assert registers <= 64, (file.name, registers)
        assert not spilled, file.name
