"""Primitives of every SVG drawing: frame, axes, ticks, text, legend.

Coordinates are in the units of the view box, y down. A drawing inside a page (`svg`) takes its colours and fonts from
the page's style, with `STYLE`; a drawing in a file (`svg_file`) carries its own. Each has a title or label, and `svg` a
description, which a screen reader reads instead of the drawing.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .page import DARK, LIGHT, escape

CHARACTER = 7.4  # width of a character in the 13 px text, about
LONGEST_LABEL = 16

STYLE = """
figure { margin: 1.5rem 0; }
figcaption { color: var(--soft); font-size: .9375rem; line-height: 1.5; margin-top: .5rem; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font: 13px var(--sans); fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .end { text-anchor: end; } svg .middle { text-anchor: middle; }
svg .rule { stroke: var(--rule); } svg .axis { stroke: var(--plain); }
"""


@dataclass(frozen=True)
class Axis:
    """Maps values in [low, high] linearly onto coordinates [start, end], or by their logarithm if `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Coordinate of a value; values outside [low, high] are clamped to it."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        return self.start + min(1.0, max(0.0, (value - low) / (high - low))) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values: powers of ten on a logarithmic axis, and their doubles and halves where there are few."""
        if not self.log:
            return ticks(self.low, self.high, count)
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        factors = (1, 2, 5) if last - first <= 2 else (1,)
        every = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        return [value for value in every if self.low * 0.999 <= value <= self.high * 1.001]

    def powers(self, base: float) -> list[float]:
        """The powers of `base` on the axis."""
        first, last = (math.log(value, base) for value in (self.low, self.high))
        return [base**power for power in range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Multiples of a round step (1, 2 or 5 times a power of ten) from `low` to `high`: at most count + 1 of them.

    Raises ValueError unless low < high.
    """
    if not low < high:
        raise ValueError(f"ticks: low must be below high, got {low} and {high}")
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [multiple * step for multiple in range(first, last + 1)]


def axis_range(values: Iterable[float], log: bool = False) -> tuple[float, float]:
    """(low, high) of an axis for these values: from tick to tick with 0 inside, or a little beyond them if `log`."""
    values = list(values)
    if log:
        return min(values) * 0.8, max(values) * 1.25
    low, high = min(0.0, *values, 0.0), max(0.0, *values, 0.0)
    if high == low:
        return low, low + 1.0
    step = ticks(low, high)
    width = step[1] - step[0] if len(step) > 1 else high - low
    return width * math.floor(low / width + 1e-9), width * math.ceil(high / width - 1e-9)


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """Words that begin at (x, y); kind "end" or "middle" anchors them otherwise."""
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{_number(x)}" y="{_number(y)}">{escape(words)}</text>'


def rule(across: Axis, up: Axis, value: float, words: str | None = None, kind: str = "") -> str:
    """A horizontal line at a value of `up` with the value before it. Without `kind`: an axis for 0, else a rule."""
    y = up.at(value)
    line = f'd="M{_number(across.start)} {_number(y)}H{_number(across.end)}"'
    shown = show_number(value) if words is None else words
    return f'<path class="{kind or ("rule" if value else "axis")}" {line}/>' + text(
        across.start - 8, y + 4, shown, "end"
    )


def joined(points: Iterable[tuple[float, float]], between: str = "L") -> str:
    """The data of a path through points (x, y) of the view box."""
    return "M" + between.join(f"{x:.2f} {y:.2f}" for x, y in points)


def legend(
    entries: Sequence[tuple[str, str]], y: float, *, left: float = 0, right: float | None = None
) -> Iterator[str]:
    """Names beside samples on one line, from `left`, or up to `right`.

    entries  (name, sample): the sample is drawn around (0, 0), at most 24 wide
    """
    widths = [46 + int(7 * len(name)) for name, _ in entries]
    x = left if right is None else right - sum(widths)
    for (name, sample), width in zip(entries, widths, strict=True):
        yield f'<g transform="translate({_number(x + 28)} {_number(y - 4)})">{sample}</g>' + text(x + 46, y, name)
        x += width


def shorten(label: str, longest: int = LONGEST_LABEL) -> str:
    """The label, or its beginning and an ellipsis."""
    return label if len(label) <= longest else label[: longest - 1] + "…"


def show_number(value: float) -> str:
    """ "12,000", "0.25" """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def svg(
    kind: str,
    width: float,
    height: float,
    title: str,
    description: str,
    drawing: Iterable[str],
    *,
    largest: float | None = None,
) -> str:
    """A drawing inside a page, in a view box of the given size; `kind` is its class.

    largest  how many times that size it may become where the page is wide; None for any
    """
    lines = "\n".join(drawing)
    limit = "" if largest is None else f' style="max-width: min({largest * width:.0f}px, 46rem)"'
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}"{limit}>\n'
        f"<title>{escape(title)}</title>\n<desc>{escape(description)}</desc>\n{lines}\n</svg>"
    )


def svg_file(label: str, width: float, height: float, light: str, dark: str, drawing: Iterable[str]) -> str:
    """A drawing as a file of its own; `light` and `dark` are CSS rules that come behind the shared ones."""
    lines = "\n".join(drawing)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(label)}">\n<style>\n{_file_style(LIGHT)} {light}\n'
        ".end { text-anchor: end } .middle { text-anchor: middle }\n"
        f"@media (prefers-color-scheme: dark) {{ {_file_style(DARK)} {dark} }}\n</style>\n{lines}\n</svg>\n"
    )


def _file_style(palette: dict[str, str]) -> str:
    return (
        f"text {{ font: 12px system-ui, sans-serif; fill: {palette['soft']} }} "
        f".name {{ fill: {palette['ink']}; font-weight: 600 }} path {{ fill: none; stroke: {palette['rule']} }}"
    )


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
