"""Written forms of a fact's figure: everything that may be written where it is wanted.

    its print, and the forms that `data.facts.written_forms` knows
    a negative one with a minus sign or in parentheses; behind a word of falling without: "a loss of $3.1 million"

A form is a whole: the automaton lets nothing stand beside one that would make it another figure.
"""

import re
from collections import defaultdict
from collections.abc import Iterator

from ..data.facts.figure_matching import Record
from ..data.facts.written_forms import Form, written_forms

_NUMBER = re.compile(r"\d(?:[\d.,'’ \u00a0\u202f]*\d)?")


class NumberForms:
    """The written forms of a record's figures, a fact at a time.

    Raises ValueError for a formula that cannot be evaluated.
    """

    def __init__(self, record: Record) -> None:
        self.facts = record.facts
        self.of: dict[str, list[Form]] = defaultdict(list)
        for form in written_forms(record):
            self.of[form.stated.key].append(form)

    def texts(self, key: str, *, falling: bool) -> frozenset[str]:
        """The forms of a fact; those of a negative one without its sign too, if `falling`."""
        plain = {text for form in self.of[key] for text in form.texts()}
        fact = self.facts[key]
        if fact.number >= 0:
            return frozenset({*plain, fact.print})
        negative = {signed for text in plain for signed in _negative(text)} | {fact.print}
        return frozenset(negative | plain) if falling else frozenset(negative)


def _negative(text: str) -> Iterator[str]:
    """A positive form with a minus sign before all of it or before its number, and in parentheses."""
    number = _NUMBER.search(text)
    assert number is not None, text
    place = number.start()
    for minus in "-−":
        yield minus + text
        yield text[:place] + minus + text[place:]
    yield f"({text})"
    yield f"{text[:place]}({number[0]}){text[number.end() :]}"
