"""Words of direction that state none, by the words beside them: "it lays down", "fall due", "as shown below".

"Written down by $3 million" is a fall, and "written down in the agreement" is none.
"""

import re

_S = "[ \u00a0]"
_UP = (
    "add|adds|added|adding|make|makes|made|making|sum|sums|summed|draw|draws|drew|drawn|drawing|follow|follows|followed"
)
_DOWN = (
    "lay|lays|laid|laying|note|notes|noted|noting|pin|pins|pinned|jot|jots|jotted|break|breaks|broke|broken|hand|handed"
)
_EITHER = "set|sets|setting|put|puts|putting"
_WRITTEN = "write|writes|wrote|written|writing"
_OBJECT = rf"(?:{_S}(?:it|them|this|that|these|those|(?:the|a|an){_S}\w+))?"
_BEFORE = re.compile(rf"\b(?:(?P<up>{_UP})|(?P<down>{_DOWN})|(?:{_EITHER})){_OBJECT}{_S}\w*$", re.IGNORECASE)
_PHRASES = re.compile(
    rf"""\b(?:
      (?:{_DOWN}|{_EITHER}){_OBJECT}{_S}down
    | (?:{_WRITTEN}){_OBJECT}{_S}down(?!{_S}(?:by|to|from)\b|{_S}*[^\w\s,;]*$)
    | (?:fall|falls|fell|fallen|falling){_S}(?:due|within|under|into)
    | (?:as|shown|listed|given|stated|described|set{_S}out|see|table|notes?|figures?){_S}below
    | short(?:{_S}|-)(?:term|dated) | down{_S}payments?
    )\b""",
    re.VERBOSE | re.IGNORECASE,
)


def without_phrases(text: str) -> str:
    """A text with the phrases blanked out that have a word of direction and state none: same length."""
    return _PHRASES.sub(lambda match: "_" * len(match[0]), text)


def particles_behind(text: str) -> frozenset[str]:
    """The words of "up" and "down" that state no direction as the next word, or the one begun, of a text."""
    match = _BEFORE.search(text)
    if match is None:
        return frozenset()
    return frozenset({"up"} if match["up"] else {"down"} if match["down"] else {"up", "down"})
