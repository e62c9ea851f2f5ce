"""The page that holds influence against runs without documents."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..eval.html.citation import STYLE as CITATION_STYLE
from ..eval.html.citation import citation
from ..eval.html.page import escape, render_page, table
from ..eval.html.panels import INTERVAL_STYLE, Difference, interval_panel
from ..eval.html.panels import STYLE as PANEL_STYLE
from ..eval.html.plots import STYLE, Line, figure, grid, line_plot
from ..eval.metrics.bootstrap import Interval

if TYPE_CHECKING:
    from .influence import Validation


def render(found: "Validation") -> str:
    """The page as text to be written in UTF-8; the same figures give the same bytes."""
    title = "Influence, held against runs without a document"
    head = ["prediction", "without a document", "its runs drawn too", "on halves", "drawn too", "less hidden states"]
    rows = [
        [escape(one.name), *map(shown, (one.single, one.single_wide, one.half, one.half_wide, one.beside))]
        for one in found.scores
    ]
    body = [
        f"<h1>{title}</h1>",
        *(f'<p class="lead">{escape(sentence)}</p>' for sentence in findings(found)),
        grid(_panels(found)),
        table(
            "Mean rank correlations over test documents, with 95 % intervals over these, and over these and the runs.",
            head,
            rows,
            words=1,
        ),
        figure(_scatter(found), "A dot for every training document and test document, of the better method, in nats."),
        "<h2>How</h2>",
        f"<p>{escape(_how(found))}</p>",
        citation(["influence", "less", "trak", "datamodels"]),
    ]
    return render_page(title, STYLE + PANEL_STYLE + INTERVAL_STYLE + CITATION_STYLE, body)


def findings(found: "Validation") -> Iterator[str]:
    """The findings in two sentences."""
    of = {one.name: one for one in found.scores}
    best = max(("adam", "sgd"), key=lambda name: of[name].half.difference)
    yield (
        f"Over {found.singles} runs without one document the predictions ({best}) have a rank correlation of "
        f"{shown(of[best].single)} with what the loss of a test document did, over {found.halves} runs on halves one "
        f"of {shown(of[best].half)}. Hidden states that are alike have {shown(of['hidden states'].single)} and "
        f"{shown(of['hidden states'].half)}, random numbers {shown(of['random'].single)} and "
        f"{shown(of['random'].half)}."
    )
    yield (
        f"Without a document a test document moved by {found.actual:.3g} nats in the median; "
        f"{best} had said {found.predicted[best]:.3g}."
    )


def shown(interval: Interval | None) -> str:
    """ "+0.31 [+0.22, +0.40]"; nothing for one that has no value"""
    if interval is None or interval.difference != interval.difference:
        return ""
    return f"{interval.difference:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"


def _panels(found: "Validation") -> Iterator[str]:
    for heading, part in (("Without a document", "single"), ("On halves", "half")):
        rows = []
        for one in found.scores:
            interval: Interval = getattr(one, part)
            better = interval.difference > 0 if interval.is_clear_of_zero else None
            rows.append(
                Difference("", one.name, interval.difference, interval.low, interval.high,
                           f"{interval.difference:+.2f}", better)
            )  # fmt: skip
        yield figure(
            interval_panel(rows, heading, "rank correlation"),
            "Rank correlation, its mean over test documents.",
            heading,
        )


def _scatter(found: "Validation") -> str:
    lines = [Line("", found.points, "dots faint")]
    return line_plot(lines, "predicted and actual", "predicted, nats", "actual, nats")


def _how(found: "Validation") -> str:
    about = found.about
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return (
        f"The quickstart's hat on the embedded base in 4 bits, {about['epochs']:g} epoch; a document that is left out "
        f"keeps its place with a loss of weight 0. Gradients after {', '.join(map(str, found.checkpoints))} steps. "
        f"{found.tests} test documents. {about['machine']}, {about['threads']} thread, {versions}, {about['date']}."
    )
