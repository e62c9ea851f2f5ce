"""The page of a grid: one HTML file that needs no network and no script.

In this order: the two questions with their intervals, the scores, every document of every cell side by side beside the
record it had to state, the answers to the other tasks, every difference as a number, and the run.
"""

from collections.abc import Iterator, Sequence

from ..html.page import escape, render_page, table
from ..html.panels import INTERVAL_STYLE, Bar, Difference, bar_panel, interval_panel
from ..html.sections import show_adapter, show_share
from ..metrics.bootstrap import Interval
from ..metrics.faithfulness import check
from ..tasks.documents import Documents
from .comparison import QUESTIONS, Comparison, Question
from .document_page import STYLE, Written, marked, record
from .grid import Cell
from .report import GridReport, Table, answers, difference_row, pairs, score_rows, with_unit

_STYLE = (
    STYLE
    + INTERVAL_STYLE
    + """
main { max-width: 100rem; } main > .scroll { max-width: 72rem; } .answers li { margin-bottom: .5rem; }
.small { display: grid; gap: 1.5rem 2.5rem; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); }
.small svg { max-width: 26rem; }
details { margin: 1rem 0; border-top: 1px solid var(--rule); padding-top: .6rem; }
summary { cursor: pointer; font: 600 .9375rem/1.4 var(--sans); }
summary:focus-visible { outline: 2px solid var(--strong); }
.wide { display: grid; gap: 1.5rem; grid-template-columns: minmax(0, 1fr); align-items: start; margin-top: 1rem; }
.wide .record { position: static; max-width: 46rem; }
.strip { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(19rem, 1fr); gap: 1rem; overflow-x: auto; }
.strip .document { font-size: .9375rem; padding: 1rem; margin-top: .35rem; }
.strip h4 { margin: 0; font: 600 .875rem/1.4 var(--sans); }
.given td { min-width: 9rem; overflow-wrap: anywhere; } .given td:first-of-type { min-width: 16rem; }
@media print { .strip { grid-auto-flow: row; } }
"""
)


_AGAINST: dict[Question, str] = {
    "gain": "With the hat, against the base alone on the same weights.",
    "cost": "On each quantized precision, against the finest full one of the grid.",
    "arithmetic": "On the 4-bit weights, against the same numbers dequantized beforehand.",
    "grounding": "With figures held to the facts, against the same model left to itself.",
}
_LEGEND = (
    "A dot is the difference, its line the 95 % interval of a paired bootstrap over items. Green is for the better, "
    "red for the worse, grey is not told apart from none. Shares are in points of 100."
)


def render_grid(report: GridReport) -> str:
    """The page, as text to be written in UTF-8."""
    body = [f"<h1>{escape(report.title)}</h1>"]
    for shown in report.lead:
        body += _table(shown, words=len(shown.head))
    body += _answers(report.comparisons)
    for name, cells in report.tasks.items():
        body += [*_scores(name, cells)]
    for shown in report.tables:
        body += _table(shown, words=2)
    for name, cells in report.tasks.items():
        body += _documents(cells) if isinstance(cells[0].task, Documents) else _given(name, cells)
    body += [*_differences(report.comparisons), *_run(report)]
    return render_page(report.title, _STYLE, body)


def _table(shown: Table, words: int) -> Iterator[str]:
    rows = ([escape(cell) for cell in row] for row in shown.rows)
    yield f"<h2>{escape(shown.title)}</h2>"
    yield table(escape(shown.note), [escape(name) for name in shown.head], rows, words)


def _answers(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Each question in pictures, then in sentences."""
    if not comparisons:
        yield '<p class="lead">The grid holds no two cells that differ in the hat alone or in 4 bit alone.</p>'
    for (title, sentences), question in zip(answers(comparisons), _asked(comparisons), strict=True):
        yield f"<h2>{title}</h2>"
        yield f'<p class="legend">{_AGAINST[question]} {_LEGEND}</p>'
        asked = [one for one in comparisons if one.question == question and one.measure.primary]
        for task in dict.fromkeys(one.task for one in asked):
            of_task = [one for one in asked if one.task == task]
            if all(one.interval == Interval(0, 0, 0) for one in of_task):
                continue  # the sentences say so
            panels = [
                _interval_panel([one for one in of_task if one.measure.key == key])
                for key in dict.fromkeys(one.measure.key for one in of_task)
            ]
            yield f'<h3>{escape(task)}</h3>\n<div class="small">{"".join(panels)}</div>'
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
        yield f'<ul class="answers">{items}</ul>'


def _asked(comparisons: Sequence[Comparison]) -> list[Question]:
    return [question for question in QUESTIONS if any(one.question == question for one in comparisons)]


def _interval_panel(group: Sequence[Comparison]) -> str:
    """One measure, a line for each pair of columns."""
    measure = group[0].measure
    scale = 100 if measure.unit == "share" else 1
    rows = [
        Difference(
            group=show_adapter(one.after.adapter),
            label=one.after.setting,
            difference=scale * one.interval.difference,
            low=scale * one.interval.low,
            high=scale * one.interval.high,
            shown=measure.show(one.interval.difference, signed=True),
            better={"better": True, "worse": False}.get(one.verdict),
        )
        for one in sorted(group, key=lambda one: one.after.adapter or "")
    ]
    name = with_unit(measure, "points")
    return f'<div><p class="panel-name">{escape(_sentence_case(name))}</p>{interval_panel(rows, name)}</div>'


def _sentence_case(text: str) -> str:
    """ "weighted F1" -> "Weighted F1": not `capitalize`, which would make it f1."""
    return text[:1].upper() + text[1:]


def _scores(name: str, cells: Sequence[Cell]) -> Iterator[str]:
    task = cells[0].task
    yield f"<h2>Scores: {escape(name)}</h2>"
    yield f'<p class="legend">n = {len(cells[0].outputs)}. {escape(" ".join(task.notes))}</p>'
    panels = []
    for measure in (measure for measure in task.all_measures if measure.primary):
        bars = [
            Bar(
                group=show_adapter(cell.column.adapter),
                label=cell.column.setting,
                value=None if (value := cell.scores[measure.key]) != value else value,
                shown=measure.show(value),
                strong=cell.column.adapter is not None,
            )
            for cell in sorted(cells, key=lambda cell: cell.column.adapter or "")
        ]
        title = with_unit(measure)
        drawn = bar_panel(bars, title, measure.unit == "share")
        panels.append(f'<div><p class="panel-name">{escape(_sentence_case(title))}</p>{drawn}</div>')
    yield f'<div class="small">{"".join(panels)}</div>'
    head = ["measure", *(escape(cell.column.name) for cell in cells)]
    rows = [[escape(text) for text in row] for row in score_rows(cells)]
    yield table(f"Every measure of {escape(name)}.", head, rows, words=1)
    if left_out := cells[0].left_out:
        yield (
            f"<p>{len(left_out)} items do not fit into the context and are left out: "
            f"{escape(', '.join(left_out[:10]))}{' ...' if len(left_out) > 10 else ''}</p>"
        )


def _documents(cells: Sequence[Cell]) -> Iterator[str]:
    task = cells[0].task
    assert isinstance(task, Documents)
    yield "<h2>Every document, side by side</h2>"
    yield (
        '<p class="legend">Every number of a document is looked up in its record. '
        '<mark class="right">Underlined<sup>2</sup></mark>: it states fact 2, under that fact’s label. '
        '<mark class="right loose">Amber and dashed<sup>2</sup></mark>: it equals fact 2, not under its label. '
        '<mark class="wrong">Wavy<sup>✗</sup></mark>: the record holds no such number. In the record, one column for '
        "each document, in the order of the documents below it.</p>"
    )
    for index, entry in enumerate(task.entries):
        place = f"e{index + 1}"
        written = [Written(entry, cell.column.adapter, cell.column.setting, cell.texts[index]) for cell in cells]
        checks = [check(entry, document.text) for document in written]
        columns = []
        for cell, document, result in zip(cells, written, checks, strict=True):
            shares = (result.sections, result.precision, result.recall, result.binding)
            line = " · ".join(
                f"{name} {show_share(share)}"
                for name, share in zip(("sections", "precision", "recall", "right label"), shares, strict=True)
            )
            cut = "" if cell.outputs[index].ended else " · cut off"
            text = marked(entry, document.text, result.figures, place) if document.text.strip() else "(nothing)"
            columns.append(
                f'<div><h4>{escape(cell.column.name)}</h4><div class="document">{text}</div>'
                f'<p class="shares">{line}{cut}</p></div>'
            )
        reference = marked(entry, entry.output, check(entry, entry.output).figures, place)
        columns.append(f'<div><h4>reference</h4><div class="document">{reference}</div></div>')
        yield (
            f"<details{' open' if index == 0 else ''}><summary>{escape(entry.id)}</summary>\n"
            f'<p class="instruction">{escape(entry.instruction)}</p>\n'
            f'<div class="wide">{record(place, entry, written, checks)}\n'
            f'<div class="strip" tabindex="0" role="region" aria-label="documents of {escape(entry.id)}">'
            f"{''.join(columns)}</div></div></details>"
        )


def _given(name: str, cells: Sequence[Cell]) -> Iterator[str]:
    """Every question with its reference and what each cell answered."""
    head = ["id", "input", "reference", *(escape(cell.column.name) for cell in cells)]
    rows = [
        [escape(item.id), escape(item.input), escape(item.reference), *(escape(cell.texts[i]) for cell in cells)]
        for i, item in enumerate(cells[0].task.items)
    ]
    shown = table(f"Every answer of {escape(name)}.", head, rows, words=len(head))
    yield f"<h2>Answers: {escape(name)}</h2>"
    yield f'<details><summary>{len(rows):,} items</summary><div class="given">{shown}</div></details>'


def _differences(comparisons: Sequence[Comparison]) -> Iterator[str]:
    if not comparisons:
        return
    yield "<h2>Every difference</h2>"
    for question in _asked(comparisons):
        asked = [one for one in comparisons if one.question == question]
        yield f"<details><summary>{escape(QUESTIONS[question])}</summary>"
        for before, after, group in pairs(asked):
            caption = f"{escape(group[0].task)}: {escape(after.name)} against {escape(before.name)}, n = {group[0].n}."
            rows = [[escape(cell) for cell in difference_row(one)[4:]] for one in group]
            yield table(caption, ["measure", "difference", "95 %", "verdict"], rows, words=1)
        yield "</details>"


def _run(report: GridReport) -> Iterator[str]:
    rows = [[escape(name), escape(value)] for name, value in report.run.items()]
    yield "<h2>The run</h2>"
    yield f'<div class="words">{table("What was run, and where.", ["what", "value"], rows, words=2)}</div>'
