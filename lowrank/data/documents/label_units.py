"""The unit that a label names for its value.

Revenue (EUR million): 412.5     Revenue, in thousands of USD: 412     Revenue [T€]: 412     Price (p): 120
Revenue ($m): $5.2               the label's scale, told            Price (USD per t): 120     not understood, told
"""

import re
from typing import Literal, NamedTuple

from ..facts.currencies import signs_of
from ..facts.figure import Figure
from ..facts.figures import read_figure
from ..facts.numerals import Convention, read_as

Fault = Literal["not read", "not understood", "in doubt", "twice", "contradiction"]

_SCALE = r"(?:m|mn|bn|k|mln|mio\.?|mrd\.?|thousands?|millions?|billions?|crores?|lakhs?)"
_LABEL_UNIT = re.compile(
    r"(?:[ ]*[(\[](?:(?:all[ ])?(?:amounts[ ]|figures[ ])?in[ ])?(?P<bracketed>[^()\[\]]{1,30})[)\]]"
    r"|[ ]in[ ](?P<said>[^()\[\]]{1,30})|(?:,| [-–])[ ]?(?:in[ ])?(?P<behind>[^(),]{1,30})"
    rf"|[ ](?P<last>(?:[A-Z]{{1,2}}\$|[$€£¥₹]|[A-Z]{{3}}[ ]?){_SCALE}|[$€£¥₹%]))$",
    re.IGNORECASE,
)
_SCALE_WORDS = {0: "", 3: " thousand", 5: " lakh", 6: " million", 7: " crore", 9: " billion", 12: " trillion"}
_THOUSANDS = re.compile(r"[ ]?'?000'?s?\b")
_SCALE_OF = re.compile(r"^(?P<scale>[a-z.]+) of (?P<rest>.+)$", re.IGNORECASE)
_IS_UNIT = re.compile(r"[$€£¥₹%‰]|\b(?:USD|EUR|GBP|CHF|JPY|INR|thousands?|millions?|billions?|bps?)\b", re.IGNORECASE)


class United(NamedTuple):
    """A label without the unit that it names, with the figure of its value and the print of that.

    doubt  what has to be told of the unit, behind the value; "" for nothing
    """

    label: str
    figure: Figure | None
    printed: str
    doubt: str = ""
    fault: Fault = "in doubt"


def with_unit_of_label(label: str, value: str, convention: Convention) -> United:
    """Label, figure and print of a line, with the unit that the label names if the value has none."""
    figure = read_figure(value, convention)
    named = next(_LABEL_UNIT.finditer(label), None)
    if named is None or figure is None or figure.unit or figure.kind not in ("count", "money"):
        return United(label, figure, value)
    unit = next(filter(None, named.groups()))
    short = label[: named.start()].rstrip()
    if figure.exponent:
        is_at_odds = figure.kind == "count" and _with_unit("1", unit, convention) is not None
        doubt = f"has a scale of its own beside {unit}, as its label says" if is_at_odds else ""
        return United(label, figure, value, doubt)
    if figure.kind == "money":
        return _scaled(label, short, figure, value, unit, convention)
    if (found := _with_unit(value, unit, convention)) is not None:
        return United(short, *found)
    if named["bracketed"] and _IS_UNIT.search(read_as(unit)):
        return United(label, figure, value, f"is read as a plain number: {unit!r} is not understood", "not understood")
    return United(label, figure, value)


def _scaled(label: str, short: str, money: Figure, value: str, unit: str, convention: Convention) -> United:
    """Money without a scale below a label that may name one: "$5.2" in a column of "$m"."""
    found = _with_unit("1", unit, convention)
    if found is None or found[0].kind != "money":
        return United(label, money, value)
    of_label = found[0]
    if not set(of_label.currencies) & set(money.currencies):
        return United(label, money, value, f"is not in {unit}, as its label says")
    if not of_label.exponent:
        return United(label, money, value)
    for scaled in (f"{value}{_SCALE_WORDS.get(of_label.exponent)}", f"{value[:-1]}{_SCALE_WORDS[of_label.exponent]})"):
        figure = read_figure(scaled, convention)
        if figure is not None and figure.kind == "money" and figure.exponent == of_label.exponent:
            return United(short, figure, scaled, f"is read as {scaled}, as its label says")
    return United(label, money, value, f"is not scaled by {unit}, as its label says")


def _with_unit(value: str, unit: str, convention: Convention) -> tuple[Figure, str] | None:
    """The figure of a number with a unit that stands elsewhere, and its print; None if that is no unit."""
    unit = _THOUSANDS.sub(" thousand", read_as(unit).replace("\u00a0", " ")).strip()
    if (turned := _SCALE_OF.match(unit)) is not None:
        unit = f"{turned['scale']} {turned['rest']}"
    bare = value[1:-1] if value.startswith("(") and value.endswith(")") else value
    is_behind = read_as(bare[-1:]) == "-"
    bare = bare[:-1] if is_behind else bare
    for text in (f"{bare} {unit}", f"{unit} {bare}", f"{bare}{unit}"):
        figure = read_figure(text, convention)
        if figure is None or figure.kind == "unknown" or (figure.kind == "count" and not figure.exponent):
            continue
        sign = "-" * (figure.negative or is_behind or value.startswith("("))
        printed = _printed(figure, sign, bare.lstrip("-−–‒+ "), unit, text)
        read = read_figure(printed, convention)
        if read is not None and read.magnitude == figure.magnitude and read.kind == figure.kind:
            return read, printed
    return None


def _printed(figure: Figure, sign: str, digits: str, unit: str, text: str) -> str:
    if figure.kind == "money":
        scale = _SCALE_WORDS.get(figure.exponent)
        if scale is None:  # pence
            return sign + text.lstrip("-−–‒+ ")
        written = next((of for of in signs_of(figure.currencies[0]) if of in unit), f"{figure.currencies[0]} ")
        return f"{sign}{written}{digits}{scale}"
    if figure.kind == "count":
        return f"{sign}{digits}{_SCALE_WORDS[figure.exponent]}"
    return f"{sign}{digits}{'' if unit in ('%', 'x') else ' '}{unit}"
