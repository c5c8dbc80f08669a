"""What the gate does to the gradient: its norm against the lag, of an RNN with a gate and without.

``python examples/sequence/gradient_norm.py --picture FILE`` prints the table of docs/sequence_gradients.md and draws
its picture, after Figure 2a of arXiv:2603.02226. The loss looks at the last state alone; nothing is trained. It takes
about two minutes. ``pip install 'suspike[plot]'`` brings what it needs.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import suspike as su


class Setting(NamedTuple):
    """A network at its first weights."""

    title: str
    weights: str  # "uniform", as torch draws them, or "orthogonal"
    open: float = 1.0
    control: str = ""


UNGATED = "always open"
SETTINGS = [
    *(
        Setting(title, weights, share)
        for weights in ("uniform", "orthogonal")
        for title, share in ((UNGATED, 1.0), ("17 % open", 0.17), ("2 % open", 0.02))
    ),
    Setting("always open, scaled", "orthogonal", 1.0, "scaled"),
    Setting("leak of 2 %", "orthogonal", 0.02, "leak"),
]
FLOOR = 1e-140
"""Norms below it are left out of a fit: their squares are near the end of float64."""


class Leak(su.nn.SoftGate):
    """A unit that goes the same small part of the way at every step; it skips nothing."""

    def forward(self, n_steps: int, *, start: int = 0) -> su.nn.GateTable:
        table = torch.full((n_steps, self.n_units), self.open)
        return su.nn.GateTable(table, torch.ones_like(table, dtype=torch.bool))


def norms_against_lag(
    setting: Setting, *, seed: int, n_time: int, hidden: int, batch: int = 4, scale: float = 1.0
) -> NDArray[np.float64]:
    """Return the gradient's norm at each lag [T], the median over samples; of the last state itself it is 1.

    A seed gives every setting the same weights, noise to read and direction of the loss; `scale` multiplies the
    recurrent weights.
    """
    torch.manual_seed(seed)
    rnn = su.nn.RNN(1, hidden)
    orthogonal = torch.nn.init.orthogonal_(torch.empty(hidden, hidden))
    x = torch.randn(n_time, batch, 1)
    direction = torch.nn.functional.normalize(torch.randn(batch, hidden), dim=1)
    with torch.no_grad():
        if setting.weights == "orthogonal":
            rnn.weight_hh_l0.copy_(orthogonal)
        rnn.weight_hh_l0.mul_(scale)
    if setting.open < 1:
        kind: Any = Leak if setting.control == "leak" else su.nn.RandomGate
        rnn.gates[0] = kind(hidden, open=setting.open, n_steps=n_time)
    with su.probe_gradients(rnn) as norms:
        (rnn.final(x).h[0] * direction).sum().backward()
    return norms.h[0].median(1).values.flip(0).numpy()


def decades_an_update(curve: NDArray[np.float64], share: float) -> float:
    """Return how many powers of ten a unit's update takes from the norm, from a straight line through all lags."""
    used = curve > FLOOR
    return float(np.polyfit(np.flatnonzero(used) * share, np.log10(curve[used]), 1)[0])


def scale_for(decades: float, setting: Setting, n_time: int, **options: Any) -> float:
    """Return the factor on recurrent weights with which an RNN that is always open loses so many decades an update."""
    scale = 1.0
    for _ in range(3):  # the Jacobian is nearly proportional to the weights
        scale *= 10 ** (
            decades - decades_an_update(norms_against_lag(setting, scale=scale, n_time=n_time, **options), 1.0)
        )
    return scale


def measure(*, seeds: int, n_time: int, hidden: int) -> dict[Setting, NDArray[np.float64]]:
    """Return each setting's norms [seeds, T]."""
    found: dict[Setting, list[NDArray[np.float64]]] = {setting: [] for setting in SETTINGS}
    for seed in range(seeds):
        for setting in SETTINGS:
            scale, options = 1.0, {"seed": seed, "hidden": hidden}
            if setting.control == "scaled":  # to the decay an update of the network that is 2 % open
                gated = next(s for s in SETTINGS if s.weights == setting.weights and s.open == 0.02)
                decades = decades_an_update(found[gated][seed], gated.open)
                scale = scale_for(decades, setting, min(n_time, 1000), **options)
            found[setting].append(norms_against_lag(setting, n_time=n_time, scale=scale, **options))
        print(f"seed {seed} done", flush=True)
    return {setting: np.array(curves) for setting, curves in found.items()}


def lags_of(n_time: int) -> list[int]:
    return [lag for lag in (100, 500, 1000, 2000) if lag < n_time - 1] + [n_time - 1]


def show(found: dict[Setting, NDArray[np.float64]]) -> None:
    """Print the median over seeds, with the smallest and the largest, at some lags, and the decay an update."""
    n_time = next(iter(found.values())).shape[1]
    print("weights      network               decades an update    norm at lag", *lags_of(n_time))
    for setting, curves in found.items():
        share = setting.open
        decades = [decades_an_update(curve, share) for curve in curves]
        spread = f"{np.median(decades):.3f} ({min(decades):.3f} to {max(decades):.3f})"
        cells = [f"{np.median(c):.1e} ({c.min():.0e} to {c.max():.0e})" for c in curves[:, lags_of(n_time)].T]
        print(f"{setting.weights:12} {setting.title:20} {spread}  " + "  ".join(cells))


def draw(found: dict[Setting, NDArray[np.float64]], path: Path) -> None:
    """Draw the norms against the lag, a panel for each way to draw the weights: median over seeds and range."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.4), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, sharey=True)
    looks: dict[str, tuple[str, str]] = {
        UNGATED: ("#0072B2", "-"), "17 % open": ("#009E73", "-"), "2 % open": ("#D55E00", "-"),
        "always open, scaled": ("#56B4E9", "--"), "leak of 2 %": ("#CC79A7", ":"),
    }  # fmt: skip
    for setting, curves in found.items():
        axes = left if setting.weights == "uniform" else right
        hue, style = looks[setting.title]
        curves = np.maximum(curves, 1e-300)  # what has left float64 goes on below the picture
        lag = np.arange(curves.shape[1])
        axes.fill_between(lag, curves.min(0), curves.max(0), color=hue, alpha=0.2, lw=0)
        axes.plot(lag, np.median(curves, 0), style, color=hue, label=setting.title)
    for axes, title in ((left, "weights as torch draws them"), (right, "orthogonal weights")):
        axes.set(yscale="log", ylim=(1e-30, 10), title=title, xlabel="lag (steps before the loss)")
        axes.axhspan(1e-3, 1e-2, color="#E0E0E0", zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylabel("norm of the gradient by the state")
    figure.legend(*right.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=5)
    figure.savefig(path, dpi=110)


def main(
    *, seeds: int = 5, n_time: int = 5000, hidden: int = 128, picture: Path | None = None
) -> dict[Setting, NDArray[np.float64]]:
    """Measure, print and draw."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # an ungated gradient leaves float32 after some hundred steps
    try:
        found = measure(seeds=seeds, n_time=n_time, hidden=hidden)
    finally:
        torch.set_default_dtype(dtype)
    show(found)
    if picture is not None:
        draw(found, picture)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--picture", type=Path, help="draw the norms into this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    main(seeds=args.seeds, n_time=args.steps, picture=args.picture)
