"""Rules by which a kind's fields draw their values for a generated record.

A rule takes its numbers from the random stream in a fixed order, so that a seed always gives the same record.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Protocol

from ..facts.fact import Facts
from .names import Names

YEARS = (2009, 2025)


class Draw(Protocol):
    """A rule: random stream, names of the split and the fields above -> a value."""

    def __call__(self, rng: Random, names: Names, above: Facts) -> Decimal | str: ...


def company(rng: Random, names: Names, above: Facts) -> str:
    """An invented company of the split."""
    return names.company(rng)


def fund(rng: Random, names: Names, above: Facts) -> str:
    """An invented fund of the split."""
    return names.fund(rng)


def person(rng: Random, names: Names, above: Facts) -> str:
    """An invented person of the split."""
    return names.person(rng)


def day(rng: Random, names: Names, above: Facts) -> str:
    """Any day of YEARS, as an ISO date."""
    first, last = datetime.date(YEARS[0], 1, 1), datetime.date(YEARS[1], 12, 31)
    return datetime.date.fromordinal(rng.randint(first.toordinal(), last.toordinal())).isoformat()


def quarter_end(rng: Random, names: Names, above: Facts) -> str:
    """The last day of a quarter, as an ISO date."""
    return f"{rng.randint(*YEARS)}-{rng.choice(('03-31', '06-30', '09-30', '12-31'))}"


def period(rng: Random, names: Names, above: Facts) -> str:
    """A quarter or a year: `Q3 2024`, `fiscal 2024`."""
    return f"{rng.choice(('Q1', 'Q2', 'Q3', 'Q4', 'fiscal'))} {rng.randint(*YEARS)}"


# Name in a file -> (the type of field that it fills, the rule).
NAMED_DRAWS: Mapping[str, tuple[str, Draw]] = {
    "company": ("name", company),
    "fund": ("name", fund),
    "person": ("person", person),
    "day": ("date", day),
    "quarter_end": ("date", quarter_end),
    "period": ("period", period),
}


@dataclass(frozen=True)
class Choice:
    """One of some texts, each as likely."""

    texts: tuple[str, ...]

    def __call__(self, rng: Random, names: Names, above: Facts) -> str:
        return rng.choice(self.texts)


@dataclass(frozen=True)
class DaysAfter:
    """A day, `low` to `high` days after the date of an earlier field."""

    key: str
    low: int
    high: int

    def __call__(self, rng: Random, names: Names, above: Facts) -> str:
        start = datetime.date.fromisoformat(above[self.key].value)
        return (start + datetime.timedelta(days=rng.randint(self.low, self.high))).isoformat()


@dataclass(frozen=True)
class Range:
    """low + k * step, every k up to `high` equally likely."""

    low: Decimal
    high: Decimal
    step: Decimal

    def __call__(self, rng: Random, names: Names, above: Facts) -> Decimal:
        return self.low + rng.randint(0, int((self.high - self.low) / self.step)) * self.step


@dataclass(frozen=True)
class NumberedText:
    """A text with a number of a range in the place of `{number}`: `account 4471`."""

    template: str
    range: Range

    def __call__(self, rng: Random, names: Names, above: Facts) -> str:
        return self.template.replace("{number}", str(self.range(rng, names, above)))


@dataclass(frozen=True)
class Share:
    """A multiple of an earlier figure, the factor drawn from a range."""

    key: str
    range: Range

    def __call__(self, rng: Random, names: Names, above: Facts) -> Decimal:
        return above[self.key].number * self.range(rng, names, above)
