"""A figure as it is written: its number, what the number is of, and where it stands."""

from dataclasses import dataclass
from decimal import Decimal

KINDS = ("money", "percent", "points", "basis points", "multiple", "count", "unknown")


@dataclass(frozen=True)
class Figure:
    """A figure as written, from `start` to `end` of its text.

    kind        one of KINDS: what its number is of
    magnitude   without its sign, in whole money, per cent, multiples or units
    quantum     the place of its last digit, in the same
    exponent    the power of ten that its scale, its cents or its basis points stand for
    currencies  of money: those that its sign may stand for, the likeliest first
    unit        of a count: its unit by `units.UNITS_OF`, "" for none; of money, too, a word that looks like one ("kt")
    negative    True if it has a minus sign, before it or behind
    enclosed    True if its number is in parentheses, "$(3.10)", as negative ones are
    in_doubt    True if the convention had to decide between two readings of its number
    reason      of an unknown one: what is not understood
    """

    kind: str
    magnitude: Decimal
    quantum: Decimal
    exponent: int
    start: int
    end: int
    text: str
    currencies: tuple[str, ...] = ()
    unit: str = ""
    negative: bool = False
    enclosed: bool = False
    in_doubt: bool = False
    reason: str = ""

    @property
    def value(self) -> Decimal:
        """The magnitude with its sign; negative also if it is enclosed."""
        return -self.magnitude if self.negative or self.enclosed else self.magnitude
