"""When a figure of a text states a fact of a record: the one rule for whoever checks a text and whoever writes one.

**What a figure is.** Every digit of the text belongs to a figure, with two exceptions: the record's own names, dates
and texts ("Q3 2024", "31 March 2025", "account 4471") wherever the document repeats them, and the number that opens a
list item or a heading ("2. "). A date or a year that is in no fact is therefore a figure, and a wrong one. A number in
words is a figure where `figures` says so.

**When it is right.** It has the dimension of a fact (dollars, per cent with basis points, multiples, plain counts) and
equals it at the figure's own decimals, rounded half up, after rescaling: $0.8124 billion is $812.4 million. A derived
fact may also be stated to more decimals than its record prints, as its declared formula gives them. A figure coarser
than the print keeps two significant digits. In parentheses or after a word of falling it may stand for a negative fact.
"""

import re
from dataclasses import dataclass
from decimal import Decimal, localcontext

from ..data.facts.fact import UNITS, Fact, Facts, evaluate
from ..data.facts.formula import ARITHMETIC
from .old_figures import FIGURE, quantity

FALLING = re.compile(
    r"\b(?:fell|fall|down|declin|decreas|drop|lower|loss|below|short|negative|shr[aiu]nk)", re.IGNORECASE
)
_ORDINAL = re.compile(r"^[ \t]*(?:#+[ \t]+)?\d{1,2}[.)][ \t]", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.;!?](?=\s|$)|\n")


@dataclass(frozen=True)
class Number:
    """A number as written: its magnitude and the place of its last digit, in its dimension, and its possible signs."""

    magnitude: Decimal
    quantum: Decimal
    dimension: str
    signs: tuple[int, ...]

    def states(self, exact: Decimal) -> bool:
        """True if `exact`, in the same dimension, rounds half up to this number and has a sign it may have."""
        if exact and (1 if exact > 0 else -1) not in self.signs:
            return False
        off = abs(exact) - self.magnitude
        if off and self.magnitude < 10 * self.quantum:
            return False
        return -self.quantum <= 2 * off < self.quantum


def read_number(match: re.Match[str], before: str, after: str) -> Number:
    """The number of a match of FIGURE, between the rest of its sentence before it and after it."""
    with localcontext(ARITHMETIC):
        written = quantity(match)
    if written.negative:
        signs: tuple[int, ...] = (-1,)
    elif written.enclosed or (before.endswith("(") and after.startswith(")")):
        signs = (-1, 1)
    else:
        signs = (1, -1) if FALLING.search(before) else (1,)
    return Number(written.magnitude, written.quantum, written.dimension, signs)


def sentence(text: str, position: int) -> tuple[int, int]:
    """Start and end of the sentence around a position."""
    start = 0
    for end in _SENTENCE_END.finditer(text):
        if end.start() >= position:
            return start, end.start()
        start = end.end()
    return start, len(text)


class Record:
    """The facts that a text may state.

    exact  (key, dimension, value) of every figure, in dollars, per cent, multiples or units; twice for a derived one:
           as printed, and as its formula gives it
    texts  the prints of everything else
    Raises ValueError for a formula that cannot be evaluated.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.texts = sorted(
            {fact.print for fact in facts.values() if not fact.is_figure and fact.print}, key=len, reverse=True
        )
        known = "|".join(map(re.escape, self.texts))
        self._known = re.compile(rf"(?<!\w)(?:{known})(?!\w)", re.IGNORECASE) if known else None
        with localcontext(ARITHMETIC):
            self.exact = [
                (key, *stated) for key, fact in facts.items() if fact.is_figure for stated in self._exact(fact)
            ]

    def _exact(self, fact: Fact) -> list[tuple[str, Decimal]]:
        unit = UNITS[fact.type]
        values = [fact.number] if fact.source is None else [fact.number, evaluate(fact.source, self.facts)]
        return [(unit.dimension, value * unit.scale) for value in values]

    def mask(self, text: str) -> str:
        """The text with the record's names, dates and texts, and the numbers of lists, blanked out: same length."""
        if self._known is not None:
            text = self._known.sub(lambda match: "_" * len(match[0]), text)
        return _ORDINAL.sub(lambda match: re.sub(r"\d", "_", match[0]), text)

    def known(self, text: str) -> list[tuple[int, int]]:
        """Where the record's names, dates and texts stand in a text."""
        return [] if self._known is None else [match.span() for match in self._known.finditer(text)]

    def stated(self, number: Number) -> list[str]:
        """The keys of the facts that a number states, in their order."""
        with localcontext(ARITHMETIC):
            keys = [
                key for key, dimension, exact in self.exact if number.dimension == dimension and number.states(exact)
            ]
        return list(dict.fromkeys(keys))

    def wrong(self, text: str) -> list[tuple[int, int]]:
        """Where the figures of a text stand that state no fact, in order."""
        masked, places = self.mask(text), []
        for match in FIGURE.finditer(masked):
            first, last = sentence(masked, match.start())
            number = read_number(match, masked[first : match.start()], masked[match.end() : last])
            if not self.stated(number):
                places.append(match.span())
        return places
