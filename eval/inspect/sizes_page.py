"""The pages of `inspect params` and `inspect sizes`: what is counted, as bars and as tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lowrank.adapters.accounting import AdapterShape, Item

from ..html.page import escape, render_page, table
from ..html.plots import STYLE, bars, figure


@dataclass(frozen=True)
class Params:
    """The matrices of a hat: (name, shape, numbers) of each in one layer, and what they come to in all of them."""

    shapes: Sequence[tuple[str, str, int]]
    where: str
    layers: int
    dtype: str
    trainable: int
    whole: int
    matrix_bytes: int
    file_bytes: int | None


@dataclass(frozen=True)
class Sizes:
    """Parts of a base by format, and adapters by the size that was asked for."""

    model: str
    bases: Mapping[str, Sequence[Item]]
    adapters: Mapping[float, Sequence[AdapterShape]]
    rule: str


def render_params(params: Params) -> str:
    """The page of `inspect params`, to be written in UTF-8."""
    title = "What a hat trains"
    in_file = f" in a file of {params.file_bytes:,}" if params.file_bytes else ""
    factors = [(name, numbers) for name, _, numbers in params.shapes if name.endswith(("A", "B"))]
    names = [name.rpartition(".")[2].replace(": ", " ") for name, _ in factors]
    plot = bars(names, [float(numbers) for _, numbers in factors], "numbers in each matrix", "numbers")
    rows = [[escape(name), shape, f"{numbers:,}"] for name, shape, numbers in params.shapes]
    body = [
        f"<h1>{title}</h1>",
        f'<p class="lead">{params.trainable:,} of {params.whole:,} numbers, {params.trainable / params.whole:.4%} '
        f"({params.trainable / params.whole:.3g} as a fraction): {params.matrix_bytes:,} bytes in {params.dtype}"
        f"{in_file}.</p>",
        figure(plot, f"The matrices of {params.where}."),
        table(f"The same, in {params.where}.", ["matrix", "shape", "numbers"], rows, words=2),
    ]
    return render_page(title, STYLE, body)


def render_sizes(sizes: Sizes) -> str:
    """The page of `inspect sizes`, to be written in UTF-8."""
    title = f"What {sizes.model} weighs"
    totals = {name: sum(item.bytes for item in items) for name, items in sizes.bases.items()}
    plot = bars(list(totals), [total / 1e9 for total in totals.values()], "bytes of the base", "GB of 10^9 bytes")
    body = [f"<h1>{escape(title)}</h1>", f'<p class="lead">{escape(sizes.rule)}</p>', "<h2>The base</h2>"]
    body.append(figure(plot, "All parameters of the base, its block linears in the format named."))
    for name, items in sizes.bases.items():
        rows = [
            [escape(item.what), f"{item.parameters:,}", f"{item.bytes:,}", f"{item.bytes / 1e9:.3f}"] for item in items
        ]
        rows.append(["in all", "", f"{totals[name]:,}", f"{totals[name] / 1e9:.3f}"])
        body.append(table(f"In {escape(name)}.", ["part", "parameters", "bytes", "GB"], rows, words=1))
    body.append("<h2>Adapters of a given size</h2>")
    for size, shapes in sizes.adapters.items():
        found = [
            [
                str(shape.rank),
                escape(shape.targets),
                shape.dtype,
                f"{shape.parameters:,}",
                f"{shape.file_bytes:,}",
                f"{(size - shape.file_bytes) / 1e6:+.2f}",
            ]
            for shape in shapes
        ]
        head = ["rank", "targets", "type", "parameters", "bytes of the file", "unexplained MB"]
        caption = f"Of {size / 1e6:g} MB." if found else f"Of {size / 1e6:g} MB: none."
        body.append(table(caption, head, found, words=3))
    return render_page(title, STYLE, body)
