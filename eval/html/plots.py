"""Plots for pages that look at numbers: lines, histograms, heat maps. Inline SVG in the colours of `page`.

Each has a title and a description, which a screen reader reads instead of the drawing. Coordinates are in the units of
the view box, y down.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .charts import escape, ticks

STYLE = """
figure { margin: 1.5rem 0; }
figcaption { color: var(--soft); font-size: .9375rem; line-height: 1.5; margin-top: .5rem; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font: 13px var(--sans); fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .end { text-anchor: end; } svg .middle { text-anchor: middle; } svg .ink { fill: var(--ink); }
svg .rule { stroke: var(--rule); } svg .axis { stroke: var(--plain); }
svg .bar { fill: var(--plain); opacity: .65; } svg .bar.strong { fill: var(--strong); opacity: 1; }
svg .line { fill: none; stroke: var(--plain); stroke-width: 1.75; stroke-linejoin: round; }
svg .line.strong { stroke: var(--strong); stroke-width: 2.25; } svg .line.dashed { stroke-dasharray: 5 4; }
svg .line.dots { stroke-width: 6; stroke-linecap: round; opacity: .8; }
svg .line.dots.strong { stroke-width: 4.5; } svg .faint { opacity: .3; }
svg .mark { stroke: var(--plain); stroke-width: 1.5; }
svg .mark.strong { stroke: var(--strong); stroke-width: 2; } svg .mark.wrong { stroke: var(--wrong); stroke-width: 2; }
main > .scroll { max-width: none; }
svg .heat { fill: var(--strong); } svg .cell { font-size: 11px; fill: var(--ink); }
.grid { display: grid; gap: 1rem 2.5rem; grid-template-columns: minmax(0, 1fr); }
.grid h3 { margin-bottom: .5rem; }
.plot { max-width: 46rem; } .heatmap { max-width: 40rem; }
@media (min-width: 56rem) { .grid { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
"""

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 624, 40, 258
_CELL_WIDTH, _CELL_HEIGHT, _LABEL_WIDTH = 62, 18, 84
_NARROW, _MOST_WIDE = 18, 12  # beyond so many columns cells are narrow, and numbers show when pointed at
_PALEST, _DARKEST = 0.04, 0.55  # of a cell: the number in it stays readable


@dataclass(frozen=True)
class Line:
    """Points (x, y) under one name; `look` is "", or of "strong", "dashed", "dots", "faint" what applies."""

    name: str
    points: Sequence[tuple[float, float]]
    look: str = ""

    def path(self, places: Iterable[tuple[float, float]]) -> str:
        """The path through places on the page, or a dot at each."""
        joined = ("h0M" if "dots" in self.look else "L").join(f"{x:.2f} {y:.2f}" for x, y in places)
        return f'<path class="line {self.look}" d="M{joined}h0"><title>{escape(self.name)}</title></path>'


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` onto coordinates from `start` to `end`, by their logarithm if asked."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The coordinate of a value; values beyond the ends are put on them."""
        low, high, value = (math.log(v) for v in (self.low, self.high, max(value, self.low))) if self.log else (
            self.low, self.high, value
        )  # fmt: skip
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values: powers of ten on a logarithmic axis, and their doubles and halves where there are few."""
        if not self.log:
            return ticks(self.low, self.high)
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        factors = (1, 2, 5) if last - first <= 2 else (1,)
        every = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        return [value for value in every if self.low * 0.999 <= value <= self.high * 1.001]


def line_plot(
    lines: Sequence[Line], title: str, x_name: str, y_name: str, *, log_y: bool = False, said: str = ""
) -> str:
    """Lines over a common x; the y axis starts at 0, or is logarithmic over the values above 0."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points if math.isfinite(y) and (y > 0 or not log_y)]
    if not ys:
        return ""
    across = Axis(min(xs), max(max(xs), min(xs) + 1e-9), _LEFT, _RIGHT)
    up = Axis(*_range(ys, log_y), _BOTTOM, _TOP, log_y)
    drawing = [*_frame(across, up, x_name, y_name)]
    for line in lines:
        shown = [(x, y) for x, y in line.points if y > 0 or not log_y]
        if shown:
            drawing.append(line.path((across.at(x), up.at(y)) for x, y in shown))
    drawing += _key([line for line in lines if line.name and "faint" not in line.look])
    return _svg("plot", _WIDTH, _HEIGHT, title, said or title, drawing)


def histogram(
    edges: Sequence[float],
    shares: Sequence[float],
    title: str,
    x_name: str,
    y_name: str,
    *,
    lines: Sequence[Line] = (),
    marks: Mapping[str, tuple[Sequence[float], str]] | None = None,
    said: str = "",
) -> str:
    """Bars between `edges` (one more than shares), lines over them, and rows of marks under the axis by their name.

    marks  name -> (places, look): the levels of a format, say; look is "", "strong" or "wrong"
    """
    marks = marks or {}
    tops = [*shares, *(y for line in lines for _, y in line.points)]
    across, up = Axis(edges[0], edges[-1], _LEFT, _RIGHT), Axis(*_range(tops, False), _BOTTOM, _TOP)
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
        drawing.append(f'<text class="end" x="{_LEFT - 8}" y="{y + 12}">{escape(name)}</text>')
        drawing += [f'<path class="mark {look}" d="M{across.at(place):.2f} {y}v14"/>' for place in places]
    drawing += _key([line for line in lines if line.name])
    return _svg("plot", _WIDTH, _HEIGHT + below, title, said or title, drawing)


def bars(names: Sequence[str], values: Sequence[float], title: str, y_name: str, *, line: Line | None = None) -> str:
    """Upright bars with a name under each and the value in words for a screen reader; `line` has x = 0, 1, 2 ..."""
    edges = [number - 0.5 for number in range(len(names) + 1)]
    tops = [*values, *(y for _, y in line.points)] if line else values
    across, up = Axis(edges[0], edges[-1], _LEFT, _RIGHT), Axis(*_range(tops, False), _BOTTOM, _TOP)
    drawing = [*_frame(across, up, "", y_name)]
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        left, right, top = across.at(number - 0.4), across.at(number + 0.4), up.at(value)
        drawing.append(
            f'<rect class="bar strong" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
            f'height="{_BOTTOM - top:.1f}"><title>{escape(name)}: {value:.4g}</title></rect>'
        )
        drawing.append(f'<text class="middle" x="{across.at(number):.1f}" y="{_BOTTOM + 20}">{escape(name)}</text>')
    if line:
        drawing += [line.path((across.at(x), up.at(y)) for x, y in line.points), *_key([line])]
    said = "; ".join(f"{name}: {value:.4g}" for name, value in zip(names, values, strict=True))
    return _svg("plot", _WIDTH, _HEIGHT - 16, title, said, drawing)


def heat_map(
    rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]], title: str, form: str = ".2f"
) -> str:
    """A cell a value, darker from the smallest to the largest, with the number in it; None is an empty cell."""
    cell = _CELL_WIDTH if len(columns) <= _MOST_WIDE else _NARROW
    known = [value for row in values for value in row if value is not None and math.isfinite(value)]
    if not known:
        return ""
    low, high = min(known), max(known)
    spread = high - low if f"{low:{form}}" != f"{high:{form}}" else math.inf  # what reads the same looks the same
    drawing = [
        f'<text class="middle" x="{_LABEL_WIDTH + cell * (number + 0.5):.0f}" y="12">{escape(name)}</text>'
        for number, name in enumerate(columns)
        if cell == _CELL_WIDTH or number % 4 == 0
    ]
    for number, (name, row) in enumerate(zip(rows, values, strict=True)):
        y = 20 + _CELL_HEIGHT * number
        drawing.append(f'<text class="end" x="{_LABEL_WIDTH - 8}" y="{y + 13}">{escape(name)}</text>')
        for column, value in enumerate(row):
            if value is None:
                continue
            x, shade = _LABEL_WIDTH + cell * column, _PALEST + (_DARKEST - _PALEST) * (value - low) / spread
            told = escape(f"{name}, {columns[column]}: {value:{form}}")
            drawing.append(
                f'<rect class="heat" x="{x}" y="{y}" width="{cell - 1}" height="{_CELL_HEIGHT - 1}" '
                f'fill-opacity="{shade:.3f}"><title>{told}</title></rect>'
            )
            if cell == _CELL_WIDTH:
                drawing.append(f'<text class="cell middle" x="{x + cell / 2:.0f}" y="{y + 13}">{value:{form}}</text>')
    said = f"from {low:{form}} to {high:{form}}"
    width, height = _LABEL_WIDTH + cell * len(columns), 22 + _CELL_HEIGHT * len(rows)
    return _svg("heatmap", width, height, title, said, drawing)


def figure(drawing: str, caption: str, heading: str = "") -> str:
    """A plot with its caption, and its name above; nothing where there is no plot."""
    if not drawing:
        return ""
    name = f"<h3>{escape(heading)}</h3>" if heading else ""
    return f"<figure>{name}{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def grid(figures: Iterable[str]) -> str:
    """Figures side by side where the page is wide enough."""
    return f'<div class="grid">{"".join(figures)}</div>'


def _range(values: Sequence[float], log: bool) -> tuple[float, float]:
    """Where an axis begins and ends."""
    if log:
        low, high = min(values), max(values)
        return (low * 0.8, high * 1.25)
    low, high = min(0.0, *values), max(0.0, *values)
    if high == low:
        return (low, low + 1.0)
    marks = ticks(low, high)
    step = marks[1] - marks[0] if len(marks) > 1 else high - low
    return (step * math.floor(low / step + 1e-9), step * math.ceil(high / step - 1e-9))


def _frame(across: Axis, up: Axis, x_name: str, y_name: str, below: float = 0) -> Iterator[str]:
    """Both axes with their ticks and names; `below` makes room for marks between the axis and its ticks."""
    yield f'<text x="0" y="16">{escape(y_name)}</text>'
    for value in up.ticks():
        y = up.at(value)
        yield f'<path class="rule" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>'
        yield f'<text class="end" x="{_LEFT - 8}" y="{y + 4:.1f}">{_number(value)}</text>'
    yield f'<path class="axis" d="M{_LEFT} {up.at(0 if not up.log else up.low):.1f}H{_RIGHT}"/>'
    if not x_name:
        return
    for value in across.ticks():
        x = across.at(value)
        yield f'<path class="axis" d="M{x:.1f} {_BOTTOM + below}v5"/>'
        yield f'<text class="middle" x="{x:.1f}" y="{_BOTTOM + below + 21}">{_number(value)}</text>'
    yield f'<text class="middle" x="{(_LEFT + _RIGHT) / 2:.0f}" y="{_BOTTOM + below + 46}">{escape(x_name)}</text>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def _key(lines: Sequence[Line]) -> Iterator[str]:
    """Which line is which, above the plot at the right."""
    x = _RIGHT
    for line in reversed(lines):
        x -= int(7 * len(line.name))
        yield f'<text x="{x}" y="16">{escape(line.name)}</text>'
        yield line.path([(x - 18, 12)] if "dots" in line.look else [(x - 30, 12), (x - 6, 12)])
        x -= 46


def _svg(kind: str, width: float, height: float, title: str, said: str, drawing: Iterable[str]) -> str:
    lines = "\n".join(drawing)
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">\n'
        f"<title>{escape(title)}</title>\n<desc>{escape(said)}</desc>\n{lines}\n</svg>"
    )
