"""From recordings to a verified bundle: the steps of `suspike demo`, one call each.

Run it with ``python examples/first_spikes.py [folder]``; ``pip install 'suspike[datasets,train,export,plot]'`` brings
what it needs. About a minute on two cores.
"""

import sys
from pathlib import Path

import torch
from rich import print

import suspike as su
from suspike import augment, energy, export, plot
from suspike.convert import to_graph, to_nn
from suspike.loader import batches, load_digits
from suspike.simulate import simulate
from suspike.train import evaluate, fit


def main(folder: Path, epochs: int = 20) -> None:
    # 1,797 handwritten digits before an event camera, in N-MNIST's format; real N-MNIST takes the same path
    # by load("nmnist", root=..., split="train", dt_ms=3)
    train, test = load_digits(folder / "data", dt_ms=3, n_steps=104, merge=True)

    # neurons that update only where their learned rhythm is open
    torch.manual_seed(0)
    gate = su.nn.RhythmGate(128, open=0.26, n_steps=104)
    net = su.nn.Stack(
        su.nn.Dense(train.events.n_units, 128, su.nn.LIF(128, beta=0.95, gate=gate)),
        su.nn.Dense(128, 10, su.nn.LI(10, beta=0.98)),
    )
    batched = batches(train, batch_size=64, shuffle=True, augment=augment.shift(1, 1))
    held_out = batches(test, batch_size=120)
    history = fit(net, batched, held_out, epochs=epochs, lr=4e-3, folder=folder / "training")
    print(f"{evaluate(net, held_out).accuracy:.1%} right, {history[-1]['open_fraction']:.1%} of gates open")

    # plain arrays with weights on a grid: from here on every path gives the same spikes, and none needs torch
    graph, _ = to_graph(net, dt_ms=3)
    result = simulate(graph, test.events)
    few = test.events.take(range(20))
    with su.nn.path("torch"):  # a plain loop over time
        spk, _ = to_nn(graph)[0](torch.from_numpy(few.dense()))
    differing = int((spk.detach().numpy() != result.spikes[0].take(range(20)).dense()).sum())
    print(f"{len(result.spikes[0].idx)} hidden spikes; {differing} differ from the plain torch path on 20 recordings")

    # what it would cost: counted operations times published prices, as a range
    cards = [energy.load_card(name) for name in energy.card_names()]
    print(energy.energy_table({"gated": result.counts}, cards))

    bundle = export.write_bundle(folder / "bundle", graph, few)
    print("bundle verified:", export.verify(bundle).ok)
    table = graph.layers[0].neuron.gate.table(104)
    picture = plot.raster(result.spikes[0], 0, dt_ms=3, open_steps=table, order=plot.phase_order(table))
    picture.savefig(folder / "raster.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "first_spikes_example"))
