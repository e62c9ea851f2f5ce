"""Sections of a report's page: the grid, the training, the bytes, each as a chart and in figures."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from .page import escape, table
from .panels import Bar, bar_panel
from .plots import loss_curve

SHARES = {
    "sections": "sections",
    "figure_precision": "figure precision",
    "figure_recall": "figure recall",
    "binding": "right label",
}


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
        "recall: required figures that the text states. Right label: required figures under their own label."
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
    summary = f"{left_out:,} of {len(rows):,} steps had no finite loss and are not drawn. " if left_out else ""
    if points:
        losses = [loss for _, loss in points]
        reach = max(1, len(points) // 40)
        window = min(2 * reach + 1, len(points))
        summary += (
            f"From {fmean(losses[:window]):.3f} over the first {window} of {len(points):,} steps drawn "
            f"to {fmean(losses[-window:]):.3f} over the last {window}, in nats per supervised token."
        )
        yield f'<figure class="margin">{loss_curve(points, reach, "Training loss", summary)}'
        yield f"<figcaption>{summary}</figcaption></figure>"
    else:
        yield f"<p>{summary}</p>"


def parts_section(parts: Sequence[tuple[str, int]]) -> Iterator[str]:
    """The bytes of each part, a bar in its row."""
    if not parts:
        return
    most = max(size for _, size in parts)
    rows = [[escape(name) + _byte_bar(size, most), f"{size:,}", f"{size / 1e6:,.3f}"] for name, size in parts]
    yield "<h2>Bytes</h2>"
    caption = "Each part in bytes, and in MB of 1,000,000 bytes. Bars are on a linear scale from 0."
    yield f'<div class="words">{table(caption, ["part", "bytes", "MB"], rows, words=1)}</div>'


def show_share(value: object) -> str:
    """0.914 as "91.4%"; a dash for what is no finite number."""
    return "–" if (share := _number(value)) is None else f"{100 * share:.1f}%"


def show_loss(row: Mapping[str, Any]) -> str:
    """The loss of a row to three decimals; a dash if it has no finite one."""
    return "–" if (loss := _number(row.get("loss"))) is None else f"{loss:.3f}"


def show_adapter(adapter: str | None) -> str:
    """The adapter of a cell in words."""
    return "the base alone" if adapter is None else f"base + {adapter}"


def _panel(key: str, name: str, rows: Sequence[Mapping[str, Any]], percent: bool) -> str:
    bars = [
        Bar(
            group=show_adapter(row["adapter"]),
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
