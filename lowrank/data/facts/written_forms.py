"""The written forms of a record's figures, for whoever writes a text: the inverse of the reader (`figures`).

    text = head + number + tail        every head with every number and tail of a form reads back as the same figure

For each value, each scale it can be put in (1, thousand, million, billion, trillion; lakh and crore for rupees; per
cent, basis points, points) and each count of decimals up to two beyond its print: the one number that the value rounds
to, with and without signs that group its digits. A form has no sign of its own: `sign` says which one the text has to
give it, by a minus, by parentheses or by a word.
"""

import re
from collections.abc import Iterator
from decimal import ROUND_FLOOR, Decimal, localcontext
from typing import NamedTuple

from .currencies import currencies, is_name, names_of, owners, signs_of
from .figure_matching import Record, Stated, can_round_to
from .formula import ARITHMETIC
from .numerals import Convention, read_as
from .units import SCALES

BEYOND_PRINT = 2  # decimals that a figure may have beyond those of its fact

_SCALES = {
    0: ("",),
    3: (" thousand", "k", "K"),
    6: (" million", "m", "M", " mn", "mn", " m"),
    9: (" billion", "bn", " bn", "b", "B"),
    12: (" trillion", "tn", " tn"),
}
_RUPEE_SCALES = {5: (" lakh", " lakhs"), 7: (" crore", " crores", " cr")}
_UNITS = {
    "percent": ("%", " %", " percent", " per cent"),
    "basis points": (" bps", " bp", " basis points", "bps"),
    "points": (" percentage points", " percentage point", " pp"),
    "multiple": ("x", " x", " times"),
}


class Form(NamedTuple):
    """Ways to write one value in one scale: head + number + tail, any of each.

    stated    the value that they state
    sign      -1, 0 or 1
    kind      the kind of figure that they are
    exponent  the power of ten of the scale; -2 for basis points
    """

    stated: Stated
    sign: int
    kind: str
    exponent: int
    heads: tuple[str, ...]
    numbers: tuple[str, ...]
    tails: tuple[str, ...]

    def texts(self) -> Iterator[str]:
        """Every one of them."""
        return (head + number + tail for head in self.heads for number in self.numbers for tail in self.tails)


def written_forms(record: Record) -> Iterator[Form]:
    """The forms in digits of every value that a record states."""
    printed = {stated.key: stated.value for stated in reversed(record.stated)}
    with localcontext(ARITHMETIC):
        for stated in record.stated:
            for kind in stated.kinds:
                for exponent in _exponents(kind, stated.currency):
                    numbers = _numbers(stated.value, printed[stated.key], exponent, record.convention, stated.currency)
                    if not numbers:
                        continue
                    sign = (stated.value > 0) - (stated.value < 0)
                    for heads, tails in _surroundings(record, stated, kind, exponent):
                        yield Form(stated, sign, kind, exponent, heads, numbers, tails)


def _exponents(kind: str, currency: str) -> tuple[int, ...]:
    if kind == "basis points":
        return (-2,)
    if kind == "money" and currency == "INR":
        return tuple(sorted({*_SCALES, *_RUPEE_SCALES}))
    return tuple(_SCALES) if kind in ("money", "count") else (0,)


def _numbers(exact: Decimal, printed: Decimal, exponent: int, convention: Convention, currency: str) -> tuple[str, ...]:
    """The numbers that a value is in a scale, to every count of decimals that states it."""
    size = abs(exact)
    decimals = max(0, exponent - int(printed.normalize().as_tuple().exponent)) if printed else 0
    numbers: dict[str, None] = {}
    for place in range(decimals + BEYOND_PRINT + 1):
        quantum = Decimal((0, (1,), exponent - place))
        digits = int((size / quantum + Decimal("0.5")).to_integral_value(ROUND_FLOOR))
        if can_round_to(size, digits * quantum, quantum):
            number = Decimal(digits).scaleb(-place)
            for written in _grouped(f"{number:.{place}f}", convention, currency):
                numbers[written] = None
    return tuple(numbers)


def _grouped(number: str, convention: Convention, currency: str) -> Iterator[str]:
    """A number plain and with its digits grouped, in a convention."""
    whole, point, decimals = number.partition(".")
    behind = convention.decimal + decimals if point else ""
    if not (len(decimals) == 3 and len(whole) <= 3 and not convention.settled):
        yield whole + behind
    if len(whole) <= 3:
        return
    by_threes = f"{int(whole):,}"
    for sign in (".", "\u00a0") if convention.decimal == "," else (",",):
        yield by_threes.replace(",", sign) + behind
    if currency == "INR" and convention.decimal == "." and len(whole) > 5:
        head, tail = whole[:-3], whole[-3:]
        pairs = [head[max(0, end - 2) : end] for end in range(len(head), 0, -2)][::-1]
        yield ",".join((*pairs, tail)) + behind


def _surroundings(
    record: Record, stated: Stated, kind: str, exponent: int
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """(heads, tails): what stands before a number, with what then stands behind it."""
    if kind in _UNITS:
        yield ("",), _UNITS[kind]
        return
    scales = (_SCALES | _RUPEE_SCALES)[exponent] + _scales_of_record(record, exponent)
    if kind == "count":
        yield ("",), scales
        return
    code = stated.currency
    signs = [sign for sign in signs_of(code) if record.currency(owners()[sign]) == code]
    names = [name for name in names_of(code) if record.currency(owners()[name]) == code]
    heads = [head for sign in signs for head in ((f"{sign} ",) if sign[-1].isalpha() else (sign, f"{sign} "))]
    spaced_scales = [scale for scale in scales if not scale or scale[0] == " "]
    yield (*heads, f"{code} ", code), scales
    behind = [f" {name}" for name in (*_in_case(code, names), code)]
    behind += [space + sign for sign in signs if record.convention.decimal == "," for space in (" ", "\u00a0")]
    yield ("",), tuple(scale + unit for scale in spaced_scales for unit in behind)


def _in_case(code: str, names: list[str]) -> list[str]:
    """Names as they are written: as in the table, which has "Swiss francs" and "euros"."""
    listed = {name.casefold(): name for name in reversed(currencies()[code].names)}
    return [listed.get(name, name) for name in names if is_name(name)]


def _scales_of_record(record: Record, exponent: int) -> tuple[str, ...]:
    """The scale words of other languages that the record's prints have: "Mio.", "Mrd."."""
    prints = " ".join(read_as(fact.print) for fact in record.facts.values()).replace("\u00a0", " ").lower()
    known = {scale.strip().lower() for scale in (_SCALES | _RUPEE_SCALES)[exponent]}
    words = [word for word, power in SCALES.items() if power == exponent and len(word) > 2 and word not in known]
    return tuple(
        f" {word.capitalize() if '.' in word else word}"
        for word in words
        if re.search(rf" {re.escape(word)}(?!\w)", prints)
    )
