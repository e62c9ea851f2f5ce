"""The numbers of the report as charts and tables: the grid, the training, the bytes.

Charts are inline SVG that takes its colours and fonts from the page's style. Each has a title and a description, which
a screen reader reads instead of the drawing. Coordinates are in the units of the view box, y down.
"""

import html
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from statistics import fmean
from typing import Any

SHARES = {
    "sections": "sections",
    "figure_precision": "figure precision",
    "figure_recall": "figure recall",
    "binding": "binding",
}

_VISIBLE = (
    {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
    | {0x7F: 0x2421}
    | dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF], 0xFFFD)
)
_CURVE_WIDTH, _CURVE_HEIGHT = 640, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 624, 44, 270
_PANEL_WIDTH, _ROW, _VALUE_WIDTH, CHARACTER = 320, 20, 48, 7.4
_LONGEST_LABEL = 16


@dataclass(frozen=True)
class Bar:
    """One bar of a panel: bars of one group follow one another; `value` is None for what was not measured."""

    group: str
    label: str
    value: float | None
    shown: str
    strong: bool


def escape(text: str) -> str:
    """The text as HTML shows it, also inside a quoted attribute.

    Control characters become their pictures (U+2400 on) and what UTF-8 cannot hold the replacement character, so the
    page can be written and parsed whatever a model wrote.
    """
    return html.escape(text.translate(_VISIBLE), quote=True)


def grid_section(grid: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Loss and the four shares of every cell, as bars and as a table. Rows of one hat stand together."""
    if not grid:
        return
    order = list(dict.fromkeys(row["adapter"] for row in grid))
    rows = sorted(grid, key=lambda row: order.index(row["adapter"]))
    yield "<h2>Hat and precision</h2>"
    yield '<div class="panels"><figure>'
    yield _panel("loss", "loss, nats per token", rows, percent=False)
    yield (
        "<figcaption>On reference documents the hat was not trained on; lower is better. Blue bars wear a hat, "
        "grey bars are the base alone.</figcaption></figure>"
    )
    panels = "\n".join(_panel(key, name, rows, percent=True) for key, name in SHARES.items())
    yield f'<figure><div class="panels">{panels}</div>'
    yield (
        "<figcaption>Of the documents written from unseen records; higher is better. Sections: required headings "
        "present, in order and with a body. Figure precision: figures in the text that the record holds. Figure "
        "recall: required figures that the text states. Binding: required figures under their own label."
        "</figcaption></figure></div>"
    )
    head = ["hat", "weights", "documents", "loss", *SHARES.values()]
    yield table("The same, in figures. Loss is in nats per token.", head, map(_cells, rows), words=2)


def training_section(rows: Sequence[Mapping[str, float]]) -> Iterator[str]:
    """The loss curve of the rows of train.jsonl. A step whose loss is not finite is not drawn, and the page says so."""
    if not rows:
        return
    yield "<h2>Training</h2>"
    points = [(row["step"], loss) for row in rows if (loss := _number(row.get("loss"))) is not None]
    left_out = len(rows) - len(points)
    said = f"{left_out:,} of {len(rows):,} steps had no finite loss and are not drawn. " if left_out else ""
    if points:
        losses = [loss for _, loss in points]
        reach = max(1, len(points) // 40)
        window = min(2 * reach + 1, len(points))
        said += (
            f"From {fmean(losses[:window]):.3f} over the first {window} of {len(points):,} steps drawn "
            f"to {fmean(losses[-window:]):.3f} over the last {window}, in nats per supervised token."
        )
        yield f'<figure class="margin">{loss_curve(points, reach, "Training loss", said)}'
        yield f"<figcaption>{said}</figcaption></figure>"
    else:
        yield f"<p>{said}</p>"


def parts_section(parts: Sequence[tuple[str, int]]) -> Iterator[str]:
    """The bytes of each part, a bar in its row."""
    if not parts:
        return
    most = max(size for _, size in parts)
    rows = [[escape(name) + _byte_bar(size, most), f"{size:,}", f"{size / 1e6:,.3f}"] for name, size in parts]
    yield "<h2>Bytes</h2>"
    caption = "Each part in bytes, and in MB of 1,000,000 bytes. Bars are on a linear scale from 0."
    yield f'<div class="words">{table(caption, ["part", "bytes", "MB"], rows, words=1)}</div>'


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], words: int) -> str:
    """A table of ready HTML cells: the first `words` columns hold words, the others numbers."""
    kinds = [""] * words + [' class="number"'] * (len(head) - words)
    names = "".join(f'<th scope="col"{kind}>{name}</th>' for kind, name in zip(kinds, head, strict=True))
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds[1:], others, strict=True))
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    body = "\n".join(lines)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}">\n'
        f"<table>\n<caption>{caption}</caption>\n"
        f"<thead><tr>{names}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def show_share(value: object) -> str:
    """0.914 as "91.4%"; a dash for what is no finite number."""
    return "–" if (share := _number(value)) is None else f"{100 * share:.1f}%"


def show_loss(row: Mapping[str, Any]) -> str:
    """The loss of a row to three decimals; a dash if it has no finite one."""
    return "–" if (loss := _number(row.get("loss"))) is None else f"{loss:.3f}"


def show_hat(adapter: str | None) -> str:
    """What a cell wears."""
    return "the base alone" if adapter is None else f"base + {adapter}"


def running_mean(values: Sequence[float], reach: int) -> list[float]:
    """mean[i] = the mean of values[i - reach] to values[i + reach], of those that exist near the ends."""
    sums = [0.0, *accumulate(values)]
    spans = ((max(0, i - reach), min(len(values), i + reach + 1)) for i in range(len(values)))
    return [(sums[end] - sums[start]) / (end - start) for start, end in spans]


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


def loss_curve(points: Sequence[tuple[float, float]], reach: int, title: str, description: str) -> str:
    """Loss over steps: every point light, their running mean dark. The loss axis starts at 0.

    points  (step, loss), finite, at least one, in the order of the steps
    reach   how many steps before and after a step its mean takes in
    """
    steps, losses = zip(*points, strict=True)
    first, last = min(steps), max(max(steps), min(steps) + 1)
    top = _round_up(max(losses))
    xs = [between(step, first, last, _LEFT, _RIGHT) for step in steps]
    ys = [between(loss, 0, top, _BOTTOM, _TOP) for loss in losses]
    means = [between(mean, 0, top, _BOTTOM, _TOP) for mean in running_mean(losses, reach)]
    dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in zip(xs, ys, strict=True))
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, means, strict=True))
    drawing = [
        *_loss_axis(top),
        *_step_axis(first, last),
        f'<path class="dots" d="{dots}"/>',
        f'<path class="mean" d="{line}"/>',
        *_key(reach),
    ]
    return svg("curve", _CURVE_WIDTH, _CURVE_HEIGHT, title, description, drawing)


def bar_panel(bars: Sequence[Bar], title: str, percent: bool) -> str:
    """Horizontal bars from 0, grouped, each with its label before it and its value behind it.

    percent  the values are shares of 1 and the axis ends at 100%; else it ends at the next round number
    """
    end = 1.0 if percent else _round_up(max((bar.value for bar in bars if bar.value is not None), default=0.0))
    left = 8 + CHARACTER * max(len(shorten(bar.label)) for bar in bars)
    right = _PANEL_WIDTH - _VALUE_WIDTH
    rows, y = [], 0.0
    for group, members in groupby(bars, key=lambda bar: bar.group):
        y += _ROW
        rows.append(f'<text class="group" x="0" y="{y - 5:.0f}">{escape(shorten(group, 36))}</text>')
        for bar in members:
            rows += _bar(bar, y, left, between(bar.value or 0.0, 0, end, left, right))
            y += _ROW
        y += 4
    drawing = [*_value_axis(end, percent, left, right, y), *rows]
    said = "; ".join(f"{bar.group}, {bar.label}: {bar.shown}" for bar in bars)
    return svg("panel", _PANEL_WIDTH, y + 22, title, said, drawing)


def _panel(key: str, name: str, rows: Sequence[Mapping[str, Any]], percent: bool) -> str:
    bars = [
        Bar(
            group=show_hat(row["adapter"]),
            label=row["weights"],
            value=_number(row.get(key)),
            shown=show_share(row.get(key)) if percent else show_loss(row),
            strong=row["adapter"] is not None,
        )
        for row in rows
    ]
    return f'<div><p class="panel-name">{name.capitalize()}</p>{bar_panel(bars, name, percent)}</div>'


def _byte_bar(size: int, most: int) -> str:
    """A bar as wide as its table cell; the cell beside it has the number, so a screen reader skips the bar."""
    width = 100 * size / most if most else 0
    return (
        '<svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="8"/><rect class="strong" width="{width:.2f}" height="8"/></svg>'
    )


def _cells(row: Mapping[str, Any]) -> list[str]:
    shares = [show_share(row.get(key)) for key in SHARES]
    return [escape(row["adapter"] or "none"), escape(row["weights"]), str(row.get("n", "–")), show_loss(row), *shares]


def _number(value: object) -> float | None:
    """A finite number, or None for anything else a row may hold or lack."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def svg(kind: str, width: float, height: float, title: str, description: str, drawing: Sequence[str]) -> str:
    """A drawing with its words, in a view box of the given size."""
    lines = "\n".join(drawing)
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">\n'
        f"<title>{escape(title)}</title>\n<desc>{escape(description)}</desc>\n{lines}\n</svg>"
    )


def between(value: float, low: float, high: float, start: float, end: float) -> float:
    """The place of a value on an axis that maps [low, high] to [start, end]."""
    return start + (value - low) / (high - low) * (end - start)


def _round_up(value: float) -> float:
    """The first tick at or above a value, so that an axis ends at a number; 1 for a chart of zeros."""
    if value <= 0:
        return 1.0
    step = ticks(0, value)[1]
    return math.ceil(value / step - 1e-9) * step


def shorten(label: str, longest: int = _LONGEST_LABEL) -> str:
    """The label, or its beginning and an ellipsis."""
    return label if len(label) <= longest else label[: longest - 1] + "…"


def _loss_axis(top: float) -> Iterator[str]:
    yield '<text class="name" x="0" y="18">loss, nats per supervised token</text>'
    for value in ticks(0, top):
        y = between(value, 0, top, _BOTTOM, _TOP)
        yield f'<path class="{"rule" if value else "axis"}" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>'
        yield f'<text class="tick end" x="{_LEFT - 8}" y="{y + 5:.1f}">{value:g}</text>'


def _step_axis(first: float, last: float) -> Iterator[str]:
    for value in (tick for tick in ticks(first, last) if tick == int(tick)):
        x = between(value, first, last, _LEFT, _RIGHT)
        yield f'<path class="axis" d="M{x:.1f} {_BOTTOM}v5"/>'
        yield f'<text class="tick middle" x="{x:.1f}" y="{_BOTTOM + 24}">{value:,.0f}</text>'
    yield f'<text class="name middle" x="{(_LEFT + _RIGHT) / 2:.0f}" y="{_BOTTOM + 52}">step</text>'


def _key(reach: int) -> Iterator[str]:
    """Which is which, in the upper right corner: a loss that falls leaves it free."""
    swatch, words = _RIGHT - 26, _RIGHT - 36
    mean = f"mean over {2 * reach + 1} steps"
    yield f'<path class="dots" d="M{swatch + 13} {_TOP + 16}h0"/>'
    yield f'<text class="tick end" x="{words}" y="{_TOP + 21}">one step</text>'
    yield f'<path class="mean" d="M{swatch} {_TOP + 42}h26"/>'
    yield f'<text class="tick end" x="{words}" y="{_TOP + 47}">{mean}</text>'


def _bar(bar: Bar, y: float, left: float, end: float) -> Iterator[str]:
    yield f'<text class="tick" x="0" y="{y + 13:.0f}">{escape(shorten(bar.label))}</text>'
    shape = f'x="{left:.1f}" y="{y + 3:.0f}" width="{end - left:.1f}" height="{_ROW - 7}"'
    yield f'<rect class="{"strong" if bar.strong else "plain"}" {shape}/>'
    yield f'<text class="value" x="{end + 5:.1f}" y="{y + 13:.0f}">{escape(bar.shown)}</text>'


def _value_axis(end: float, percent: bool, left: float, right: float, bottom: float) -> Iterator[str]:
    for value in ticks(0, end, count=3):
        x = between(value, 0, end, left, right)
        yield f'<path class="{"rule" if value else "axis"}" d="M{x:.1f} {_ROW}V{bottom:.0f}"/>'
        shown = f"{100 * value:.0f}%" if percent else f"{value:g}"
        yield f'<text class="tick middle" x="{x:.1f}" y="{bottom + 16:.0f}">{shown}</text>'
