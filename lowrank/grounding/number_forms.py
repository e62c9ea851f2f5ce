"""Written forms of the facts of a record: numbers, and the scales and units that they need.

    for each fact, each scale it can be put in (1, thousand, million, billion; per cent, basis points), and each count
    of decimals up to two beyond its print: the one number that the value rounds to, with and without commas

and behind each the scales and units that it needs there; and in words, where it is a whole number.
"""

import re
from bisect import bisect_left
from decimal import ROUND_FLOOR, Decimal, localcontext
from functools import cache
from typing import NamedTuple

from ..data.facts.formula import ARITHMETIC
from .old_figures import NUMBER_WORDS, in_words
from .old_matching import Number, Record

BEYOND_PRINT = 2  # decimals that a figure may have beyond those of its fact

_SCALE_WORDS = {3: ("thousand", "k"), 6: ("million", "mn", "m"), 9: ("billion", "bn", "b")}
_UNIT_WORDS = {
    ("usd", 0): ("dollars",),
    ("pct", 0): ("%", "percent", "per cent", "percentage points", "percentage point"),
    ("pct", -2): ("bps", "bp", "basis points", "basis point"),
    ("x", 0): ("x", "times"),
}
_SPOKEN_UNITS = {("usd", 0): "dollars", ("pct", 0): "percent", ("pct", -2): "basis points"}
NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)?")
WORDS_BESIDE = frozenset(
    word
    for phrases in (("hundred", "and", "point"), *_SCALE_WORDS.values(), *_UNIT_WORDS.values())
    for phrase in phrases
    for word in phrase.split(" ")
)


def _beginnings(texts: list[str]) -> frozenset[str]:
    """Everything that a text begins with, short of the whole of it and of nothing."""
    return frozenset(text[:size] for text in texts for size in range(1, len(text)))


def _spaced(words: list[str]) -> list[str]:
    return [space + word for word in words for space in ("", " ")]


_SCALES = _spaced([word for words in _SCALE_WORDS.values() for word in words])
_UNITS = _spaced([word for words in _UNIT_WORDS.values() for word in words])
BEHIND_NUMBER, BEHIND_SCALE = _beginnings(_SCALES + _UNITS), _beginnings(_UNITS)
_ALL_ENDINGS = [*_SCALES, *_UNITS, *(scale + unit for scale in _SCALES for unit in _UNITS)]
WORD_BEGINNINGS = _beginnings([*NUMBER_WORDS, *WORDS_BESIDE]) | NUMBER_WORDS.keys() | WORDS_BESIDE


def _endings(usd: bool) -> dict[tuple[str, int], tuple[str, ...]]:
    """Scales and units that may follow a number, by the dimension and the power of ten that it then has."""
    scaled = {0: [""]} | {exponent: _spaced(list(words)) for exponent, words in _SCALE_WORDS.items()}
    endings = {("usd" if usd else "count", exponent): tuple(scales) for exponent, scales in scaled.items()}
    if not usd:
        dollars = _spaced(list(_UNIT_WORDS["usd", 0]))
        for exponent, scales in scaled.items():
            endings["usd", exponent] = tuple(
                scale + unit for scale in scales for unit in dollars if not scale or unit[0] == " "
            )
        for key in (("pct", 0), ("pct", -2), ("x", 0)):
            endings[key] = tuple(_spaced(list(_UNIT_WORDS[key])))
    return endings


def _in_each_case(endings: tuple[str, ...]) -> dict[str, None]:
    """ "million", "Million", "MILLION": of the ways that the checker reads, those that are written."""
    return dict.fromkeys(form for ending in endings for form in (ending, ending.title(), ending.upper()))


_ENDINGS = {usd: _endings(usd) for usd in (False, True)}


class Forms:
    """The written forms of a record's figures.

    spoken  the facts in words, in order, by the signs that a figure may have: (1,), (-1,) or both
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.endings = {
            usd: {meaning: tuple(filter(self._is_whole, _in_each_case(endings))) for meaning, endings in of.items()}
            for usd, of in _ENDINGS.items()
        }
        self.numbers: dict[tuple[bool, tuple[int, ...]], tuple[list[str], dict[str, set[tuple[str, int]]]]] = {}
        with localcontext(ARITHMETIC):
            printed = {key: exact for key, _, exact in reversed(record.exact)}
            self.forms = [form for key, of, exact in record.exact for form in _forms(of, exact, printed[key])]
        self.spoken = {signs: self._spoken(signs) for signs in ((1,), (-1,), (1, -1))}

    def fits(self, body: str, usd: bool, signs: tuple[int, ...], between: str = "", behind: str = "") -> bool:
        """True if body is the beginning of number + between + scale and unit + behind, for a number that is listed."""
        numbers, meant = self._listed(usd, signs)
        if begins_one(numbers, body):
            return True
        match = NUMBER.match(body)
        if match is None:
            return False
        rest = body[match.end() :]
        return any(
            (between + ending + behind).startswith(rest)
            for meaning in meant.get(match[0], ())
            for ending in self.endings[usd].get(meaning, ())
        )

    def _listed(self, usd: bool, signs: tuple[int, ...]) -> tuple[list[str], dict[str, set[tuple[str, int]]]]:
        """The numbers that state a fact, in order, and the (dimension, power of ten) that each must then have."""
        if (usd, signs) not in self.numbers:
            meant: dict[str, set[tuple[str, int]]] = {}
            for form in self.forms:
                if form.sign in (0, *signs) and (form.dimension == "usd" or not usd):
                    for number in filter(self._is_whole, form.numbers):
                        meant.setdefault(number, set()).add((form.dimension, form.exponent))
            self.numbers[usd, signs] = sorted(meant), meant
        return self.numbers[usd, signs]

    def _is_whole(self, part: str) -> bool:
        """True if none of the record's texts is a part of a number, or of what follows it."""
        return all(span == (0, len(part)) and part[0].isdecimal() for span in self.record.known(part))

    def _spoken(self, signs: tuple[int, ...]) -> list[str]:
        """The facts in words, in order: "twelve million dollars", "one hundred and fifty basis points"."""
        spoken = []
        for form in self.forms:
            if (
                form.sign in (0, *signs)
                and form.whole is not None
                and form.whole < (1000 if form.exponent > 0 else 10**12)
            ):
                scale = _SCALE_WORDS[form.exponent][0] if form.exponent > 0 else ""
                unit = _SPOKEN_UNITS.get((form.dimension, min(form.exponent, 0)), "")
                spoken.append(" ".join(filter(None, (in_words(form.whole), scale, unit))))
        return sorted({text for text in spoken if not self.record.known(text)})


class Form(NamedTuple):
    """A value in one scale: the numbers that it may be written as, the whole one apart (None where there is none)."""

    dimension: str
    exponent: int
    sign: int
    numbers: tuple[str, ...]
    whole: int | None


def _forms(dimension: str, exact: Decimal, printed: Decimal) -> list[Form]:
    """A value, in its dimension, in every scale and to every count of decimals that state it."""
    size, sign = abs(exact), (exact > 0) - (exact < 0)
    forms = []
    for exponent in {"usd": (0, 3, 6, 9), "count": (0, 3, 6, 9), "pct": (0, -2), "x": (0,)}[dimension]:
        numbers, whole = [], None
        decimals = max(0, exponent - int(printed.normalize().as_tuple().exponent)) if printed else 0
        for place in range(decimals + BEYOND_PRINT + 1):
            quantum = Decimal((0, (1,), exponent - place))
            digits = int((size / quantum + Decimal("0.5")).to_integral_value(ROUND_FLOOR))
            if Number(digits * quantum, quantum, dimension, (sign or 1,)).states(exact):
                number = Decimal(digits).scaleb(-place)
                numbers += [f"{number:.{place}f}", f"{number:,.{place}f}"]
                whole = digits if place == 0 else whole
        forms.append(Form(dimension, exponent, sign, tuple(dict.fromkeys(numbers)), whole))
    return forms


@cache
def next_letters(rest: str, *, spelled: bool) -> frozenset[str]:
    """The next letters of the words of a figure, or of the scales and units behind it, that begin with `rest`."""
    endings = (*NUMBER_WORDS, *WORDS_BESIDE) if spelled else _ALL_ENDINGS
    return frozenset(ending[len(rest)] for ending in endings if is_more(ending, rest))


def is_more(text: str, beginning: str) -> bool:
    return len(text) > len(beginning) and text.startswith(beginning)


def begins_one(texts: list[str], text: str) -> bool:
    """True if one of the texts, which are sorted, begins with a text."""
    index = bisect_left(texts, text)
    return index < len(texts) and texts[index].startswith(text)
