"""The benchmark's recurrent network: suspike fires what the plain loop does, in each of the forms that are timed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(Path(__file__).parent))
    import ours_sparse as ours
    import simulate_recurrent as bench
    import sparse_network as sparse

    for name in (
        "network", "ours_sparse", "simulate", "simulate_recurrent", "sparse_network", "sparse_timing", "table",
        "timing", "work",
    ):  # fmt: skip
        patch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize("per_ms", [1, 10])
def test_all_forms_fire_what_the_plain_loop_does(per_ms: int) -> None:
    net = bench.draw(400, n_steps=200 * per_ms, per_ms=per_ms)
    wanted, near = sparse.expected(net)
    assert 5 < len(wanted) / 400 / 0.2 < 20, "spikes a neuron and second"
    for built in (ours.suspike(net, 1), ours.one_way(net, 1, waits=0), ours.one_way(net, 1, waits=1)):
        (found,) = built.as_ours(built.step())
        moved = np.setxor1d(found, wanted)
        assert np.isin(moved[moved // net.n == moved[:1] // net.n], near).all()
        assert len(moved) < 0.02 * len(wanted)


def test_the_bound_adds_every_synapse_of_a_run() -> None:
    net = bench.draw(400, n_steps=100)
    built = ours.bound(net, 1, read=False)
    fired, wanted = built.as_ours(None)[0] % net.n, np.zeros(net.n)
    np.add.at(wanted, net.target[net.idx], net.weight[net.idx])
    np.add.at(wanted, net.recurrent_target[fired], net.recurrent_weight[fired])
    np.testing.assert_array_equal(built.step(), wanted)
    assert len(fired) > 100
    read = net.recurrent_target.astype(np.float64) * net.recurrent_weight
    whole, rest = divmod(len(fired) * 100 + len(net.idx) * 100, read.size)
    assert ours.bound(net, 1, read=True).step() == pytest.approx(
        whole * read.sum() + read.ravel()[:rest].sum(), rel=1e-3
    )
