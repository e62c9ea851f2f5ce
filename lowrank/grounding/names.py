"""Names of the facts in a text: which fact the words before a figure are about.

    the last name between the figure before and this place, in its sentence, names the fact

A name is a fact's label, or another phrase for it. It does not count where the words beside it make it the name of
something else ("deferred revenue", "revenue growth"), where another name is coupled to it ("leverage and coverage
were"), or where a noun of another account stands behind it ("revenue rose while costs came to"). Labels that differ in
their period alone, "revenue 2024" and "revenue 2023", share a name, and the period in the sentence decides.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..data.documents.kinds import find_kind
from ..data.facts.fact import Facts
from ..data.facts.labels import name_key, of_period, period_keys, without_period
from .words import ACCOUNTS, BEFORE_NAME, BEHIND_NAME, COUPLING, spaced

_BESIDE_FIGURE = re.compile(r"\s*\(?(?:(?:in|for)\s+)?", re.IGNORECASE)  # between a figure and its period

Phrases = Mapping[str, Sequence[str]]


def phrases_of(kind: str) -> Phrases:
    """The names that the fields of a kind have, ours or the user's; none for a kind that is not known."""
    known = find_kind(kind)
    return {key: field.phrases for key, field in known.fields.items()} if known else {}


class Name(NamedTuple):
    """A name in a text, from `start` to `end`, and the facts that have it."""

    start: int
    end: int
    keys: tuple[str, ...]


class Names:
    """The names of a record's figures.

    phrases   key -> further names of its fact: those of its kind, and the user's
    labelled  key -> its names, the label first
    """

    def __init__(self, facts: Facts, phrases: Phrases) -> None:
        self.periods: dict[str, frozenset[str]] = {}
        self.labelled: dict[str, tuple[str, ...]] = {}
        owners: dict[str, dict[str, None]] = {}
        written: set[str] = set()  # as they stand: "ß" and "ss" have one key, and no pattern finds both
        own = {name_key(fact.label) for fact in facts.values()}
        for key, fact in facts.items():
            if not fact.is_figure or not any(map(str.isalnum, fact.label)):  # a bracket names nothing
                continue
            label = name_key(fact.label)
            others = [name_key(phrase) for phrase in phrases.get(key, ()) if name_key(phrase) not in own]
            bare = without_period(label)
            self.periods[key] = period_keys(label)
            self.labelled[key] = tuple(
                dict.fromkeys((fact.label, *(p for p in phrases.get(key, ()) if name_key(p) in others)))
            )
            written.update((fact.label, without_period(fact.label), *self.labelled[key]))
            for name in (label, bare, *others):
                if any(map(str.isalnum, name)):
                    owners.setdefault(name, {})[key] = None
        self.owners = {name: tuple(keys) for name, keys in owners.items()}
        names = self.owners.keys() | {name for name in written if name_key(name) in self.owners}
        listed = "|".join(map(spaced, sorted(names, key=len, reverse=True)))
        self._any = re.compile(rf"(?<![\w-])(?:{listed})(?![\w-])", re.IGNORECASE) if listed else None

    def find(self, text: str) -> list[Name]:
        """The names in a text, in order; of two that start together, the longer."""
        if self._any is None:
            return []
        return [Name(match.start(), match.end(), self.owners[name_key(match[0])]) for match in self._any.finditer(text)]

    def is_other_period(self, text: str, between: str, keys: frozenset[str]) -> bool:
        """True if a text so near behind the figure of some facts makes it another period's: "revenue of $9 (2024)"."""
        if not _BESIDE_FIGURE.fullmatch(between):
            return False
        named = period_keys(text)
        family = {key for owners in self.owners.values() if not keys.isdisjoint(owners) for key in owners}
        return any(self.periods[key] & named for key in family - keys) and not all(
            self.periods[key] & named for key in keys if key in self.periods
        )

    def about(self, sentence: str, names: Sequence[Name], start: int, periods: str = "") -> tuple[str, ...]:
        """The facts that a figure behind a sentence so far may state, by the names from `start` on; none if unclear.

        periods  the sentence as it is written, where the record's texts are blanked out in `sentence`
        """
        window = [name for name in names if name.start >= start]
        if not window:
            return ()
        last, low = window[-1], sentence.lower()
        if BEFORE_NAME.search(low, 0, last.start) or BEHIND_NAME.match(low, last.end) or ACCOUNTS.search(low, last.end):
            return ()
        if len(window) > 1 and COUPLING.fullmatch(low, window[-2].end, last.start) and window[-2].keys != last.keys:
            return ()
        told = periods or sentence
        return of_period(last.keys, self.periods, told[start:], told)
