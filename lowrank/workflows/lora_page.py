"""The page of `lowrank reproduce --lora`, and the same in Markdown; every word of a result follows from the figures."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from ..eval.html.citation import STYLE as CITATION_STYLE
from ..eval.html.citation import citation
from ..eval.html.page import escape, render_page, table
from ..eval.html.panels import INTERVAL_STYLE, Bar, Difference, bar_panel, interval_panel
from ..eval.html.panels import STYLE as PANEL_STYLE
from ..eval.html.plots import STYLE, Line, figure, grid, line_plot, running_mean
from ..eval.html.svg import LONGEST_LABEL
from ..eval.metrics.bootstrap import Interval
from ..eval.metrics.student import mean_interval
from .lora_claims import AGREES, CANNOT_TELL, DOES_NOT, MARGIN, Judged
from .lora_plan import ALPHA, FEW, FULL, LARGE, MANY, Method
from .lora_results import TIED, CannotTell, Results, measured
from .lora_runs import LOOKED_AT, THRESHOLD

TITLE = "LoRA beside full fine-tuning"
CLAIMS_HEAD = ("work", "it says", "measured here", "range", "figure, 95 %", "verdict")
METHODS_HEAD = ("facts", "method", "parameters", "best of the grid", "best rate", "loss", "bits stored",
                "forgotten", "intruders")  # fmt: skip
CLAIMS_CAPTION = (
    "A claim agrees if the whole interval lies in the range, does not if none of it does, and cannot be told else."
)
METHODS_CAPTION = (
    "Means over seeds with 95 % intervals (Student's t), at the best rate of the grid. Loss: nats a digit of the "
    f"facts. Forgotten: nats a token more on what the base was taught. Intruders: of the {LOOKED_AT} leading singular "
    "vectors of each linear."
)
Row = list[str]


def render(results: Results, judged: Sequence[Judged], about: Mapping[str, Any]) -> str:
    """The page as text to be written in UTF-8; the same figures give the same bytes."""
    body = [
        f"<h1>{TITLE}</h1>",
        *(f'<p class="lead">{escape(sentence)}</p>' for sentence in findings(results, judged)),
        _table(CLAIMS_CAPTION, CLAIMS_HEAD, claim_rows(judged), words=len(CLAIMS_HEAD)),
        "<h2>Rates</h2>",
        grid(_rate_panels(results)),
        grid(_side_effects(results)),
        "<h2>Learning</h2>",
        grid(_curve_panels(results)),
        "<h2>Against full fine-tuning</h2>",
        grid(_difference_panels(results)),
        "<h2>Every method</h2>",
        _table(METHODS_CAPTION, METHODS_HEAD, method_rows(results), words=2),
        "<h2>How</h2>",
        *(f"<p>{escape(sentence)}</p>" for sentence in how(results, about)),
        citation(["regret", "learns-less", "intruders", "lora"]),
    ]
    # The style of plots comes last: that of panels fills whatever is strong, lines among it.
    return render_page(TITLE, PANEL_STYLE + INTERVAL_STYLE + STYLE + CITATION_STYLE, body)


def markdown(results: Results, judged: Sequence[Judged], about: Mapping[str, Any]) -> str:
    """The same without figures, for a documentation."""
    parts = [
        f"# {TITLE}",
        *findings(results, judged),
        "## Claims",
        CLAIMS_CAPTION,
        markdown_table(CLAIMS_HEAD, claim_rows(judged)),
        "## Every method",
        METHODS_CAPTION,
        markdown_table(METHODS_HEAD, method_rows(results)),
        "## How",
        *how(results, about),
    ]
    return "\n\n".join(parts) + "\n"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that hold no bar."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def findings(results: Results, judged: Sequence[Judged]) -> Iterator[str]:
    """The verdicts counted, and the largest differences, in a few sentences."""
    counts = Counter(one.verdict for one in judged)
    yield (
        f"Of {len(judged)} claims the runs agree with {counts[AGREES]} and do not with {counts[DOES_NOT]}; of "
        f"{counts[CANNOT_TELL]} it cannot be told. A verdict follows from an interval over "
        f"{len(results.seeds)} seed{'s' * (len(results.seeds) > 1)} and from nothing else."
    )
    of = {
        one: f"to {fmean(_values(results, MANY, one, 'loss')):.3f} at a rate of "
        f"{results.rates(MANY, one)[results.best_place(MANY, one)]:g}"
        for one in (FULL, Method(results.plan.typical), results.plan.doubled)
    }
    full, typical, doubled = of.values()
    yield (
        f"On the many facts full fine-tuning comes {full}, in nats a digit; LoRA of rank {results.plan.typical} "
        f"{typical}, of {results.plan.doubled.title} {doubled}. Chance has {math.log(10):.3f}."
    )


def claim_rows(judged: Sequence[Judged]) -> list[Row]:
    """The claims as cells of words."""
    return [
        [
            f"{one.claim.work}, {one.claim.where}",
            one.claim.says,
            one.claim.figure,
            _shown_range(one),
            one.why if one.interval is None else _shown_figure(one, one.interval),
            one.verdict,
        ]
        for one in judged
    ]


def _shown_range(one: Judged) -> str:
    claim = one.claim
    low, high = max(claim.low, 0.0) if claim.is_ratio else claim.low, claim.high
    if claim.is_ratio:
        return f"below {high:g}" if low == 0 else f"{low:g} to {high:g}"
    if math.isinf(low):
        return f"below {high:g}"
    return f"above {low:g}" if math.isinf(high) else f"{low:+.3f} to {high:+.3f}"


def _shown_figure(one: Judged, interval: Interval) -> str:
    form = ".3g" if one.claim.is_ratio else "+.3f"
    return shown(interval, form)


def shown(interval: Interval, form: str) -> str:
    """ "+0.31 [+0.22, +0.40]"; of one seed the value alone"""
    if math.isnan(interval.low):
        return f"{interval.difference:{form}}"
    return f"{interval.difference:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def method_rows(results: Results) -> list[Row]:
    """A row for each method of each part."""
    return [_method_row(results, part.name, method) for part in results.plan.parts for method, _ in part.grids]


def _method_row(results: Results, part: str, method: Method) -> Row:
    best = results.rates(part, method)[results.best_place(part, method)]
    row = results.best_row(part, method, results.seeds[0])
    found = [
        part,
        method.title,
        f"{row['parameters']:,}",
        f"{best:g}{', an end' if results.is_at_end(part, method) else ''}",
    ]
    try:
        logs = mean_interval(results.log_best_rates(part, method))
        found.append(shown(Interval(*(math.exp(x) for x in (logs.difference, logs.low, logs.high))), ".2g"))
    except CannotTell:
        found.append("–")
    for key, form in (("loss", ".3f"), ("bits", ",.0f"), ("forgotten", "+.3f"), ("intruder share", ".3f")):
        values = _values(results, part, method, key)
        interval = mean_interval(values) if values else None
        if interval is not None and key == "bits":  # which the loss has the interval of
            interval = Interval(interval.difference, math.nan, math.nan)
        found.append(shown(interval, form) if interval else "–")
    return found


def _values(results: Results, part: str, method: Method, key: str) -> list[float]:
    """A measurement at the best rate of the grid, at an end or not, of each seed; none if one has it not."""
    try:
        return [measured(results.best_row(part, method, seed), key) for seed in results.seeds]
    except (CannotTell, KeyError):
        return []


def _rate_panels(results: Results) -> Iterator[str]:
    """Loss over rate, full fine-tuning beside one method a panel; a dot a seed."""
    for part in results.plan.parts:
        every = [loss for method, _ in part.grids for losses in results.losses(part.name, method) for loss in losses]
        rates = [rate for _, grid_of in part.grids for rate in grid_of]
        for method, _ in part.grids[1:]:
            lines = [
                line
                for one, look in ((FULL, " strong"), (method, ""))
                for line in _rate_lines(results, part.name, one, look)
            ]
            heading = f"{part.name.capitalize()}{'' if part.name == LARGE else ' facts'}: {method.title}"
            ends = min(rates), max(rates)
            drawing = line_plot(lines, heading, "rate", "loss, nats a digit", log_x=True, x_ends=ends, beside=every)
            yield figure(drawing, "Mean over seeds after the last step, and each seed as a dot.", heading)


def _rate_lines(results: Results, part: str, method: Method, look: str) -> Iterator[Line]:
    rates, losses = results.rates(part, method), results.losses(part, method)
    yield Line(method.title, [(rate, fmean(one)) for rate, one in zip(rates, losses, strict=True)], look.strip())
    dots = [(rate, loss) for rate, one in zip(rates, losses, strict=True) for loss in one]
    yield Line("", dots, f"dots faint{look}")


def _side_effects(results: Results) -> Iterator[str]:
    """Intruders and forgetting over rate: full fine-tuning, the typical rank and the highest."""
    looks = {FULL: "strong", Method(results.plan.typical): "", Method(results.plan.ranks[-1]): "dashed"}
    for key, heading, name in (
        ("intruder share", "Intruder dimensions over rate", "share of singular vectors that intrude"),
        ("forgotten", "Forgetting over rate", "nats a token more on what the base was taught"),
    ):
        lines = [Line(one.title, _means_over_rates(results, one, key), look) for one, look in looks.items()]
        drawing = line_plot(lines, heading, "rate", name, log_x=True) if all(line.points for line in lines) else ""
        yield figure(drawing, "Many facts; means over seeds.", heading)


def _means_over_rates(results: Results, method: Method, key: str) -> list[tuple[float, float]]:
    """(rate, mean), of the rates at which every seed came to its end."""
    rows = {rate: [results.row(MANY, method, rate, seed) for seed in results.seeds] for rate in
            results.rates(MANY, method)}  # fmt: skip
    return [
        (rate, fmean(measured(row, key) for row in of)) for rate, of in rows.items() if all("loss" in row for row in of)
    ]


def _curve_panels(results: Results) -> Iterator[str]:
    """Loss of each step at the best rate of the grid, mean over seeds."""
    for part in results.plan.parts:
        curves = {method: _curve(results, part.name, method) for method, _ in part.grids}
        every = [loss for curve in curves.values() for _, loss in curve]
        for method, _ in part.grids[1:]:
            lines = [Line(FULL.title, curves[FULL], "strong"), Line(method.title, curves[method])]
            heading = f"{part.name.capitalize()}{'' if part.name == LARGE else ' facts'}: {method.title}"
            drawing = line_plot(lines, heading, "step", "loss, nats a digit", beside=every)
            yield figure(drawing, f"At the best rate of each; the mean of {2 * _reach(part.steps) + 1} steps.", heading)


def _curve(results: Results, part: str, method: Method) -> list[tuple[float, float]]:
    """(step, loss) from the first step that has seen a fact; a run that ended early is left out."""
    steps = results.plan.part(part).steps
    rows = (results.best_row(part, method, seed) for seed in results.seeds)
    whole = [row["curve"] for row in rows if len(row["curve"]) == steps]
    if not whole:
        return []
    means = running_mean([fmean(losses) for losses in zip(*whole, strict=True)], _reach(steps))
    return [(float(step), loss) for step, loss in enumerate(means, start=1)]


def _reach(steps: int) -> int:
    return steps // 40


def _difference_panels(results: Results) -> Iterator[str]:
    names = ((MANY, "many facts"), (FEW, "few facts"), (LARGE, "large batch"))
    for key, heading, caption in (
        ("loss", "Loss, less that of full fine-tuning", "Nats a digit at the best rate of each, paired by seed."),
        ("forgotten", "Forgetting, less that of full fine-tuning", "Nats a token, paired by seed; left: less."),
    ):
        rows = [
            _difference(results, part, title, method, key)
            for part, title in names
            for method, _ in results.plan.part(part).grids[1:]
        ]
        yield figure(interval_panel([row for row in rows if row], heading), caption, heading)
    bars = [
        Bar("many facts", _label(method), fmean(values) if values else None, f"{fmean(values):.3f}" if values else "–",
            bool(method.rank))
        for method, _ in results.plan.part(MANY).grids
        for values in [_values(results, MANY, method, "intruder share")]
    ]  # fmt: skip
    heading = "Intruder dimensions"
    caption = f"Share of the {LOOKED_AT} leading singular vectors of each linear, at the best rate of each."
    yield figure(bar_panel(bars, heading, percent=False), caption, heading)


def _difference(results: Results, part: str, title: str, method: Method, key: str) -> Difference | None:
    pair = [_values(results, part, one, key) for one in (method, FULL)]
    if not all(pair):
        return None
    interval = mean_interval([one - other for one, other in zip(*pair, strict=True)])
    better = interval.difference < 0 if interval.is_clear_of_zero else None
    return Difference(title, _label(method), interval.difference, interval.low, interval.high,
                      f"{interval.difference:+.3f}", better)  # fmt: skip


def _label(method: Method) -> str:
    """The title, made short where a panel has no room for it."""
    return method.title if len(method.title) <= LONGEST_LABEL else method.title.replace("rank", "r")


def how(results: Results, about: Mapping[str, Any]) -> Iterator[str]:
    """The task, the measurements, and the machine."""
    plan = results.plan
    many, few, large = (plan.part(name) for name in (MANY, FEW, LARGE))
    bits = plan.digits * math.log2(10)
    yield (
        f"A fact is a word and {plan.digits} digits drawn at random, {bits:.0f} bits: {many.facts} of them in batches "
        f"of {many.batch} for {many.steps} steps (many), {few.facts} in batches of {few.batch} for {few.steps} steps "
        f"(few), and the many in batches of {large.batch} for {large.steps} steps (large batch). The loss is that of "
        "the facts that were learned: nothing predicts them but memory. Forgetting is measured on texts of the kinds "
        "that the base was taught."
    )
    yield (
        "AdamW without decay, gradients clipped at norm 1, the rate falling to 0 linearly without warm-up. alpha is "
        f"{ALPHA:g} where no other is named, A uniform in ±1/sqrt(in_features), B zero. Full fine-tuning trains every "
        "weight, embeddings and norms too. Each seed draws facts, order and A anew, and every method has the same "
        "facts in the same order. A singular vector intrudes whose cosine with each of the base's is below "
        f"{THRESHOLD:g}."
    )
    yield (
        "The best rate of a seed is the minimum of the parabola through the lowest ln loss over ln rate and its two "
        f"neighbours. The best of a grid is the rate with the lowest mean loss, and of rates within {TIED:.3f} nats of "
        f"it the smallest. Equal is within {MARGIN:.3f} nats a digit, a twentieth of ln 10."
    )
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    yield (
        f"{about['runs']} runs, {about['cpu_minutes']:g} minutes of one core. {about['machine']}, {versions}, "
        f"{about['date']}."
    )


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], words: int) -> str:
    return table(escape(caption), list(map(escape, head)), [list(map(escape, row)) for row in rows], words=words)
