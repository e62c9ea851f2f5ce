"""Written forms of a fact's figure: everything that may be written where it is wanted.

    its print, and the forms that `data.facts.written_forms` knows; of money, those with its code, its usual signs and
    English names, and what the record itself prints
    a negative one with a minus sign or in parentheses; behind a word of falling without: "a loss of $3.1 million"

A form is a whole: the automaton lets nothing stand beside one that would make it another figure.
"""

import re
from collections import defaultdict
from collections.abc import Iterator

from ..data.facts.currencies import currencies, names_of, signs_of
from ..data.facts.figure_matching import Record
from ..data.facts.written_forms import Form, written_forms

USUAL_SIGNS = 2  # of a currency, those that CLDR's table has first: "$" and "US$", not "$US"

_TINY = re.compile(r"(?<![\d.,])0[.,]00\d")  # in a scale that is far too large for it: "0.0000000006 trillion"
_NUMBER = re.compile(r"\d(?:[\d.,'’ \u00a0\u202f]*\d)?")


class NumberForms:
    """The written forms of a record's figures, a fact at a time.

    Raises ValueError for a formula that cannot be evaluated.
    """

    def __init__(self, record: Record) -> None:
        self.facts = record.facts
        self.of: dict[str, list[Form]] = defaultdict(list)
        printed = " ".join(fact.print for fact in record.facts.values()).casefold()
        for form in written_forms(record):
            self.of[form.stated.key].append(_as_usual(form, printed) if form.stated.currency else form)

    def texts(self, key: str, *, falling: bool) -> frozenset[str]:
        """The forms of a fact; those of a negative one without its sign too, if `falling`."""
        fact = self.facts[key]
        plain = {text for form in self.of[key] for text in form.texts()}
        if not _TINY.search(fact.print):
            plain = {text for text in plain if not _TINY.search(text)}
        if fact.number >= 0:
            return frozenset({*plain, fact.print})
        negative = {signed for text in plain for signed in _negative(text)} | {fact.print}
        return frozenset(negative | plain) if falling else frozenset(negative)


def _as_usual(form: Form, printed: str) -> Form:
    """A form of money without the signs and names of other languages: "$US", "amerikanske dollar"."""
    code = form.stated.currency
    row = currencies().get(code)
    english = {name.casefold() for name in row.names[:2]} if row else set()
    english |= {name.rpartition(" ")[2] for name in english}
    usual_signs = {*(row.signs[:USUAL_SIGNS] if row else ())}
    strange = {sign for sign in signs_of(code) if sign not in usual_signs and sign.casefold() not in printed}
    strange |= {name for name in names_of(code) if name not in english and name not in printed}
    known = sorted({*strange, *english, *usual_signs}, key=len, reverse=True)

    def is_strange(text: str) -> bool:
        text = text.strip()
        found = next((word for word in known if text.casefold().endswith(word.casefold())), None)
        return found in strange

    heads = tuple(head for head in form.heads if not is_strange(head))
    return form._replace(heads=heads, tails=tuple(tail for tail in form.tails if not is_strange(tail)))


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
