"""Time of a layer's training step, forward and backward, beside peers, a hand-written loop and the dense product.

``make bench`` runs it (``train_step.py [ROUNDS]``) and writes build/bench/train_step.json. Each implementation has a
process of its own (worker.py) on the same core; CPU time, interleaved, medians with the smallest and the largest; a
machine's speed drifts, so read the ratios. The loss is ``sum(counts * mask)`` over the layer's spike counts, the
gradients those of its weights; beta is fixed.

Before anything is timed, all that follow the same rule (reset by subtraction in the step of the spike, detached from
the gradient, a triangle for a surrogate) have to give the same rate, and the same loss and gradients to 1e-5. The
others compute something else: their rows say what.
"""

from __future__ import annotations

import sys

from timing import Impl, measure, report
from work import Size, layer_work

SIZE = Size(250, 128, 700, 256)
WIDTH = 0.5
BETA = 1 - 2**-4
"""``v * beta`` and ``v - v / tau`` then round alike, so that libraries that write the leak so or so spike alike."""
GAIN = {0.02: 0.14, 0.046: 0.085, 0.1: 0.05}
"""Input density and the spread of the input weights at which about 5 % of the neurons fire at a step."""
CASES = {"R": 0.02, "C": 0.0}
"""The recurrent layer and the one without, and the spread of the recurrent weights; at 0.05 gradients grow to 1e17."""

LOOP = Impl("ours:loop")
DELAYED = "resets a step later, in the gradient too"
DIFFERS = {
    "R": "resets to zero; SuperSpike surrogate; a second state, gone within a step",
    "C": "the reset is part of the gradient; SuperSpike surrogate",
}


def implementations(case: str) -> dict[str, Impl]:
    """Return what is timed in a case, by name."""
    return {
        "suspike, event lists": Impl("ours:layer", {"given": "lists"}, LOOP),
        "suspike, dense tensor": Impl("ours:layer", {"given": "dense"}, LOOP),
        "suspike, fused path": Impl("ours:layer", {"given": "fused"}, LOOP),
        "snnTorch": Impl("peers:snntorch", differs="resets a step later; arctan surrogate"),
        "Spyx": Impl("peers_jax:spyx", {"linear_in_scan": True}, differs=DELAYED),
        "Spyx, Linear before its scan": Impl("peers_jax:spyx", {"linear_in_scan": False}, differs=DELAYED),
        "SpikingJelly": Impl("peers:spikingjelly", {}, LOOP),
        "Norse": Impl("peers:norse", differs=DIFFERS[case]),
        "sinabs": Impl("peers:sinabs", {}, LOOP),
        "torch loop": LOOP,
        "dense product (MKL)": Impl("ours:product", {"precision": "highest"}),
        "dense product (oneDNN)": Impl("ours:product", {"precision": "medium"}),
    }


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    groups = []
    for case, recurrent_gain in CASES.items():
        for density, gain in GAIN.items():
            work = layer_work(SIZE, density=density, gain=gain, recurrent_gain=recurrent_gain, beta=BETA, width=WIDTH)
            groups.append(measure(case, implementations(case), work, density=density, base="snnTorch", rounds=rounds))
    report("train_step", groups)


if __name__ == "__main__":
    main()
