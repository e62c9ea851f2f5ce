"""Panels of grouped rows over one horizontal axis: bars from 0, and differences with their 95 % intervals."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, TypeVar

from .svg import CHARACTER, Axis, axis_range, shorten, svg, text

STYLE = """
svg .group, svg .value { fill: var(--ink); paint-order: stroke; stroke: var(--paper); stroke-width: 3px; }
svg .group { font-weight: 600; stroke-width: 8px; }
svg .track { fill: var(--rule); opacity: .5; }
svg .strong { fill: var(--strong); } svg .plain { fill: var(--plain); }
"""
INTERVAL_STYLE = """
svg .span { stroke-width: 2.5; stroke-linecap: round; } svg .dot.plain { stroke: none; }
svg .good { stroke: var(--right); fill: var(--right); } svg .bad { stroke: var(--wrong); fill: var(--wrong); }
svg .span.plain { stroke: var(--plain); }
"""

_WIDTH, _ROW, _BAR_VALUE, _INTERVAL_VALUE, _LEFT = 320, 20, 48, 62, 8


class _Row(Protocol):
    @property
    def group(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def shown(self) -> str: ...


_R = TypeVar("_R", bound=_Row)


@dataclass(frozen=True)
class Bar:
    """One bar of a panel: bars of one group follow one another; `value` is None if it was not measured."""

    group: str
    label: str
    value: float | None
    shown: str
    strong: bool


@dataclass(frozen=True)
class Difference:
    """One line of a panel; `low` and `high` are NaN where there is no interval, all three where there is no value.

    better  True or False for a difference to the better or the worse, None if its interval contains zero
    """

    group: str
    label: str
    difference: float
    low: float
    high: float
    shown: str
    better: bool | None


def bar_panel(bars: Sequence[Bar], title: str, percent: bool, unit: str = "") -> str:
    """Horizontal bars from 0, grouped, each with its label before it and its value behind it.

    percent  the values are shares of 1 and the axis ends at 100%; else it ends at the next round number
    unit     the name of the axis, below it
    """
    end = 1.0 if percent else axis_range(bar.value for bar in bars if bar.value is not None)[1]
    axis = Axis(0, end, _left(bars), _WIDTH - _BAR_VALUE)
    marks = [(value, f"{100 * value:.0f}%" if percent else f"{value:g}") for value in axis.ticks(3)]
    return _panel(bars, title, axis, marks, _bar, unit)


def interval_panel(rows: Sequence[Difference], title: str, unit: str = "") -> str:
    """Dots at differences with a line for each interval; the axis is symmetric around zero, `unit` its name below."""
    values = [abs(x) for row in rows for x in (row.difference, row.low, row.high) if x == x]
    reach = max(values, default=0.0) or 1.0
    axis = Axis(-reach, reach, _left(rows), _WIDTH - _INTERVAL_VALUE)
    marks = [(value, f"{value:+g}" if value else "0") for value in axis.ticks(4)]
    return _panel(rows, title, axis, marks, _interval, unit)


def _left(rows: Sequence[_Row]) -> float:
    return _LEFT + CHARACTER * max(len(shorten(row.label)) for row in rows)


def _panel(
    rows: Sequence[_R],
    title: str,
    axis: Axis,
    marks: Iterable[tuple[float, str]],
    draw: Callable[[_R, Axis, float], Iterator[str]],
    unit: str,
) -> str:
    """Rows below the names of their groups, over vertical rules; `draw` adds to each row what belongs to its value."""
    lines, y = [], 0.0
    for group, members in groupby(rows, key=lambda row: row.group):
        y += _ROW
        lines.append(text(0, y - 5, shorten(group, 36), "group"))
        for row in members:
            lines += [text(0, y + 13, shorten(row.label)), *draw(row, axis, y)]
            y += _ROW
        y += 4
    rules = []
    for value, shown in marks:
        x = axis.at(value)
        rules.append(f'<path class="{"rule" if value else "axis"}" d="M{x:.1f} {_ROW}V{y:.0f}"/>')
        rules.append(text(x, y + 16, shown, "middle"))
    if unit:
        rules.append(text((axis.start + axis.end) / 2, y + 36, unit, "middle"))
    description = "; ".join(f"{row.group}, {row.label}: {row.shown}" for row in rows)
    return svg("panel", _WIDTH, y + (42 if unit else 22), title, description, [*rules, *lines], largest=1.25)


def _bar(bar: Bar, axis: Axis, y: float) -> Iterator[str]:
    end = axis.at(bar.value or 0.0)
    shape = f'x="{axis.start:.1f}" y="{y + 3:.0f}" width="{end - axis.start:.1f}" height="{_ROW - 7}"'
    yield f'<rect class="{"strong" if bar.strong else "plain"}" {shape}/>'
    yield text(end + 5, y + 13, bar.shown, "value")


def _interval(row: Difference, axis: Axis, y: float) -> Iterator[str]:
    kind = {True: "good", False: "bad", None: "plain"}[row.better]
    middle = y + _ROW / 2 - 1
    if row.low == row.low:
        low, high = axis.at(row.low), axis.at(row.high)
        yield f'<path class="span {kind}" d="M{low:.1f} {middle:.0f}H{max(high, low + 0.5):.1f}"/>'
    if row.difference == row.difference:
        yield f'<circle class="dot {kind}" cx="{axis.at(row.difference):.1f}" cy="{middle:.0f}" r="4"/>'
    yield text(_WIDTH, y + 13, row.shown, "value end")
