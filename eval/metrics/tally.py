"""The end of a text in one sentence: its figures, the facts that it does not use, and what was not understood.

8 figures: 8 in the facts, 8 under their own name; 1 fact not used; nothing that was not understood
"""

from collections.abc import Iterator

from lowrank.data.documents.document import Entry
from lowrank.data.facts.figure_matching import Record

from .faithfulness import Check

MOST = 3  # figures that are named
_LOOKED_FOR = ("name", "person", "date", "period")  # a text may be put in other words


def tally(entry: Entry, text: str, result: Check, unread: int = 0) -> str:
    """The sentence of a text.

    result  of `faithfulness.check`
    unread  the number of amounts of the record that were not understood
    """
    figures = result.figures
    right = sum(figure.right for figure in figures)
    bound = sum(figure.bound for figure in figures)
    unused = len(list(not_used(entry, text, result)))
    counted = f"{_count(len(figures), 'figure')}: {right} in the facts, {bound} under their own name"
    parts = [counted if figures else "no figure", f"{_count(unused, 'fact')} not used", _not_understood(result, unread)]
    return "; ".join(parts)


def faults(result: Check) -> Iterator[str]:
    """A line for the figures that are in no fact, and one for those that stand under another's name."""
    strange = [figure.text for figure in result.figures if not figure.right and figure.is_understood]
    loose = [figure.text for figure in result.figures if figure.right and not figure.bound]
    unknown = [f"{figure.text} ({figure.read.reason})" for figure in result.figures if not figure.is_understood]
    for fault, named in (
        ("not in the facts", strange),
        ("not under their own name", loose),
        ("not understood", unknown),
    ):
        if named:
            more = f" and {len(named) - MOST} more" if len(named) > MOST else ""
            yield f"{fault}: {', '.join(' '.join(text.split()) for text in named[:MOST])}{more}"


def not_used(entry: Entry, text: str, result: Check) -> Iterator[str]:
    """The keys of the required figures, names and dates that a text does not state."""
    stated = {figure.fact for figure in result.figures}
    record = Record(entry.facts)
    for key, fact in entry.facts.items():
        if not fact.required:
            continue
        if fact.is_figure:
            if key not in stated:
                yield key
        elif fact.type in _LOOKED_FOR and not record.is_mentioned(fact, text):
            yield key


def _not_understood(result: Check, unread: int) -> str:
    parts = []
    if unread:
        parts.append(f"{_count(unread, 'amount')} of the facts")
    if result.not_understood:
        parts.append(f"{_count(result.not_understood, 'figure')} of the text")
    if not parts:
        return "nothing that was not understood"
    return f"{' and '.join(parts)} not understood"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
