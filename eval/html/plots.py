"""Plots over two axes: lines, a loss curve, histograms, bars, heat maps. Inline SVG in the colours of `page`."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from .page import escape
from .svg import STYLE as SVG_STYLE
from .svg import Axis, axis_range, joined, legend, rule, show_number, svg, text

STYLE = (
    SVG_STYLE
    + """
svg .bar { fill: var(--plain); opacity: .65; } svg .bar.strong { fill: var(--strong); opacity: 1; }
svg .line { fill: none; stroke: var(--plain); stroke-width: 1.75; stroke-linejoin: round; }
svg .line.strong { stroke: var(--strong); stroke-width: 2.25; } svg .line.dashed { stroke-dasharray: 5 4; }
svg .line.dots { stroke-width: 6; stroke-linecap: round; opacity: .8; }
svg .line.dots.strong { stroke-width: 4.5; } svg .faint { opacity: .3; }
svg .line.rings { stroke-width: 1.25; }
svg .mark { stroke: var(--plain); stroke-width: 1.5; }
svg .mark.strong { stroke: var(--strong); stroke-width: 2; } svg .mark.wrong { stroke: var(--wrong); stroke-width: 2; }
main > .scroll { max-width: none; }
svg .heat { fill: var(--strong); } svg .heat.below { fill: var(--wrong); }
svg .cell { font-size: 11px; fill: var(--ink); }
.grid { display: grid; gap: 1rem 2.5rem; grid-template-columns: minmax(0, 1fr); }
.grid h3 { margin-bottom: .5rem; }
.plot { max-width: 46rem; } .heatmap { max-width: 40rem; }
@media (min-width: 56rem) { .grid { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
"""
)
CURVE_STYLE = """
svg .dots { stroke: var(--plain); stroke-width: 4; stroke-linecap: round; opacity: .75; fill: none; }
svg .mean { stroke: var(--strong); stroke-width: 2.25; stroke-linejoin: round; fill: none; }
@media (max-width: 34rem) { .curve text { font-size: 21px; } }
"""

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 624, 40, 258
_CELL_WIDTH, _CELL_HEIGHT, _LABEL_WIDTH = 62, 18, 84
_NARROW, _MOST_WIDE = 18, 12  # beyond so many columns cells are narrow, and numbers show when pointed at
_PALEST, _DARKEST = 0.04, 0.55  # of a cell: the number in it stays readable


@dataclass(frozen=True)
class Line:
    """Points (x, y) under one name; `look` is "", or of "strong", "dashed", "dots", "rings", "faint" what applies."""

    name: str
    points: Sequence[tuple[float, float]]
    look: str = ""

    def path(self, points: Iterable[tuple[float, float]]) -> str:
        """The path through points of the view box, or a dot or a ring at each."""
        if "rings" in self.look:
            data = "".join(f"M{x - 4:.2f} {y:.2f}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0" for x, y in points)
            return f'<path class="line {self.look}" d="{data}"><title>{escape(self.name)}</title></path>'
        data = joined(points, "h0M" if "dots" in self.look else "L")
        return f'<path class="line {self.look}" d="{data}h0"><title>{escape(self.name)}</title></path>'

    def legend_entry(self) -> tuple[str, str]:
        """(name, sample) for `legend`."""
        return self.name, self.path(
            [(-12, 0), (12, 0)] if {"dots", "rings"}.isdisjoint(self.look.split()) else [(0, 0)]
        )


def line_plot(
    lines: Sequence[Line],
    title: str,
    x_name: str,
    y_name: str,
    *,
    log_x: bool = False,
    x_ends: tuple[float, float] | None = None,
    log_y: bool = False,
    beside: Iterable[float] = (),
    description: str = "",
) -> str:
    """Lines over a common x; the y axis starts at 0, or is logarithmic over the values above 0.

    log_x   the x axis is logarithmic, all x being above 0
    x_ends  of the x axis, where plots are read beside each other; None: the first and last x
    beside  values of y in the plots that this one is read beside: they have one axis
    """
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points if math.isfinite(y) and (y > 0 or not log_y)]
    if not ys:
        return ""
    ys += [y for y in beside if math.isfinite(y) and (y > 0 or not log_y)]
    first, last = x_ends or (min(xs), max(xs))
    across = Axis(first, max(last, first * (1 + 1e-9) + (0 if log_x else 1e-9)), _LEFT, _RIGHT, log_x)
    up = Axis(*axis_range(ys, log_y), _BOTTOM, _TOP, log_y)
    drawing = [*_frame(across, up, x_name, y_name)]
    for line in lines:
        shown = [(x, y) for x, y in line.points if y > 0 or not log_y]
        if shown:
            drawing.append(line.path((across.at(x), up.at(y)) for x, y in shown))
    drawing += _legend(line for line in lines if "faint" not in line.look)
    return svg("plot", _WIDTH, _HEIGHT, title, description or title, drawing)


def histogram(
    edges: Sequence[float],
    shares: Sequence[float],
    title: str,
    x_name: str,
    y_name: str,
    *,
    lines: Sequence[Line] = (),
    marks: Mapping[str, tuple[Sequence[float], str]] | None = None,
    description: str = "",
) -> str:
    """Bars between `edges` (one more than shares), lines over them, and rows of marks under the axis by their name.

    marks  name -> (places, look): the levels of a format, say; look is "", "strong" or "wrong"
    """
    marks = marks or {}
    tops = [*shares, *(y for line in lines for _, y in line.points)]
    across, up = Axis(edges[0], edges[-1], _LEFT, _RIGHT), Axis(*axis_range(tops), _BOTTOM, _TOP)
    below = 22 * len(marks)
    drawing = [*_frame(across, up, x_name, y_name, below)]
    for low, high, share in zip(edges, edges[1:], shares, strict=False):
        left, right, top = across.at(low), across.at(high), up.at(share)
        gap = min(1.0, (right - left) / 5)
        drawing.append(
            f'<rect class="bar" x="{left + gap / 2:.2f}" y="{top:.1f}" width="{right - left - gap:.2f}" '
            f'height="{_BOTTOM - top:.1f}"/>'
        )
    for line in lines:
        drawing.append(line.path((across.at(x), up.at(y)) for x, y in line.points))
    for number, (name, (places, look)) in enumerate(marks.items()):
        y = _BOTTOM + 8 + 22 * number
        drawing.append(text(_LEFT - 8, y + 12, name, "end"))
        drawing += [f'<path class="mark {look}" d="M{across.at(place):.2f} {y}v14"/>' for place in places]
    drawing += _legend(lines)
    return svg("plot", _WIDTH, _HEIGHT + below, title, description or title, drawing)


def bars(names: Sequence[str], values: Sequence[float], title: str, y_name: str, *, line: Line | None = None) -> str:
    """Upright bars with a name under each and the value in words for a screen reader; `line` has x = 0, 1, 2 ..."""
    edges = [number - 0.5 for number in range(len(names) + 1)]
    tops = [*values, *(y for _, y in line.points)] if line else values
    across, up = Axis(edges[0], edges[-1], _LEFT, _RIGHT), Axis(*axis_range(tops), _BOTTOM, _TOP)
    drawing = [*_frame(across, up, "", y_name)]
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        left, right, top = across.at(number - 0.4), across.at(number + 0.4), up.at(value)
        drawing.append(
            f'<rect class="bar strong" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
            f'height="{_BOTTOM - top:.1f}"><title>{escape(name)}: {value:.4g}</title></rect>'
        )
        drawing.append(text(across.at(number), _BOTTOM + 20, name, "middle"))
    if line:
        drawing += [line.path((across.at(x), up.at(y)) for x, y in line.points), *_legend([line])]
    description = "; ".join(f"{name}: {value:.4g}" for name, value in zip(names, values, strict=True))
    return svg("plot", _WIDTH, _HEIGHT - 16, title, description, drawing)


def heat_map(
    rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]], title: str, form: str = ".2f"
) -> str:
    """A cell a value, darker from the smallest to the largest, with the number in it; None is an empty cell.

    Where values lie on both sides of 0 there are two colours, each darker the further its value is from 0.
    """
    cell = _CELL_WIDTH if len(columns) <= _MOST_WIDE else _NARROW
    known = [value for row in values for value in row if value is not None and math.isfinite(value)]
    if not known:
        return ""
    low, high = min(known), max(known)
    if two_ways := low < 0 < high:
        low, high = 0.0, max(-low, high)
    spread = high - low if f"{low:{form}}" != f"{high:{form}}" else math.inf  # what reads the same looks the same
    drawing = [
        text(_LABEL_WIDTH + cell * (number + 0.5), 12, name, "middle")
        for number, name in enumerate(columns)
        if cell == _CELL_WIDTH or number % 4 == 0
    ]
    for number, (name, row) in enumerate(zip(rows, values, strict=True)):
        y = 20 + _CELL_HEIGHT * number
        drawing.append(text(_LABEL_WIDTH - 8, y + 13, name, "end"))
        for column, value in enumerate(row):
            if value is None:
                continue
            size, kind = (abs(value), " below" if value < 0 else "") if two_ways else (value, "")
            x, shade = _LABEL_WIDTH + cell * column, _PALEST + (_DARKEST - _PALEST) * (size - low) / spread
            tooltip = escape(f"{name}, {columns[column]}: {value:{form}}")
            drawing.append(
                f'<rect class="heat{kind}" x="{x}" y="{y}" width="{cell - 1}" height="{_CELL_HEIGHT - 1}" '
                f'fill-opacity="{shade:.3f}"><title>{tooltip}</title></rect>'
            )
            if cell == _CELL_WIDTH:
                drawing.append(text(x + cell / 2, y + 13, f"{value:{form}}", "cell middle"))
    description = f"from {min(known):{form}} to {max(known):{form}}"
    width, height = _LABEL_WIDTH + cell * len(columns), 22 + _CELL_HEIGHT * len(rows)
    return svg("heatmap", width, height, title, description, drawing, largest=1.25)  # few columns are not blown up


def figure(drawing: str, caption: str, heading: str = "") -> str:
    """A plot with its caption, and its name above; nothing where there is no plot."""
    if not drawing:
        return ""
    name = f"<h3>{escape(heading)}</h3>" if heading else ""
    return f"<figure>{name}{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def grid(figures: Iterable[str]) -> str:
    """Figures side by side where the page is wide enough."""
    return f'<div class="grid">{"".join(figures)}</div>'


def loss_curve(points: Sequence[tuple[float, float]], reach: int, title: str, description: str) -> str:
    """Loss over steps: every point light, their running mean dark. The loss axis starts at 0.

    points  (step, loss), finite, at least one, in the order of the steps
    reach   how many steps before and after a step its mean takes in
    """
    steps, losses = zip(*points, strict=True)
    first = min(steps)
    across = Axis(first, max(max(steps), first + 1), _LEFT, _RIGHT)
    up = Axis(*axis_range(losses), _BOTTOM, _TOP)
    xs = [across.at(step) for step in steps]
    means = zip(xs, map(up.at, running_mean(losses, reach)), strict=True)
    dots = "".join(f"M{x:.1f} {up.at(loss):.1f}h0" for x, loss in zip(xs, losses, strict=True))
    swatch, words = _RIGHT - 26, _RIGHT - 36  # the upper right corner, which a loss that falls leaves free
    drawing = [
        *_frame(across, up, "step", "loss, nats per supervised token", whole=True),
        f'<path class="dots" d="{dots}"/>',
        f'<path class="mean" d="{joined(means)}"/>',
        f'<path class="dots" d="M{swatch + 13} {_TOP + 16}h0"/>',
        text(words, _TOP + 21, "one step", "end"),
        f'<path class="mean" d="M{swatch} {_TOP + 42}h26"/>',
        text(words, _TOP + 47, f"mean over {2 * reach + 1} steps", "end"),
    ]
    return svg("curve", _WIDTH, _HEIGHT, title, description, drawing)


def running_mean(values: Sequence[float], reach: int) -> list[float]:
    """mean[i] = the mean of values[i - reach] to values[i + reach], of those that exist near the ends."""
    sums = [0.0, *accumulate(values)]
    spans = ((max(0, i - reach), min(len(values), i + reach + 1)) for i in range(len(values)))
    return [(sums[end] - sums[start]) / (end - start) for start, end in spans]


def _frame(across: Axis, up: Axis, x_name: str, y_name: str, below: float = 0, *, whole: bool = False) -> Iterator[str]:
    """Both axes with their ticks and names.

    below  room for marks between the axis and its ticks
    whole  only integers are ticks of x
    """
    yield text(0, 16, y_name)
    if up.log:
        yield f'<path class="axis" d="M{_LEFT} {_BOTTOM}H{_RIGHT}"/>'
    yield from (rule(across, up, value) for value in up.ticks())
    if not x_name:
        return
    for value in across.ticks():
        if not whole or value == int(value):
            x = across.at(value)
            yield f'<path class="axis" d="M{x:.1f} {_BOTTOM + below}v5"/>'
            yield text(x, _BOTTOM + below + 21, show_number(value), "middle")
    yield text((_LEFT + _RIGHT) / 2, _BOTTOM + below + 46, x_name, "middle")


def _legend(lines: Iterable[Line]) -> Iterator[str]:
    """Above the plot at the right."""
    return legend([line.legend_entry() for line in lines if line.name], 16, right=_RIGHT)
