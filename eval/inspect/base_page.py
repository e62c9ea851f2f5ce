"""The page of a folder of weights: config, files and hashes, and where its outliers are."""

from collections.abc import Callable, Iterator, Sequence

from lowrank.model.param_names import LINEARS, is_block_linear

from ..html.citation import STYLE as CITATION_STYLE
from ..html.citation import citation
from ..html.page import escape, render_page, table
from ..html.plots import STYLE, figure, grid, heat_map
from .base import DEVIATIONS, BaseXray, TensorFound

_STYLE = "code { font-size: .8125rem; overflow-wrap: anywhere; }"


def render(xray: BaseXray) -> str:
    """The page as text to be written in UTF-8; the same folder gives the same bytes."""
    title = "A base, tensor by tensor"
    body = [
        f"<h1>{title}</h1>",
        *(f'<p class="lead">{escape(sentence)}</p>' for sentence in findings(xray)),
        "<h2>Config</h2>",
        _table("As it was read.", ["key", "value"], [[key, str(value)] for key, value in xray.config.items()], 2),
        "<h2>Files</h2>",
        _table("Compared with: the list in the folder that has the same hash.", *file_table(xray), 1),
        "<h2>Outliers of the block linears</h2>",
        grid(_maps(xray)),
        _table("The layers, channels and neurons that hold most of them.", *xray.outliers.table(), 1),
        "<h2>Every tensor</h2>",
        _table(CAPTION, *tensor_table(xray), 2),
        _table("SHA-256 of the bytes of each.", ["tensor", "SHA-256"], [[t.name, t.sha256] for t in xray.tensors], 2),
        citation(["llama2"]),
    ]
    return render_page(title, STYLE + _STYLE + CITATION_STYLE, body)


CAPTION = (
    f"Outliers: numbers more than {DEVIATIONS} standard deviations from the mean of their tensor. Column: the norm of "
    "the largest input channel over that of the median one, and which it is; row: the same of output channels."
)


def findings(xray: BaseXray) -> Iterator[str]:
    """The folder in a few sentences."""
    yield f"{xray.folder}: {xray.parameters:,} parameters; {xray.format}."
    yield f"RoPE turns pairs in the layout {xray.layout}."
    yield f"Fingerprint {xray.fingerprint}: what a hat knows it by."
    if xray.checklist:
        yield f"checklist.chk: the MD5 sums of {', '.join(xray.checklist)} are right."
    linears = [tensor for tensor in xray.tensors if is_block_linear(tensor.name)]
    worst = max(linears, key=lambda tensor: tensor.deviations)
    yield from xray.outliers.sentences(DEVIATIONS)
    yield (
        f"The furthest, {worst.largest:.4g} at {list(worst.largest_at)} of {worst.name.removesuffix('.weight')}, lies "
        f"at {worst.deviations:.1f} standard deviations."
    )


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> str:
    return table(escape(caption), [escape(name) for name in head], [list(map(escape, row)) for row in rows], words)


def file_table(xray: BaseXray) -> tuple[list[str], list[list[str]]]:
    """(head, rows): a row a file."""
    rows = [[file.name, f"{file.bytes:,}", file.sha256, file.check or "-"] for file in xray.files]
    return ["file", "bytes", "SHA-256", "compared with"], rows


def tensor_table(xray: BaseXray) -> tuple[list[str], list[list[str]]]:
    """(head, rows): a row a tensor."""
    head = [
        "tensor",
        "stored as",
        "shape",
        "bits",
        "mean",
        "deviation",
        "largest",
        "outliers",
        "kurtosis",
        "column",
        "row",
    ]
    rows = [
        [
            tensor.name.removesuffix(".weight"),
            tensor.stored_as,
            " x ".join(map(str, tensor.shape)),
            f"{tensor.bits_per_number:.3f}",
            f"{tensor.mean:+.3g}",
            f"{tensor.deviation:.3g}",
            f"{tensor.largest:.3g}",
            f"{tensor.outliers:,}",
            f"{tensor.kurtosis:.2f}",
            _ratio(tensor.column_ratio, tensor.column),
            _ratio(tensor.row_ratio, tensor.row),
        ]
        for tensor in xray.tensors
    ]
    return head, rows


def _ratio(ratio: float | None, which: int | None) -> str:
    return "" if ratio is None else f"{ratio:.2f} ({which})"


def _maps(xray: BaseXray) -> Iterator[str]:
    yield _map(xray, "Furthest weight, in deviations", lambda tensor: tensor.deviations, ".1f")
    yield _map(xray, f"Weights beyond {DEVIATIONS} deviations", lambda tensor: float(tensor.outliers), ".0f")
    yield _map(xray, "Kurtosis above a normal's", lambda tensor: tensor.kurtosis, ".2f")
    yield _map(xray, "Largest input column over the median one", lambda tensor: tensor.column_ratio, ".2f")


def _map(xray: BaseXray, heading: str, value: Callable[[TensorFound], float | None], form: str) -> str:
    cells = {}
    for tensor in xray.tensors:
        if is_block_linear(tensor.name):
            _, layer, projection = tensor.name.removesuffix(".weight").split(".", 2)
            cells[int(layer), projection] = value(tensor)
    layers = sorted({layer for layer, _ in cells})
    values = [[cells[layer, name] for name in LINEARS] for layer in layers]
    names = [name.partition(".")[2] for name in LINEARS]
    return figure(heat_map([f"layer {layer}" for layer in layers], names, values, heading, form), "", heading)
