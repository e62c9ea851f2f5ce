"""Figures as they are written: "$812.4 million", "USD -12.4", "12.5 per cent", "150 bps", "3.41x", "1,204".

magnitude = number * 10^(3, 6, 9 by its scale; -2 for basis points)       quantum = the place of its last digit
"$0.8124 billion" has magnitude 812400000 and quantum 100000, in dollars
"""

import re
from dataclasses import dataclass
from decimal import Decimal

FIGURE = re.compile(
    r"""(?P<minus>(?<![\w%)])[-−](?=[$\d]|US))?
        (?P<usd>(?:\bUS)?\$|\bUSD[ ]?)?
        (?(usd)(?P<inner_minus>[-−])?)
        (?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)?)
        (?:[ ]?(?P<scale>thousand|million|billion|mn|bn|[kmb])\b)?
        (?:[ ]?(?P<unit>%|(?:percentage[ ]points?|percent|per[ ]cent|bps?|basis[ ]points?|x|times|dollars)\b))?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SCALES = {"thousand": 3, "k": 3, "million": 6, "mn": 6, "m": 6, "billion": 9, "bn": 9, "b": 9}
_BASIS_POINTS = ("bp", "bps", "basis point", "basis points")


@dataclass(frozen=True)
class Quantity:
    """A figure as written.

    magnitude     without its sign, in dollars, per cent, multiples or units
    quantum       the place of its last digit, in the same
    dimension     usd, pct, x or count
    negative      whether it has a minus sign
    exponent      the power of ten that its scale or its basis points stand for
    """

    magnitude: Decimal
    quantum: Decimal
    dimension: str
    negative: bool
    exponent: int


def quantity(match: re.Match[str]) -> Quantity:
    """What a match of FIGURE says."""
    number = Decimal(match["number"].replace(",", ""))
    unit = (match["unit"] or "").lower()
    exponent = _SCALES.get((match["scale"] or "").lower(), 0) - 2 * (unit in _BASIS_POINTS)
    return Quantity(
        magnitude=number.scaleb(exponent),
        quantum=Decimal((0, (1,), int(number.as_tuple().exponent) + exponent)),
        dimension=_dimension(unit, dollars=match["usd"] is not None),
        negative=bool(match["minus"] or match["inner_minus"]),
        exponent=exponent,
    )


def _dimension(unit: str, *, dollars: bool) -> str:
    if dollars or unit == "dollars":
        return "usd"
    if unit in ("x", "times"):
        return "x"
    return "pct" if unit else "count"
