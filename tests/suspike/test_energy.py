"""Bills against arithmetic written out by hand and against published totals; what may not be silent is not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suspike.energy import (
    COMPETITIVE_SPIKES_PER_SYNAPSE,
    SCENARIOS,
    Card,
    Line,
    Price,
    Unpriced,
    activation_sparsity,
    bill,
    card_names,
    dense_bill,
    energy_caption,
    energy_rows,
    energy_table,
    format_energy,
    load_card,
    operations,
    spikes_per_synapse,
    synaptic_operations,
)
from suspike_kernels.counts import Counts

CARDS = [load_card(name) for name in card_names()]
LOIHI, HOROWITZ = load_card("loihi1-sanafe"), load_card("horowitz45-fp32")
LEMAIRE, SENECA = load_card("lemaire2022"), load_card("seneca-t3")

# 5 inputs, 4 hidden neurons, recurrent; 3 steps, 2 samples: 24 neuron-steps, 10 of them open.
HIDDEN = Counts(
    name="hidden",
    samples=2,
    steps=6,
    neurons=4,
    synapses=36,
    events=7,
    rows_fetched=6,
    synops_done=11,
    synops_skipped=17,
    updates_done=10,
    updates_skipped=14,
    gate_evaluations=12,
    spikes=2,
)
READOUT = Counts("out", 2, 6, 3, 12, 2, 2, 6, 0, 18, 0, 0, 0)
GATED = [HIDDEN, READOUT]


def every_price(card: Card, operation: str) -> float:
    return card.price_pj(operation, synapses=HIDDEN.synapses, neurons=HIDDEN.neurons)


@st.composite
def counts(draw: st.DrawFn, *, gated: bool = True) -> Counts:
    n = st.integers(0, 10**9)
    closed = n if gated else st.just(0)
    done, updates, spikes, events, gates = draw(n), draw(n), draw(n), draw(n), draw(closed)
    return Counts("l", 3, 30, 5, 40, events, events, done, draw(closed), updates, draw(closed), gates, spikes)


# --- bills ---


def test_a_gate_aware_bill_by_hand() -> None:
    got = bill(GATED, LOIHI, scenario="gate_aware")
    assert got.lines == (
        Line("hidden", "synop", 11, 35.5),
        Line("hidden", "update", 10, 72.8),
        Line("hidden", "spike", 2, 180.3),
        Line("out", "synop", 6, 35.5),
        Line("out", "update", 18, 72.8),
    )
    hidden = 11 * 35.5 + 10 * (51.2 + 21.6) + 2 * (69.3 + 111)
    out = 6 * 35.5 + 18 * (51.2 + 21.6)
    assert got.layer_energy_pj == pytest.approx({"hidden": hidden, "out": out}, rel=1e-12)
    assert got.energy_pj == pytest.approx(3002.5, rel=1e-12)
    assert got.sample_energy_pj == pytest.approx((hidden + out) / 2, rel=1e-12)
    assert got.unpriced == (Unpriced("hidden", "gate_evaluation", 12),)


def test_an_as_is_bill_by_hand() -> None:
    got = bill(GATED, LOIHI, scenario="as_is")
    hidden = (11 + 17) * 35.5 + 10 * (51.2 + 21.6) + 14 * 51.2 + 2 * (69.3 + 111)
    out = 6 * 35.5 + 18 * (51.2 + 21.6)
    assert got.layer_energy_pj == pytest.approx({"hidden": hidden, "out": out}, rel=1e-12)
    assert Line("hidden", "idle_update", 14, 51.2) in got.lines
    assert got.unpriced == (Unpriced("hidden", "gate_evaluation", 12),)


def test_the_price_of_an_access_follows_the_size_of_the_memory() -> None:
    weight, state = 10 * 36 * 4 / 8192, 10 * 4 * 4 / 8192
    assert every_price(LEMAIRE, "synop") == pytest.approx(0.2 + weight + 2 * state, rel=1e-12)
    assert every_price(LEMAIRE, "update") == pytest.approx(3.2 + 2 * state, rel=1e-12)
    sram = LEMAIRE.sram
    assert sram is not None
    assert sram.access_pj(5120) == pytest.approx(15)  # 20 KB: half way from 8 KB at 10 pJ to 32 KB at 20 pJ
    assert sram.access_pj(10**9) == 100  # held beyond 1 MB


def test_the_dense_baseline_by_hand() -> None:
    dense = dense_bill(GATED, HOROWITZ)
    assert dense is not None
    assert dense.lines == (Line("hidden", "mac", 36 * 6, 4.6), Line("out", "mac", 12 * 6, 4.6))
    assert dense.sample_energy_pj == pytest.approx(288 * (3.7 + 0.9) / 2, rel=1e-12)
    assert dense_bill(GATED, SENECA) is None


def test_what_a_card_does_not_price_is_listed() -> None:
    got = bill(GATED, SENECA, scenario="as_is")
    assert got.energy_pj == pytest.approx((28 + 6) * 2.8, rel=1e-12)
    assert got.unpriced == (
        Unpriced("hidden", "update", 10),
        Unpriced("hidden", "idle_update", 14),
        Unpriced("hidden", "spike", 2),
        Unpriced("hidden", "gate_evaluation", 12),
        Unpriced("out", "update", 18),
    )
    assert got.unpriced_operations == ("update", "idle_update", "spike", "gate_evaluation")


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("card", CARDS, ids=lambda c: c.name)
@given(data=st.data())
def test_the_bill_of_two_runs_is_the_sum_of_their_bills(data: st.DataObject, card: Card, scenario: str) -> None:
    a, b = data.draw(counts()), data.draw(counts())
    fixed = ("name", "neurons", "synapses")
    both = Counts(**{f: v if f in fixed else v + getattr(b, f) for f, v in a._asdict().items()})
    bills = [bill([c], card, scenario=scenario) for c in (a, b, both)]
    assert bills[2].energy_pj == pytest.approx(bills[0].energy_pj + bills[1].energy_pj, rel=1e-12)
    missing = [sum(u.count for u in x.unpriced) for x in bills]
    assert missing[2] == missing[0] + missing[1]


@pytest.mark.parametrize("card", CARDS, ids=lambda c: c.name)
@given(layer=counts())
def test_a_chip_that_skips_closed_gates_never_costs_more(layer: Counts, card: Card) -> None:
    aware, as_is = (bill([layer], card, scenario=s).energy_pj for s in ("gate_aware", "as_is"))
    assert aware <= as_is
    assert aware < as_is or not layer.synops_skipped  # every card prices a synop


@pytest.mark.parametrize("card", CARDS, ids=lambda c: c.name)
@given(layer=counts(gated=False))
def test_without_closed_gates_both_scenarios_cost_the_same(layer: Counts, card: Card) -> None:
    as_is, aware = (bill([layer], card, scenario=s) for s in ("as_is", "gate_aware"))
    assert (as_is.lines, as_is.unpriced) == (aware.lines, aware.unpriced)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "`counts` must be of one layer or more, got none."),
        ([HIDDEN._replace(samples=0)], "`counts` must be of one run over one sample or more, got 0 samples."),
        (
            [HIDDEN, READOUT._replace(samples=5)],
            "`counts` must be of one run over one sample or more, got 2, 5 samples.",
        ),
        ([HIDDEN, HIDDEN], "`counts` must be of layers of different names, got hidden, hidden."),
    ],
)
def test_counts_of_more_than_one_run_are_refused(layers: list[Counts], message: str) -> None:
    for call in (
        lambda: bill(layers, LOIHI, scenario="as_is"),
        lambda: dense_bill(layers, HOROWITZ),
        lambda: synaptic_operations(layers),
        lambda: spikes_per_synapse(layers),
        lambda: activation_sparsity(layers, readouts=()),
    ):
        with pytest.raises(ValueError, match="must be") as error:
            call()
        assert str(error.value) == message


def test_an_unknown_scenario_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^`scenario` must be one of as_is, gate_aware, got 'dense'\.$"):
        bill(GATED, LOIHI, scenario="dense")
    with pytest.raises(ValueError, match=r"^`scenario` must be one of as_is, gate_aware, dense, got 'today'\.$"):
        operations(HIDDEN, scenario="today")


# --- published totals: 700 inputs, 256 recurrent, 20 outputs, 1000 steps ---

HID_SYNOPS, OUT_SYNOPS = (8046 + 7693) * 256, 7693 * 20
SHD = [
    Counts("hidden", 1, 1000, 256, 956 * 256, 15739, 15739, HID_SYNOPS, 0, 256_000, 0, 0, 7693),
    Counts("out", 1, 1000, 20, 256 * 20, 7693, 7693, OUT_SYNOPS, 0, 20_000, 0, 0, 1627),
]


def test_the_arithmetic_estimates_of_the_reference_network() -> None:
    got = bill(SHD, HOROWITZ, scenario="as_is")
    synops = sum(line.energy_pj for line in got.lines if line.operation == "synop")
    assert synops == pytest.approx(3.77e6, rel=2e-3)  # the counts are rounded means over 16 samples
    assert got.energy_pj == pytest.approx(5.03e6, rel=2e-3)
    dense = dense_bill(SHD, HOROWITZ)
    assert dense is not None
    assert dense.energy_pj == pytest.approx(1149e6, rel=5e-4)
    assert bill(SHD, SENECA, scenario="as_is").energy_pj == pytest.approx(11.7e6, rel=2e-3)
    assert bill(SHD, load_card("odin"), scenario="as_is").energy_pj == pytest.approx(53e6, rel=5e-3)
    assert bill(SHD, load_card("spinnaker2-hoeppner2019"), scenario="as_is").energy_pj == pytest.approx(
        2487e6, rel=1e-3
    )


def test_the_memory_estimate_of_the_reference_network() -> None:
    # The published total has a memory for each matrix, so each is given as a layer here.
    hidden, out = SHD
    split = [
        hidden._replace(name="input", synapses=700 * 256, synops_done=8046 * 256),
        hidden._replace(name="recurrent", synapses=256 * 256, synops_done=7693 * 256, updates_done=0, spikes=0),
        out,
    ]
    assert bill(split, LEMAIRE, scenario="as_is").energy_pj == pytest.approx(242e6, rel=2e-3)


def test_sana_fe_charges_the_same_for_what_it_counts_as_we_do() -> None:
    # One run of SANA-FE 2.2.9: 4,218,796 synaptic events, 7855 + 1694 spikes, 1.72309858e-4 J in all.
    layers = [
        SHD[0]._replace(synops_done=4_218_796 - 7855 * 20, spikes=7855),
        SHD[1]._replace(synops_done=7855 * 20, spikes=1694),
    ]
    ours = bill(layers, LOIHI, scenario="as_is").energy_pj
    not_updated = 276_000 - 275_689  # silent neurons at rest
    input_packets, hops = 8011 * 111, 8011 * 4.2
    unsent = 1694 * 111  # output spikes have no destination there
    assert ours - not_updated * 21.6 - unsent + input_packets + hops == pytest.approx(1.72309858e8, abs=0.5)


# --- metrics ---


def test_neurobench_metrics_by_hand() -> None:
    assert synaptic_operations(GATED) == {
        "Effective_ACs": (11 + 17 + 6) / 2,
        "Effective_MACs": 0,
        "Dense": (36 * 6 + 12 * 6) / 2,
        "Effective_ACs_open_gates": (11 + 6) / 2,
    }
    assert activation_sparsity(GATED, readouts=["out"]) == pytest.approx(1 - 2 / 24)
    assert activation_sparsity(GATED, readouts=()) == pytest.approx(1 - 2 / (24 + 18))
    assert activation_sparsity([READOUT], readouts=["out"]) == 0
    with pytest.raises(ValueError, match=r"^`readouts` must be of hidden, out, got outt\.$"):
        activation_sparsity(GATED, readouts=["outt"])


def test_spikes_per_synapse_by_hand() -> None:
    assert spikes_per_synapse(GATED) == ((11 + 17 + 6) / 2 / 48, (11 + 6) / 2 / 48)
    assert COMPETITIVE_SPIKES_PER_SYNAPSE == (0.15, 1.38)
    with pytest.raises(ValueError, match=r"^`counts` must be of a network with synapses, got 0 synapses\.$"):
        spikes_per_synapse([READOUT._replace(synapses=0)])


# --- tables ---

OPEN = [
    HIDDEN._replace(synops_done=28, synops_skipped=0, updates_done=24, updates_skipped=0, gate_evaluations=0, spikes=5),
    READOUT,
]


def test_rows_hold_energies_and_ratios() -> None:
    (row,) = energy_rows({"open": OPEN, "gated": GATED}, [HOROWITZ])
    base = (28 + 6) * 0.9 + (24 + 18) * 4.6
    as_is, aware = (28 + 6) * 0.9 + (24 + 18) * 4.6, (11 + 6) * 0.9 + (10 + 18) * 4.6
    assert row["energy_pj"]["open"] == pytest.approx({"as_is": base / 2, "gate_aware": base / 2}, rel=1e-12)
    assert row["energy_pj"]["gated"] == pytest.approx({"as_is": as_is / 2, "gate_aware": aware / 2}, rel=1e-12)
    assert row["ratio"] == {"gated": pytest.approx({"as_is": as_is / base, "gate_aware": aware / base}, rel=1e-12)}
    assert row["dense_pj"] == pytest.approx({"open": 288 * 4.6 / 2, "gated": 288 * 4.6 / 2}, rel=1e-12)
    assert row["unpriced"] == ["spike", "gate_evaluation"]
    assert json.loads(json.dumps(row)) == row


def test_a_ratio_to_nothing_is_absent() -> None:
    silent = [READOUT._replace(synops_done=0, updates_done=0)]
    (row,) = energy_rows({"silent": silent, "gated": GATED}, [SENECA])
    assert row["ratio"] == {"gated": {"as_is": None, "gate_aware": None}}
    assert ", x" not in energy_caption([row])


def test_the_caption_is_a_range_and_says_what_is_missing() -> None:
    caption = energy_caption(energy_rows({"open": OPEN, "gated": GATED}, [HOROWITZ, SENECA]))
    # open: 223.8 / 2 and 34 * 2.8 / 2 = 47.6 pJ; gated, gate aware: 144.1 / 2 and 17 * 2.8 / 2 = 23.8 pJ
    assert "  open, as is: 47.6 pJ to 112 pJ\n" in caption
    assert "  gated, gate aware: 23.8 pJ to 72.0 pJ, x0.50 to x0.64\n" in caption
    assert "  horowitz45-fp32: spike, gate_evaluation, memory, network, control, static power\n" in caption
    assert caption.endswith(
        "  seneca-t3: update, spike, idle_update, gate_evaluation, "
        "network and static power, as far as the figure does not hold them (the table does not say)"
    )


def test_the_table_shows_every_figure() -> None:
    from rich.console import Console

    console = Console(width=80)
    with console.capture() as capture:
        console.print(energy_table({"open [bold]": OPEN, "gated [red]": GATED}, [HOROWITZ, SENECA]))
    text = capture.get()
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line[:1] == "│"]
    assert rows[:2] == [
        ["horowitz45-fp32", "as is", "662 pJ", "112 pJ", "112 pJ x1.00"],
        ["horowitz45-fp32", "gate aware", "662 pJ", "112 pJ", "72.0 pJ x0.64"],
    ]
    assert rows[2][:3] == ["seneca-t3", "as is", "-"]  # no dense price
    assert all(title in text for title in ("[bold]", "[red]"))


def test_tables_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^`networks` must be of one network or more, got none\.$"):
        energy_rows({}, CARDS)
    with pytest.raises(ValueError, match=r"^`cards` must be of one card or more, got none\. A single figure says"):
        energy_rows({"gated": GATED}, [])


@pytest.mark.parametrize(
    ("energy_pj", "text"),
    [(0, "0.00 pJ"), (0.5, "0.50 pJ"), (999, "999 pJ"), (1000, "1.00 nJ"), (99.96e3, "100 nJ"), (9.996e6, "10.0 uJ"),
     (2.487e9, "2.49 mJ"), (5e15, "5000 J")],
)  # fmt: skip
def test_energies_have_three_digits(energy_pj: float, text: str) -> None:
    assert format_energy(energy_pj) == text


def test_importing_it_loads_neither_torch_nor_rich_nor_numba() -> None:
    code = "import suspike.energy, sys; print([m for m in ('torch', 'rich', 'numba') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_a_price_without_memory_is_flat() -> None:
    card = Card("c", "t", "n", "arithmetic", {"synop": Price(2.0, "s")}, ("x",), (("a", "b"),))
    assert every_price(card, "synop") == 2
    with pytest.raises(KeyError):
        every_price(card, "spike")
