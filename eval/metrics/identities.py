"""A check of a document's own arithmetic: revenue - cost of sales = gross profit, as printed, right or wrong.

For a derived fact y = f(x1, x2 ...) of the record ("gross_profit" from "revenue - cogs"):

    printed  the document states a figure under the label of y and of every x
    held     some reading of them has y = f(x1, x2 ...) within half a last digit of y as it is printed

The record does not enter: a document with invented figures may hold together, and one that copies a figure wrongly
does not. A figure has the sign it is written with; one in parentheses or after a word of falling may be negative too.
What is printed coarser than in the record (a figure in billions) widens what it is held to.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from itertools import islice, product

from lowrank.data.documents.document import Entry
from lowrank.data.facts.fact import Facts, evaluate
from lowrank.data.facts.figure_matching import kinds_of
from lowrank.data.facts.formula import ARITHMETIC, parse

from .faithfulness import Figure

_READINGS = 256  # of one identity that are tried


@dataclass(frozen=True)
class Identities:
    """Counts of a record's identities: all, those printed completely, those that hold as printed."""

    count: int
    printed: int
    held: int


@dataclass(frozen=True)
class _Printed:
    """A figure as written, in the unit of its fact: its value, and the place of its last digit."""

    value: Decimal
    quantum: Decimal


def check_identities(entry: Entry, figures: Sequence[Figure]) -> Identities:
    """The three counts.

    figures  of the document, as `faithfulness.check` finds them
    """
    derived = {key: fact.source for key, fact in entry.facts.items() if fact.source is not None}
    printed = held = 0
    with localcontext(ARITHMETIC):
        stated = {key: list(_stated(key, entry.facts, figures)) for key, fact in entry.facts.items() if fact.is_figure}
        for key, formula in derived.items():
            terms = [key for key in parse(formula).keys if key in stated]
            if stated[key] and all(stated[name] for name in terms):
                printed += 1
                readings = islice(product(stated[key], *(stated[name] for name in terms)), _READINGS)
                held += any(_is_right(formula, terms, reading, entry.facts) for reading in readings)
    return Identities(len(derived), printed, held)


def _stated(key: str, facts: Facts, figures: Sequence[Figure]) -> Iterator[_Printed]:
    """Every value that the document gives a fact: figures of its kind and currency under its label."""
    unit, kinds = facts[key].unit, kinds_of(facts[key])
    for figure in figures:
        read = figure.read
        if figure.label != key or read.kind not in kinds:
            continue
        if read.kind == "money" and unit.dimension.upper() not in read.currencies:
            continue
        value, quantum = figure.value / unit.scale, read.quantum / unit.scale
        yield _Printed(value, quantum)
        if figure.fact == key and facts[key].number < 0 < value:  # "fell by 3.1%", "(3.1%)": the checker read a minus
            yield _Printed(-value, quantum)


def _is_right(formula: str, terms: Sequence[str], reading: Sequence[_Printed], facts: Facts) -> bool:
    """True if y = f(x) within half a last digit of y, at some corner of half a last digit of every coarser x.

    An x that is printed as exactly as its type has no corners: the figures of a record are exact.
    """
    result, *given = reading
    corners = []
    for name, printed in zip(terms, given, strict=True):
        half = printed.quantum / 2 if printed.quantum > _exact(name, facts) else Decimal(0)
        corners.append({printed.value - half, printed.value + half})
    values = []
    for corner in product(*corners):
        at = {name: replace(facts[name], value=str(value)) for name, value in zip(terms, corner, strict=True)}
        try:
            values.append(evaluate(formula, {**facts, **at}))
        except ValueError:  # divides by zero
            return False
    half = result.quantum / 2
    return min(values) - half <= result.value <= max(values) + half


def _exact(key: str, facts: Facts) -> Decimal:
    """The place of the last digit of a fact as its type prints it, in its own unit."""
    return Decimal((0, (1,), -facts[key].unit.decimals))
