"""Five thousand steps: spikes stay equal, and gradients do not drift apart."""

from __future__ import annotations

import numpy as np
import pytest
from suspike_testing.cases import GATES, make_case
from suspike_testing.comparing import assert_close, assert_same_run

from suspike_kernels import cpu, reference
from suspike_kernels.layout import NEURONS, RESETS

BOUND = {"float32": 1e-4, "float64": 1e-10}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("neuron", NEURONS)
def test_long_runs(neuron: str, dtype: str) -> None:
    i = NEURONS.index(neuron)
    case = make_case(
        neuron=neuron, gate=GATES[1 + (i + (dtype == "float64")) % 4], reset=RESETS[i], attached=True, trace=True,
        n_steps=5000, n_samples=2, n_in=6, n_units=4, density=0.4, dtype=dtype, seed=1,
    )  # fmt: skip
    run = case.forward(reference)
    assert len(run.spikes.idx) > 2000
    assert len(run.active.idx) > 4000
    assert_same_run(case.forward(cpu, n_threads=2), run)
    by, wanted = case.backward(cpu, run), case.backward(reference, run)
    largest = max(float(np.linalg.norm(x)) for x in wanted)
    for name, array in wanted._asdict().items():
        assert np.isfinite(array).all()
        assert_close(getattr(by, name), array, BOUND[dtype], name, floor=1e-7 * BOUND[dtype] * largest)
