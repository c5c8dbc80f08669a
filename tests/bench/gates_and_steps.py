"""What gates, learned parameters, step length and a second thread do to the time of a training step; a neuron alone.

``make bench`` runs it after train_step.py (``gates_and_steps.py [ROUNDS]``), to build/bench/gates_and_steps.json.
Everything as there; before an event path is timed, it has to agree with the plain torch path of the same layer, and
a neuron alone with the loop written by hand.

gates    1024 neurons, 17 % open, one sine each, sorted by phase: against the same layer always open; a kernel that
         leaves out closed blocks of 16 neurons cannot be faster than 1 / touched
learned  case R with learned beta, threshold and gate (the default RhythmGate, a quarter open), against fixed ones
steps    case R at width 0.25, the same events spread over ten times as many steps
threads  case R on two threads: wall time, not pinned, so only an idle machine shows anything; the two halves of a batch
         at once, with nothing in common, are what two cores give at that time
A, B, C  a neuron alone on a dense current (T, B, N), gradient of the current, that by the spikes given; "the same
         arrays copied" is numpy's time to read and write what any implementation has to: what memory alone costs
"""

from __future__ import annotations

import sys
from typing import Any

from timing import Impl, measure, report
from train_step import BETA, CASES, GAIN, SIZE, WIDTH
from work import Size, layer_work, neuron_work

DENSITY = 0.046
ONE_SINE = {"open": 0.17, "periods": [29.3]}
DEFAULT_GATE = {"open": 0.25}
NEURONS = {"A": (100, 16, 512), "B": (500, 16, 512), "C": (250, 128, 256)}
NEURON_BETA = 1 - 2**-3  # see BETA: the nearest such to the 0.9 of other benchmarks

Group = tuple[list[dict[str, Any]], dict[str, str]]


def events(**options: Any) -> Impl:
    """Return our layer on event lists, to be checked against its plain torch path."""
    return Impl("ours:layer", options | {"given": "lists"}, Impl("ours:layer", options | {"given": "torch"}))


def gates(rounds: int) -> Group:
    work = layer_work(
        Size(250, 32, 700, 1024), density=DENSITY, gain=GAIN[DENSITY], recurrent_gain=0.01, beta=BETA, width=WIDTH
    )
    impls = {
        "always open": events(),
        "gate frozen": events(gate=ONE_SINE),
        "gate frozen, 64 a rhythm": events(gate=ONE_SINE | {"group_size": 64}),
        "gate learned": events(gate=ONE_SINE, learn_gate=True),
        "gate learned, 64 a rhythm": events(gate=ONE_SINE | {"group_size": 64}, learn_gate=True),
    }
    return measure("gates", impls, work, density=DENSITY, base="always open", rounds=rounds)


def learned(rounds: int) -> list[Group]:
    work = layer_work(SIZE, density=DENSITY, gain=GAIN[DENSITY], recurrent_gain=CASES["R"], beta=BETA, width=WIDTH)
    parameters = {
        "fixed": events(),
        "beta learned": events(learn_beta=True),
        "threshold learned": events(learn_threshold=True),
        "both learned": events(learn_beta=True, learn_threshold=True),
    }
    gate = {
        "gate fixed": events(gate=DEFAULT_GATE),
        "gate learned": events(gate=DEFAULT_GATE, learn_gate=True),
    }
    return [
        measure("learned", impls, work, density=DENSITY, base=base, rounds=rounds)
        for impls, base in ((parameters, "fixed"), (gate, "gate fixed"))
    ]


def steps(rounds: int) -> Group:
    # recurrent weights a tenth of R's: a silent step close to the threshold passes its gradient on, ten times as often
    works = {
        name: layer_work(
            SIZE, density=DENSITY, gain=GAIN[DENSITY], recurrent_gain=0.002, beta=BETA, width=0.25, stretch=stretch
        )
        for name, stretch in {"T = 250": 1, "T = 2500": 10}.items()
    }
    return measure("steps", dict.fromkeys(works, events()), works, density=DENSITY, base="T = 250", rounds=rounds)


def threads(rounds: int) -> Group:
    work = layer_work(SIZE, density=DENSITY, gain=GAIN[DENSITY], recurrent_gain=CASES["R"], beta=BETA, width=WIDTH)
    impls = {
        "one thread": events()._replace(pinned=False),
        "two threads": events()._replace(threads=2, pinned=False),
        "two halves at once": Impl("ours:halves", {}, events().like, threads=2, pinned=False),
    }
    return measure("threads", impls, work, density=DENSITY, base="one thread", rounds=rounds)


def neuron(case: str, rounds: int) -> Group:
    loop = Impl("ours:neuron_loop")
    impls = {
        "suspike": Impl("ours:neuron", {}, loop),
        "the same arrays copied": Impl("ours:neuron_copied", differs="computes no neuron"),
        "the same, in autograd": Impl("ours:neuron_copied_in_autograd", differs="computes no neuron"),
        "a module that copies": Impl("copying:neuron", differs="computes no neuron"),
        "SpikingJelly": Impl("peers:spikingjelly_neuron", {}, loop),
        "snnTorch": Impl("peers:snntorch_neuron", differs="resets a step later; arctan surrogate"),
        "torch loop": loop,
    }
    work = neuron_work(*NEURONS[case], beta=NEURON_BETA, width=WIDTH)
    return measure(f"neuron {case}", impls, work, density=None, base="SpikingJelly", rounds=rounds)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    groups = [gates(rounds), *learned(rounds), steps(rounds), threads(rounds)]
    groups += [neuron(case, rounds) for case in NEURONS]
    report("gates_and_steps", groups)


if __name__ == "__main__":
    main()
