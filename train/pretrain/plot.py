"""The picture of a pretraining log: loss and copied digits over tokens, as one SVG file."""

from collections.abc import Iterator, Mapping, Sequence

from lowrank.eval.html.page import DARK, LIGHT
from lowrank.eval.html.svg import Axis, axis_range, joined, rule, svg_file, text

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 220, 56, 616, 34, 180

Row = Mapping[str, float]


def draw(rows: Sequence[Row]) -> str:
    """Two panels over millions of tokens: `document_loss` in nats a token, and `digits_right` as a share.

    rows: of log.jsonl, at least one.
    """
    drawing = [
        *_panel(rows, "document_loss", "nats a token on unseen documents, after their record; millions of tokens", 0),
        *_panel(rows, "digits_right", "share of their digits predicted right; millions of tokens", HEIGHT, 1.0),
    ]
    return svg_file("How the embedded base learned", WIDTH, 2 * HEIGHT, _style(LIGHT), _style(DARK), drawing)


def _style(palette: Mapping[str, str]) -> str:
    return f".line {{ stroke: {palette['strong']}; stroke-width: 2 }} .mark {{ fill: {palette['strong']} }}"


def _panel(rows: Sequence[Row], key: str, name: str, down: int, highest: float | None = None) -> Iterator[str]:
    millions = [row["tokens"] / 1e6 for row in rows]
    values = [row[key] for row in rows]
    across = Axis(0, max(millions), LEFT, RIGHT)
    up = Axis(0, highest or axis_range(values)[1], BOTTOM, TOP)
    points = [(across.at(x), up.at(y)) for x, y in zip(millions, values, strict=True)]
    yield f'<g transform="translate(0 {down})">'
    yield text(0, 16, name, "name")
    yield from (rule(across, up, value, f"{value:.3g}") for value in up.ticks())
    yield from (text(across.at(value), BOTTOM + 20, f"{value:g}", "middle") for value in across.ticks())
    yield f'<path class="line" d="{joined(points)}"/>'
    yield from (f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points)
    yield "</g>"
