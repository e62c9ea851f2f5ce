"""Words of direction: "rose" and "fell", "above" and "below" fit a derived difference, or are not written.

    d = a - b           above b, ahead, positive: d > 0        above a: d < 0
    d = 100 (a / b - 1) rose, higher: d > 0

A sentence that names no fact, or one of the three, is about the last such d of the record.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from ..data.facts.fact import Facts
from ..data.facts.phrasal import particles_behind
from .names import Name, Names
from .words import words

UP = words(
    "rose rise rises rising risen grew grow grows grown increase increased increases increasing climbed climb "
    "climbs gained gain gains up upward upwards higher stronger expanded expansion improved improvement improves "
    "advanced advance better favourable favorable positive growth jumped surged soared strengthened topped"
)
DOWN = words(
    "fell fall falls falling fallen shrank shrink shrinks shrinking decrease decreased decreases decreasing "
    "dropped drop drops down downward downwards lower weaker slower contracted contraction declined decline "
    "declines declining worse negative loss losses short shortfall reduced slipped slid plunged slumped weakened "
    "minus"
)
# Of two that are compared.
IN_FRONT = words("ahead led beat beats outperformed outpaced surpassed exceeds exceeded front")
BEHIND = words("behind lagged lags trailed trails underperformed")
FALLING = re.compile(
    r"\b(?:fell|fall\w*|down|declin\w*|decreas\w*|dropp?\w*|lower|loss|below|short|negative|shr[aiu]nk\w*)\b",
    re.IGNORECASE,
)
_ABOVE, _BELOW = "above|over|exceeding|beyond", "below|under|beneath"
_COMPARED = re.compile(rf"\b(?:(?P<above>{_ABOVE})|(?P<below>{_BELOW}))(?P<tail>(?:[ \u00a0][\w-]+){{0,6}}[ \u00a0]?)$")
# A sentence with one of these says what may be, or what is not.
_OPEN = re.compile(
    r"\b(?:expects?|will|would|may|might|could|should|plans?|next|looks for|board|sights|not|never|no|neither|each|none"
    r"|every|whether|if|unless)\b"
)
_EARLIER = words("prior previous preceding earlier last past former before ago")
_DIFFERENCE = re.compile(r"(\w+) - (\w+)")
_CHANGE = re.compile(r"100 \* \((\w+) / (\w+) - 1\)")


class Signed(NamedTuple):
    """A derived difference, what it is taken of, and its sign.

    relative  a change in per cent
    compares  True of two things of one time: "ahead" and "behind" beside a change over time speak of something else
    """

    key: str
    a: str
    b: str
    sign: int
    relative: bool
    compares: bool


class Directions:
    """The words that a record contradicts."""

    def __init__(self, facts: Facts, names: Names) -> None:
        self.signed = [signed for key in facts if (signed := _signed(key, facts)) is not None]
        self.names = names
        self.against: dict[tuple[int, bool], frozenset[str]] = {}
        self.spoken = frozenset(word for phrase in names.owners for word in phrase.split(" "))

    def denied_in(self, sentence: str, names: Sequence[Name]) -> frozenset[str]:
        """The words that may not follow a sentence so far."""
        if not self.signed:
            return frozenset()
        low = sentence.lower()
        if _OPEN.search(low):
            return frozenset()
        compared = _COMPARED.search(low)
        denied = self._objects(compared) if compared is not None else frozenset()
        main = self.signed[-1]
        about = names[-1].keys if names else ()
        sign, of = 0, main
        for signed in self.signed:
            if signed.key in about:
                sign, of = signed.sign, signed
                break
        else:
            if main.b in about and not main.relative:
                sign = -main.sign
            elif not about or main.a in about or main.b in about:
                sign = main.sign
            else:
                return denied
        against = self._against(sign, is_compared=of.compares)
        denied = denied | against if denied else against
        return denied - particles_behind(low)

    def _against(self, sign: int, *, is_compared: bool) -> frozenset[str]:
        """The words that say the other sign; of none, those that say either."""
        if (sign, is_compared) not in self.against:
            self.against[sign, is_compared] = self._words_against(sign, is_compared)
        return self.against[sign, is_compared]

    def _words_against(self, sign: int, is_compared: bool) -> frozenset[str]:
        up, down = (UP | IN_FRONT, DOWN | BEHIND) if is_compared else (UP, DOWN)
        return (up if sign < 0 else down if sign > 0 else up | down) - self.spoken

    def _objects(self, compared: re.Match[str]) -> frozenset[str]:
        """The last words of the names that are not what the sentence says they are above or below."""
        wanted = 1 if compared["above"] else -1
        tail = re.findall(r"[\w-]+", compared["tail"])
        denied = set()
        for signed in self.signed:
            for key, positive in ((signed.b, 1), (signed.a, -1)):
                if signed.sign * positive == wanted:
                    continue
                for phrase, keys in self.names.owners.items():
                    *first, last = phrase.split(" ")
                    if key in keys and tail[len(tail) - len(first) :] == first:
                        denied.add(last)
        return frozenset(denied)


def _signed(key: str, facts: Facts) -> Signed | None:
    fact = facts[key]
    if fact.source is None or not fact.is_figure:
        return None
    change, difference = _CHANGE.fullmatch(fact.source), _DIFFERENCE.fullmatch(fact.source)
    match = change or difference
    if match is None:
        return None
    sign = (fact.number > 0) - (fact.number < 0)
    compares = change is None or not _is_over_time(facts[match[1]].label, facts[match[2]].label)
    return Signed(key, match[1], match[2], sign, change is not None, compares)


def _is_over_time(now: str, before: str) -> bool:
    """True if one label names what the other does, at an earlier time: "sales", "prior revenue"; "x 2024", "x 2023"."""
    words_of = [set(re.findall(r"[^\W\d_]+", label.lower())) for label in (now, before)]
    return words_of[0] <= words_of[1] or not _EARLIER.isdisjoint(words_of[1])
