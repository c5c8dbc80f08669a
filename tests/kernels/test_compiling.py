"""The cache of compiled kernels: new sources, new folder; no place to write, no harm."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from suspike_testing.cases import make_case
from suspike_testing.comparing import assert_same_fields, assert_same_run

import suspike_kernels
from suspike_kernels import compiling, cpu, pool, reference

SOURCES = Path(suspike_kernels.__file__).parent


def folder_of(sources: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compiling, "__file__", str(sources / "compiling.py"))
    return compiling._cache_folder()


def test_a_change_of_any_source_changes_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    copy = tmp_path / "sources"
    shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("__pycache__"))
    here = folder_of(copy, monkeypatch)
    assert here == folder_of(SOURCES, monkeypatch)
    assert here.parent == tmp_path / "cache" / "suspike"
    for name in ("rules.py", "cpu/rows.py"):
        source = copy / name
        old = source.read_text()
        source.write_text(old + "\n# changed\n")
        assert folder_of(copy, monkeypatch) != here
        source.write_text(old)
        assert folder_of(copy, monkeypatch) == here


@pytest.mark.parametrize(
    ("variables", "base"),
    [
        ({"NUMBA_CACHE_DIR": "numba", "XDG_CACHE_HOME": "xdg"}, "numba"),
        ({"NUMBA_CACHE_DIR": "", "XDG_CACHE_HOME": "xdg"}, "xdg"),
        ({"NUMBA_CACHE_DIR": "", "XDG_CACHE_HOME": "", "HOME": "home"}, "home/.cache"),
    ],
)
def test_the_folder_follows_the_environment(
    variables: dict[str, str], base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value) if value else "")
    assert compiling._cache_folder().parent == tmp_path / base / "suspike"


def test_a_place_that_cannot_be_written_is_only_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(compiling, "_cacheable", None)
    with caplog.at_level(logging.WARNING, logger="suspike_kernels.compiling"):

        @compiling.kernel()
        def double(x: float) -> float:
            return 2 * x

        assert double(3.0) == 6.0
    assert len(caplog.records) == 1
    assert f"no cache at {tmp_path / 'cache'}" in caplog.text
    assert not compiling._can_cache(), "asked once a process"
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "trouble",
    [
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))",
        "import pathlib; pathlib.Path.home = lambda: (_ for _ in ()).throw(RuntimeError('no home'))",
    ],
    ids=["no room", "no home"],
)
def test_kernels_run_without_room_and_without_home(trouble: str, tmp_path: Path) -> None:
    program = f"""
{trouble}
from suspike_kernels.cpu import rows
import numpy as np
print(rows.dot(np.ones(3), np.ones(3)))
"""
    cache = {"NUMBA_CACHE_DIR": str(tmp_path) if "RLIMIT" in trouble else "", "XDG_CACHE_HOME": ""}
    said = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **cache}, check=True, capture_output=True, text=True
    )
    assert said.stdout == "3.0\n"
    assert said.stderr.count("Kernels will be compiled in every process") == 1


def test_a_second_process_reads_the_cache(tmp_path: Path) -> None:
    program = """
from suspike_kernels.cpu import rows
import numpy as np
print(rows.dot(np.ones(3), np.ones(3)), len(rows.dot.stats.cache_hits))
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    said = [
        subprocess.run(
            [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
        ).stdout
        for _ in range(2)
    ]
    assert said == ["3.0 0\n", "3.0 1\n"]
    assert any((tmp_path / "suspike").glob("kernels-*/**/*.nbi"))


def test_a_process_that_compiles_computes_the_bits_of_one_that_loads(tmp_path: Path) -> None:
    script = """
import hashlib
import numpy as np
from suspike_kernels.cpu.scan import scan_backward, scan_forward
from suspike_kernels.layout import always_open, lif_arrays
from suspike_kernels.reference import Surrogate
from suspike_kernels.scanning import ScanPull
rng, n = np.random.default_rng(0), 700
neurons, gate = lif_arrays(np.full(n, 0.9), np.ones(n), 1), always_open(np.dtype(np.float64))
cur = 0.6 * rng.standard_normal((23, 5, n))
run = scan_forward(cur, neurons, gate, np.zeros((1, 5, n)))
pull = ScanPull(rng.standard_normal(cur.shape), None, rng.standard_normal((1, 5, n)), None)
by = scan_backward(pull, run, cur, neurons, gate, Surrogate(0, 0.5))
print(*(hashlib.sha256(x.tobytes()).hexdigest() for x in (run.spk, by.current, by.beta, by.threshold)))
"""
    environ = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(SOURCES.parent)}
    runs = [
        subprocess.run(
            [sys.executable, "-c", script], env=environ, check=True, capture_output=True, text=True, timeout=300
        ).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


def test_updates_are_never_contracted_to_fused_operations() -> None:
    """No flag that lets the compiler fuse or reorder stands in a state update, whoever compiled it before."""
    program = """
import re, numpy as np
from suspike_kernels.cpu import gradients, steps
x, flags = np.ones(5, np.float32), np.ones(5, np.uint8)
for kind in range(3):
    gradients.by_gate(kind, x, x, x, x, x, x, x, x, 0, 5)  # the same rules, in an order that is free
    steps.advance(kind, x, x, x, x, x, flags, 0, 5)
steps.adapt(x, x, x, x, x, flags, flags, 0, 5)
for kernels in ((steps.advance, steps.adapt), (gradients.by_gate,)):
    code = "".join(text for kernel in kernels for text in kernel.inspect_llvm().values())
    print(len(re.findall(r"= fmul ", code)), len(re.findall(r"= f[a-z]+ [a-z ]*(contract|fast|reassoc)", code)))
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": os.devnull}
    said = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
    (plain, flagged), (_, free) = (map(int, line.split()) for line in said.stdout.splitlines())
    assert plain > 0
    assert flagged == 0
    assert free > 0, "the flags go by this name"


def test_over_samples_covers_every_sample_once_and_in_order() -> None:
    for n_samples in (0, 1, 2, 5, 16):
        for n_threads in (1, 2, 3, 16, 40):
            each = 1 + n_samples % 3
            ranges = pool.over_samples(lambda low, high: (low, high), n_samples, n_threads, ranges_each=each)
            assert len(ranges) == max(1, min(n_threads * each if n_threads > 1 else 1, n_samples))
            assert [i for low, high in ranges for i in range(low, high)] == list(range(n_samples))


def test_over_samples_keeps_to_its_threads() -> None:
    at_work, most, lock = 0, 0, threading.Lock()

    def work(low: int, high: int) -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.01)
        with lock:
            at_work -= 1

    pool.over_samples(work, 40, 2, ranges_each=4)
    assert most == 2


def test_over_samples_hands_on_an_error() -> None:
    def work(low: int, high: int) -> None:
        raise RuntimeError(f"sample {low}")

    with pytest.raises(RuntimeError, match=r"sample [02]"):
        pool.over_samples(work, 4, 2)


def test_two_threads_at_once() -> None:
    case = make_case(n_steps=40, n_samples=8)
    wanted = case.forward(reference)
    by = case.backward(cpu, wanted, n_threads=2)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                assert_same_run(case.forward(cpu, n_threads=2), wanted)
                assert_same_fields(case.backward(cpu, wanted, n_threads=2), by)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(wanted.spikes.idx) > 50
