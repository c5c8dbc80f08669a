"""A SONATA file in stretches is the file read at once, takes the memory of one stretch, and is refused where wrong."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suspike_testing.comparing import assert_same_events

from suspike.export import read_sonata, stream_sonata, streaming, write_sonata
from suspike_kernels.layout import Events, events_from_dense, offsets


def make(n_steps: int, *, density: float = 0.3, n_units: int = 5, seed: int = 0) -> Events:
    return events_from_dense(np.random.default_rng([seed, n_steps]).random((n_steps, 1, n_units)) < density)


def joined(chunks: Any, n_units: int) -> Events:
    parts = [*chunks]
    per_step = np.concatenate([np.zeros((1, 0), np.int64), *(part.per_step() for part in parts)], axis=1)
    return Events(offsets(per_step), np.concatenate([np.zeros(0, np.int32), *(p.idx for p in parts)]), n_units)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    n_steps=st.sampled_from([57, 12, 1, 0]),
    chunk=st.sampled_from([1, 4, 12, 57, 100]),
    block=st.sampled_from([1, 3, 16, 1000]),
    dt_ms=st.sampled_from([1.0, 0.1, 1 / 3, 1e-3]),
    density=st.sampled_from([0.3, 0.02, 1.0, 0.0]),
    alone=st.booleans(),
)
def test_stretches_are_the_whole(
    tmp_path_factory: pytest.TempPathFactory, n_steps: int, chunk: int, block: int, dt_ms: float, density: float,
    alone: bool,
) -> None:  # fmt: skip
    path, events = tmp_path_factory.mktemp("a") / "a.h5", make(n_steps, density=density)
    trains = {"camera": events} if alone else {"other": make(n_steps, n_units=2), "input": events}
    write_sonata(path, trains, dt_ms=dt_ms)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "BLOCK", block)
        stream = stream_sonata(path, chunk)
        assert stream[:3] == (5, n_steps, dt_ms)
        chunks = list(stream.chunks)
    assert [each.n_steps for each in chunks] == [min(chunk, n_steps - t) for t in range(0, n_steps, chunk)]
    assert_same_events(joined(chunks, 5), events)
    assert_same_events(read_sonata(path).trains["camera" if alone else "input"], events)


def test_memory_holds_one_stretch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "BLOCK", 1000)
    path, peaks = tmp_path / "a.h5", []
    for n_steps in (2000, 40_000):
        write_sonata(path, {"input": make(n_steps, n_units=20)}, dt_ms=1.0)
        for _ in stream_sonata(path, 200).chunks:  # what is imported and made once
            pass
        tracemalloc.start()
        for _ in stream_sonata(path, 200).chunks:
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert path.stat().st_size > 3_000_000
    assert peaks[1] < 1.2 * peaks[0] < 400_000


def rewritten(change: Callable[[Any], None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return damage


def times(place: int, value: float) -> Callable[[Path], None]:
    def change(file: Any) -> None:
        file["spikes/input/timestamps"][place] = value

    return rewritten(change)


def unit(file: Any) -> None:
    file["spikes/input/node_ids"][40] = 5


def twice(file: Any) -> None:
    for name in ("timestamps", "node_ids"):
        file["spikes/input"][name][41] = file["spikes/input"][name][40]


def by_id(file: Any) -> None:
    file["spikes/input"].attrs.modify("sorting", 1)


def foreign(file: Any) -> None:
    del file["suspike"]


@pytest.mark.parametrize(
    ("damage", "late", "message"),
    [
        (times(50, 3.0), True, "`times` must be ascending, got a fall"),
        (times(50, np.nan), True, "`times` must be ascending, got a fall"),
        (times(0, np.nan), True, "`times` must be ascending, got a fall"),
        (times(0, 0.0), True, "`times` must be those of 10 steps, got 0.0"),
        (times(-1, 61.0), True, "`times` must be those of 7 steps, got 61.0"),
        (times(0, 0.5), True, "`times` must be those of 10 steps, got 0.5"),
        (rewritten(unit), True, "`units` must be from 0 to 4, got 0 to 5"),
        (rewritten(twice), True, "`units` must be ascending within a step, each once, got others"),
        (rewritten(by_id), False, "`population input` must be sorted by time, in ms, got another"),
        (rewritten(foreign), False, "with KeyError"),
        (lambda path: path.write_bytes(b"nothing"), False, "with OSError"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("block", [3, 1000])
def test_a_wrong_file_is_named_with_its_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any, late: bool, message: str, block: int
) -> None:
    monkeypatch.setattr(streaming, "BLOCK", block)
    path = tmp_path / "a.h5"
    write_sonata(path, {"input": make(57)}, dt_ms=1.0)
    damage(path)
    begins = r"^`a\.h5` must be a SONATA spike file of suspike, got one that fails"
    if not late:
        with pytest.raises(ValueError, match=f"{begins}.*{re.escape(message)}"):
            stream_sonata(path, 10)
        return
    stream = stream_sonata(path, 10)
    with pytest.raises(ValueError, match=f"{begins}: {re.escape(message)}"):
        list(stream.chunks)


def test_what_cannot_be_streamed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_sonata(path, {"a": make(9), "b": make(9)}, dt_ms=1.0)
    with pytest.raises(ValueError, match=r"^`a\.h5` must be of a population 'input', or of one alone, got a, b\.$"):
        stream_sonata(path, 10)
    with pytest.raises(ValueError, match=r"^`chunk` must be at least 1, got 0\.$"):
        stream_sonata(path, 0)
    with pytest.raises(FileNotFoundError):
        stream_sonata(tmp_path / "b.h5", 10)
    with pytest.raises(OSError, match="Not a regular file"):
        stream_sonata(tmp_path, 10)
