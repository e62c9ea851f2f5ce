"""Figures as they are written: "$812.4 million", "USD -12.4", "12.5 per cent", "150 bps", "3.41x", "1,204", "$(3.10)",
"twelve million dollars", "one hundred and five", "seven point five per cent".

magnitude = number * 10^(3, 6, 9 by its scale; -2 for basis points)       quantum = the place of its last digit
"$0.8124 billion" has magnitude 812400000 and quantum 100000, in dollars. A number in words is a figure if it has a
hundred or a scale in it, or per cent, basis points or dollars behind it: "three times" and "one of two" are none.
"""

import re
from dataclasses import dataclass
from decimal import Decimal

_ONES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBER_WORDS = (
    {"zero": 0}
    | {word: number for number, word in enumerate(_ONES + _TEENS, start=1)}
    | {word: 10 * number for number, word in enumerate(_TENS, start=2)}
)
_SCALES = {"thousand": 3, "k": 3, "million": 6, "mn": 6, "m": 6, "billion": 9, "bn": 9, "b": 9}
_BASIS_POINTS = ("bp", "bps", "basis point", "basis points")

_DIGIT = f"(?:zero|{'|'.join(_ONES)})"
_SMALL = rf"(?:(?:{'|'.join(_TENS)})(?:[ -](?:{'|'.join(_ONES)}))?|{'|'.join(_TEENS)}|{_DIGIT})\b"
_POINT = rf"(?:[ ]point(?:[ ]{_DIGIT})+\b)?"
_HUNDREDS = rf"(?:{_SMALL}[ -]hundred\b(?:(?:[ ]and)?[ ]{_SMALL})?)"
_GROUP = rf"(?:{_HUNDREDS}|{_SMALL}){_POINT}"
_SCALED = rf"{_GROUP}[ ](?:thousand|million|billion)\b"
_PER_CENT = r"(?:%|(?:percentage[ ]points?|percent|per[ ]cent|bps?|basis[ ]points?)\b)"

FIGURE = re.compile(
    rf"""(?P<minus>(?<![\w%)])[-−](?=[$\d]|US))?
        (?P<usd>(?:\bUS)?\$|\bUSD[ ]?)?
        (?(usd)(?P<inner_minus>[-−])?)
        (?:
          (?P<open>\()?
          (?P<number>\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)?)
          (?(open)\))
        |
          (?<!\w)(?P<words>
            {_SCALED}(?:,?[ ](?:and[ ])?{_SCALED})*(?:,?[ ](?:and[ ])?{_GROUP})?
            | {_HUNDREDS}{_POINT}
            | {_GROUP}(?=[ ]?(?:{_PER_CENT}|dollars\b))
          )
        )
        (?:[ ]?(?P<scale>thousand|million|billion|mn|bn|[kmb])\b)?
        (?:[ ]?(?P<unit>{_PER_CENT}|(?:x|times|dollars)\b))?
    """,
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True)
class Quantity:
    """A figure as written.

    magnitude     without its sign, in dollars, per cent, multiples or units
    quantum       the place of its last digit, in the same
    dimension     usd, pct, x or count
    negative      True if it has a minus sign
    enclosed      True if its number is in parentheses, "$(3.10)", as negative ones are
    exponent      the power of ten that its scale or its basis points stand for
    """

    magnitude: Decimal
    quantum: Decimal
    dimension: str
    negative: bool
    enclosed: bool
    exponent: int


def quantity(match: re.Match[str]) -> Quantity:
    """The quantity that a match of FIGURE states."""
    unit = (match["unit"] or "").lower()
    exponent = _SCALES.get((match["scale"] or "").lower(), 0) - 2 * (unit in _BASIS_POINTS)
    if match["words"] is None:
        number = Decimal(match["number"].replace(",", ""))
        place = int(number.as_tuple().exponent)
        spoken_exponent = 0
    else:
        number, place, spoken_exponent = _in_words(match["words"])
    return Quantity(
        magnitude=number.scaleb(exponent),
        quantum=Decimal((0, (1,), place + exponent)),
        dimension=dimension(unit, dollars=match["usd"] is not None),
        negative=bool(match["minus"] or match["inner_minus"]),
        enclosed=match["open"] is not None,
        exponent=exponent + spoken_exponent,
    )


def dimension(unit: str, *, dollars: bool) -> str:
    """The dimension of a figure, by its unit in lower case: usd, pct, x or count."""
    if dollars or unit == "dollars":
        return "usd"
    if unit in ("x", "times"):
        return "x"
    return "pct" if unit else "count"


def _in_words(words: str) -> tuple[Decimal, int, int]:
    """Number, the exponent of its last place, and that of its last scale: "two point five million" is 2500000, 5, 6."""
    total, group = Decimal(0), Decimal(0)
    decimals, behind_point, scale, last = 0, False, 0, 0
    for word in re.findall(r"[a-z]+", words.lower()):
        if word == "point":
            behind_point = True
        elif word == "hundred":
            group *= 100
        elif word in _SCALES:
            scale = _SCALES[word]
            total += group.scaleb(scale)
            last, group, decimals, behind_point = scale - decimals, Decimal(0), 0, False
        elif word in NUMBER_WORDS:
            scale = 0
            decimals += behind_point
            group += Decimal(NUMBER_WORDS[word]).scaleb(-decimals)
            last = -decimals
    return total + group, last, scale


def in_words(number: int) -> str:
    """A whole number below 10^12 in words: 512 is "five hundred and twelve", 1200 "one thousand two hundred"."""
    parts: list[str] = []
    for name, size in (("billion", 10**9), ("million", 10**6), ("thousand", 10**3), ("", 1)):
        group, number = divmod(number, size)
        if group:
            parts.append(f"{_below_1000(group)} {name}".strip())
    return " ".join(parts) or "zero"


def _below_1000(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    tens, ones = divmod(rest, 10)
    small = ("zero", *_ONES, *_TEENS)[rest] if rest < 20 else "-".join((_TENS[tens - 2], *_ONES[ones - 1 : ones]))
    if not hundreds:
        return small
    return f"{_ONES[hundreds - 1]} hundred" + (f" and {small}" if rest else "")
