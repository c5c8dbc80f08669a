"""`simulate(client=)`: on a cluster's worker processes the result is that of one process, every bit, whoever dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from suspike_testing.chains import make_chain, make_recordings
from suspike_testing.comparing import assert_same_result

from suspike import _scale
from suspike._scale import simulate_on
from suspike.simulate import simulate

distributed = pytest.importorskip("distributed", reason="needs the extra `scale`: pip install 'suspike[scale]'")

GRAPH = make_chain()


def start(folder: Path, **options: Any) -> Any:
    return distributed.LocalCluster(
        processes=True, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0",
        local_directory=str(folder), silence_logs=50, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with start(tmp_path_factory.mktemp("dask"), n_workers=2) as cluster, distributed.Client(cluster) as made:
        pids = made.run(os.getpid).values()
        yield made
        pids = {*pids, *made.run(os.getpid).values()}
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def left(client: Any) -> list[str]:
    """What the scheduler still knows of, once it has heard of what was released."""
    for _ in range(100):
        tasks: list[str] = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks))
        if not tasks:
            break
        time.sleep(0.05)
    return tasks


def check(client: Any, graph: Any, events: Any, **options: Any) -> None:
    assert_same_result(simulate(graph, events, client=client, **options), simulate(graph, events, **options))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_cluster_gives_what_one_process_gives(client: Any, dtype: str) -> None:
    graph = make_chain(dtype=dtype)
    lengths = np.random.default_rng(0).integers(0, 31, 40)
    state = simulate(graph, make_recordings(40, 11)).state
    probe = {"hidden0": [3, 0, 3], "hidden2": range(20), "out": [2]}
    check(client, graph, make_recordings(40, lengths=lengths), n_steps=lengths, state=state, probe=probe)
    assert left(client) == []


@pytest.mark.parametrize(("n_samples", "n_steps"), [(0, 9), (1, 9), (3, 30), (5, 0)])
@pytest.mark.parametrize("readout", [False, True])
def test_few_samples(client: Any, n_samples: int, n_steps: int, readout: bool) -> None:
    check(client, make_chain(readout=readout), make_recordings(n_samples, n_steps))


def test_threads_and_target_are_handed_on(client: Any) -> None:
    events = make_recordings(3, 9)
    check(client, GRAPH, events, n_threads=2)
    check(client, GRAPH, events, target="reference")


def test_progress_counts_the_shards(client: Any) -> None:
    seen: list[tuple[int, int]] = []
    simulate_on(client, GRAPH, make_recordings(40), progress=lambda done, n: seen.append((done, n)))
    assert seen == [(i, 8) for i in range(1, 9)]


def big() -> tuple[Any, Any]:
    """A network and recordings that keep two workers busy for seconds."""
    return make_chain(n=160), make_recordings(96, 1000)


class Killer:
    """Kills workers as `kill -9` does, when the first shard is done."""

    def __init__(self, client: Any, n_victims: int) -> None:
        self.client, self.n_victims = client, n_victims
        self.pids: dict[str, int] = client.run(os.getpid)
        self.busy: list[int] = []
        self.done: tuple[int, int] = (0, 0)

    def __call__(self, done: int, n_shards: int) -> None:
        if self.busy:
            return
        self.done = done, n_shards
        working = {worker: len(tasks) for worker, tasks in self.client.processing().items()}
        for worker in sorted(working, key=working.__getitem__, reverse=True)[: self.n_victims]:
            self.busy.append(working[worker])
            os.kill(self.pids[worker], signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("n_victims", [1, 2])
def test_a_worker_that_dies_in_the_middle_changes_nothing(
    client: Any, n_victims: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, events = big()
    wanted = simulate(graph, events)
    submit, sent = client.submit, []
    monkeypatch.setattr(client, "submit", lambda *args, **options: sent.append(args) or submit(*args, **options))
    killer = Killer(client, n_victims)
    found = simulate_on(client, graph, events, progress=killer)
    assert killer.done[0] < killer.done[1] / 2, "it was over before the worker died"
    assert len(killer.busy) == n_victims
    assert all(killer.busy), "a worker died idle"
    assert set(client.run(os.getpid).values()) != set(killer.pids.values())
    # the scheduler has it all: neither a shard nor the network is sent twice
    assert len(sent) == killer.done[1] + 1
    assert_same_result(found, wanted)
    client.wait_for_workers(2, timeout=60)


def test_an_error_of_a_shard_is_raised_as_it_is(client: Any) -> None:
    events = make_recordings(40)._replace(n_units=11)
    events = events._replace(idx=np.minimum(events.idx, 10))
    with pytest.raises(ValueError, match=r"^`events` must be of the graph's 12 input units, got 11\.$"):
        simulate_on(client, GRAPH, events)
    assert left(client) == []
    with pytest.raises(ValueError, match="must be of layers among"):
        simulate(GRAPH, make_recordings(3), probe={"nowhere": [0]}, client=client)


def test_an_interruption_cancels_what_is_left(client: Any) -> None:
    def interrupt(done: int, n_shards: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_on(client, GRAPH, make_recordings(40), progress=interrupt)
    assert left(client) == []


def test_a_shard_that_somebody_cancels_ends_the_run(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    submit = client.submit

    def cancelled(*args: Any, **options: Any) -> Any:
        future = submit(*args, **options)
        client.cancel(future)
        return future

    monkeypatch.setattr(client, "submit", cancelled)
    with pytest.raises(CancelledError):
        simulate_on(client, GRAPH, make_recordings(1))
    assert left(client) == []


def test_a_cluster_needs_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_scale, "PATIENCE", 1)
    with (
        start(tmp_path, n_workers=0) as cluster,
        distributed.Client(cluster) as client,
        pytest.raises(ConnectionError, match=r"^`client` must be of a cluster with a worker, got one without for 1 "),
    ):
        simulate(GRAPH, make_recordings(1), client=client)


@pytest.mark.slow
def test_a_shard_that_kills_every_worker_is_named(tmp_path: Path) -> None:
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        start(tmp_path, n_workers=2) as cluster,
        distributed.Client(cluster) as client,
    ):
        killer = Killer(client, 1)
        with pytest.raises(distributed.KilledWorker):
            simulate_on(client, *big(), progress=killer)
        assert killer.busy
        assert left(client) == []
