"""Figures as they are written: the one reader, for facts, documents, the checker and grounding.

    "$812.4 million"  "EUR -12,4"  "₹12,34,567"  "412,5 Mio. €"  "(8.4)%"  "150 bps"  "3.41x"  "12.4p"  "1'204"
    "twelve million dollars"  "a billion euros"  "seven point five per cent"

    magnitude = number * 10^exponent     exponent: 3, 6, 9 ... by its scale, -2 for basis points and for cents
    quantum = the place of the number's last digit, in the same

Every digit of a text belongs to a figure. What is written beside one is a part of it: a scale, a currency or a unit
that this module does not know, or two that do not go together, make a figure that is `unknown`, and states nothing.
A word that looks like a unit and is not known is the figure's unit, as it stands ("412 kt").
"""

from dataclasses import replace
from decimal import localcontext
from functools import lru_cache

from .figure import Figure
from .figure_patterns import ANCHOR
from .figure_reader import FigureReader
from .formula import ARITHMETIC
from .numerals import ENGLISH, Convention, read_as
from .units import UNITS_OF, unit_at


def read_figures(text: str, convention: Convention = ENGLISH) -> list[Figure]:
    """The figures of a text, in order."""
    masked = read_as(text)
    plain = masked.replace("\u00a0", " ")
    found: list[Figure] = []
    position = 0
    with localcontext(ARITHMETIC):
        while (anchor := ANCHOR.search(plain, position)) is not None:
            figure = FigureReader(masked, plain, convention, position).figure(anchor)
            if figure is None:
                position = anchor.end()
                continue
            found.append(replace(figure, text=text[figure.start : figure.end]))
            position = figure.end
    return found


@lru_cache(maxsize=4096)
def read_figure(text: str, convention: Convention = ENGLISH) -> Figure | None:
    """The figure that a text is as a whole, its unit included, None if it is none.

    In parentheses it is enclosed, and with a minus behind it, "1,234.50-", negative.
    """
    if (figure := _whole(text, convention)) is not None:
        return figure
    if read_as(text[-1:]) == "-" and text[-2:-1].strip():
        figure = _whole(text[:-1], convention)
        if figure is not None and figure.start == 0 and not (figure.negative or figure.enclosed):
            return replace(figure, end=len(text), text=text, negative=True)
    return None


def _whole(text: str, convention: Convention) -> Figure | None:
    inner = text[1:-1] if text.startswith("(") and text.endswith(")") else text
    figures = read_figures(inner, convention)
    if len(figures) != 1 or figures[0].start:
        return None
    figure = figures[0]
    if figure.unit and figure.unit not in UNITS_OF.values():
        return None
    if figure.kind == "count" and not figure.unit and "/" in text:  # "1/2" may be anything
        return None
    if figure.end < len(inner):
        beside = unit_at(read_as(inner).replace("\u00a0", " "), figure.end) if figure.unit else None
        if beside is None or beside[1] < len(inner):
            return None
    enclosed = figure.enclosed or (inner is not text and not inner.startswith("+"))
    return replace(figure, start=0, end=len(text), text=text, enclosed=enclosed)
