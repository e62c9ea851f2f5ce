"""Dates and periods in the orders in which people write them.

    2025-03-31   31/03/2025   03/31/2025   31.03.2025   31-Mar-25   31 March 2025   March 31st, 2025   31. März 2025
    Q3 2024   2024 Q3   3Q24   third quarter of 2024   first half of 2024   H1 2024   FY2024   fiscal year 2024   2024

3/4/2025 is settled by the `Convention`; the other forms say which number is the day.
"""

import datetime
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from .currencies import months
from .numerals import ENGLISH, Convention, read_as

_MONTH = "|".join(map(re.escape, sorted(months(), key=len, reverse=True)))
_S = "[ \u00a0]"
_END = r"(?!\w|[./-]\d)"
_DATE = re.compile(
    rf"""(?<![\w./-])(?:
      (?P<iso_year>\d{{4}})(?P<iso>[-/.])(?P<iso_month>\d\d?)(?P=iso)(?P<iso_day>\d\d?){_END}
    | (?P<first>\d\d?)(?P<sign>[/.-])(?P<second>\d\d?)(?P=sign)(?P<number_year>\d{{4}}|\d\d){_END}
    | (?P<day>\d\d?)(?:st|nd|rd|th|er|\.)?(?:{_S}|-|{_S}(?:of|de|den|d'){_S}?)(?P<month>{_MONTH})\.?
      (?:,?{_S}|-|{_S}(?:de|del){_S})(?P<year>\d{{4}}|(?<=-)\d\d){_END}
    | (?P<month_first>{_MONTH})\.?{_S}(?P<day_second>\d\d?)(?:st|nd|rd|th)?,?{_S}(?P<year_last>\d{{4}}){_END}
    | (?P<cjk_year>\d{{4}})年(?P<cjk_month>\d\d?)月(?P<cjk_day>\d\d?)日
    )""",
    re.VERBOSE | re.IGNORECASE,
)

_MIDNIGHT = re.compile(r"(?<=\d)[T ]00:00(?::00(?:\.0+)?)?(?:Z|[+-]00:?00)?$")
_COMPACT = re.compile(r"((?:19|20)\d\d)(\d\d)(\d\d)")


@dataclass(frozen=True)
class WrittenDate:
    """A date from `start` to `end` of its text; in doubt if a convention that nothing settled chose day and month."""

    start: int
    end: int
    date: datetime.date
    in_doubt: bool = False


def find_dates(text: str, convention: Convention = ENGLISH) -> Iterator[WrittenDate]:
    """The dates of a text, in order. What has the form of a date and is none (31 February) is left to the figures."""
    for match in _DATE.finditer(read_as(text)):
        date, in_doubt = _date(match, convention)
        if date is not None:
            yield WrittenDate(*match.span(), date, in_doubt)


def read_date(text: str, convention: Convention = ENGLISH) -> WrittenDate | None:
    """The date that a text is as a whole, None for another text; midnight behind it adds nothing."""
    bare = _MIDNIGHT.sub("", text)
    found = next(find_dates(bare, convention), None)
    if found is None or (found.start, found.end) != (0, len(bare)):
        return None
    return replace(found, end=len(text))


def compact_date(text: str) -> WrittenDate | None:
    """The date of eight digits, 20240331, None for another text."""
    if (match := _COMPACT.fullmatch(text)) is None:
        return None
    try:
        return WrittenDate(0, len(text), datetime.date(*map(int, match.groups())))
    except ValueError:  # no such day
        return None


def is_no_day(text: str) -> bool:
    """True for a text in the form of a date that is none: 31/04/2025."""
    match = _DATE.fullmatch(read_as(text))
    return match is not None and _date(match, ENGLISH)[0] is None


def _date(match: re.Match[str], convention: Convention) -> tuple[datetime.date | None, bool]:
    in_doubt = False
    if match["iso"]:
        parts = match["iso_year"], match["iso_month"], match["iso_day"]
    elif match["cjk_year"]:
        parts = match["cjk_year"], match["cjk_month"], match["cjk_day"]
    elif match["sign"]:
        first, second = int(match["first"]), int(match["second"])
        either = first <= 12 and second <= 12 and first != second
        day_first = second <= 12 and (first > 12 or match["sign"] == "." or convention.day_first)
        in_doubt = either and match["sign"] != "." and not convention.day_settled
        day, month = (first, second) if day_first else (second, first)
        parts = match["number_year"], str(month), str(day)
    elif match["day"]:
        parts = match["year"], str(months()[match["month"].lower()]), match["day"]
    else:
        parts = match["year_last"], str(months()[match["month_first"].lower()]), match["day_second"]
    year, month_number, day_number = map(int, parts)
    if len(parts[0]) == 2:
        year += 2000 if year < 70 else 1900
    try:
        return datetime.date(year, month_number, day_number), in_doubt
    except ValueError:  # no such day
        return None, False


def settle_dates(convention: Convention, texts: Iterable[str], *, dollars: bool) -> Convention:
    """The convention with the order of day and month that the dates tell which can be read in one way alone.

    dollars  True if all money of the record is in US dollars: then the month is first where no date tells
    """
    votes = {True: 0, False: 0}
    for text in texts:
        for match in _DATE.finditer(read_as(text)):
            if match["sign"] in ("/", "-"):
                first, second = int(match["first"]), int(match["second"])
                if (first > 12) != (second > 12):
                    votes[first > 12] += 1
    if convention.day_settled or votes[True] == votes[False]:
        return convention if convention.day_settled else replace(convention, day_first=not dollars)
    return replace(convention, day_first=votes[True] > votes[False], day_settled=True)


# Periods

_ORDINALS = {"first": "1", "1st": "1", "second": "2", "2nd": "2", "third": "3", "3rd": "3", "fourth": "4", "4th": "4"}
_PERIOD = re.compile(
    rf"""(?<![\w])(?:
      (?P<part>[qh][1-4]){_S}?(?:of{_S})?(?:fy{_S}?)?(?P<a>(?:19|20)\d\d|'\d\d|(?<=\d)(?<!\d\d)\d\d)
    | (?P<turned>[1-4][qh]){_S}?(?:fy{_S}?)?'?(?P<b>(?:19|20)\d\d|\d\d)
    | (?P<c>(?:19|20)\d\d)[ \u00a0-]?(?P<behind>[qh][1-4])
    | (?P<ordinal>{"|".join(_ORDINALS)})[ \u00a0-](?P<span>quarter|half)(?:,?{_S}of|,)?{_S}
      (?:(?:fiscal|fy|the{_S}year){_S}?(?:year{_S})?)?(?P<d>(?:19|20)\d\d)
    | (?P<fiscal>fy|fiscal(?:{_S}year)?|financial{_S}year){_S}?
      '?(?P<e>(?:19|20)\d\d(?:[/-]\d\d(?:\d\d)?)?|\d\d(?:/\d\d)?)
    )(?!\w|[.,/-]\d)""",
    re.VERBOSE | re.IGNORECASE,
)


def find_periods(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, key) of the quarters, halves and fiscal years of a text: "Q3 2024" and "3Q24" are both "q3 2024"."""
    for match in _PERIOD.finditer(read_as(text)):
        year = next(filter(None, (match[name] for name in "abcde"))).lstrip("'")
        if match["fiscal"]:
            part = "fy"
        elif match["ordinal"]:
            part = match["span"][0] + _ORDINALS[match["ordinal"].lower()]
        else:
            part = match["part"] or match["behind"] or match["turned"][::-1]
        head, sign, tail = re.sub("-", "/", year).partition("/")
        head = head if len(head) == 4 else f"20{head}"
        yield *match.span(), f"{part.lower()} {head}{sign}{tail[-2:]}"


def period_key(text: str) -> str | None:
    """The key of a text that is a period as a whole, None for another text."""
    found = next(find_periods(text), None)
    return found[2] if found is not None and found[:2] == (0, len(text)) else None


_BARE_PERIOD = re.compile(r"(?:19|20)\d\d(?:/\d\d(?:\d\d)?)?")


def is_period(text: str) -> bool:
    """True for a period, and for a bare year."""
    return period_key(text) is not None or _BARE_PERIOD.fullmatch(text) is not None
