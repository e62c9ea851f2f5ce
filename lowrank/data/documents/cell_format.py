"""The text that a cell of a spreadsheet shows, by its value and its number format.

    412.55 by 0.0 is 412.6         0.125 by 0.0% is 12.5%         1234 by 000000 is 001234
    12.5 by 0.0"%" is 12.5%        412500000 by $0.0,,"m" is $412.5m        2025-03-01 by mmm yyyy is Mar 2025

Numbers are shown in the first section whose condition they meet, a negative one with a minus in front of it all; one in
exponents or fractions plain.
"""

import datetime
import re
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

_TOKEN = re.compile(
    r"""\[\$(?P<currency>[^\]-]*)[^\]]*\] | \[(?P<test>[<>=]+)(?P<bound>[-\d.]+)\] | \[[^\]]*\]
    | "(?P<quoted>[^"]*)" | \\(?P<escaped>.) | _. | \*. | (?P<exponent>E[+-]0+)
    | (?P<number>[0#?][0#?,]*(?:\.[0#?]*)?|\.[0#?]+)
    | (?P<scale>,+) | (?P<percent>%) | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_SECTIONS = re.compile(r'((?:"[^"]*"|\\.|[^;"\\])*)(?:;|$)')
_TESTS = {"<": "__lt__", "<=": "__le__", ">": "__gt__", ">=": "__ge__", "=": "__eq__", "<>": "__ne__"}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def shown(cell: Any) -> str:
    """The text that a cell shows, in one line; "" for an empty one."""
    value, format = cell.value, str(getattr(cell, "number_format", "") or "General")
    if value is None:
        return ""
    if isinstance(value, datetime.date):  # or a time of a day
        return _date(value, format)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return " ".join(str(value).split())
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    return _number(number, format) if number.is_finite() else str(value)


def _date(value: datetime.date, format: str) -> str:
    bare = re.sub(r'\[[^\]]*\]|"[^"]*"|\\.', "", format).lower()
    if "y" in bare and "d" not in bare:
        return f"{_MONTHS[value.month - 1]} {value.year}" if "m" in bare else str(value.year)
    return value.date().isoformat() if isinstance(value, datetime.datetime) else value.isoformat()


@dataclass
class _Section:
    """A section of a format: what stands before the number and behind it, and how the number is written."""

    before: str = ""
    behind: str = ""
    number: str = ""
    exponent: int = 0  # a per cent sign multiplies by 100, a comma behind the number divides by 1,000
    is_plain: bool = False  # in exponents or fractions, or with signs between its digits
    tests: list[tuple[str, Decimal]] = field(default_factory=list)

    def meets(self, number: Decimal) -> bool:
        return all(getattr(number, _TESTS[test])(bound) for test, bound in self.tests if test in _TESTS)


def _section(text: str) -> _Section:
    section = _Section()
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "bound":
            section.tests.append((match["test"], Decimal(match["bound"])))
        elif kind == "number" and not section.number:
            section.number = match[0].rstrip(",")
            section.exponent -= 3 * (len(match[0]) - len(section.number))
        elif kind in ("number", "exponent"):
            section.is_plain, section.behind = True, ""
        elif kind == "scale":
            section.exponent -= 3 * len(match[0])
        elif kind is not None or match[0][0] == "_":
            literal = match[kind] if kind is not None else " "
            section.exponent += 2 * (kind == "percent")
            if section.number:
                section.behind += literal
            else:
                section.before += literal
    return section


def _number(number: Decimal, format: str) -> str:
    """A number in the first section that is for it and writes one."""
    sections = [_section(text) for text in _SECTIONS.findall(format) if text]
    fitting = [section for section in sections if section.number and section.meets(number)]
    if format == "General" or not fitting:
        return f"{number.normalize():f}"
    section = fitting[0]
    scaled = abs(number).scaleb(section.exponent)
    sign = "-" if number < 0 else ""
    if section.is_plain:
        digits = f"{scaled.normalize():f}"
    else:
        digits = _digits(scaled, section.number)
        sign = sign if any(digit in "123456789" for digit in digits) else ""
    before = re.sub(r"[-(+]" if sign else r"[-(]", "", section.before).lstrip()
    return f"{sign}{before}{digits}{section.behind.replace(')', '').rstrip()}"


def _digits(number: Decimal, pattern: str) -> str:
    """A number as zeros, number signs and commas say: "#,##0.00"."""
    whole, _, decimals = pattern.partition(".")
    rounded = number.quantize(Decimal((0, (1,), -len(decimals))), rounding=ROUND_HALF_UP)
    text = f"{rounded:,f}" if "," in whole else f"{rounded:f}"
    head, point, tail = text.partition(".")
    while len(tail) > decimals.count("0") and tail.endswith("0"):
        tail = tail[:-1]
    if "," not in whole:
        head = head.zfill(whole.count("0"))
    return head + (point + tail if tail else "")
