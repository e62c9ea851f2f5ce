"""The pages of formats beside NF4, and of mixed precision."""

from collections.abc import Iterator, Mapping
from itertools import groupby

from lowrank.model.param_names import LINEARS

from ..html.citation import STYLE as CITATION_STYLE
from ..html.citation import citation
from ..html.page import Rows, escape, render_page, table
from ..html.panels import INTERVAL_STYLE, Difference, interval_panel
from ..html.panels import STYLE as PANEL_STYLE
from ..html.plots import STYLE, Line, figure, heat_map, line_plot
from ..metrics.bootstrap import Interval
from .beside import FormatCost, FormatStudy
from .mixed import MixedXray

_ALL_STYLES = STYLE + PANEL_STYLE + INTERVAL_STYLE + CITATION_STYLE
_NATS = "nats a token more than in full precision"


def render_formats(study: FormatStudy) -> str:
    """The page of `inspect formats`, to be written in UTF-8; the same figures give the same bytes."""
    title = "Four bits, in many ways"
    body = [
        f"<h1>{title}</h1>",
        *(f'<p class="lead">{escape(sentence)}</p>' for sentence in format_findings(study)),
        figure(_errors(study), "A line a kind of format over its block sizes, dots for the others; lower is better."),
    ]
    costs = {one.name: one.cost for one in study.ordered() if one.cost}
    if costs:
        caption = f"Less the {study.loss:.4f} of full precision; 95 % intervals over {study.documents} documents."
        body.append(figure(interval_panel(_panel_rows(costs), "cost of each format", _NATS), caption))
    body += [
        _table("By bits a weight, statistics of the blocks included.", format_rows(study)),
        citation(["qlora", "levels", "microscaling"]),
    ]
    return render_page(title, _ALL_STYLES, body)


def format_rows(study: FormatStudy) -> Rows:
    """(head, rows): a row a format; intervals of 95 %."""
    return ("format", "bits", "SNR, dB", "cost, nats a token"), [
        (one.name, f"{one.bits:.3f}", db(one), shown(one.cost) or "-") for one in study.ordered()
    ]


def format_findings(study: FormatStudy) -> Iterator[str]:
    """The base, the formats of the least error and cost, in a few sentences."""
    best = min(study.formats, key=_error_of)
    yield (
        f"{study.base}: of {len(study.formats)} formats {best.name} has the least error, {db(best)} dB with "
        f"{best.bits:.3f} bits a weight."
    )
    if exact := [one.name for one in study.formats if one.snr_db is None]:
        yield f"{', '.join(exact)} loses nothing: these weights went through it before."
    costs = [(one.cost, one.name) for one in study.formats if one.cost]
    if costs:
        dear = [name for cost, name in costs if cost.low > 0]
        free = [name for cost, name in costs if cost.high < 0]
        yield (
            f"On {study.documents} documents {len(dear)} of them cost loss beyond doubt, {len(free)} gain, and of "
            f"{len(costs) - len(dear) - len(free)} neither can be told."
        )


def render_mixed(xray: MixedXray) -> str:
    """The page of `inspect mixed`, to be written in UTF-8; the same figures give the same bytes."""
    title = "Which linears deserve more bits"
    points = [(point.bits, point.cost) for point in xray.curve]
    here = Line("this plan", [(xray.plan.bits, xray.plan.cost)], "strong dots")
    curve = line_plot(
        [Line("the best plans", points), here], "the best plans", "bits a weight", "expected cost, nats a token"
    )
    body = [
        f"<h1>{title}</h1>",
        *(f'<p class="lead">{escape(sentence)}</p>' for sentence in mixed_findings(xray)),
        figure(_sensitivities(xray), f"Nats a thousand tokens that {_least(xray)} is expected to cost."),
        figure(curve, "What the rounding of all linears is expected to cost, by the budget."),
    ]
    if xray.measured:
        caption = f"Measured on {xray.documents[1]} other documents, with 95 % intervals over them."
        body.append(figure(interval_panel(_panel_rows(xray.measured), "measured costs", _NATS), caption))
    captions = ("The plan.", "The best plans by their bits.", "Measured.")
    body += [_table(caption, rows) for caption, rows in zip(captions, mixed_tables(xray), strict=False)]
    return render_page(title, _ALL_STYLES, [*body, citation(["hawq", "squeezellm", "qlora"])])


def mixed_tables(xray: MixedXray) -> list[Rows]:
    """(head, rows): the plan, its curve, and what was measured."""
    curve = [(f"{point.bits:.3f}", f"{point.cost:.5f}") for point in xray.curve]
    tables: list[Rows] = [xray.plan.rows(), (("bits a weight", "expected cost"), curve)]
    if xray.measured:
        tables.append((("weights", "cost"), [(name, shown(one)) for name, one in xray.measured.items()]))
    return tables


def mixed_findings(xray: MixedXray) -> Iterator[str]:
    """The plan in a few sentences."""
    formats = list(xray.plan.formats.values())
    counts = ", ".join(f"{formats.count(name)} in {name}" for name in dict.fromkeys(sorted(formats)))
    yield (
        f"{xray.base}: {xray.plan.bits:.3f} bits a weight, {counts}, expected cost {xray.plan.cost:.5f} nats a token "
        f"from the gradients of {xray.documents[0]} documents."
    )
    for name, cost in xray.measured.items():
        if name.startswith("the plan"):
            yield f"Measured on {xray.documents[1]} other documents it costs {shown(cost)}."


def shown(cost: Interval | None) -> str:
    """ "+0.0074 [+0.0046, +0.0105]" """
    return f"{cost.difference:+.4f} [{cost.low:+.4f}, {cost.high:+.4f}]" if cost else ""


def _errors(study: FormatStudy) -> str:
    """The energy of the error over bits a weight."""
    ordered = sorted(study.ordered(), key=_kind_of)
    lines, alone = [], []
    for kind, members in groupby(ordered, key=_kind_of):
        points = [(one.bits, 100 * _error_of(one)) for one in members]
        if len(points) > 1:
            lines.append(Line(kind, points, "strong" if kind == "nf4" else ""))
        else:
            alone += points
    if alone:
        lines.append(Line("others", alone, "dots"))
    return line_plot(lines, "error of each format", "bits a weight", "error, % of the energy of W")


def db(one: FormatCost) -> str:
    """ "20.65", or "infinite" where nothing is lost"""
    return "infinite" if one.snr_db is None else f"{one.snr_db:.2f}"


def _error_of(one: FormatCost) -> float:
    """The share of the energy of W that is lost."""
    return 0.0 if one.snr_db is None else 10 ** (-one.snr_db / 10)


def _kind_of(one: FormatCost) -> str:
    """Its name without the block size."""
    return one.name.rpartition(" b")[0]


def _panel_rows(costs: Mapping[str, Interval]) -> list[Difference]:
    return [
        Difference("", name, one.difference, one.low, one.high, f"{one.difference:+.4f}", _better(one))
        for name, one in costs.items()
    ]


def _better(interval: Interval) -> bool | None:
    return interval.difference < 0 if interval.is_clear_of_zero else None


def _least(xray: MixedXray) -> str:
    """The format with the fewest bits."""
    bits = next(iter(xray.sensitivities.values())).bits
    return min(bits, key=lambda name: bits[name])


def _sensitivities(xray: MixedXray) -> str:
    least = _least(xray)
    layers = sorted({int(path.split(".", 2)[1]) for path in xray.sensitivities})
    found = {path: 1000 * one.cost[least] for path, one in xray.sensitivities.items()}
    values = [[found.get(f"layers.{layer}.{name}") for name in LINEARS] for layer in layers]
    names = [name.partition(".")[2] for name in LINEARS]
    return heat_map([f"layer {layer}" for layer in layers], names, values, f"sensitivity to {least}", ".3f")


def _table(caption: str, rows: Rows) -> str:
    head, lines = rows
    return table(escape(caption), list(map(escape, head)), [list(map(escape, line)) for line in lines], words=1)
