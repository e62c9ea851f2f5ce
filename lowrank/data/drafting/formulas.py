"""Figures that follow from others: a formula is declared if it gives the printed figure in every record.

    a - b    a + b    a * b    a / b    100 * a / b    100 * (a / b - 1)    a * b / 100    a + b + c    a - b - c

Operands stand above the figure in the record, as a kind's file wants them.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations, permutations

from ..facts.fact import Fact, evaluate, make_fact
from .columns import Column

EVIDENCE = 8  # records in which a formula has to be seen
NEARLY = 0.9  # of the records: a formula that holds in so many is told, with those in which it does not
_PAIRS = ("{a} - {b}", "{a} / {b}", "100 * {a} / {b}", "100 * ({a} / {b} - 1)")
_EITHER = ("{a} + {b}", "{a} * {b}", "{a} * {b} / 100")


def find_formulas(columns: Sequence[Column]) -> tuple[dict[str, str], list[str]]:
    """Key -> formula of the figures that follow from those above them, and formulas that do not quite hold."""
    formulas: dict[str, str] = {}
    unclear: list[str] = []
    figures = [column for column in columns if column.is_figure]
    for place, column in enumerate(figures):
        nearly = ""
        for formula in _candidates([above.key for above in figures[:place]]):
            right, failed = _tried(formula, column, figures[:place])
            if right < EVIDENCE:
                continue
            if not failed:
                formulas[column.key] = formula
                break
            if not nearly:
                records = ", ".join(str(number + 1) for number in failed[:5])
                nearly = f"field {column.labels[0]!r}: is {formula} in {right} records, but not in {records}"
        if nearly and column.key not in formulas:
            unclear.append(nearly)
    return formulas, unclear


def _candidates(keys: Sequence[str]) -> Iterator[str]:
    for a, b in permutations(keys, 2):
        yield from (form.format(a=a, b=b) for form in _PAIRS)
    for a, b in combinations(keys, 2):
        yield from (form.format(a=a, b=b) for form in _EITHER)
    for three in combinations(keys, 3):
        yield " + ".join(three)
    for a, b, c in permutations(keys, 3):
        if b < c:
            yield f"{a} - {b} - {c}"


def _tried(formula: str, column: Column, above: Sequence[Column]) -> tuple[int, list[int]]:
    """In how many records a formula gives the figure, and in which not; 0 where it fails in too many."""
    needed = [other for other in above if other.key in formula.replace("(", " ").replace(")", " ").split()]
    right, failed = 0, []
    for number, fact in column.facts.items():
        facts = {other.key: other.facts[number] for other in needed if number in other.facts}
        if fact.type != column.type or len(facts) < len(needed) or not _has_types(facts, needed):
            continue
        try:
            exact = evaluate(formula, facts)
        except ValueError:  # a division by zero
            continue
        if make_fact(column.labels[0], column.type, exact).number == fact.number:
            right += 1
        else:
            failed.append(number)
            if len(failed) > 1 + (1 - NEARLY) * len(column.facts):
                return 0, failed
    return (right, failed) if right >= NEARLY * (right + len(failed)) else (0, failed)


def _has_types(facts: dict[str, Fact], columns: Sequence[Column]) -> bool:
    return all(facts[column.key].type == column.type for column in columns)
