"""The page of influence: for each test document, what helped and what hurt, text beside text."""

from collections.abc import Iterator, Sequence
from statistics import fmean

from ..html.citation import STYLE as CITATION_STYLE
from ..html.citation import citation
from ..html.page import Rows, escape, render_page, table
from ..html.panels import STYLE as PANEL_STYLE
from ..html.panels import Bar, bar_panel
from ..html.plots import STYLE, figure
from ..html.svg import LONGEST_LABEL
from .influence import DataXray, Document, Effect

_STYLE = """
.beside { display: grid; gap: 1rem 2.5rem; grid-template-columns: minmax(0, 1fr); margin: 1rem 0 2rem; }
.beside pre { font: .875rem/1.5 var(--sans); white-space: pre-wrap; overflow-wrap: anywhere; margin: .5rem 0 0;
  padding: .75rem 1rem; background: var(--wash); }
.beside summary { cursor: pointer; } .beside details + details { margin-top: .75rem; }
@media (min-width: 56rem) { .beside { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
"""


def render(xray: DataXray) -> str:
    """The page as text to be written in UTF-8; the same figures give the same bytes."""
    title = "Which document taught this?"
    body = [
        f"<h1>{title}</h1>",
        *(f'<p class="lead">{escape(sentence)}</p>' for sentence in findings(xray)),
        *(part for test in range(len(xray.test)) for part in _section(xray, test)),
        "<h2>Every test document</h2>",
        *(_table(caption, rows) for caption, rows in zip(_CAPTIONS, tables(xray), strict=True)),
        citation(["influence", "less", "lora"]),
    ]
    return render_page(title, STYLE + PANEL_STYLE + _STYLE + CITATION_STYLE, body)


def findings(xray: DataXray) -> Iterator[str]:
    """The run, its effects, and how far they are to be believed, in a few sentences."""
    at = ", ".join(map(str, xray.checkpoints))
    yield (
        f"{xray.run}: gradients of {len(xray.train)} training documents and of {len(xray.test)} test documents, each "
        f"by itself, after {at} of {xray.steps} steps."
    )
    best = [helped[0] for test in range(len(xray.test)) if (helped := xray.helped(test))]
    if not best:
        yield "To first order no test document would have been harder without any one of them."
        return
    tokens = fmean(document.tokens for document in xray.test)
    yield (
        f"Without the one that helped it most, a test document would have cost "
        f"{fmean(one.nats for one in best):.3g} nats more in the mean, of {fmean(xray.losses):.3g} that its "
        f"{tokens:.0f} tokens cost."
    )
    yield "These are predictions to first order: the documentation holds them against runs that did without a document."


_CAPTIONS = (
    "Nats a token with the hat; the nats that the whole document would have cost more (+) or less without another.",
    "What a document taught of itself: outliers, and what no other document says.",
)


def tables(xray: DataXray) -> list[Rows]:
    """(head, rows) of words: a row a test document, and one a training document with a large self-influence."""
    rows = [
        [
            document.id,
            f"{xray.losses[test] / document.tokens:.4f}",
            *_first(xray, xray.helped(test)),
            *_first(xray, xray.hurt(test)),
        ]
        for test, document in enumerate(xray.test)
    ]
    own = [[xray.train[one.place].id, f"{one.nats:.4g}"] for one in xray.strongest()]
    return [
        (("test document", "loss", "helped most", "nats", "hurt most", "nats"), rows),
        (("training document", "self-influence"), own),
    ]


def _first(xray: DataXray, found: Sequence[Effect]) -> tuple[str, str]:
    return (xray.train[found[0].place].id, f"{found[0].nats:+.3g}") if found else ("", "")


def _section(xray: DataXray, test: int) -> Iterator[str]:
    """One test document: bars of both sides, then its text beside theirs."""
    document, helped, hurt = xray.test[test], xray.helped(test), xray.hurt(test)
    yield f"<h2>{escape(document.id)}</h2>"
    bars = [
        Bar(group, _tail(xray.train[one.place].id), abs(one.nats), f"{one.nats:+.3g}", group == "helped")
        for group, found in (("helped", helped), ("hurt", hurt))
        for one in found
    ]
    if not bars:
        yield "<p>No training document moved its loss.</p>"
        return
    caption = f"Nats that this document would have cost more (+) or less without another, of {xray.losses[test]:.4g}."
    yield figure(bar_panel(bars, f"what helped and hurt {document.id}", percent=False, unit="nats"), caption)
    others = [(one, xray.train[one.place]) for one in (*helped, *hurt)]
    texts = "".join(_text(f"{other.id}, {one.nats:+.3g} nats", other, number == 0) for number, (one, other) in
                    enumerate(others))  # fmt: skip
    yield f'<div class="beside"><div>{_text(document.id, document, True)}</div><div>{texts}</div></div>'


def _tail(id: str) -> str:
    """The end of an id, which tells it from its neighbours, as long as a panel has room."""
    return id if len(id) <= LONGEST_LABEL else f"…{id[1 - LONGEST_LABEL :]}"


def _text(heading: str, document: Document, is_open: bool) -> str:
    mark = " open" if is_open else ""
    return f"<details{mark}><summary>{escape(heading)}</summary><pre>{escape(document.text)}</pre></details>"


def _table(caption: str, rows: Rows) -> str:
    head, lines = rows
    words = 1 if len(head) == 2 else len(head)
    return table(escape(caption), list(map(escape, head)), [list(map(escape, line)) for line in lines], words=words)
