"""Labels of facts: how they are compared, and the periods in them.

Labels that differ in their period alone, as the columns of a table of years do, share a name: "revenue 2024" and
"revenue 2023" are "revenue", and the period that a sentence names says which of them is meant.
"""

import re
from collections.abc import Mapping

from .dates import find_periods

_BARE = re.compile(r"(?<![\w.,])(?:(?:19|20)\d\d(?:/\d\d(?:\d\d)?)?|q[1-4]|h[12])(?![\w/]|[.,]\d)", re.IGNORECASE)
_BESIDE = re.compile(r"\([^()]*\)|\b(?:in|for|of|at)\s*$|[,;–-]\s*$")


def name_key(text: str) -> str:
    """A name as it is compared: of any case, with any white space.

    Texts that `re.IGNORECASE` holds equal have one key: the dotless i, which has no other case, is an i.
    """
    return " ".join(text.casefold().replace("i\u0307", "i").replace("ı", "i").split())


def named_periods(text: str) -> list[tuple[int, int, str]]:
    """(start, end, key) of the periods of a text, in order, bare years and quarters too: "FY25" is "fy 2025"."""
    found = list(find_periods(text))
    taken = [range(start, end) for start, end, _ in found]
    found += [
        (*match.span(), match[0].lower())
        for match in _BARE.finditer(text)
        if not any(match.start() in span for span in taken)
    ]
    return sorted(found)


def period_keys(text: str) -> frozenset[str]:
    """The keys of the periods of a text."""
    return frozenset(key for _, _, key in named_periods(text))


def without_period(label: str) -> str:
    """ "revenue (usd m), fy 2024" is "revenue": a label without its parentheses and period."""
    bare = _BESIDE.sub("", label)
    for start, end, _ in reversed(named_periods(bare)):
        bare = bare[:start] + bare[end:]
    while (shorter := _BESIDE.sub("", bare).strip()) != bare:
        bare = shorter
    return re.sub(r"\s+", " ", bare)


def of_period(keys: tuple[str, ...], periods: Mapping[str, frozenset[str]], *texts: str) -> tuple[str, ...]:
    """Those of some facts that share a name whose period is told; where none is, the one without a period.

    None if that leaves it open.

    periods  key -> the periods of its label
    told     texts that may name the period, the one that counts most first: the first that names any decides
    """
    if len({periods[key] for key in keys}) < 2:
        return keys
    named = next(filter(None, map(period_keys, texts)), frozenset[str]())
    fitting = tuple(key for key in keys if bool(periods[key]) is bool(named) and periods[key] <= named)
    return fitting if len({periods[key] for key in fitting}) == 1 else ()
