"""The page of a hat: heat maps over layers and projections, the spectra, and a table with every figure."""

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean

from lowrank.model.param_names import LINEARS

from ..html.citation import STYLE as CITATION_STYLE
from ..html.citation import citation
from ..html.page import escape, render_page, table
from ..html.plots import STYLE, Line, figure, grid, heat_map, line_plot
from .adapter import AdapterLinear, AdapterXray

Value = Callable[[AdapterLinear], float | None]


def render(xray: AdapterXray) -> str:
    """The page as text to be written in UTF-8; the same hat gives the same bytes."""
    title = "What a hat adds, linear by linear"
    body = [
        f"<h1>{title}</h1>",
        *(f'<p class="lead">{escape(sentence)}</p>' for sentence in findings(xray)),
        "<h2>Size and rank</h2>",
        grid(_maps(xray)),
        "<h2>Spectra</h2>",
        grid(_spectra(xray)),
        *_second(xray),
        "<h2>Every linear</h2>",
        _table(xray),
        citation(["lora", "intruders"]),
    ]
    return render_page(title, STYLE + CITATION_STYLE, body)


def findings(xray: AdapterXray) -> Iterator[str]:
    """The hat in a few sentences."""
    linears = xray.linears
    ranks = sorted({linear.rank for linear in linears})
    shown = str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
    yield f"{xray.folder}: rank {shown} on {len(linears)} linears, {xray.parameters:,} parameters."
    if all(linear.spectrum.norm == 0 for linear in linears):
        yield "It adds nothing yet: every delta W is zero, as in a hat that was never trained."
        return
    yield (
        f"The mean effective rank is {fmean(linear.spectrum.effective_rank for linear in linears):.1f}, "
        f"and {fmean(linear.spectrum.directions_99 for linear in linears):.1f} directions carry 99 % of the energy."
    )
    beside = [linear.beside for linear in linears if linear.beside]
    if beside:
        shares = [part.to_weight for part in beside]
        sentence = f"It changes the weights by {min(shares):.2%} to {max(shares):.2%} of their norm"
        errors = [part.to_error for part in beside if part.to_error is not None]
        along = [part.along_error for part in beside if part.along_error is not None]
        if errors:
            sentence += (
                f", which is {min(errors):.2f} to {max(errors):.2f} times what {xray.weights} takes from them; "
                f"its cosine with what was taken is {fmean(along):+.4f} in the mean"
            )
        yield sentence + "."
    found = [linear.intruders for linear in linears if linear.intruders]
    if found:
        undecided = sum(part.undecided for part in found)
        way = "by both SVDs" if found[0].exact else "by Lanczos"
        yield (
            f"{sum(part.found for part in found)} of the {sum(len(part.sigma) for part in found)} leading singular "
            f"vectors of W + delta W are intruders at a threshold of {found[0].threshold:g}, {way}"
            + (f"; {undecided} more are undecided." if undecided else ".")
        )
    shared = [linear.angles for linear in linears if linear.angles]
    if shared:
        cosines = [part.cosine for part in shared]
        yield (
            f"With {xray.other} it shares {len(shared)} linears: cosines of the deltas from {min(cosines):+.3f} to "
            f"{max(cosines):+.3f}; what they write overlaps by {fmean(part.out_overlap for part in shared):.3f} in the "
            f"mean (by chance {fmean(part.chance_out for part in shared):.3f}), what they read by "
            f"{fmean(part.in_overlap for part in shared):.3f} ({fmean(part.chance_in for part in shared):.3f})."
        )


def by_layer(linears: Sequence[AdapterLinear], value: Value) -> tuple[list[str], list[str], list[list[float | None]]]:
    """(layers, projections, a value a cell): None where the hat covers no such linear, or has no such value"""
    cells = {tuple(linear.path.split(".", 2)[1:]): value(linear) for linear in linears}
    layers = sorted({layer for layer, _ in cells}, key=int)
    names = [name for name in LINEARS if any(name == projection for _, projection in cells)]
    short = [name.partition(".")[2] for name in names]
    return (
        [f"layer {layer}" for layer in layers],
        short,
        [[cells.get((layer, name)) for name in names] for layer in layers],
    )


def _map(xray: AdapterXray, heading: str, value: Value, form: str, caption: str) -> str:
    return figure(heat_map(*by_layer(xray.linears, value), heading, form), caption, heading)


def _maps(xray: AdapterXray) -> Iterator[str]:
    yield _map(xray, "Norm", lambda linear: linear.spectrum.norm, ".3f", "Frobenius norm of delta W = scaling (A B)^T.")
    yield _map(
        xray, "Effective rank", lambda linear: linear.spectrum.effective_rank, ".2f",
        "exp of the entropy of the singular values: the rank if all are equal, 1 if one is all there is.",
    )  # fmt: skip
    yield _map(
        xray, "Stable rank", lambda linear: linear.spectrum.stable_rank, ".2f",
        "Squared Frobenius norm over squared spectral norm.",
    )  # fmt: skip
    yield _map(
        xray, "Norm over that of W", _of("beside", "to_weight"), ".4f",
        "How much of a weight the hat is.",
    )  # fmt: skip
    yield _map(
        xray, "Norm over the error of quantization", _of("beside", "to_error"), ".2f",
        f"|delta W| / |W - Q(W)| with Q = {xray.weights}: below 1 the hat is smaller than what 4 bit takes.",
    )  # fmt: skip
    yield _map(
        xray, "Along the error", _of("beside", "along_error"), "+.4f",
        "Cosine of delta W with W - Q(W): above 0 where the hat gives back what was taken.",
    )  # fmt: skip
    yield _map(
        xray, "Intruder dimensions", _of("intruders", "found"), ".0f",
        "Leading singular vectors of W + delta W that no singular vector of W comes near (arXiv 2410.21228).",
    )  # fmt: skip


def _spectra(xray: AdapterXray) -> Iterator[str]:
    """A plot a projection, a line a layer; all have one axis, so that projections can be compared."""
    every = [value for linear in xray.linears for value in linear.spectrum.singular_values]
    for name in LINEARS:
        members = [linear for linear in xray.linears if linear.path.endswith(f".{name}")]
        lines = [
            Line(f"{linear.path.split('.')[1]}", list(enumerate(linear.spectrum.singular_values, 1)), "faint")
            for linear in members
        ]
        if not members:
            continue
        values = [linear.spectrum.singular_values for linear in members]
        mean = [
            (place + 1, fmean(sigma[place] for sigma in values if len(sigma) > place))
            for place in range(max(map(len, values)))
        ]
        lines.append(Line("mean over layers", mean, "strong"))
        plot = line_plot(
            lines, f"singular values, {name}", "number", "singular value of delta W", log_y=True, beside=every
        )
        yield figure(plot, f"{len(members)} layers.", name)


def _second(xray: AdapterXray) -> Iterator[str]:
    if xray.other is None:
        return
    yield "<h2>Beside the other hat</h2>"
    chance = next(linear.angles for linear in xray.linears if linear.angles)
    yield grid(
        (
            _map(xray, "Cosine of the deltas", _of("angles", "cosine"), "+.3f",
                 "1 if both add the same, 0 if what they add is orthogonal."),
            _map(xray, "Overlap of what they write", _of("angles", "out_overlap"), ".3f",
                 "Mean squared cosine of the principal angles between the columns of B; chance is "
                 f"{chance.chance_out:.3f} in the first linear."),
            _map(xray, "Overlap of what they read", _of("angles", "in_overlap"), ".3f",
                 f"The same between the rows of A; chance is {chance.chance_in:.3f} in the first linear."),
            _map(xray, "Smallest principal angle", _nearest, ".1f", "In degrees, between what they write."),
        )
    )  # fmt: skip


def _nearest(linear: AdapterLinear) -> float | None:
    return linear.angles.out_degrees[0] if linear.angles and linear.angles.out_degrees else None


def _table(xray: AdapterXray) -> str:
    head, rows = figures_table(xray)
    caption = "Norms are Frobenius'. Directions: how many carry 99 % of the energy."
    return table(caption, head, [[escape(cell) for cell in row] for row in rows], words=1)


def figures_table(xray: AdapterXray) -> tuple[list[str], list[list[str]]]:
    """(head, rows) of words, for the page and the terminal: a row a linear, columns for what there is."""
    columns: list[tuple[str, Callable[[AdapterLinear], str]]] = [
        ("linear", lambda linear: linear.path),
        ("rank", lambda linear: str(linear.rank)),
        ("norm", lambda linear: f"{linear.spectrum.norm:.4g}"),
        ("spectral", lambda linear: f"{linear.spectrum.spectral:.4g}"),
        ("stable", lambda linear: f"{linear.spectrum.stable_rank:.2f}"),
        ("effective", lambda linear: f"{linear.spectrum.effective_rank:.2f}"),
        ("directions", lambda linear: str(linear.spectrum.directions_99)),
    ]
    if xray.base is not None:
        columns.append(("/ |W|", _shown("beside", "to_weight", ".4f")))
    if xray.weights is not None:
        columns.append(("/ |W - Q(W)|", _shown("beside", "to_error", ".3f")))
        columns.append(("along it", _shown("beside", "along_error", "+.4f")))
    if any(linear.intruders for linear in xray.linears):
        columns.append(("intruders", _intruders))
    if xray.other is not None:
        columns.append(("cosine", _shown("angles", "cosine", "+.3f")))
        columns.append(("angles, degrees", _degrees))
        columns.append(("overlap out", _shown("angles", "out_overlap", ".3f")))
        columns.append(("in", _shown("angles", "in_overlap", ".3f")))
    return [name for name, _ in columns], [[cell(linear) for _, cell in columns] for linear in xray.linears]


def _of(part: str, figure: str) -> Value:
    """A figure of `beside`, `intruders` or `angles`: None where a linear has no such part, or the part lacks it"""

    def value(linear: AdapterLinear) -> float | None:
        found: float | None = getattr(getattr(linear, part), figure, None)
        return found

    return value


def _shown(part: str, figure: str, form: str) -> Callable[[AdapterLinear], str]:
    value = _of(part, figure)

    def shown(linear: AdapterLinear) -> str:
        found = value(linear)
        return "" if found is None else f"{found:{form}}"

    return shown


def _degrees(linear: AdapterLinear) -> str:
    if not linear.angles or not linear.angles.out_degrees:
        return ""
    return f"{linear.angles.out_degrees[0]:.1f} to {linear.angles.out_degrees[-1]:.1f}"


def _intruders(linear: AdapterLinear) -> str:
    if not linear.intruders:
        return ""
    maybe = f" (+{linear.intruders.undecided}?)" if linear.intruders.undecided else ""
    return f"{linear.intruders.found} of {len(linear.intruders.sigma)}{maybe}"
