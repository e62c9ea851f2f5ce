"""The page a run leaves behind: one HTML file that needs no network, no script and no font of its own.

It answers in this order: what the hat gains and what 4 bit costs, how training went, where the bytes are, and what was
written, each document beside the record it had to state. The same report renders to the same bytes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lowrank.data.documents.document import Entry
from lowrank.data.facts.fact import Fact
from lowrank.data.facts.figure_matching import Record

from ..html import panels, svg
from ..html.page import escape, render_page, table
from ..html.plots import CURVE_STYLE
from ..html.sections import SHARES, grid_section, parts_section, show_share, training_section
from ..metrics.faithfulness import Check, Figure, check
from ..metrics.tally import faults, tally
from .summary import findings

STYLE = (
    svg.STYLE
    + panels.STYLE
    + CURVE_STYLE
    + """
.shares, .instruction { color: var(--soft); font-size: .9375rem; line-height: 1.5; }
.panels { display: grid; gap: 0 2.5rem; grid-template-columns: minmax(0, 1fr); }
.panels .panels { gap: 1.5rem 2.5rem; }
.panel-name { margin: 0 0 .25rem; font: 600 .9375rem/1.4 var(--sans); }
.panels svg { max-width: 26rem; }
.words th:first-child { min-width: 6rem; } .words svg { height: .5rem; margin: .3rem 0 .2rem; }
.entry { margin: 2.5rem 0 3.5rem; }
.beside { display: grid; gap: 1.5rem 3rem; grid-template-columns: minmax(0, 1fr); align-items: start; }
.instruction { font-style: italic; margin-bottom: 1rem; }
.record { font-size: .875rem; } .record .scroll { margin: 0; }
.record td { padding-right: .6rem; } .record tr:target { background: var(--wash); }
.record .state { padding: .4rem .3rem; text-align: center; } .formula { display: block; color: var(--soft); }
.stated { color: var(--right); } .missing { color: var(--wrong); font-weight: 700; }
fieldset { border: 0; margin: 0; padding: 0; min-width: 0; display: flex; flex-wrap: wrap; gap: .35rem; }
legend, .unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
label { font: .8125rem/1.4 var(--sans); color: var(--soft); padding: .35rem .6rem; cursor: pointer;
  border: 1px solid var(--rule); border-radius: .3rem; }
:checked + label { color: var(--paper); background: var(--ink); border-color: var(--ink); }
:focus-visible + label, a:focus-visible { outline: 2px solid var(--strong); outline-offset: 2px; }
.written { display: none; order: 1; width: 100%; } :checked + label + .written { display: block; }
.document { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; background: var(--wash);
  padding: 1.1rem 1.25rem; border-radius: .3rem; margin: .5rem 0 .75rem; }
.document b { font-family: var(--sans); font-size: .9375rem; } .document .nothing { color: var(--soft); }
mark { background: none; color: inherit; text-decoration: underline; text-underline-offset: .2em; }
mark.right { color: var(--right); } mark.right.loose { color: var(--loose); text-decoration-style: dashed; }
mark.wrong { color: var(--wrong); text-decoration-style: wavy; text-decoration-skip-ink: none; }
sup { font: .68em/0 var(--sans); padding-left: .1em; } mark a { color: inherit; text-decoration: none; }
@media (min-width: 48rem) { .panels .panels { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .beside { grid-template-columns: minmax(0, 5fr) minmax(0, 6fr); }
  .document { padding: 1.5rem 1.75rem; } }
@media (min-width: 64rem) { .margin { display: grid; gap: 3rem; grid-template-columns: 46rem 1fr; }
  .margin figcaption { padding-top: 2.5rem; }
  .panels { grid-template-columns: repeat(3, minmax(0, 1fr)); } .panels > figure + figure { grid-column: span 2; }
  .record { position: sticky; top: 1rem; } }
@media print { .record { position: static; }
  .written { display: block; order: 0; } fieldset { display: block; } input { display: none; }
  label, :checked + label { border: 0; padding: 0; font-weight: 600; color: var(--ink); background: none; }
  .panels .panels { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  figure { break-inside: avoid; } label { break-after: avoid; } .document { padding: 0; } }
"""
)


@dataclass(frozen=True)
class Written:
    """A document that one cell of the grid wrote: `adapter` is None for the base alone.

    unread  the number of amounts of the record that were not understood
    """

    entry: Entry
    adapter: str | None
    weights: str
    text: str
    unread: int = 0


@dataclass(frozen=True)
class Report:
    """Contents of the page; every list may be empty.

    title      the heading
    run        facts of the run: seconds, seed, machine, versions, date
    training   rows of train.jsonl: step, loss in nats a supervised token, lr, grad_norm
    grid       rows of eval.json: adapter (None for the base alone), weights, n, loss, and the four SHARES, 0 to 1
    parts      name and bytes of each part of what was trained
    documents  for a few unseen entries, what every cell wrote
    notes      plain sentences
    """

    title: str
    run: Mapping[str, str]
    training: Sequence[Mapping[str, float]]
    grid: Sequence[Mapping[str, Any]]
    parts: Sequence[tuple[str, int]]
    documents: Sequence[Written]
    notes: Sequence[str]


def render(report: Report) -> str:
    """The page of a report, as text to be written in UTF-8. A part without data is left out."""
    body = [
        f"<h1>{escape(report.title)}</h1>",
        *(f'<p class="lead">{escape(sentence)}</p>' for sentence in _leads(report)),
        *_notes(report.notes),
        *grid_section(report.grid),
        *training_section(report.training),
        *parts_section(report.parts),
        *_documents(report.documents),
        *_run(report.run),
    ]
    return render_page(report.title, STYLE, body)


def _leads(report: Report) -> list[str]:
    """Findings of the grid; none for documents without a grid."""
    return [] if report.documents and not report.grid else findings(report.grid)


def _notes(notes: Sequence[str]) -> Iterator[str]:
    if notes:
        items = "".join(f"<li>{escape(note)}</li>" for note in notes)
        yield f'<ul class="notes">{items}</ul>'


def _run(run: Mapping[str, str]) -> Iterator[str]:
    if run:
        rows = [[escape(name), escape(value)] for name, value in run.items()]
        yield "<h2>The run</h2>"
        yield f'<div class="words">{table("What was run, and where.", ["what", "value"], rows, words=2)}</div>'


def _documents(documents: Sequence[Written]) -> Iterator[str]:
    if not documents:
        return
    yield "<h2>Documents</h2>"
    yield (
        '<p class="legend">Every number of a document is looked up in its record. '
        '<mark class="right">Underlined<sup>2</sup></mark>: it states fact 2, under that fact’s label. '
        '<mark class="right loose">Amber and dashed<sup>2</sup></mark>: it equals fact 2, not under its label. '
        '<mark class="wrong">Wavy<sup>✗</sup></mark>: the record holds no such number. In the record, one column for '
        'each document: <span class="stated">✓</span> states the fact, <span class="missing">✗</span> misses it. '
        "Names, dates and texts are looked for word for word (– where they are not) and enter no share.</p>"
    )
    ids = dict.fromkeys(written.entry.id for written in documents)
    for place, id in enumerate(ids, start=1):
        yield _entry(f"e{place}", [written for written in documents if written.entry.id == id])


def _entry(place: str, written: Sequence[Written]) -> str:
    """One record beside everything that was written from it."""
    entry = written[0].entry
    checks = [check(entry, document.text) for document in written]
    opened = next((number for number, document in enumerate(written) if document.adapter), 0)
    documents = "\n".join(
        _document(place, number, document, result, opened == number)
        for number, (document, result) in enumerate(zip(written, checks, strict=True))
    )
    return (
        f'<article class="entry">\n<h3>{escape(entry.kind.replace("_", " ").capitalize())}</h3>\n'
        f'<p class="instruction">{escape(entry.id)}: {escape(entry.instruction)}</p>\n'
        f'<div class="beside">\n{record(place, entry, written, checks)}\n'
        f"<fieldset><legend>Documents of {escape(entry.id)}</legend>\n{documents}\n</fieldset>\n</div>\n</article>"
    )


def record(place: str, entry: Entry, written: Sequence[Written], checks: Sequence[Check]) -> str:
    """The table of an entry's facts, with a column for each document that says which of them it states.

    place  what the ids of the rows start with, and the links of `marked` go to
    """
    columns = "".join(
        f'<th scope="col" class="state"><abbr title="{escape(cell_name(document))}">{number}</abbr></th>'
        for number, document in enumerate(written, start=1)
    )
    rows, read = [], Record(entry.facts)
    for number, (key, fact) in enumerate(entry.facts.items(), start=1):
        formula = "" if fact.source is None else f'<span class="formula">= {escape(fact.source)}</span>'
        states = "".join(
            _state(fact, _is_stated(read, key, fact, document.text, result))
            for document, result in zip(written, checks, strict=True)
        )
        rows.append(
            f'<tr id="{place}-{number}"><td class="number">{number}</td>'
            f'<th scope="row">{escape(fact.label)}{formula}</th>'
            f"<td>{escape(fact.print)}</td>{states}</tr>"
        )
    body = "\n".join(rows)
    return (
        f'<div class="record"><div class="scroll">\n<table>\n<caption>The record</caption>\n'
        f'<thead><tr><th scope="col" class="number">#</th><th scope="col">fact</th><th scope="col">as printed</th>'
        f"{columns}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div></div>"
    )


def _is_stated(record: Record, key: str, fact: Fact, text: str, result: Check) -> bool:
    if fact.is_figure:
        return any(figure.fact == key for figure in result.figures)
    return record.is_mentioned(fact, text)


def _state(fact: Fact, stated: bool) -> str:
    """Only a required figure can be missing: a document may put a text in words of its own."""
    if stated:
        return '<td class="state stated"><span title="stated">✓</span></td>'
    if fact.required and fact.is_figure:
        return '<td class="state missing"><span title="missing">✗</span></td>'
    reason = "not required, not stated" if fact.is_figure else "not word for word"
    return f'<td class="state"><span title="{reason}">–</span></td>'


def _document(place: str, number: int, written: Written, result: Check, opened: bool) -> str:
    """A tab: the radio button, its label, and the document that shows while the button is checked."""
    id, checked = f"{place}-tab{number + 1}", " checked" if opened else ""
    shares = " · ".join(
        f"{name} {show_share(share)}"
        for name, share in zip(
            SHARES.values(), (result.sections, result.precision, result.recall, result.binding), strict=True
        )
    )
    ending = ". ".join((tally(written.entry, written.text, result, written.unread), *faults(result)))
    if written.text.strip():
        text = marked(written.entry, written.text, result.figures, place)
    else:
        text = '<span class="nothing">Nothing was written.</span>'
    return (
        f'<input class="unseen" type="radio" name="{place}" id="{id}"{checked}>'
        f'<label for="{id}">{number + 1}&ensp;{escape(cell_name(written))}</label>\n'
        f'<div class="written"><div class="document">{text}</div>\n<p class="shares">{shares}</p>\n'
        f'<p class="tally">{escape(ending)}</p></div>'
    )


def cell_name(written: Written) -> str:
    """ "finance, nf4-dq" """
    return f"{written.adapter or 'base'}, {written.weights}"


def marked(entry: Entry, text: str, figures: Sequence[Figure], place: str) -> str:
    """The text as HTML: each figure marked as right or wrong, a right one linked to its fact, headings bold.

    figures  of the text, in its order
    place    what the ids of the record's rows start with
    """
    numbers = {key: number for number, key in enumerate(entry.facts, start=1)}
    pieces, end = [], 0
    for figure in figures:
        pieces += [escape(text[end : figure.start]), _mark(entry, figure, numbers, place)]
        end = figure.end
    pieces.append(escape(text[end:]))
    # No attribute holds a line break (`_mark` sees to it), so a line that starts with # is a line of the text.
    return re.sub(r"^#{1,6} .*$", r"<b>\g<0></b>", "".join(pieces), flags=re.MULTILINE)


def _mark(entry: Entry, figure: Figure, numbers: Mapping[str, int], place: str) -> str:
    shown = escape(figure.text)
    if figure.fact is None:
        reason = "not in the record" if figure.is_understood else f"not understood: {figure.read.reason}"
        return f'<mark class="wrong" title="{escape(reason)}">{shown}<sup>✗</sup></mark>'
    fact, number = entry.facts[figure.fact], numbers[figure.fact]
    stated = escape(" ".join(f"{fact.label}: {fact.print}".split()))
    kind, title = ("right", stated) if figure.bound else ("right loose", f"{stated}, but under another label")
    link = f'<a href="#{place}-{number}" aria-label="fact {number}"><sup>{number}</sup></a>'
    return f'<mark class="{kind}" title="{title}">{shown}{link}</mark>'
