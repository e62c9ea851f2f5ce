"""Checks of an entry against itself: its prints, identities and input must agree with its facts.

Each finding is a line of text. None of them makes an entry unusable: imported documents often have some.
"""

import re
from collections.abc import Iterator

from ..facts.fact import Facts, evaluate, identity, round_half_up
from .derived import disagreements
from .document import Entry
from .reading import is_print_right, read_record

_IDENTITY = re.compile(r"(?P<key>\w+) == round\((?P<formula>.+), (?P<decimals>\d+)\)")


def findings(entry: Entry) -> Iterator[str]:
    """A line for every print that is not its value, identity that is false, and line that the input lacks."""
    for key, fact in entry.facts.items():
        if not is_print_right(fact):
            yield f"facts.{key}: print {fact.print!r} does not state {fact.value} ({fact.type})"
    declared = (identity(key, fact) for key, fact in entry.facts.items() if fact.source is not None and fact.is_figure)
    for rule in dict.fromkeys((*entry.identities, *declared)):
        if (wrong := _untrue_reason(rule, entry.facts)) is not None:
            yield f"identities: {rule}: {wrong}"
    record = read_record(entry.input, {})
    for note in record.notes:
        if note.fault != "not read":
            yield f"input: {note}"
    yield from (f"facts: {disagreement}" for disagreement in disagreements(entry.facts, {}))
    lines = {(fact.label, fact.print) for fact in record.facts.values()}
    for key, fact in entry.facts.items():
        if (fact.label, fact.print) not in lines:
            yield f"facts.{key}: the input has no line '{fact.label}: {fact.print}'"


def _untrue_reason(rule: str, facts: Facts) -> str | None:
    """The fault of `key == round(formula, decimals)` over a record, None if it is true."""
    match = _IDENTITY.fullmatch(rule)
    if match is None or match["key"] not in facts or not facts[match["key"]].is_figure:
        return "must be `key == round(formula, decimals)` of a figure of the record"
    try:
        right = round_half_up(evaluate(match["formula"], facts), int(match["decimals"]))
    except ValueError as error:
        return str(error)
    stated = facts[match["key"]].number
    return None if stated == right else f"the formula gives {right}, the record says {stated}"
