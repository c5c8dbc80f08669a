"""What the simulation benchmark holds simulators to: its loops are ours bit for bit, and it misses no difference."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suspike.graph import LIF, Graph, Layer, Rhythm
from suspike.simulate import simulate
from suspike_kernels.layout import Events, check_events

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(Path(__file__).parent))
    import network as nw
    import ours_simulate
    import simulate as bench
    import sparse_network as sparse

    for name in ("network", "ours_simulate", "simulate", "sparse_network", "table", "timing", "work"):
        patch.delitem(sys.modules, name)


def small(*, recurrent: bool = True) -> Any:
    net = nw.draw(64, n_samples=3, n_steps=120, n_events=900, gain=1.5)
    return net if recurrent else net._replace(recurrent=np.zeros((0, 64), np.float32))


def rhythms() -> dict[str, Rhythm | None]:
    one = bench.one_sine(64, 0.3, group_size=8)
    return {"open": None, "one sine": one, "four sines": bench.four_sines(64, 120, 0.4)}


@pytest.mark.parametrize("gate", rhythms())
@pytest.mark.parametrize("recurrent", [True, False])
def test_the_loop_that_all_are_held_to_is_ours(gate: str, recurrent: bool) -> None:
    net, rhythm = small(recurrent=recurrent), rhythms()[gate]
    if rhythm is not None:
        net = bench.gated(net, rhythm)
        np.testing.assert_array_equal(rhythm.table(120), net.is_open)
    wanted, near = nw.expected(net)
    assert wanted.hidden.sum() > 300
    assert wanted.out.sum() > 30
    run = simulate(ours_simulate.graph_of(net), Events(net.ptr, net.idx, 700), target="reference")
    for spikes, fired in zip(run.spikes, wanted, strict=True):
        np.testing.assert_array_equal(spikes.dense() > 0, fired)
    built = ours_simulate.suspike(net, 1, batch=1)
    assert nw.unexplained(nw.Fired(*(x > 0 for x in built.as_ours(built.step()))), wanted, near) == 0
    assert built.facts["synops"] == sum(c.synops_done for c in run.counts) / 3


def test_dense_loop_agrees() -> None:
    net = small()
    built = ours_simulate.numpy_loop(net, 1)
    for found, fired in zip(built.as_ours(built.step()), nw.expected(net)[0], strict=True):
        np.testing.assert_array_equal(found > 0, fired)


def flipped(bits: Any, *at: tuple[int, int, int]) -> Any:
    bits = bits.copy()
    for place in at:
        bits[place] ^= True
    return bits


def test_only_what_rounding_can_move_is_explained() -> None:
    none = np.zeros((6, 2, 4), bool)
    wanted, near = nw.Fired(none, none), nw.Fired(flipped(none, (2, 0, 1)), flipped(none, (1, 1, 3)))

    def left(hidden: Any = none, out: Any = none) -> int:
        return int(nw.unexplained(nw.Fired(hidden, out), wanted, near))

    assert left() == 0
    assert left(flipped(none, (2, 0, 1))) == 0
    assert left(flipped(none, (2, 0, 2))) == 1  # not near
    assert left(flipped(none, (2, 0, 1), (2, 0, 2))) == 1  # a recurrent spike comes a step later
    assert left(flipped(none, (2, 0, 1), (3, 0, 2), (5, 0, 0))) == 0
    assert left(flipped(none, (2, 0, 1), (3, 1, 2), (1, 0, 0))) == 2  # another sample, and a step before
    assert left(flipped(none, (2, 0, 1)), flipped(none, (2, 0, 0), (4, 0, 2))) == 0  # the readout sees it at once
    assert left(flipped(none, (2, 0, 1)), flipped(none, (1, 0, 0), (4, 1, 2))) == 2
    assert left(out=flipped(none, (1, 1, 3), (2, 1, 3))) == 0
    assert left(out=flipped(none, (1, 1, 3), (1, 1, 0), (0, 1, 3))) == 2
    assert left(flipped(none, (4, 1, 0)), flipped(none, (1, 1, 3))) == 1  # nothing comes back from the readout


def test_stretched_events_stay_in_order_and_in_their_step() -> None:
    net = small()
    longer = nw.stretched(net, 10)
    check_events(Events(longer.ptr, longer.idx, 700))
    assert longer.n_steps == 1200
    assert longer.beta == pytest.approx(net.beta**0.1, rel=1e-7)
    for b in range(net.n_samples):
        x = longer.dense(b).reshape(120, 10, 700)
        np.testing.assert_array_equal(x.sum(1), net.dense(b))
        assert (x.sum((0, 2)) > 0).all()


def test_weights_on_their_grid_and_file_round_trip(tmp_path: Path) -> None:
    net = bench.gated(small(), bench.one_sine(64, 0.3))
    for w in (net.weight, net.recurrent, net.readout):
        np.testing.assert_array_equal(w * 256, np.round(w * 256))
    assert net.threshold * 256 % 1
    nw.save(net, tmp_path / "net.npz")
    again = nw.load(tmp_path / "net.npz")
    for before, after in zip(net, again, strict=True):
        np.testing.assert_array_equal(before, after)
    assert isinstance(again.beta, float)


@pytest.mark.parametrize("is_open", [0.1, 0.17])
def test_rhythms_are_as_open_as_they_say(is_open: float) -> None:
    for rhythm in (bench.one_sine(256, is_open, group_size=64), bench.four_sines(256, 1000, is_open)):
        assert rhythm.table(1000).mean() == pytest.approx(is_open, abs=0.002)


@pytest.mark.parametrize("recurrent", [True, False])
def test_the_sparse_loop_is_ours_of_the_same_synapses(recurrent: bool, tmp_path: Path) -> None:
    sparse.save(sparse.draw(80, per_step=0.3, recurrent=recurrent, n_steps=60), tmp_path / "net.npz")
    net = sparse.load(tmp_path / "net.npz")
    weight, own = np.zeros((len(net.target), 80), np.float32), np.zeros((80, 80), np.float32)
    np.add.at(weight, (np.arange(len(net.target))[:, None], net.target), net.weight)
    if recurrent:
        np.add.at(own, (np.arange(80)[:, None], net.recurrent_target), net.recurrent_weight)
    ones, zeros = np.ones(80, np.float32), np.zeros(80, np.float32)
    lif = LIF(np.float32(net.beta) * ones, np.float32(net.threshold) * ones)
    graph = Graph((Layer("all", weight, zeros, lif, own),), dt_ms=1.0)
    (fired,) = simulate(graph, Events(net.ptr[None], net.idx, len(net.target))).spikes
    wanted, near = sparse.expected(net)
    assert len(wanted) > 200
    assert not len(near)
    np.testing.assert_array_equal(np.sort(fired.places()[2]), wanted)
    assert all(len(np.unique(step)) == len(step) for step in np.split(net.idx, net.ptr[1:-1]))
