"""The page of the microscope: a block weight by weight, and one output taken apart."""

from collections.abc import Iterator, Sequence

from ..html.citation import STYLE as CITATION_STYLE
from ..html.citation import citation
from ..html.page import escape, render_page, table
from ..html.plots import STYLE, Line, figure, line_plot
from .block import Block
from .linear import LinearXray

_STYLE = """
.tokens span { display: inline-block; padding: .1rem .35rem; margin: 0 .2rem .3rem 0; background: var(--wash);
  border-radius: .2rem; font: .875rem/1.5 var(--sans); white-space: pre; }
.tokens .chosen { background: var(--strong); color: var(--paper); }
.sum { font: 1.0625rem/1.8 var(--sans); font-variant-numeric: tabular-nums; }
"""


def render(xray: LinearXray) -> str:
    """The page as text to be written in UTF-8; the same arguments give the same bytes."""
    title = f"{xray.path}, row {xray.row}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(lead(xray))}</p>',
        "<h2>One token</h2>",
        _tokens(xray),
        f'<p class="sum">{escape(equation(xray))}</p>',
        _table("The output of this row for this token.", *product_table(xray)),
        f"<p>{escape(verdict(xray))}</p>",
        *_hat(xray),
        f"<h2>Block {xray.block.index}</h2>",
        *(f"<p>{escape(line)}</p>" for line in maximum_lines(xray.block)),
        *_plot(xray.block),
        _table("W as it was, its code, the level of the code, and level times maximum.", *block_table(xray.block)),
        citation(["qlora"]),
    ]
    return render_page(title, STYLE + _STYLE + CITATION_STYLE, body)


def lead(xray: LinearXray) -> str:
    """The lead sentence: weight, format, token."""
    n, k = xray.shape
    return f"{xray.where}, of a {n} x {k} weight in {xray.block.format}; token {xray.product.token} of {xray.text!r}."


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return table(escape(caption), [escape(name) for name in head], [list(map(escape, row)) for row in rows], words=1)


def maximum_lines(block: Block) -> Iterator[str]:
    """The maximum of the block, and how it comes about where it is stored in 8 bits itself."""
    nested = block.nested
    name = "scale of the row" if block.format == "int8" else "absmax"
    if nested is None:
        yield f"{name} = {block.absmax!r}"
        return
    yield (
        f"absmax = {nested.level!r} (8-bit code {nested.code}) x {nested.nested_absmax!r} + {nested.offset!r} "
        f"= {block.absmax!r}"
    )
    if nested.exact is not None:
        yield f"before it was stored in 8 bits: {nested.exact!r}"


def block_table(block: Block) -> tuple[list[str], list[list[str]]]:
    """(head, rows): a row a weight."""
    head = ["place", "W", "code", "level", "Q(W)", "Q(W) - W"]
    rows = [
        [
            f"[{weight.row}, {weight.column}]",
            "-" if weight.original is None else f"{weight.original:+.6f}",
            str(weight.code),
            f"{weight.level:+.6f}",
            f"{weight.value:+.6f}",
            "-" if weight.original is None else f"{weight.value - weight.original:+.6f}",
        ]
        for weight in block.weights
    ]
    return head, rows


def product_table(xray: LinearXray) -> tuple[list[str], list[list[str]]]:
    """(head, rows): the parts of one output, in float32 to nine digits, which is all of it."""
    product = xray.product
    rows = [["x Q(W)^T", f"{product.base:+.9g}"]]
    if product.hat:
        rows.append([f"{product.hat.scaling:g} (x A) B", f"{product.hat.value:+.9g}"])
    rows += [
        ["their sum", f"{product.total:+.9g}"],
        ["the forward pass", f"{product.forward:+.9g}"],
        ["by hand, in float64", f"{product.by_hand:+.12g}"],
        ["of it, this block", f"{product.block:+.9g}"],
    ]
    if product.unquantized is not None:
        rows.append(["x W^T, before quantization", f"{product.unquantized:+.9g}"])
    return ["part", "value"], rows


def equation(xray: LinearXray) -> str:
    """The sum in one line."""
    product = xray.product
    adapter = f" {product.hat.value:+.6f}" if product.hat else ""
    names = "x Q(W)^T + scaling (x A) B" if product.hat else "x Q(W)^T"
    return f"y = {names} = {product.base:+.6f}{adapter} = {product.total:+.6f}"


def verdict(xray: LinearXray) -> str:
    """Comparison of the sum with the forward pass and with float64."""
    product = xray.product
    same = "bit for bit what the forward pass has" if product.is_exact else "NOT what the forward pass has"
    off = abs(product.forward - product.by_hand)
    near = "within" if product.is_within else "BEYOND"
    return f"The sum is {same}; float64 is {off:.2g} away, {near} the {product.bound:.2g} that float32 may be off by."


def _plot(block: Block) -> Iterator[str]:
    """Every weight as it was and as it is stored, over the heights that there are to be stored at."""
    ends = (0, len(block.weights) - 1)
    heights = sorted({weight.value for weight in block.weights}) if block.format != "int8" else []
    lines = [Line("", [(end, height) for end in ends], "faint") for height in heights]
    lines.append(Line("Q(W)", [(place, weight.value) for place, weight in enumerate(block.weights)], "strong dots"))
    before = [(place, weight.original) for place, weight in enumerate(block.weights) if weight.original is not None]
    if before:
        lines.append(Line("W", before, "rings"))
    caption = "Lines: the levels that occur in this block." if heights else ""
    yield figure(line_plot(lines, "the weights of the block", "place in the block", "weight"), caption)


def _tokens(xray: LinearXray) -> str:
    spans = "".join(
        f'<span{" class=chosen" if place == xray.product.token else ""} title="{place}">{escape(piece)}</span>'
        for place, piece in enumerate(xray.pieces)
    )
    return f'<p class="tokens">{spans}</p>'


def _hat(xray: LinearXray) -> Iterator[str]:
    adapter = xray.product.hat
    if adapter is None:
        return
    yield "<h2>The hat</h2>"
    rows = [
        [str(place), f"{inner:+.6f}", f"{outer:+.6f}", f"{adapter.scaling * inner * outer:+.6f}"]
        for place, (inner, outer) in enumerate(zip(adapter.inner, adapter.outer, strict=True))
    ]
    head = ["direction", "(x A)", f"B[:, {xray.row}]", "scaling x both"]
    yield _table(f"{adapter.folder}: rank {adapter.rank}, scaling {adapter.scaling:g}.", head, rows)
