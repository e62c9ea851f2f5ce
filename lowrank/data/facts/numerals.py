"""Numbers in digits, with the signs that people group them by and put before their decimals.

    1,234.56    1.234,56    1 234,56    1'234.56    12,34,567.89        12,5    1.25    .5    2½    2 1/2    12'500.-

With both signs, the last is that of the decimals. A sign that comes twice groups. One sign before three digits may be
either ("1.234"): the `Convention` of the record decides, and the number says that it was in doubt.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from .currencies import locales

# Characters as they are read, each for one: so places in a text stay as they are.
_SPACES = dict.fromkeys(
    "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000", "\u00a0"
)
_MINUSES = dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-")
_APOSTROPHES = dict.fromkeys("\u2019\u02bc\uff07", "'")
_WIDE = {"\uff05": "%", "\uff0c": ",", "\uff0e": ".", "\uff08": "(", "\uff09": ")", "\uff1a": ":", "\uff0f": "/"}
_READ_AS = str.maketrans(_SPACES | _MINUSES | _APOSTROPHES | _WIDE)
_OTHER_DIGIT = re.compile(r"[^\x00-\x7f]")

_FRACTIONS = {"½": "0.5", "¼": "0.25", "¾": "0.75", "⅛": "0.125", "⅜": "0.375", "⅝": "0.625", "⅞": "0.875"} | {
    "⅕": "0.2", "⅖": "0.4", "⅗": "0.6", "⅘": "0.8", "⅒": "0.1",
}  # fmt: skip
FRACTION = f"[{''.join(_FRACTIONS)}⅓⅔⅙⅚⅐⅑↉⅟]"  # a third has no end, and is no number here
SLASHED_FRACTION = r"(?:\d{1,3}[ \u00a0-])?\d{1,2}/(?:[2-9]|10|16|32)"
NO_CENTS = r"(?:[.,](?:--?|—)|:-)"  # "12'500.-", "12.500,-", "500:-": no hundredths
MAX_DIGITS = 40  # of a number that is understood

_SLASHED = re.compile(r"(?:(\d+)[ \u00a0-])?(\d+)/(\d+)")
_WHOLE = re.compile(r"(?P<whole>[^,.:]*(?:[,.][^,.:]+)*)(?P<sign>[,.:])(?:--?|—)")
_BEFORE_THREE = re.compile(r"(\d+)([.,])(\d+)")


def read_as(text: str) -> str:
    """The text with every space, minus, apostrophe and digit of another script as the one it stands for."""
    text = text.translate(_READ_AS)
    return _OTHER_DIGIT.sub(lambda match: str(int(match[0])) if match[0].isdecimal() else match[0], text)


@dataclass(frozen=True)
class Convention:
    """The convention in which a record writes numbers and dates.

    decimal    "." or ",", the sign before decimals
    spaced     True if digits may be grouped by plain spaces
    day_first  True if 3/4/2025 is the third of April, False if it is the fourth of March
    settled    False if nothing in the record told the sign, or some of it each
    doubts_commas  True if "1,234" is in doubt too: some of the record has decimal commas, or the looks of them
    day_settled  the same of the order of dates
    """

    decimal: str = "."
    spaced: bool = False
    day_first: bool = True
    settled: bool = False
    day_settled: bool = False
    doubts_commas: bool = False

    @classmethod
    def of_locale(cls, name: str) -> "Convention":
        """That of a locale of CLDR: "de", "en_US", "fr-CH".  Raises ValueError for a name that is none."""
        language, _, territory = name.replace("-", "_").partition("_")
        key = f"{language.lower()}_{territory.upper()}" if territory else language.lower()
        if key not in locales():
            raise ValueError(f"locale: must be one of CLDR's, such as en, en_US, de, fr_CH, got {name!r}")
        decimal, date = locales()[key]
        return cls(decimal, decimal == ",", date.index("d") < date.index("m"), settled=True, day_settled=True)


ENGLISH = Convention()


class Numeral(NamedTuple):
    """A number: its value, the exponent of its last place, and True if a convention had to decide what it is."""

    value: Decimal
    place: int
    in_doubt: bool = False


def numeral(text: str, convention: Convention = ENGLISH) -> Numeral | None:
    """The number of digits with their signs, read as `read_as` gives them; None for what is no number."""
    if (slashed := _SLASHED.fullmatch(text)) is not None:
        return _slashed(*slashed.groups())
    fraction = _FRACTIONS.get(text[-1:], "")
    digits = re.sub("['\u00a0 ]", "", text[:-1] if fraction else text)
    if re.search(r"[^\d.,:—-]", digits):  # a third
        return None
    if (whole_money := _WHOLE.fullmatch(digits)) is not None:
        grouped, sign = whole_money["whole"], whole_money["sign"]
        is_number = grouped.isdecimal() or any(_is_grouped(grouped, sign + other) for other in ".," if other != sign)
        return _number(grouped, "") if is_number else None
    was_grouped = len(digits) + bool(fraction) < len(text.replace("\u00a0" + text[-1:], text[-1:]))
    if fraction:
        whole = numeral(digits, convention) if digits else Numeral(Decimal(0), 0)
        if whole is None or whole.place < 0:
            return None
        part = Decimal(fraction)
        return Numeral(whole.value + part, int(part.as_tuple().exponent))
    points, commas = digits.count("."), digits.count(",")
    if points and commas:
        decimal = "." if digits.rindex(".") > digits.rindex(",") else ","
        whole_part, _, decimals = digits.rpartition(decimal)
        if not _is_grouped(whole_part, ".," if decimal == "." else ",."):
            return None
        return _number(whole_part, decimals)
    sign = "." if points else ","
    if points + commas > 1:
        return _number(digits, "") if _is_grouped(digits, ".," if sign == "," else ",.") else None
    match = _BEFORE_THREE.fullmatch(digits)
    if match is None:
        return _number("", digits[1:]) if points + commas else _number(digits, "")
    whole_part, _, decimals = match.groups()
    if len(decimals) != 3 or len(whole_part) > 3 or whole_part.startswith("0") or was_grouped:
        return _number(whole_part, decimals)
    if sign == convention.decimal:
        return _number(whole_part, decimals, in_doubt=not convention.settled)
    in_doubt = not convention.settled and (sign == "." or convention.doubts_commas)
    return _number(whole_part + decimals, "", in_doubt=in_doubt)


def _slashed(whole: str | None, above: str, below: str) -> Numeral | None:
    """ "2 1/2" is 2.5; None for what is no proper fraction, or one without an end."""
    part = Fraction(int(above), int(below))
    shortest = next((place for place in range(6) if (part * 10**place).denominator == 1), None)
    if part >= 1 or shortest is None:
        return None
    number = int(whole or 0) * 10**shortest + int(part * 10**shortest)
    return Numeral(Decimal(number).scaleb(-shortest), -shortest)


def _is_grouped(whole: str, signs: str) -> bool:
    """True for digits grouped by the second of two signs: by threes, and by a comma also as lakhs are, 12,34,567."""
    group = re.escape(signs[1])
    threes = re.fullmatch(rf"\d{{1,3}}(?:{group}\d{{3}})+", whole)
    lakhs = signs[1] == "," and re.fullmatch(r"\d{1,2}(?:,\d\d)+,\d{3}", whole)
    return bool(threes or lakhs)


def _number(whole: str, decimals: str, *, in_doubt: bool = False) -> Numeral:
    digits = re.sub(r"\D", "", whole)
    return Numeral(Decimal(f"{digits or 0}.{decimals}"), -len(decimals), in_doubt)


_NUMBER_IN_TEXT = re.compile(r"(?<![\w.,/])\d{1,3}(?:[ \u00a0']\d{3})*(?:[.,]\d+)+(?![\w/]|[.,]\d)")
_SPACED_NUMBER = re.compile(r"(?<![\w.,])\d{1,3}(?: \d{3})+(?:,\d+)?(?![\w.,]?\d)")
_CONTINENTAL = re.compile(r"\d[ \u00a0](?:[€%]|EUR\b|kr\b|zł|Kč)")
_COMMA_WORDS = re.compile(
    r"\b(?:Mio|Mrd|Tsd|Millionen|Milliarden|millions? d['e]|milliards?|millones|milhões|milioni)\b"
)


def convention_of(texts: Iterable[str]) -> Convention:
    """The convention that most of the numbers tell that can be read in one way alone; else as in English.

    texts  printed values of a record, or whole texts
    """
    votes = {".": 0, ",": 0}
    spaced, continental = 0, False
    for text in map(read_as, texts):
        continental = continental or _CONTINENTAL.search(text) is not None
        spaced += len(_SPACED_NUMBER.findall(text))
        votes[","] += len(_COMMA_WORDS.findall(text))
        for match in _NUMBER_IN_TEXT.finditer(text):
            digits = re.sub("['\u00a0 ]", "", match[0])
            points, commas = digits.count("."), digits.count(",")
            found = numeral(match[0])
            if found is None:
                continue
            if points and commas:
                votes["." if digits.rindex(".") > digits.rindex(",") else ","] += 1
            elif points + commas > 1:
                votes["," if points else "."] += 1
            elif found.place and not found.in_doubt:
                votes["." if points else ","] += 1
    if not votes["."] and not votes[","]:
        return Convention(spaced=spaced > 0, doubts_commas=continental)
    decimal = "," if votes[","] > votes["."] else "."
    is_mixed = votes["."] > 0 and votes[","] > 0
    return Convention(decimal, spaced > 0, settled=not is_mixed, doubts_commas=is_mixed)
