"""Documents whose figures were spoiled on purpose, as the worse of two answers: preferences that figures alone decide.

    label    a figure is that of another label, of the same type
    digit    one of its digits is another
    scale    its decimal point is elsewhere, or its million is a billion or a thousand
    period   a date or period is another

Half of the places that can be spoiled in this way are, at least one. Drawn from a seed alone: the same entries give
the same preferences on every machine.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from random import Random
from typing import Any

from ..encoding.template import Conversation
from ..facts.fact import Fact, Facts
from .document import Entry

_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_YEAR = re.compile(r"\d{4}")
_QUARTER = re.compile(r"\bQ([1-4])\b")
_OTHER_SCALES = {"million": ("billion", "thousand"), "M": ("bn", "K")}
SPOILED_SHARE = 0.5

Spoil = Callable[[Fact, Facts, Random], str | None]  # what stands in the place of a fact, None for nothing


def spoil(entry: Entry, way: str, seed: int) -> str | None:
    """The document of an entry with some of its figures spoiled in one of WAYS; None if it has none for that way.

    Raises ValueError for an unknown way.
    """
    if way not in WAYS:
        raise ValueError(f"spoil: way must be one of {', '.join(WAYS)}, got {way!r}")
    rng = Random(int.from_bytes(hashlib.sha256(f"{seed}|{way}|{entry.id}|{entry.sha256}".encode()).digest(), "big"))
    places = _places(entry)
    spoiled = [(start, end, _spoiled(entry, key, way, rng)) for start, end, key in places]
    can = [(start, end, text) for start, end, text in spoiled if text is not None]
    if not can:
        return None
    chosen = sorted(rng.sample(range(len(can)), max(1, round(SPOILED_SHARE * len(can)))))
    text, end = "", 0
    for start, after, worse in (can[number] for number in chosen):
        text, end = f"{text}{entry.output[end:start]}{worse}", after
    return text + entry.output[end:]


def spoiled_preferences(entries: Iterable[Entry], seed: int) -> Iterator[Conversation]:
    """Each document preferred to each of its spoiled ones, a way each: id "covenant_certificate-0007:digit"."""
    for entry in entries:
        for way in WAYS:
            if (worse := spoil(entry, way, seed)) is not None:
                yield replace(entry.conversation, id=f"{entry.id}:{way}", rejected=worse)


def preference_row(preference: Conversation) -> dict[str, Any]:
    """A row of a file of preferences, of one prompt with its two answers."""
    (turn,) = preference.turns
    return {
        "id": preference.id,
        "instruction": turn.instruction,
        "input": turn.input,
        "chosen": turn.output,
        "rejected": preference.rejected,
    }


def _places(entry: Entry) -> list[tuple[int, int, str]]:
    """(start, end, key) of every print of a figure, date or period in the document, in its order."""
    prints: dict[str, str] = {}
    for key, fact in entry.facts.items():
        if fact.is_figure or fact.type in ("date", "period"):
            prints.setdefault(fact.print, key)
    longest_first = "|".join(re.escape(text) for text in sorted(prints, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w.,-])(?:{longest_first})(?![\w%])(?![.,]\d)")
    return (
        [(match.start(), match.end(), prints[match[0]]) for match in pattern.finditer(entry.output)] if prints else []
    )


def _spoiled(entry: Entry, key: str, way: str, rng: Random) -> str | None:
    """The text in the place of a fact; None if this way has nothing to do with it."""
    fact = entry.facts[key]
    if fact.is_figure != (way != "period"):
        return None
    return WAYS[way](fact, entry.facts, rng)


def _other_label(fact: Fact, facts: Facts, rng: Random) -> str | None:
    """The print of another figure of its type."""
    others = sorted({other.print for other in facts.values() if other.type == fact.type} - {fact.print})
    return rng.choice(others) if others else None


def _other_digit(fact: Fact, facts: Facts, rng: Random) -> str | None:
    """One digit is another; the first of several is not zero."""
    text = fact.print
    match = _NUMBER.search(text)
    if match is None:
        return None
    places = [place for place in range(*match.span()) if text[place].isdigit()]
    place = rng.choice(places)
    least = 1 if place == places[0] and len(places) > 1 and text[place + 1 : place + 2] != "." else 0
    digit = rng.choice([str(digit) for digit in range(least, 10) if str(digit) != text[place]])
    return text[:place] + digit + text[place + 1 :]


def _other_scale(fact: Fact, facts: Facts, rng: Random) -> str | None:
    """Ten times as much or a tenth of it, in as many decimals; or another word for a million."""
    text = fact.print
    match = _NUMBER.search(text)
    if match is None or not fact.number:
        return None
    number, _, decimals = match[0].replace(",", "").partition(".")
    words = [word for word in _OTHER_SCALES if re.search(rf"(?<![A-Za-z]){word}\b", text)]
    if words and rng.random() < 0.5:
        return text.replace(words[0], rng.choice(_OTHER_SCALES[words[0]]))
    digits = number + decimals
    shifted = f"{digits}0" if rng.random() < 0.5 or int(digits) < 10 else digits[:-1]
    places = len(decimals)
    shifted = shifted.zfill(places + 1)
    integer = f"{int(shifted[: len(shifted) - places]):,}"
    return text[: match.start()] + integer + (f".{shifted[-places:]}" if places else "") + text[match.end() :]


def _other_period(fact: Fact, facts: Facts, rng: Random) -> str | None:
    """Another quarter, or a year before or after."""
    text = fact.print
    if (quarter := _QUARTER.search(text)) and rng.random() < 0.5:
        other = rng.choice([number for number in "1234" if number != quarter[1]])
        return f"{text[: quarter.start(1)]}{other}{text[quarter.end(1) :]}"
    if (year := _YEAR.search(text)) is None:
        return None
    return f"{text[: year.start()]}{int(year[0]) + rng.choice((-2, -1, 1, 2))}{text[year.end() :]}"


WAYS: Mapping[str, Spoil] = {
    "label": _other_label,
    "digit": _other_digit,
    "scale": _other_scale,
    "period": _other_period,
}
