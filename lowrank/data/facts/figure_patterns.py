"""The patterns of `figures`: what begins a figure, its number in digits or words, and what may stand beside it."""

import re
import unicodedata
from functools import cache

from .currencies import SMALL, is_name, owners
from .number_words import NUMBER_WORDS, SCALE_EXPONENTS, SPELLED, SPELLED_SMALL
from .numerals import FRACTION, NO_CENTS, SLASHED_FRACTION
from .units import BASIS_POINTS, MULTIPLE, PERCENT, POINTS, SCALES, Lexicon

UNITS = Lexicon((*PERCENT, *POINTS, *BASIS_POINTS, *MULTIPLE))
SCALES_BEFORE = Lexicon(
    word for word in SCALES if word.isascii() and SCALES[word] > 2 and word not in ("b", "t", "cr", "cr.", "miles")
)
SCALES_TOO_MANY = Lexicon(word for word in SCALES if word.isascii() and SCALES[word] > 2 and len(word) > 1)
# A scale that is one word with the currency behind it: "T€ 412" and "TEUR" are thousands, "MSEK" and "mkr" millions.
GLUED_SCALES = {"T": "tausend", "t": "tausend", "k": "k", "K": "k", "M": "m", "m": "m"} | dict.fromkeys(
    ("Md", "Mds", "md"), "mrd"
)
GLUED_SCALE = re.compile(
    r"(?:Mds?|[TkKMm])(?=[€£$]|(?P<code>[A-Z]{3})\b)|(?:[mM]d|[tmTM])(?=kr\b)|Mds?(?= (?:€|EUR\b|d'euros))"
)
SCALE_BEFORE_SIGN = re.compile(r"(?<![^\W_])(?:Mds?|[TkKMm])$")
GLUED_CODE = re.compile(r"(?<![^\W_])[TkKMm](?P<code>[A-Z]{3})$")
OF = re.compile(r"d'|d[eio] |of ", re.IGNORECASE)  # "millions d'euros", "milhões de reais"
SPELLED_UNITS = frozenset({"employees", "employee", "people", "shares", "staff", "ftes"})
_VAGUE = "half(?: an?)?|(?:quarters?|thirds?) of an?|couple of|several|few|hundreds of|tens of|dozens of"


@cache
def signs() -> Lexicon:
    """Signs and codes that may stand before a number."""
    return Lexicon((), exact=(text for text in owners() if not is_name(text)))


@cache
def signs_behind() -> Lexicon:
    """Signs, codes, names and hundredths that may stand behind one."""
    names = [text for text in owners() if is_name(text)]
    signs = [text for text in owners() if not is_name(text)]
    return Lexicon((*names, *(text for text in SMALL if text.islower() and text != "p")), exact=(*signs, "GBX", "¢"))


# Numbers. An anchor is where the digits or the words of a figure begin.

_FIRST_WORDS = "|".join(sorted(NUMBER_WORDS, key=len, reverse=True))
ANCHOR = re.compile(
    rf"\d|{FRACTION}|(?<![\w.,])\.(?=\d)|(?<!\w)(?i:{_FIRST_WORDS}"
    rf"|an?(?=[ -](?:hundred|{'|'.join(SCALE_EXPONENTS)}))|{_VAGUE})\b"
)
_GROUPS = rf"\d{{1,3}}(?:[ ]\d{{3}})+(?!\d)(?:[.,]\d+|{NO_CENTS}(?![\w-]))?"
NUMBER = re.compile(
    rf"(?:\d{{1,3}}(?:['\u00a0]\d{{3}})+(?!\d)(?:[.,]\d+)?|(?<!\w)\d{{1,3}}(?:[ ]\d{{3}})+,\d\d?(?![\d,])"
    rf"|\d+(?:[.,]\d+)*|\.\d+)(?:[ \u00a0]?{FRACTION}|{NO_CENTS}(?![\w-]))?|{FRACTION}"
)
SLASHED = re.compile(rf"(?<![\w.,/-]){SLASHED_FRACTION}(?![\w/]|[.,]\d)")
SPACED_NUMBER = re.compile(rf"(?<!\w){_GROUPS}")
WORDS = re.compile(SPELLED, re.VERBOSE | re.IGNORECASE)
SMALL_WORDS = re.compile(SPELLED_SMALL, re.VERBOSE | re.IGNORECASE)
VAGUE_AMOUNT = re.compile(rf"(?:{_VAGUE}) (?:hundred|{'|'.join(SCALE_EXPONENTS)})\b", re.IGNORECASE)
NO_MINUS_BEHIND = frozenset("%)]")


def kind_of_unit(unit: str) -> str:
    """The kind of figure that a unit makes."""
    for kind, words in (
        ("percent", PERCENT),
        ("points", POINTS),
        ("basis points", BASIS_POINTS),
        ("multiple", MULTIPLE),
    ):
        if unit in words:
            return kind
    return "count"


def owners_of(sign: str) -> tuple[str, ...]:
    """The currencies that a sign or code may stand for; R by itself is the rand."""
    return ("ZAR",) if sign == "R" else owners()[sign]


def is_joined(letter: str) -> bool:
    """True for a letter that belongs to the number before it; scripts without spaces go on with the next word."""
    return letter < "\u0530" or not letter.isalpha()


def is_currency_sign(letter: str) -> bool:
    """True for a character that Unicode calls a sign of a currency."""
    return len(letter) == 1 and unicodedata.category(letter) == "Sc"
