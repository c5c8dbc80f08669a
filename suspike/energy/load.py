"""Price cards from YAML. A figure without a source is refused, and so is a chip for which nobody published one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from suspike._validate import fail
from suspike.energy.card import KINDS, OPERATIONS, Card, Price, Sram

# Why each has no card. The key is the start of its name in small letters and digits.
_REFUSED: Mapping[str, str] = {
    "loihi2": "No price per operation of Loihi 2 is published (Tang et al. 2023, Table 3, prints NA).",
    "speck": "Speck has published powers (Yao et al. 2024, Nat. Commun. 15:4464), no price per operation.",
    "xylo": "Xylo has a published power and energy per inference (arXiv 2406.15112), no price per operation.",
    "akida": "Akida has published comparisons of whole boards, no price per operation.",
    "brainscales2": "No price per operation of BrainScaleS-2 is published.",
}
_CARD_KEYS = ("name", "title", "node", "kind", "prices_pj", "scope", "sources")


def card_names() -> tuple[str, ...]:
    """Return the names of the cards that come with suspike."""
    return tuple(sorted(p.name.removesuffix(".yaml") for p in _folder().iterdir() if p.name.endswith(".yaml")))


def load_card(card: str | Path) -> Card:
    """Read and check a price card.

    Parameters
    ----------
    card : str or Path
        A name of `card_names`, or the path of a YAML file of one's own.

    Raises
    ------
    ValueError
        There is no such card, its chip has no published prices, or the file breaks a rule. The message names file, key
        and rule.
    OSError
        The file cannot be read.
    """
    if isinstance(card, Path) or card.endswith((".yaml", ".yml")):
        return parse_card(Path(card).read_bytes(), where=str(card))
    known = ", ".join(card_names())
    plain = re.sub("[^a-z0-9]", "", card.lower())
    for chip, reason in _REFUSED.items():
        if plain.startswith(chip):
            fail("card", "of a target with published prices per operation", repr(card), f"{reason} Cards: {known}")
    if card not in card_names():
        fail("card", f"one of {known}, or the path of a .yaml file", repr(card))
    return parse_card((_folder() / f"{card}.yaml").read_bytes(), where=f"{card}.yaml")


def parse_card(text: bytes | str, *, where: str) -> Card:
    """Return the card that a YAML text holds; `where` names it in messages.

    Raises
    ------
    ValueError
        The text breaks a rule.
    """
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        fail(where, "plain YAML", " ".join(str(error).split()))
    card = _mapping(where, raw, required=_CARD_KEYS, optional=("sram",))
    if card["kind"] not in KINDS:
        fail(f"{where}: kind", f"one of {', '.join(KINDS)}", repr(card["kind"]))
    sram = _sram(f"{where}: sram", card["sram"]) if "sram" in card else None
    prices = _mapping(f"{where}: prices_pj", card["prices_pj"], optional=tuple(OPERATIONS))
    if not prices:
        fail(f"{where}: prices_pj", "one price or more", "none")
    return Card(
        name=_text(f"{where}: name", card["name"]),
        title=_text(f"{where}: title", card["title"]),
        node=_text(f"{where}: node", card["node"]),
        kind=card["kind"],
        prices={op: _price(f"{where}: prices_pj.{op}", p, sram=sram) for op, p in prices.items()},
        scope=tuple(_text(at, item) for at, item in _items(f"{where}: scope", card["scope"])),
        sources=tuple(_source(at, item) for at, item in _items(f"{where}: sources", card["sources"])),
        sram=sram,
    )


def _folder() -> Traversable:
    return files("suspike.energy") / "cards"


def _price(where: str, raw: Any, *, sram: Sram | None) -> Price:
    accesses = ("weight_reads", "state_accesses")
    price = _mapping(where, raw, required=("pj", "source"), optional=("note", *accesses))
    for key in accesses:
        if key in price and sram is None:
            fail(f"{where}.{key}", "absent from a card without `sram`", repr(price[key]))
    return Price(
        pj=_number(f"{where}.pj", price["pj"]),
        source=_text(f"{where}.source", price["source"]),
        note=_text(f"{where}.note", price["note"]) if "note" in price else "",
        weight_reads=_number(f"{where}.weight_reads", price.get("weight_reads", 0)),
        state_accesses=_number(f"{where}.state_accesses", price.get("state_accesses", 0)),
    )


def _sram(where: str, raw: Any) -> Sram:
    sram = _mapping(where, raw, required=("word_bytes", "pj", "source"))
    if type(sram["word_bytes"]) is not int or sram["word_bytes"] < 1:
        fail(f"{where}.word_bytes", "a whole number above 0", repr(sram["word_bytes"]))
    points = []
    for at, point in _items(f"{where}.pj", sram["pj"]):
        if not isinstance(point, list) or len(point) != 2:
            fail(at, "a pair [bytes, pJ]", repr(point))
        points.append((_number(f"{at}[0]", point[0]), _number(f"{at}[1]", point[1])))
    if any(after[0] <= before[0] for before, after in pairwise(points)):
        fail(f"{where}.pj", "in rising order of bytes", str([size for size, _ in points]))
    return Sram(sram["word_bytes"], tuple(points), _text(f"{where}.source", sram["source"]))


def _source(where: str, raw: Any) -> tuple[str, str]:
    source = _mapping(where, raw, required=("text", "url"))
    return _text(f"{where}.text", source["text"]), _text(f"{where}.url", source["url"])


def _mapping(where: str, raw: Any, *, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(raw, dict):
        fail(where, "a mapping", repr(raw))
    for key in required:
        if key not in raw:
            fail(where, f"a mapping with the key {key!r}", f"the keys {', '.join(map(str, raw)) or '(none)'}")
    for key in raw:
        if key not in required + optional:
            fail(where, f"a mapping with no keys but {', '.join(required + optional)}", f"the key {key!r}")
    return raw


def _items(where: str, raw: Any) -> list[tuple[str, Any]]:
    if not isinstance(raw, list) or not raw:
        fail(where, "a list of one entry or more", repr(raw))
    return [(f"{where}[{i}]", item) for i, item in enumerate(raw)]


def _text(where: str, raw: Any) -> str:
    if not isinstance(raw, str) or not raw.strip():
        fail(where, "a text", repr(raw))
    return raw


def _number(where: str, raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not (math.isfinite(raw) and raw >= 0):
        # YAML 1.1 takes 1e-3 for a text.
        cure = "Write an exponent as 1.0e-3." if isinstance(raw, str) else ""
        fail(where, "a finite number of at least 0", repr(raw), cure)
    return float(raw)
