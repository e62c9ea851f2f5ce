"""Charts of the kernel bench as SVG files, from its rows:

    python -m lowrank.bench.plot bench/results/nvidia-h200.jsonl docs

writes beside each other what is reached of what the machine can do (`<machine>-roofline.svg`), and how many times as
long as ours each peer takes (`<machine>-ratio-forward.svg` and `-dX.svg`).
"""

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from lowrank.atomic_io import write_text
from lowrank.eval.html.page import DARK, LIGHT, escape
from lowrank.eval.html.svg import Axis, joined, legend, rule, svg_file, text

from .rows import Row, latest, of_one_commit, read

# A provider's colour by its position in this list, on light and on dark paper; also distinct to the colour-blind.
PROVIDERS = ("ours", "bitsandbytes", "bitsandbytes-dequantize", "torchao", "dense", "unsloth", "marlin")
ON_LIGHT = ("#24558a", "#c4561a", "#8f6b00", "#8a3f86", "#6d6e72", "#1f7a5c", "#a32638")
ON_DARK = ("#82b1e2", "#ee9a63", "#d9b84a", "#d193cd", "#a6a59f", "#6fcfaa", "#f08a98")

WIDTH, LEFT, RIGHT = 720, 64, 700
PANEL_WIDTH, PANEL_HEIGHT, GAP = 340, 190, 40


def roofline(rows: Sequence[Row]) -> str:
    """TFLOP/s over operations a byte, of every forward product; the roof is what the last run measured.

    rows: at least one of the op forward.
    """
    # Ours are drawn last, over the others.
    products = sorted((row for row in rows if row["op"] == "forward"), key=lambda row: str(row["provider"]) == "ours")
    limits = products[-1]["limits"]
    stream, peak = max(limits["copy_gbs"], limits["read_gbs"]) / 1e3, limits["matmul_tflops"]
    intensity = [row["flops"] / row["bytes"] for row in products]
    reached = [row["flops"] / row["ms"] / 1e9 for row in products]
    x = Axis(min(intensity) / 1.5, 1.5 * max(*intensity, peak / stream), LEFT, RIGHT, log=True)
    y = Axis(min(*reached, stream * x.low) / 1.5, 1.5 * max(*reached, peak), 396, 76, log=True)
    ridge = peak / stream
    drawing = [
        *(rule(x, y, value, f"{value:g}") for value in y.powers(10)),
        *(text(x.at(value), y.start + 20, f"{value:g}", "middle") for value in x.powers(10)),
        text((LEFT + RIGHT) / 2, y.start + 38, "floating-point operations a byte", "middle"),
        text(0, y.end - 8, "TFLOP/s"),
        f'<path class="roof" d="M{x.start} {y.at(stream * x.low):.1f}L{x.at(ridge):.1f} {y.at(peak):.1f}H{x.end}"/>',
        text(x.at(ridge) - 12, y.at(peak) + 4, f"{1e3 * stream:.4g} GB/s, {peak:.4g} TFLOP/s", "end"),
    ]
    for row, across, up in zip(products, intensity, reached, strict=True):
        title = (
            f"{row['provider']}, {row['M']}x{row['N']}x{row['K']}: {up:.4g} TFLOP/s, {row['share']:.0%} of the limit"
        )
        drawing.append(_dot(row["provider"], x.at(across), y.at(up), 3.5, title))
    names = [name for name in PROVIDERS if any(row["provider"] == name for row in products)]
    name = f"x W^T in {products[-1]['dtype']}: TFLOP/s over floating-point operations a byte"
    return _file(name, products[-1], 448, [*_legend(names), *drawing])


def ratios(rows: Sequence[Row], op: str = "forward") -> str:
    """A panel a shape: the time of each peer over ours, over M, with its 95 % interval. Above the line we are ahead.

    rows: at least one of a peer at this op.
    """
    compared = [row for row in rows if row["op"] == op and row["versus_ours"]]
    shapes = list(dict.fromkeys((row["N"], row["K"]) for row in compared))
    values = [row["versus_ours"][key] for row in compared for key in ("low", "high")]
    counts = sorted({row["M"] for row in compared})
    # Powers of two around the values, and around 1, so that the line to beat is on every chart.
    lowest, highest = 2 ** math.floor(math.log2(min(*values, 0.99))), 2 ** math.ceil(math.log2(max(*values, 1.01)))
    drawing: list[str] = []
    for index, shape in enumerate(shapes):
        left = (index % 2) * (PANEL_WIDTH + GAP) + 40
        top = 92 + (index // 2) * (PANEL_HEIGHT + 56)
        x = Axis(counts[0], max(counts[-1], 2 * counts[0]), left, left + PANEL_WIDTH - 48, log=True)
        y = Axis(lowest, highest, top + PANEL_HEIGHT, top, log=True)
        of_shape = [row for row in compared if (row["N"], row["K"]) == shape]
        drawing += _ratio_panel(of_shape, f"W {shape[0]} x {shape[1]}", x, y)
    names = [name for name in PROVIDERS[1:] if any(row["provider"] == name for row in compared)]
    product = "x W^T" if op == "forward" else "dX = dY W"
    name = f"{product}: time of a peer / ours, over M (above 1 we are ahead)"
    height = 92 + math.ceil(len(shapes) / 2) * (PANEL_HEIGHT + 56)
    return _file(name, compared[-1], height, [*_legend(names), *drawing])


def _ratio_panel(rows: Sequence[Row], name: str, x: Axis, y: Axis) -> Iterator[str]:
    yield text(x.start, y.end - 8, name, "name")
    for value in y.powers(2):
        yield rule(x, y, value, f"{value:g}", "one" if value == 1 else "rule")
    for m in x.powers(4):
        yield text(x.at(m), y.start + 18, f"{m:g}", "middle")
    for provider in dict.fromkeys(row["provider"] for row in rows):
        mine = sorted((row for row in rows if row["provider"] == provider), key=lambda row: int(row["M"]))
        points = [(x.at(row["M"]), y.at(row["versus_ours"]["ratio"]), row) for row in mine]
        colour = _colour(provider)
        if len(points) > 1:
            yield f'<path class="line {colour}" d="{joined((a, b) for a, b, _ in points)}"/>'
        for across, up, row in points:
            versus = row["versus_ours"]
            low, high = y.at(versus["low"]), y.at(versus["high"])
            title = f"{provider}, M {row['M']}: {versus['ratio']:.2f} [{versus['low']:.2f}, {versus['high']:.2f}]"
            yield f'<path class="line {colour}" d="M{across:.1f} {low:.1f}V{high:.1f}"/>'
            yield _dot(provider, across, up, 3, title)


def _file(name: str, row: Row, height: float, drawing: Sequence[str]) -> str:
    """A drawing under two lines: its name, and the machine and the commit of its rows."""
    where = f"{row['machine']}, {row['commit']}"
    light, dark = (
        f".roof, .one {{ stroke: {palette['ink']} }} .roof {{ stroke-width: 2 }} "
        + " ".join(f".p{i} {{ fill: {colour}; stroke: {colour} }}" for i, colour in enumerate(colours))
        + " path.line { fill: none; stroke-width: 1.5 }"
        for palette, colours in ((LIGHT, ON_LIGHT), (DARK, ON_DARK))
    )
    head = [text(0, 16, name, "name"), text(0, 34, where)]
    return svg_file(f"{name}; {where}", WIDTH, height, light, dark, [*head, *drawing])


def _legend(names: Sequence[str]) -> Iterator[str]:
    return legend([(name, f'<circle class="{_colour(name)}" r="4"/>') for name in names], 54)


def _dot(provider: str, x: float, y: float, radius: float, title: str) -> str:
    shape = f'cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"'
    return f'<circle class="{_colour(provider)}" {shape}><title>{escape(title)}</title></circle>'


def _colour(provider: str) -> str:
    return f"p{PROVIDERS.index(provider)}"


def main(arguments: Sequence[str]) -> int:
    """Draws the rows of a file; exit status 2 if it has no products."""
    if len(arguments) != 2:
        print("usage: python -m lowrank.bench.plot ROWS.jsonl FOLDER", file=sys.stderr)
        return 2
    path, folder = Path(arguments[0]), Path(arguments[1])
    try:
        rows = latest(of_one_commit(read(path)))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    compared = {row["op"] for row in rows if row["versus_ours"]}
    charts = {"roofline": roofline(rows)} if any(row["op"] == "forward" for row in rows) else {}
    charts |= {f"ratio-{op}": ratios(rows, op) for op in ("forward", "dX") if op in compared}
    for name, chart in charts.items():
        write_text(folder / f"{path.stem}-{name}.svg", chart)
        print(folder / f"{path.stem}-{name}.svg")
    if not charts:
        print(f"{path}: no products to draw", file=sys.stderr)
    return 0 if charts else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
