"""Differences with their intervals as a chart: a dot, a line for 95 %, and the zero that it has to keep clear of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from .charts import CHARACTER, between, escape, shorten, svg, ticks

_WIDTH, _ROW, _VALUE = 320, 20, 62
_LEFT = 8


@dataclass(frozen=True)
class Row:
    """One line of a panel; `low` and `high` are NaN where there is no interval, all three where there is no value.

    better  whether the difference is one for the better: True, False, or None where it is not told from zero
    """

    group: str
    label: str
    difference: float
    low: float
    high: float
    shown: str
    better: bool | None


def interval_panel(rows: Sequence[Row], title: str) -> str:
    """A panel of differences around zero, grouped; its axis is as wide on both sides of zero as the widest needs."""
    drawn = [row for row in rows if row.difference == row.difference]
    reach = max((abs(x) for row in drawn for x in (row.difference, row.low, row.high) if x == x), default=0.0)
    reach = reach or 1.0
    left = _LEFT + CHARACTER * max(len(shorten(row.label)) for row in rows)
    right = _WIDTH - _VALUE
    lines, y = [], 0.0
    for group, members in groupby(rows, key=lambda row: row.group):
        y += _ROW
        lines.append(f'<text class="group" x="0" y="{y - 5:.0f}">{escape(shorten(group, 36))}</text>')
        for row in members:
            lines += _line(row, y, reach, left, right)
            y += _ROW
        y += 4
    said = "; ".join(f"{row.group}, {row.label}: {row.shown}" for row in rows)
    return svg("panel", _WIDTH, y + 22, title, said, [*_axis(reach, left, right, y), *lines])


def _line(row: Row, y: float, reach: float, left: float, right: float) -> Iterator[str]:
    yield f'<text class="tick" x="0" y="{y + 13:.0f}">{escape(shorten(row.label))}</text>'
    kind = {True: "good", False: "bad", None: "plain"}[row.better]
    middle = y + _ROW / 2 - 1
    if row.low == row.low:
        low, high = (between(x, -reach, reach, left, right) for x in (row.low, row.high))
        yield f'<path class="span {kind}" d="M{low:.1f} {middle:.0f}H{max(high, low + 0.5):.1f}"/>'
    if row.difference == row.difference:
        x = between(row.difference, -reach, reach, left, right)
        yield f'<circle class="dot {kind}" cx="{x:.1f}" cy="{middle:.0f}" r="4"/>'
    yield f'<text class="value end" x="{_WIDTH}" y="{y + 13:.0f}">{escape(row.shown)}</text>'


def _axis(reach: float, left: float, right: float, bottom: float) -> Iterator[str]:
    for value in ticks(-reach, reach, count=4):
        x = between(value, -reach, reach, left, right)
        yield f'<path class="{"axis" if abs(value) < 1e-12 else "rule"}" d="M{x:.1f} {_ROW}V{bottom:.0f}"/>'
        shown = "0" if abs(value) < 1e-12 else f"{value:+g}"
        yield f'<text class="tick middle" x="{x:.1f}" y="{bottom + 16:.0f}">{shown}</text>'
