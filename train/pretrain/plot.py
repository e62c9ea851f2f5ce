"""The picture of a pretraining log: loss and copied digits over tokens, as one SVG file."""

from collections.abc import Mapping, Sequence

from lowrank.eval.html.charts import ticks

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 220, 56, 616, 34, 180

STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #5a5b5f } .name { fill: #1e1f21; font-weight: 600 }
path { fill: none; stroke: #dcd8cf } .line { stroke: #24558a; stroke-width: 2 } .mark { fill: #24558a }
@media (prefers-color-scheme: dark) { text { fill: #a6a59f } .name { fill: #e7e4dd } path { stroke: #363a3f }
  .line { stroke: #82b1e2 } .mark { fill: #82b1e2 } }
</style>"""

Row = Mapping[str, float]


def draw(rows: Sequence[Row]) -> str:
    """Two panels over millions of tokens: `document_loss` in nats a token, and `digits_right` as a share.

    rows: of log.jsonl, at least one.
    """
    panels = [
        _panel(rows, "document_loss", "nats a token on unseen documents, after their record; millions of tokens", 0),
        _panel(rows, "digits_right", "share of their digits predicted right; millions of tokens", HEIGHT, 1.0),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {2 * HEIGHT}" role="img" '
        f'aria-label="How the embedded base learned">\n{STYLE}\n' + "\n".join(panels) + "\n</svg>\n"
    )


def _panel(rows: Sequence[Row], key: str, name: str, down: int, top_value: float | None = None) -> str:
    millions = [row["tokens"] / 1e6 for row in rows]
    values = [row[key] for row in rows]
    highest = top_value or ticks(0, 1.1 * max(values))[-1]
    xs = [LEFT + (RIGHT - LEFT) * tokens / max(millions) for tokens in millions]
    ys = [BOTTOM - (BOTTOM - TOP) * value / highest for value in values]
    grid = [
        f'<path d="M{LEFT} {y:.1f}H{RIGHT}"/><text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        for value, y in ((value, BOTTOM - (BOTTOM - TOP) * value / highest) for value in ticks(0, highest))
    ]
    below = [
        f'<text x="{LEFT + (RIGHT - LEFT) * value / max(millions):.1f}" y="{BOTTOM + 20}" text-anchor="middle">'
        f"{value:g}</text>"
        for value in ticks(0, max(millions))
    ]
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True))
    marks = [f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in zip(xs, ys, strict=True)]
    body = "\n".join([f'<text class="name" x="0" y="16">{name}</text>', *grid, *below])
    return f'<g transform="translate(0 {down})">\n{body}\n<path class="line" d="{line}"/>\n{"".join(marks)}\n</g>'
