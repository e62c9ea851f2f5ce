"""Charts of the kernel bench as SVG files, from its rows:

    python -m lowrank.bench.plot bench/results/nvidia-h200.jsonl docs

writes beside each other what is reached of what the machine can do (`<machine>-roofline.svg`), and how many times as
long as ours each peer takes (`<machine>-ratio-forward.svg` and `-dX.svg`).
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from lowrank.atomic_io import write_text

from .rows import Row, latest, read

# A provider's colour by the order of this list, on light and on dark paper: told apart by the colour-blind as well.
PROVIDERS = ("ours", "bitsandbytes", "bitsandbytes-dequantize", "torchao", "dense", "unsloth", "marlin")
LIGHT = ("#24558a", "#c4561a", "#8f6b00", "#8a3f86", "#6d6e72", "#1f7a5c", "#a32638")
DARK = ("#82b1e2", "#ee9a63", "#d9b84a", "#d193cd", "#a6a59f", "#6fcfaa", "#f08a98")

WIDTH, LEFT, RIGHT = 720, 64, 700
PANEL_WIDTH, PANEL_HEIGHT, GAP = 340, 190, 40


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis: [low, high] of the values on [start, end] of the drawing."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Where a value stands."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def powers(self, base: float) -> list[float]:
        """The powers of `base` on the axis."""
        first, last = (math.log(value, base) for value in (self.low, self.high))
        return [base**power for power in range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)]


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
    x = Axis(min(intensity) / 1.5, 1.5 * max(*intensity, peak / stream), LEFT, RIGHT)
    y = Axis(min(*reached, stream * x.low) / 1.5, 1.5 * max(*reached, peak), 380, 60)
    ridge = peak / stream
    drawing = [
        *(_rule(x, y, value, f"{value:g}") for value in y.powers(10)),
        *(_label(x.place(value), y.start + 20, "middle", f"{value:g}") for value in x.powers(10)),
        f'<path class="roof" d="M{x.start} {y.place(stream * x.low):.1f}L{x.place(ridge):.1f} {y.place(peak):.1f}'
        f'H{x.end}"/>',
        _label(x.place(ridge) - 12, y.place(peak) + 4, "end", f"{1e3 * stream:.4g} GB/s, {peak:.4g} TFLOP/s"),
    ]
    for row, across, up in zip(products, intensity, reached, strict=True):
        said = f"{row['provider']}, {row['M']}x{row['N']}x{row['K']}: {up:.4g} TFLOP/s, {row['share']:.0%} of the limit"
        drawing.append(
            f'<circle class="{_colour(row["provider"])}" cx="{x.place(across):.1f}" cy="{y.place(up):.1f}" r="3.5">'
            f"<title>{escape(said)}</title></circle>"
        )
    names = [name for name in PROVIDERS if any(row["provider"] == name for row in products)]
    name = f"x W^T in {products[-1]['dtype']}: TFLOP/s over floating-point operations a byte"
    return _svg(f"{name}; {products[-1]['machine']}", 420, [*_key(names, 38), *drawing])


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
        top = 76 + (index // 2) * (PANEL_HEIGHT + 56)
        x = Axis(counts[0], max(counts[-1], 2 * counts[0]), left, left + PANEL_WIDTH - 48)
        y = Axis(lowest, highest, top + PANEL_HEIGHT, top)
        here = [row for row in compared if (row["N"], row["K"]) == shape]
        drawing += _ratio_panel(here, f"W {shape[0]} x {shape[1]}", x, y)
    names = [name for name in PROVIDERS[1:] if any(row["provider"] == name for row in compared)]
    product = "x W^T" if op == "forward" else "dX = dY W"
    name = f"{product}: time of a peer / ours, over M (above 1 we are ahead)"
    height = 76 + math.ceil(len(shapes) / 2) * (PANEL_HEIGHT + 56)
    return _svg(f"{name}; {compared[-1]['machine']}", height, [*_key(names, 38), *drawing])


def _ratio_panel(rows: Sequence[Row], name: str, x: Axis, y: Axis) -> Iterator[str]:
    yield f'<text class="name" x="{x.start}" y="{y.end - 8}">{name}</text>'
    for value in y.powers(2):
        yield _rule(x, y, value, f"{value:g}", "one" if value == 1 else "rule")
    for m in x.powers(4):
        yield _label(x.place(m), y.start + 18, "middle", f"{m:g}")
    for provider in dict.fromkeys(row["provider"] for row in rows):
        mine = sorted((row for row in rows if row["provider"] == provider), key=lambda row: int(row["M"]))
        points = [(x.place(row["M"]), y.place(row["versus_ours"]["ratio"]), row) for row in mine]
        colour = _colour(provider)
        if len(points) > 1:
            yield f'<path class="line {colour}" d="M' + "L".join(f"{a:.1f} {b:.1f}" for a, b, _ in points) + '"/>'
        for across, up, row in points:
            versus = row["versus_ours"]
            low, high = y.place(versus["low"]), y.place(versus["high"])
            said = f"{provider}, M {row['M']}: {versus['ratio']:.2f} [{versus['low']:.2f}, {versus['high']:.2f}]"
            yield f'<path class="line {colour}" d="M{across:.1f} {low:.1f}V{high:.1f}"/>'
            yield (
                f'<circle class="{colour}" cx="{across:.1f}" cy="{up:.1f}" r="3"><title>{escape(said)}</title></circle>'
            )


def _svg(name: str, height: float, drawing: Sequence[str]) -> str:
    body = "\n".join(drawing)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(name)}">\n{_style()}\n'
        f'<text class="name" x="0" y="16">{escape(name)}</text>\n{body}\n</svg>\n'
    )


def _style() -> str:
    light, dark = (
        "".join(f".p{i} {{ fill: {colour}; stroke: {colour} }} " for i, colour in enumerate(colours))
        for colours in (LIGHT, DARK)
    )
    return (
        "<style>\ntext { font: 12px system-ui, sans-serif; fill: #5a5b5f } .name { fill: #1e1f21; font-weight: 600 }\n"
        "path { fill: none; stroke: #dcd8cf } .roof, .one { stroke: #1e1f21 } .roof { stroke-width: 2 }\n"
        f"{light}path.line {{ fill: none; stroke-width: 1.5 }}\n"
        "@media (prefers-color-scheme: dark) {\n"
        "  text { fill: #a6a59f } .name { fill: #e7e4dd } path { stroke: #363a3f }\n"
        f"  .roof, .one {{ stroke: #e7e4dd }} {dark}}}\n</style>"
    )


def _key(names: Sequence[str], y: float) -> Iterator[str]:
    """A dot and a name for every provider, side by side."""
    x = 0.0
    for name in names:
        yield f'<circle class="{_colour(name)}" cx="{x + 5:.0f}" cy="{y - 4}" r="4"/>'
        yield _label(x + 14, y, "start", name)
        x += 36 + 7 * len(name)


def _rule(x: Axis, y: Axis, value: float, text: str, kind: str = "rule") -> str:
    up = y.place(value)
    line = f'<path class="{kind}" d="M{x.start:.1f} {up:.1f}H{x.end:.1f}"/>'
    return line + _label(x.start - 8, up + 4, "end", text)


def _label(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _colour(provider: str) -> str:
    return f"p{PROVIDERS.index(provider)}"


def main(arguments: Sequence[str]) -> int:
    """Draws what the rows of a file hold; exit status 2 if that is nothing."""
    if len(arguments) != 2:
        print("usage: python -m lowrank.bench.plot ROWS.jsonl FOLDER", file=sys.stderr)
        return 2
    path, folder = Path(arguments[0]), Path(arguments[1])
    rows = latest(read(path))
    compared = {row["op"] for row in rows if row["versus_ours"]}
    charts = {"roofline": roofline(rows)} if any(row["op"] == "forward" for row in rows) else {}
    charts |= {f"ratio-{op}": ratios(rows, op) for op in ("forward", "dX") if op in compared}
    for name, svg in charts.items():
        write_text(folder / f"{path.stem}-{name}.svg", svg)
        print(folder / f"{path.stem}-{name}.svg")
    if not charts:
        print(f"{path}: no products to draw", file=sys.stderr)
    return 0 if charts else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
