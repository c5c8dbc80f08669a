"""Every form of a stream and of a training step that the benchmark of cells times: what the plain torch path gives."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(Path(__file__).parent))
    import ours_sequence as ours
    import sequence_work as sw

    for name in ("ours_sequence", "peers_sequence", "sequence_work", "work", "c_program"):
        patch.delitem(sys.modules, name)


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Any:
    import torch

    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)


def same(built: Any, wanted: Any, parts: slice = slice(None)) -> None:
    for found, as_it_should in zip(built.as_ours(built.step()), wanted[parts], strict=True):
        assert found.shape == as_it_should.shape
        np.testing.assert_allclose(found, as_it_should, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("is_open", [0.17, 1.0])
def test_streams_agree(is_open: float) -> None:
    work = sw.draw("gru", 90, 1, 24, is_open=is_open)
    reference = ours.stream(work, 1, way="torch")
    wanted = reference.as_ours(reference.step())
    assert np.abs(wanted[0][-1]).mean() > 0.05
    for way in ("outputs", "each"):
        same(ours.stream(work, 1, way=way), wanted)
    same(ours.stream(work, 1, way="final"), wanted, slice(1, None))
    kernel = ours.kernel(work, 1)
    for _ in range(2):  # it starts from rest each time
        same(kernel, [wanted[0], wanted[1]])
    if is_open == 1:
        for each in (True, False):
            same(ours.torch_stream(work, 1, each=each), wanted)
    if ours.compiler():
        same(ours.c_loop(work, 1, masked=is_open < 1), wanted)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("outputs", [True, False])
def test_training_steps_agree(kind: str, outputs: bool) -> None:
    work = sw.draw(kind, 40, 12, 24, is_open=0.17, outputs=outputs)
    reference = ours.train(work, 1, learned=True, path="torch")
    wanted = reference.as_ours(reference.step())
    assert len(wanted) == 7
    same(ours.train(work, 1, learned=True), wanted)
    same(ours.train(work, 1), wanted, slice(0, 4))
    dense = sw.draw(kind, 40, 12, 24, outputs=outputs)
    open_path = ours.train(dense, 1, path="torch")
    same(ours.torch_train(dense, 1), open_path.as_ours(open_path.step()))


def test_work_comes_back_from_its_file(tmp_path: Path) -> None:
    work = sw.draw("lstm", 293, 2, 50, is_open=0.17)
    assert work.is_open.mean() == pytest.approx(0.17, abs=0.004)
    sw.save(work, tmp_path / "work.npz")
    for before, after in zip(work, sw.load(tmp_path / "work.npz"), strict=True):
        np.testing.assert_array_equal(before, after)


def test_another_gate_is_not_timed() -> None:
    work = sw.draw("gru", 90, 1, 24, is_open=0.17)
    with pytest.raises(RuntimeError, match="the gate"):
        ours.stream(work._replace(is_open=np.roll(work.is_open, 1, 0)), 1, way="outputs")
