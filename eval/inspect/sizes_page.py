"""The pages of `inspect params` and `inspect sizes`: what is counted, as bars and as tables."""

from collections.abc import Sequence

from ..html.citation import STYLE as CITATION_STYLE
from ..html.citation import citation
from ..html.page import escape, render_page, table
from ..html.plots import STYLE, bars, figure
from .sizes import Params, Sizes, Summary


def render_params(params: Params) -> str:
    """The page of `inspect params`, to be written in UTF-8."""
    title = "What a hat trains"
    in_file = f" in a file of {params.file_bytes:,}" if params.file_bytes else ""
    factors = [(name, numbers) for name, _, numbers in params.shapes if name.endswith(("A", "B"))]
    names = [name.rpartition(".")[2].replace(": ", " ") for name, _ in factors]
    plot = bars(names, [float(numbers) for _, numbers in factors], "numbers in each matrix", "numbers")
    body = [
        f"<h1>{title}</h1>",
        f'<p class="lead">{params.trainable:,} of {params.whole:,} numbers, {params.trainable / params.whole:.4%} '
        f"({params.trainable / params.whole:.3g} as a fraction): {params.matrix_bytes:,} bytes in {params.dtype}"
        f"{in_file}.</p>",
        figure(plot, f"The matrices of {params.where}."),
        _table(f"The same, in {params.where}.", *params_table(params), words=2),
        citation(["lora"]),
    ]
    return render_page(title, STYLE + CITATION_STYLE, body)


def render_sizes(sizes: Sizes) -> str:
    """The page of `inspect sizes`, to be written in UTF-8."""
    title = f"What {sizes.model} weighs"
    totals = {name: sum(item.bytes for item in items) for name, items in sizes.bases.items()}
    plot = bars(list(totals), [total / 1e9 for total in totals.values()], "bytes of the base", "GB of 10^9 bytes")
    body = [f"<h1>{escape(title)}</h1>", f'<p class="lead">{escape(sizes.rule)}</p>', "<h2>The base</h2>"]
    body.append(figure(plot, "All parameters of the base, its block linears in the format named."))
    body += [_table(f"In {name}.", *base_table(sizes, name), words=1) for name in sizes.bases]
    body.append("<h2>Adapters of a given size</h2>")
    for size, shapes in sizes.adapters.items():
        caption = f"Of {size / 1e6:g} MB." if shapes else f"Of {size / 1e6:g} MB: none."
        body.append(_table(caption, *adapters_table(sizes, size), words=3))
    return render_page(title, STYLE + CITATION_STYLE, [*body, citation(["qlora", "llama2"])])


def params_table(params: Params) -> tuple[list[str], list[list[str]]]:
    """(head, rows): a row a matrix of one layer."""
    rows = [[name, shape, f"{numbers:,}"] for name, shape, numbers in params.shapes]
    return ["matrix", "shape", "numbers"], rows


def base_table(sizes: Sizes, name: str) -> tuple[list[str], list[list[str]]]:
    """(head, rows): a row a part of the base in one format, and all of it."""
    items = sizes.bases[name]
    rows = [[item.what, f"{item.parameters:,}", f"{item.bytes:,}", f"{item.bytes / 1e9:.3f}"] for item in items]
    total = sum(item.bytes for item in items)
    return ["part", "parameters", "bytes", "GB"], [
        *rows,
        [f"{sizes.model} in {name}", "", f"{total:,}", f"{total / 1e9:.3f}"],
    ]


def adapters_table(sizes: Sizes, size: float) -> tuple[list[str], list[list[str]]]:
    """(head, rows): a row an adapter whose file has about that size."""
    head = ["rank", "targets", "type", "parameters", "MB", "bytes of the file", "unexplained MB"]
    return head, [
        [
            str(shape.rank),
            shape.targets,
            shape.dtype,
            f"{shape.parameters:,}",
            f"{shape.bytes / 1e6:.2f}",
            f"{shape.file_bytes:,}",
            f"{(size - shape.file_bytes) / 1e6:+.2f}",
        ]
        for shape in sizes.adapters[size]
    ]


def summary_table(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """(head, rows): a row a part of a model, and all of it."""
    rows = [
        [part.what, f"{part.parameters:,}", f"{part.trained:,}", f"{part.bytes:,}"]
        for part in (*summary.parts, summary.total)
    ]
    return ["part", "parameters", "trained", "bytes"], rows


def render_summary(summary: Summary) -> str:
    """The page of a model as it is, to be written in UTF-8."""
    title, total = "What a model holds", summary.total
    plot = bars(
        [part.what for part in summary.parts],
        [part.bytes / 1e6 for part in summary.parts],
        "bytes of each part",
        "MB of 10^6 bytes",
    )
    lead = f"{total.parameters:,} parameters, {total.trained:,} of them trained, in {total.bytes:,} bytes."
    body = [f"<h1>{title}</h1>", f'<p class="lead">{lead}</p>', figure(plot, "Bytes as they are stored.")]
    body += [_table("Part by part.", *summary_table(summary), words=1), citation(["lora", "qlora"])]
    return render_page(title, STYLE + CITATION_STYLE, body)


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> str:
    return table(escape(caption), [escape(name) for name in head], [list(map(escape, row)) for row in rows], words)
