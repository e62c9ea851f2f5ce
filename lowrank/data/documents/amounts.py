"""Texts that look like an amount: what a person would have taken for a figure, and no reader has."""

import re

from ..facts.currencies import months
from ..facts.numerals import FRACTION, read_as

_NUMBER = rf"(?:\d[\d.,' \u00a0]*(?:{FRACTION})?|[.,]\d+|{FRACTION})"
_ABOUT = (
    r"(?i:about|approx\.?|approximately|around|circa|ca?\.|nearly|almost|over|under|above|below|some|roughly|more than"
    r"|less than|at least|at most|up to)"
)
_AMOUNT = re.compile(
    rf"""[-+(<>≤≥~≈±x ]*(?:(?:{_ABOUT.replace(" ", "[ ]")}|R|[A-Z]{{3,4}}|Dr|CR)[ ])?
    [-+(]*{_NUMBER}-?
    (?:[^\W\d_]{{1,8}}\d?[a-z]*|[eE][+-]?\d+|[:/]\d+|\^\d+)?         # glued: "412kt", "1e6", "1:4"
    (?:[ \u00a0]*(?:to|of|in|or|-)[ \u00a0]*{_NUMBER})?               # "5 of 12", "5-7"
    (?:[ \u00a0]*[(/]?(?:[^\W\d_][\w./²³-]*|[€$£¥%])\)?){{0,2}}       # its unit, or what it counts
    [-)+*†‡¹²³ ]*""",
    re.VERBOSE,
)
_MONTH = "|".join(map(re.escape, months()))
_NONE = re.compile(
    rf"""\d{{1,2}}:\d\d.* | (?:19|20)\d\d(?:\D*|[-/]\d+) | 0\d+ | \d+(?:st|nd|rd|th)\b.* | .*\b(?i:{_MONTH})\b.*
    | \d{{1,5}}[ ][A-Z]\w+[ ][A-Z]\w+ | [A-Z]{{2,}}[ ]?\d+""",  # a time, a year, an account, a date, an address
    re.VERBOSE,
)
_ERROR = re.compile(r"#(?:N/A|REF!|DIV/0!|VALUE!|NAME\?|NUM!|NULL!)")


def looks_like_amount(text: str) -> bool:
    """True for "412 kt CO2e", "2.5:1", "about 400 stores", "1e6" and "#REF!", False for "12:30", "4 March", "0012"."""
    plain = read_as(text).strip()
    if _ERROR.fullmatch(plain):
        return True
    return _AMOUNT.fullmatch(plain) is not None and _NONE.fullmatch(plain) is None
