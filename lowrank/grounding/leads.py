"""Leads: where a figure is wanted and nothing says of what, a name is written first.

Which fact was meant is not known before the figure is there. Its first characters are: of the facts that the text has
not stated yet, those count of which a written form begins with them, and if there is none, all; of those, in a list
item "Cearing: ", the ones whose name is much like its words. Among them the model chooses.
"""

import re
from collections.abc import Collection, Mapping
from difflib import SequenceMatcher

from .automaton import Rules
from .states import Lead
from .words import fold, is_marked

ALIKE = 0.6  # difflib's ratio, 2 M / T: from here on it takes two words for each other

_BEFORE_NAME = frozenset(" (*|\"'“[")  # what may stand right before a name; behind the rest, a space comes first
_LAST_WORD = re.compile(r"[^\W\d_]+$")
_ITEM = re.compile(r"^\W+")
_ARTICLE = re.compile(r"\b(?:a|an|the)[ \t]*$", re.IGNORECASE)


def find_leads(rules: Rules, line: str, wanted: str, stated: Collection[str]) -> frozenset[Lead]:
    """The texts that may stand between a line and a figure that begins with the text of a token; none if it may not.

    Behind a text's label ("account: ") it is that text.
    stated  keys of the facts that the text has stated
    """
    if rules.is_date_expected(line):
        return frozenset()
    begins = wanted.strip()
    gap = " " if line and line[-1] not in _BEFORE_NAME else ""
    is_inside = gap != "" and not wanted.startswith(" ") and line[-1] != ":"
    if is_inside:  # of a word, "$" behind "US" for one
        word = _LAST_WORD.search(line)
        if word is None:
            return frozenset()
        begins = word[0] + begins
    whole = fold(line + gap)
    texts = [Lead(gap + text, 0) for label, text in rules.values if whole.endswith(label) and _can_lead(rules, text)]
    if texts:
        return frozenset(texts)
    left = unstated(rules, stated)
    meant = {key: name for key, name in left.items() if _can_begin(rules, key, begins)}
    if is_inside and not meant:
        return frozenset()
    is_item = line.rstrip().endswith(":")
    articles = ("",) if is_item or _ARTICLE.search(line) else ("", "the ")
    joined = ": " if is_item else " of "
    named = meant or left
    if is_item:
        named = _alike(rules, named, line) or named
    return frozenset(Lead(gap + article + name + joined, 0) for name in named.values() for article in articles)


def unstated(rules: Rules, stated: Collection[str]) -> dict[str, str]:
    """key -> name of the required figures that a text has not stated."""
    return {
        key: names[0]
        for key, names in rules.names.labelled.items()
        if key not in stated and rules.facts[key].required and _can_lead(rules, names[0])
    }


def _alike(rules: Rules, named: Mapping[str, str], line: str) -> dict[str, str]:
    """Those that have a name much like the words of a list item."""
    item = _ITEM.sub("", line.rstrip(" *:")).lower()
    likeness = {
        key: max(SequenceMatcher(None, item, name.lower()).ratio() for name in rules.names.labelled[key])
        for key in named
    }
    return {key: name for key, name in named.items() if likeness[key] >= ALIKE}


def _can_lead(rules: Rules, name: str) -> bool:
    return rules.writable.has(name) and not any(map(is_marked, rules.record.mask(name)))


def _can_begin(rules: Rules, key: str, begins: str) -> bool:
    return any(form.startswith(begins) for form in rules.numbers.texts(key, falling=True))
