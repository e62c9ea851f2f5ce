"""Records that others wrote: `label: value` lines -> typed facts, by the printed form of each value.

"$812.4 million" is usd_m    "$4,812.50" usd    "12.5%" pct    "7.25 per cent" rate    "150 bps" bps    "3.41x" ratio
"1,204" count    "31 March 2025" date    "Q3 2024", "2024" period    anything else text
"""

import datetime
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal

from ..facts.fact import MONTHS, UNITS, Fact
from ..facts.figures import FIGURE, Quantity, quantity
from .kind import Field

_LINE = re.compile(
    r"^[ \t]*(?:[-*•][ \t]+)?\**(?P<label>[^:\n*]{1,60}?)\**[ \t]*:(?!//)\**[ \t]*(?P<value>\S.*?)[ \t]*$", re.M
)
_PERIOD = re.compile(r"(?:(?:Q[1-4]|H[12]|FY|fiscal(?: year)?)[ ]?)?(?:19|20)\d\d", re.IGNORECASE)
_DAY_FIRST = re.compile(r"(?P<day>\d{1,2}) (?P<month>[A-Z][a-z]+) (?P<year>\d{4})")
_MONTH_FIRST = re.compile(r"(?P<month>[A-Z][a-z]+) (?P<day>\d{1,2}), (?P<year>\d{4})")
_NAMES_SOMETHING = re.compile(r"(?:19|20)\d\d|0\d+")  # a bare year, an account with leading zeros: no amounts


def read_facts(text: str, fields: Mapping[str, Field]) -> dict[str, Fact]:
    """The facts of every `label: value` line, keyed by the field of that label, else by the label itself.

    fields  those of a kind, or none: only a field tells a name or a person from other text
    """
    owners = {label.casefold(): key for key, field in fields.items() for label in field.labels}
    facts: dict[str, Fact] = {}
    for match in _LINE.finditer(text):
        label, value = match["label"].strip(), match["value"]
        owner = owners.get(label.casefold())
        key = next(key for key in _keys(owner or label) if key not in facts)
        facts[key] = read_fact(label, value, fields[owner].type if owner else "text")
    return facts


def _keys(label: str) -> Iterator[str]:
    """A name for the fact that a formula can use: "EBITDA 2024" is ebitda_2024, the next of that name ebitda_2024_2."""
    key = re.sub(r"\W+", "_", label.casefold()).strip("_")
    key = key if key.isidentifier() else f"fact_{key}"
    yield key
    number = 1
    while True:
        number += 1
        yield f"{key}_{number}"


def read_fact(label: str, text: str, expected: str = "text") -> Fact:
    """The fact that a printed value states; `expected` is its type if the printed form tells none."""
    written = read_quantity(text)
    if written is not None and not _NAMES_SOMETHING.fullmatch(text):
        type = _figure_type(written)
        value = written.magnitude / UNITS[type].scale * (-1 if written.negative else 1)
        return Fact(f"{value:f}", type, text, label)
    if (date := read_date(text)) is not None:
        return Fact(date.isoformat(), "date", text, label)
    if _PERIOD.fullmatch(text):
        return Fact(text, "period", text, label)
    return Fact(text, expected if expected in ("name", "person", "period") else "text", text, label)


def read_quantity(text: str) -> Quantity | None:
    """The figure that a text is as a whole, None if it is none; in parentheses it is negative."""
    inner = text[1:-1] if text.startswith("(") and text.endswith(")") else text
    match = FIGURE.fullmatch(inner)
    if match is None:
        return None
    written = quantity(match)
    return replace(written, negative=True) if inner != text or written.enclosed else written


def read_date(text: str) -> datetime.date | None:
    """The date of "2025-03-31", "31 March 2025" or "March 31, 2025", None for another text."""
    match = _DAY_FIRST.fullmatch(text) or _MONTH_FIRST.fullmatch(text)
    try:
        if match is None:
            return datetime.date.fromisoformat(text) if "-" in text else None
        return datetime.date(int(match["year"]), MONTHS.index(match["month"]) + 1, int(match["day"]))
    except ValueError:  # no such day or month, or no date at all
        return None


def states(fact: Fact) -> bool:
    """True if a fact's print says its value, in any notation."""
    if fact.type == "date":
        date = read_date(fact.print)
        return date is not None and date.isoformat() == fact.value
    if not fact.is_figure:
        return fact.print == fact.value
    written, unit = read_quantity(fact.print), UNITS[fact.type]
    if written is None or written.dimension != unit.dimension:
        return False
    return written.magnitude * (-1 if written.negative else 1) == fact.number * unit.scale


def _figure_type(written: Quantity) -> str:
    """The type of a figure: dollars by their scale, per cent by its decimals."""
    if written.dimension == "usd":
        return "usd_m" if written.exponent >= 6 else "usd"
    if written.dimension == "pct":
        if written.exponent == -2:
            return "bps"
        return "pct" if written.quantum >= Decimal("0.1") else "rate"
    return "ratio" if written.dimension == "x" else "count"
