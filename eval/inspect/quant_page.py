"""The page of a base in several number formats: what each costs, where the codes fall, and why the levels are there."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from lowrank.kernels.weights import codebooks
from lowrank.model.param_names import LINEARS

from ..html.citation import STYLE as CITATION_STYLE
from ..html.citation import citation
from ..html.page import escape, render_page, table
from ..html.plots import STYLE, Line, bars, figure, grid, heat_map, histogram
from .levels import LevelStudy
from .quant import ABSMAX_BINS, ABSMAX_END, FormatError, QuantXray, TensorErrors

_HEADS = ("attention.wq", "attention.wk", "attention.wv", "attention.wo")


def render(xray: QuantXray) -> str:
    """The page as text to be written in UTF-8; the same base gives the same bytes."""
    title = "What quantizing costs, tensor by tensor"
    body = [
        f"<h1>{title}</h1>",
        *(f'<p class="lead">{escape(sentence)}</p>' for sentence in findings(xray)),
        "<h2>In all</h2>",
        _table("All linears as one.", *total_table(xray), words=1),
        grid(_codes(xray)),
        "<h2>Why the levels are where they are</h2>",
        *_levels(xray.study),
        "<h2>Block maxima</h2>",
        _maxima(xray),
        "<h2>Layer by layer</h2>",
        grid(_maps(xray)),
        "<h2>Head by head</h2>",
        grid(_head_maps(xray)),
        "<h2>Every tensor</h2>",
        _table(TENSOR_CAPTION, *tensor_table(xray), words=1),
        citation(["qlora", "levels"]),
    ]
    return render_page(title, STYLE + CITATION_STYLE, body)


def render_levels(study: LevelStudy) -> str:
    """The page of the levels alone, for some distribution of the weights."""
    title = "Why the levels are where they are"
    body = [f"<h1>{title}</h1>", f'<p class="lead">{escape(level_finding(study))}</p>', *_levels(study)]
    body.append(citation(["qlora", "levels"]))
    return render_page(title, STYLE + CITATION_STYLE, body)


TENSOR_CAPTION = (
    "SNR in dB: 10 log10 of sum W^2 over sum (W - Q(W))^2. Entropy in bits a code. Block maxima: their 1 %, 50 % and "
    "99 % quantiles. Heads: the worst and the best of them, in dB, in the first format."
)


def findings(xray: QuantXray) -> Iterator[str]:
    """The results in a few sentences."""
    yield f"{xray.base}: {xray.weights:,} weights in {len(xray.tensors)} linears."
    for part in xray.total.values():
        nesting = (
            "" if part.nesting_share is None else f"; {part.nesting_share:.2%} of its error is of the nested maxima"
        )
        yield (
            f"{part.format}: {part.bits_per_weight:.3f} bits a weight, {_db(part.snr_db)} dB, "
            f"codes of {part.entropy_bits:.2f} bits{nesting}."
        )
    yield level_finding(xray.study)


def level_finding(study: LevelStudy) -> str:
    """A sentence: what NF4's levels leave, beside the best ones and those that are equally often used."""
    nf4, best, equal = (study.levels[name].error for name in ("nf4", "lloyd-max", "equal shares"))
    return (
        f"NF4's levels leave an error of {nf4:.4%} of the energy of W; the best 16 levels for these weights "
        f"{best:.4%}; levels that are equally often used {equal:.4%}."
    )


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> str:
    return table(escape(caption), [escape(name) for name in head], [list(map(escape, row)) for row in rows], words)


def total_table(xray: QuantXray) -> tuple[list[str], list[list[str]]]:
    """(head, rows): a row a format."""
    head = ["format", "bits a weight", "mse", "SNR, dB", "largest error", "entropy, bits", "of nested maxima"]
    return head, [
        [
            part.format,
            f"{part.bits_per_weight:.4f}",
            f"{part.mse:.4g}",
            _db(part.snr_db),
            f"{part.largest:.4g}",
            f"{part.entropy_bits:.4f}",
            "" if part.nesting_share is None else f"{part.nesting_share:.3%}",
        ]
        for part in xray.total.values()
    ]


def tensor_table(xray: QuantXray) -> tuple[list[str], list[list[str]]]:
    """(head, rows): a row a tensor."""
    formats = list(xray.total)
    head = [
        "tensor",
        "shape",
        *(f"{name}, dB" for name in formats),
        "mse",
        "entropy",
        "absmax 1, 50, 99 %",
        "heads, dB",
    ]
    rows = []
    for tensor in xray.tensors:
        first = tensor.formats[formats[0]]
        _, low, _, middle, _, high, _ = tensor.absmax_quantiles
        heads = [snr for snr in first.head_snr_db if snr is not None]
        rows.append(
            [
                tensor.name.removesuffix(".weight"),
                " x ".join(map(str, tensor.shape)),
                *(_db(tensor.formats[name].snr_db) for name in formats),
                f"{first.mse:.3g}",
                f"{first.entropy_bits:.3f}",
                f"{low:.3g}, {middle:.3g}, {high:.3g}",
                f"{min(heads):.2f} to {max(heads):.2f}" if heads else "",
            ]
        )
    return head, rows


def levels_table(study: LevelStudy) -> tuple[list[str], list[list[str]]]:
    """(head, rows): a row a code of NF4, beside the best levels."""
    found = study.levels
    columns = [found[name].levels for name in ("nf4", "lloyd-max", "lloyd-max, normal", "equal shares")]
    head = ["code", "NF4", "used", "if normal", "Lloyd-Max", "Lloyd-Max, normal", "equal shares"]
    rows = [
        [
            str(code),
            f"{columns[0][code]:+.4f}",
            f"{found['nf4'].share[code]:.2%}",
            f"{found['nf4'].expected[code]:.2%}",
            *(f"{levels[code]:+.4f}" for levels in columns[1:]),
        ]
        for code in range(16)
    ]
    return head, rows


def level_errors(study: LevelStudy) -> tuple[list[str], list[list[str]]]:
    """(head, rows): a row a set of levels."""
    rows = [[name, f"{levels.entropy_bits:.4f}", f"{levels.error:.4%}"] for name, levels in study.levels.items()]
    return ["levels", "entropy, bits", "error of the energy"], rows


def _db(snr: float | None) -> str:
    return "-" if snr is None else f"{snr:.2f}"


def _codes(xray: QuantXray) -> Iterator[str]:
    """Frequency of each code of the 4-bit formats; int8's over its whole range."""
    for part in xray.total.values():
        count = sum(part.codes)
        caption = f"{part.entropy_bits:.3f} bits of entropy in {'8' if part.format == 'int8' else '4'}."
        if part.format == "int8":
            edges = [number - 0.5 for number in range(-127, 129)]
            plot = histogram(
                edges, [code / count for code in part.codes], "codes of int8", "code", "share of the weights"
            )
        else:
            order = codebooks.CODEBOOKS[part.format.partition("-")[0]]().sort(stable=True).indices.tolist()
            even = Line("equally likely", [(number, 1 / 16) for number in range(16)], "dashed")
            values = [part.codes[code] / count for code in order]
            plot = bars(
                [str(code) for code in order], values, f"codes of {part.format}", "share of the weights", line=even
            )
            caption += " Codes in the order of their levels."
        yield figure(plot, caption, f"Codes of {part.format}")


def _levels(study: LevelStudy) -> Iterator[str]:
    edges = [-1 + number / 32 for number in range(65)]
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    normal = Line("independent normal weights", list(zip(middles, study.normal_density, strict=True)), "strong")
    marks = {
        "NF4": (study.levels["nf4"].levels, "strong"),
        "FP4": (study.levels["fp4"].levels, ""),
        "Lloyd": (study.levels["lloyd-max"].levels, "wrong"),
        "equal": (study.levels["equal shares"].levels, ""),
    }
    plot = histogram(
        edges, study.density, "w over the maximum of its block", "w / absmax", "density", lines=[normal], marks=marks
    )
    yield figure(
        plot,
        f"Bars: these weights; line: normal ones. The maxima themselves, {study.share_at_ends:.2%} of the "
        "weights, stand at -1 and 1 and are left out of the bars. Under the axis the levels of NF4 and FP4, "
        "the best for the mean square (Lloyd-Max), and those that would be equally often used.",
    )
    yield (
        '<p class="words">'
        "NF4 takes 16 quantiles of a normal distribution and scales them so that the outermost stand at -1 "
        "and 1. Its codes would be equally likely if w / absmax were normal with a deviation of 0.54. It is "
        "not: the largest of 64 weights is further out, so the others lie closer to zero, and the codes near "
        "zero are used more. Full entropy is no aim in itself: levels that are equally often used leave the "
        "few large weights, which carry the energy, with the coarsest steps. The best levels for the mean "
        "square do the opposite: their outermost steps are finer than NF4’s, and neither zero nor the ends "
        "are exact. NF4 keeps these three, so that a weight of zero and the largest of a block are stored as "
        "they are.</p>"
    )
    yield _table("Level by level; used: the share of the weights.", *levels_table(study), words=0)
    yield _table("What each set of levels would leave, with maxima in float32.", *level_errors(study), words=1)


def _maxima(xray: QuantXray) -> str:
    edges = [ABSMAX_END * number / ABSMAX_BINS for number in range(ABSMAX_BINS + 1)]
    plot = histogram(
        edges, xray.absmax_histogram, "block maxima", "absmax / mean absmax of its tensor", "share of the blocks"
    )
    return figure(plot, f"All blocks of 64; what is beyond {ABSMAX_END:g} is in the last bar. Double quantization "
                  "stores what they differ by from their mean.")  # fmt: skip


def _maps(xray: QuantXray) -> Iterator[str]:
    for format in xray.total:
        yield _map(xray.tensors, f"SNR of {format}, dB", [part.formats[format] for part in xray.tensors])


def _map(tensors: Sequence[TensorErrors], heading: str, errors: Sequence[FormatError]) -> str:
    cells = {}
    for tensor, error in zip(tensors, errors, strict=True):
        _, layer, projection = tensor.name.removesuffix(".weight").split(".", 2)
        cells[int(layer), projection] = error.snr_db
    layers = sorted({layer for layer, _ in cells})
    values = [[cells.get((layer, name)) for name in LINEARS] for layer in layers]
    names = [name.partition(".")[2] for name in LINEARS]
    return figure(heat_map([f"layer {layer}" for layer in layers], names, values, heading), "", heading)


def _head_maps(xray: QuantXray) -> Iterator[str]:
    """A row a layer, a column a head, in the first format."""
    format = next(iter(xray.total))
    for name in _HEADS:
        members = [tensor for tensor in xray.tensors if tensor.name.endswith(f"{name}.weight")]
        heads = [tensor.formats[format].head_snr_db for tensor in members]
        layers = [f"layer {tensor.name.split('.')[1]}" for tensor in members]
        columns = [f"head {head}" for head in range(max(map(len, heads)))]
        drawing = heat_map(layers, columns, heads, f"SNR of the heads of {name}")
        yield figure(drawing, f"SNR in dB, {format}.", name)
