"""Cards: what is shipped is sourced, and what breaks a rule is refused by file, key and rule."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from suspike.energy import KINDS, OPERATIONS, card_names, load_card

NAMES = ("horowitz45-fp32", "lemaire2022", "loihi1-sanafe", "odin", "seneca-t3", "spinnaker2-hoeppner2019")
OPS = "synop, update, idle_update, spike, gate_evaluation, mac"
GOOD = """
name: mine
title: a title
node: 7 nm
kind: silicon
sram:
  word_bytes: 4
  pj: [[0, 0], [100, 10]]
  source: a table
prices_pj:
  synop:
    pj: 1.5
    weight_reads: 1
    source: "Somebody 2020, Table 1"
scope: [memory]
sources: [{text: Somebody 2020, url: https://example.org}]
"""


def refusal(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(ValueError, match="must be") as error:
        load_card(path)
    return str(error.value)


def test_the_shipped_cards() -> None:
    assert card_names() == NAMES
    assert {load_card(name).kind for name in NAMES} >= {"arithmetic", "calibrated-model", "silicon"}


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_figure_has_a_source(name: str) -> None:
    card = load_card(name)
    assert card.name == name
    assert card.kind in KINDS
    assert card.scope
    assert all(url.startswith("https://") for _, url in card.sources)
    assert "synop" in card.prices
    assert set(card.prices) <= set(OPERATIONS)
    # A source names a place in a paper or program, and that work is among the card's sources.
    works = " ".join(text for text, _ in card.sources)
    for price in card.prices.values():
        assert any(word in price.source for word in ("Table", "abstract", ".py, ", ".yaml, "))
        assert price.source.replace(",", " ").split()[0].rstrip(":") in works
    # Where closed neurons are touched, that costs no more than an ordinary update.
    if "update" in card.prices:
        assert card.prices["idle_update"].pj <= card.prices["update"].pj


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    card = load_card(path)
    assert card == load_card(str(path))
    assert (card.name, card.node, card.scope) == ("mine", "7 nm", ("memory",))
    assert card.price_pj("synop", synapses=5, neurons=1) == 1.5 + 5 * 4 / 100 * 10
    with pytest.raises(FileNotFoundError):
        load_card(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("synop:", "synops:", f"prices_pj` must be a mapping with no keys but {OPS}, got the key 'synops'."),
        ("node:", "nod:", "F` must be a mapping with the key 'node', got the keys name, title, nod, kind, sram, "
         "prices_pj, scope, sources."),
        ("node:", "colour: red\nnode:", "F` must be a mapping with no keys but name, title, node, kind, prices_pj, "
         "scope, sources, sram, got the key 'colour'."),
        ('    source: "Somebody 2020, Table 1"\n', "",
         "prices_pj.synop` must be a mapping with the key 'source', got the keys pj, weight_reads."),
        ('"Somebody 2020, Table 1"', '" "', "prices_pj.synop.source` must be a text, got ' '."),
        ("1.5", "-1.5", "prices_pj.synop.pj` must be a finite number of at least 0, got -1.5."),
        ("1.5", ".nan", "prices_pj.synop.pj` must be a finite number of at least 0, got nan."),
        ("1.5", ".inf", "prices_pj.synop.pj` must be a finite number of at least 0, got inf."),
        ("1.5", "true", "prices_pj.synop.pj` must be a finite number of at least 0, got True."),
        ("1.5", "1e-3", "prices_pj.synop.pj` must be a finite number of at least 0, got '1e-3'. "
         "Write an exponent as 1.0e-3."),
        ("weight_reads: 1", "weight_reads: -1",
         "prices_pj.synop.weight_reads` must be a finite number of at least 0, got -1."),
        ("weight_reads: 1", "reads: 1", "prices_pj.synop` must be a mapping with no keys but pj, source, note, "
         "weight_reads, state_accesses, got the key 'reads'."),
        ("silicon", "guess", f"kind` must be one of {', '.join(KINDS)}, got 'guess'."),
        ("[memory]", "memory", "scope` must be a list of one entry or more, got 'memory'."),
        ("[memory]", "[3]", "scope[0]` must be a text, got 3."),
        ("[{text: Somebody 2020, url: https://example.org}]", "[]",
         "sources` must be a list of one entry or more, got []."),
        (", url: https://example.org", "",
         "sources[0]` must be a mapping with the key 'url', got the keys text."),
        ("word_bytes: 4", "word_bytes: 0", "sram.word_bytes` must be a whole number above 0, got 0."),
        ("[100, 10]", "[100]", "sram.pj[1]` must be a pair [bytes, pJ], got [100]."),
        ("[100, 10]", "[0, 10]", "sram.pj` must be in rising order of bytes, got [0.0, 0.0]."),
        ("[100, 10]", "[100, -10]", "sram.pj[1][1]` must be a finite number of at least 0, got -10."),
    ],
)  # fmt: skip
def test_a_broken_card_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert GOOD.count(old) == 1
    path = tmp_path / "mine.yaml"
    where = f"`{path}" if message.startswith("F`") else f"`{path}: "
    assert refusal(path, GOOD.replace(old, new)) == where + message.removeprefix("F")


def test_memory_accesses_need_a_memory(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = "".join(line + "\n" for line in GOOD.splitlines() if "sram" not in line)
    text = text.replace("  word_bytes: 4\n  pj: [[0, 0], [100, 10]]\n  source: a table\n", "")
    message = f"`{path}: prices_pj.synop.weight_reads` must be absent from a card without `sram`, got 1."
    assert refusal(path, text) == message


def test_a_card_without_prices_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    card = yaml.safe_load(GOOD) | {"prices_pj": {}}
    assert refusal(path, yaml.safe_dump(card)) == f"`{path}: prices_pj` must be one price or more, got none."


def test_what_is_no_plain_yaml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    assert refusal(path, "- a\n- b\n") == f"`{path}` must be a mapping, got ['a', 'b']."
    assert refusal(path, "") == f"`{path}` must be a mapping, got None."
    assert refusal(path, "a: [1").startswith(f"`{path}` must be plain YAML, got while parsing a flow sequence")
    marker = tmp_path / "ran"
    tagged = refusal(path, f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{marker}]]")
    assert tagged.startswith(
        f"`{path}` must be plain YAML, got could not determine a constructor for the tag "
        "'tag:yaml.org,2002:python/object/apply:pathlib.Path.touch'"
    )
    assert not marker.exists()
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(ValueError, match="must be plain YAML"):
        load_card(path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("loihi2", "No price per operation of Loihi 2 is published (Tang et al. 2023, Table 3, prints NA)."),
        ("Loihi 2", "No price per operation of Loihi 2 is published (Tang et al. 2023, Table 3, prints NA)."),
        ("speck2f", "Speck has published powers (Yao et al. 2024, Nat. Commun. 15:4464), no price per operation."),
        (
            "xylo-audio2",
            "Xylo has a published power and energy per inference (arXiv 2406.15112), no price per operation.",
        ),
        ("akida", "Akida has published comparisons of whole boards, no price per operation."),
        ("BrainScaleS-2", "No price per operation of BrainScaleS-2 is published."),
    ],
)
def test_chips_without_published_prices_are_refused_by_name(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match="must be") as error:
        load_card(name)
    assert str(error.value) == (
        f"`card` must be of a target with published prices per operation, got {name!r}. {reason} "
        f"Cards: {', '.join(NAMES)}"
    )


def test_an_unknown_card_is_refused() -> None:
    with pytest.raises(ValueError, match="must be") as error:
        load_card("loihi")
    assert str(error.value) == f"`card` must be one of {', '.join(NAMES)}, or the path of a .yaml file, got 'loihi'."


def test_the_cards_lie_in_the_package() -> None:
    folder = files("suspike.energy") / "cards"
    assert sorted(p.name for p in folder.iterdir()) == [f"{name}.yaml" for name in NAMES]
