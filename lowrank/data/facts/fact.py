"""Facts: a value, its type, and the one string in which record and document print it.

    print(812.4, usd_m) = "$812.4 million"        leverage = round_half_up(total_debt / ebitda, 2)
    or, in another notation, "USD 812.4 million"

Money in another currency than dollars has the currency's code as its type, in millions with `_m` behind it: eur, eur_m.
Every figure is a `Decimal`, rounded half up. A derived figure is computed from the rounded, printed figures it comes
from, so a reader with a calculator gets the number on the page.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from types import MappingProxyType

from .currencies import currencies, names_of, signs_of
from .formula import ARITHMETIC, parse

TEXT_TYPES = ("name", "person", "text", "date", "period")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


@dataclass(frozen=True)
class Unit:
    """Decimals and dimension of a type of figure: value * scale is in `dimension`.

    dimension  pct, points (of a per cent), x, count, or a currency's code in lower case
    """

    decimals: int
    dimension: str
    scale: Decimal = Decimal(1)


# The types that the kinds of documents draw. `unit_of` has those of records that others wrote, too.
UNITS: Mapping[str, Unit] = MappingProxyType(
    {
        "usd": Unit(2, "usd"),
        "usd_m": Unit(1, "usd", Decimal(10**6)),
        "pct": Unit(1, "pct"),
        "rate": Unit(2, "pct"),
        "bps": Unit(0, "pct", Decimal("0.01")),
        "ratio": Unit(2, "x"),
        "count": Unit(0, "count"),
    }
)

_POINTS = Unit(2, "points")
TYPES_IN_WORDS = (*TEXT_TYPES, *UNITS, "points", "a currency's code such as eur, eur_m")


def unit_of(type: str) -> Unit | None:
    """The unit of a type of figure, None for a type that is no figure's."""
    if type in UNITS:
        return UNITS[type]
    if type == "points":
        return _POINTS
    code, _, millions = type.partition("_")
    if code.islower() and (currency := currencies().get(code.upper())) is not None and millions in ("", "m"):
        return Unit(1, code, Decimal(10**6)) if millions else Unit(currency.decimals, code)
    return None


# Notation -> type -> how it prints. A record keeps to one notation; training shows SEEN_NOTATION only.
NOTATIONS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "symbols": {
            "usd": "{sign}${number}",
            "usd_m": "{sign}${number} million",
            "pct": "{sign}{number}%",
            "rate": "{sign}{number}%",
            "bps": "{sign}{number} bps",
            "ratio": "{sign}{number}x",
            "count": "{sign}{number}",
            "date": "{date.day} {month} {date.year}",
        },
        "short": {
            "usd": "{sign}US${number}",
            "usd_m": "{sign}${number}M",
            "pct": "{sign}{number} %",
            "rate": "{sign}{number} %",
            "bps": "{sign}{number} bp",
            "ratio": "{sign}{number} x",
            "count": "{sign}{number}",
            "date": "{month} {date.day}, {date.year}",
        },
        "codes": {
            "usd": "USD {sign}{number}",
            "usd_m": "USD {sign}{number} million",
            "pct": "{sign}{number} percent",
            "rate": "{sign}{number} percent",
            "bps": "{sign}{number} basis points",
            "ratio": "{sign}{number} x",
            "count": "{sign}{number}",
            "date": "{date}",
        },
        "words": {
            "usd": "{sign}{number} dollars",
            "usd_m": "{sign}{number} million dollars",
            "pct": "{sign}{number} per cent",
            "rate": "{sign}{number} per cent",
            "bps": "{sign}{number} basis points",
            "ratio": "{sign}{number} times",
            "count": "{sign}{number}",
            "date": "{month} {date.day}, {date.year}",
        },
    }
)
SEEN_NOTATION = "symbols"


@dataclass(frozen=True)
class Fact:
    """One line of a record, `label: print`.

    value     a decimal ("812.4", in the unit of its type), an ISO date ("2025-03-31"), or text
    type      name, person, text, date, period, or a type of figure: a key of UNITS, "points", "eur", "eur_m"
    print     exactly what record and document show: "$812.4 million", "31 March 2025"
    label     what stands before it in the record
    source    the formula it was derived by ("total_debt / ebitda", keys of the same record), None if it was given
    required  True if a document has to state it
    """

    value: str
    type: str
    print: str
    label: str
    source: str | None = None
    required: bool = True

    @property
    def is_figure(self) -> bool:
        """True if the value is a number with a unit, not a name, a date or a text."""
        return unit_of(self.type) is not None

    @property
    def unit(self) -> Unit:
        """The unit of its type. Raises ValueError for a text."""
        if (unit := unit_of(self.type)) is None:
            raise ValueError(f"Fact.unit: a fact of type {self.type} is not a figure: {self.value!r}")
        return unit

    @property
    def number(self) -> Decimal:
        """The value in the unit of its type. Raises ValueError for a text."""
        if not self.is_figure:
            raise ValueError(f"Fact.number: a fact of type {self.type} is not a figure: {self.value!r}")
        return Decimal(self.value)


Facts = Mapping[str, Fact]


def is_decimal(text: str) -> bool:
    """True if a text reads as a finite decimal number."""
    try:
        return Decimal(text).is_finite()
    except InvalidOperation:
        return False


def round_half_up(value: Decimal, decimals: int) -> Decimal:
    """round_half_up(0.125, 2) = 0.13; the sign is kept apart (-0.125 gives -0.13) and zero is never negative."""
    rounded = value.quantize(Decimal((0, (1,), -decimals)), context=ARITHMETIC)
    return rounded if rounded else rounded.copy_abs()


def print_value(type: str, value: str, notation: str = SEEN_NOTATION) -> str:
    """The string of a value: "-8.4%", "$4,812.50", "3.41x", "150 bps", "31 March 2025"; text as it is."""
    if (unit := unit_of(type)) is not None:
        number = Decimal(value)
        digits = f"{number.copy_abs():,.{unit.decimals}f}"
        return _form(type, notation).format(sign="-" if number < 0 else "", number=digits)
    if type == "date":
        date = datetime.date.fromisoformat(value)
        return NOTATIONS[notation][type].format(date=date, month=MONTHS[date.month - 1])
    return value


def _form(type: str, notation: str) -> str:
    """The print of a type: that of the dollar with another currency's sign, code or name in its place."""
    forms = NOTATIONS[notation]
    if type in forms:
        return forms[type]
    if type == "points":
        return "{sign}{number} percentage points"
    code, _, millions = type.upper().partition("_")
    form = forms["usd_m" if millions else "usd"]
    signs, names = signs_of(code), names_of(code)
    sign = signs[0] if signs and not signs[0][-1].isalpha() else f"{code} "
    name = max(names, key=len) if names else code
    return form.replace("US$", f"{code} ").replace("$", sign).replace("USD", code).replace("dollars", name)


def make_fact(
    label: str, type: str, value: Decimal | str, source: str | None = None, notation: str = SEEN_NOTATION
) -> Fact:
    """A fact from its value: a figure is rounded half up to the decimals its type prints.

    Raises ValueError for a type that is neither of TEXT_TYPES nor a figure's, and a figure that is no finite decimal.
    """
    unit = unit_of(type)
    if unit is None and type not in TEXT_TYPES:
        raise ValueError(f"make_fact: type must be one of {', '.join(TYPES_IN_WORDS)}, got {type!r}")
    text = str(value)
    if unit is not None:
        if not is_decimal(text):
            raise ValueError(f"make_fact: the value of a {type} must be a finite decimal, got {text!r}")
        text = str(round_half_up(Decimal(text), unit.decimals))
    return Fact(text, type, print_value(type, text, notation), label, source)


def evaluate(formula: str, facts: Facts) -> Decimal:
    """The unrounded value of a formula over a record: + - * /, parentheses, whole numbers and keys of figures.

    Raises ValueError for anything else in the formula, a key that is no figure of the record, a division by zero.
    """
    parsed = parse(formula)
    value = parsed.evaluate({key: facts[key].number for key in parsed.keys if key in facts and facts[key].is_figure})
    assert isinstance(value, Decimal)
    return value


def identity(key: str, fact: Fact) -> str:
    """`leverage == round(total_debt / ebitda, 2)`, the rule that a derived figure obeys."""
    return f"{key} == round({fact.source}, {fact.unit.decimals})"


def render_input(facts: Facts) -> str:
    """The record as a model reads it: one line `label: print` a fact, in the order of the record."""
    return "\n".join(f"{fact.label}: {fact.print}" for fact in facts.values())
