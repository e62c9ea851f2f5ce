"""The audit as a page: the document with every figure linked to its fact, beside the record with its cells."""

from collections.abc import Iterator, Mapping

from ..data.facts.figure_matching import Record
from ..eval.grid.document_page import STYLE as DOCUMENT_STYLE
from ..eval.html.page import escape, render_page
from .audit import Audit, AuditedFigure, cells_of, where
from .markdown import Mark, to_html

STYLE = (
    DOCUMENT_STYLE
    + """
.letter { background: var(--wash); padding: 1.1rem 1.25rem; border-radius: .3rem; overflow-wrap: anywhere; }
.letter h1 { font-size: 1.4rem; } .letter h2 { font-size: 1.15rem; border: 0; padding: 0; margin: 1.5rem 0 .5rem; }
.letter h3 { font-size: 1rem; } .letter table { width: auto; max-width: 100%; }
.record td { overflow-wrap: anywhere; } .cell { color: var(--soft); }
"""
)


def render_audit(audit: Audit, about: Mapping[str, str] | None = None) -> str:
    """The page, to be written in UTF-8.

    about  name -> value of what else is known of the document: its hat, its seed
    """
    subject = audit.subject
    body = [
        f"<h1>{escape(subject.name)}</h1>",
        f'<p class="lead">{escape(audit.sentence)}.</p>',
        *_notes([*audit.faults, *(f"section missing: {title}" for title in audit.missing_sections)]),
        '<div class="beside">',
        _record(audit),
        f'<article class="letter">\n{marked_html(audit)}</article>',
        "</div>",
        '<p class="legend"><mark class="right">Underlined</mark>: it states a fact, under its name. '
        '<mark class="right loose">Amber and dashed</mark>: it equals a fact, not under its name. '
        '<mark class="wrong">Wavy</mark>: no fact. Each number links to the row of its fact.</p>',
        *_section("What was read otherwise, or not", list(subject.notes)),
        *_about(about or {}),
    ]
    return render_page(f"{subject.name}: figures", STYLE, body)


def marked_html(audit: Audit, place: str = "fact") -> str:
    """The document as HTML, every figure marked, a right one linked to the row of its fact: `{place}-{number}`."""
    numbers = {key: number for number, key in enumerate(audit.subject.facts, start=1)}
    return to_html(audit.text, [_mark(figure, audit, numbers, place) for figure in audit.figures]) or (
        '<p class="nothing">Nothing was written.</p>\n'
    )


def _mark(figure: AuditedFigure, audit: Audit, numbers: Mapping[str, int], place: str) -> Mark:
    shown = figure.figure
    title = escape(" ".join(where(figure, audit.subject).split()))
    if figure.fact is None:
        return Mark(shown.start, shown.end, f'<mark class="wrong" title="{title}">', "<sup>✗</sup></mark>")
    number = numbers[figure.fact]
    kind = "right" if figure.state == "right" else "right loose"
    link = f'<a href="#{place}-{number}" aria-label="fact {number}"><sup>{number}</sup></a>'
    return Mark(shown.start, shown.end, f'<mark class="{kind}" title="{title}">', f"{link}</mark>")


def _record(audit: Audit) -> str:
    subject = audit.subject
    record, stated = Record(subject.facts), {figure.fact for figure in audit.figures}
    rows = []
    for number, (key, fact) in enumerate(subject.facts.items(), start=1):
        formula = "" if fact.source is None else f'<span class="formula">= {escape(fact.source)}</span>'
        cells = "; ".join(cell.place for cell in cells_of(subject, key))
        if key in stated or (not fact.is_figure and record.is_mentioned(fact, audit.text)):
            state = '<td class="state stated"><span title="stated">✓</span></td>'
        elif key in audit.unused:
            state = '<td class="state missing"><span title="not used">✗</span></td>'
        else:
            state = '<td class="state"><span title="not stated, and need not be">–</span></td>'
        rows.append(
            f'<tr id="fact-{number}"><td class="number">{number}</td><th scope="row">{escape(fact.label)}{formula}</th>'
            f'<td>{escape(fact.print)}</td><td class="cell">{escape(cells)}</td>{state}</tr>'
        )
    files = ", ".join(sorted({cell.file for cell in subject.cells.values()}))
    head = '<th scope="col" class="number">#</th><th scope="col">fact</th><th scope="col">as printed</th>'
    return (
        f'<div class="record"><div class="scroll">\n<table>\n<caption>The record, from {escape(files or "no file")}'
        f'</caption>\n<thead><tr>{head}<th scope="col">where</th><th scope="col" class="state">stated</th></tr>'
        f"</thead>\n<tbody>\n{chr(10).join(rows)}\n</tbody>\n</table>\n</div></div>"
    )


def _notes(lines: list[str]) -> Iterator[str]:
    if lines:
        yield f'<ul class="notes">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>'


def _section(title: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield f"<h2>{escape(title)}</h2>"
        yield from _notes(lines)


def _about(about: Mapping[str, str]) -> Iterator[str]:
    if about:
        rows = "".join(f'<tr><th scope="row">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in about.items())
        yield "<h2>How it was written</h2>"
        yield f'<div class="scroll words"><table><tbody>{rows}</tbody></table></div>'
