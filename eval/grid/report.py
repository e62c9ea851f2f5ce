"""A finished grid as data, as sentences and as Markdown; its page is in `page`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Self

from ..metrics.bootstrap import LEAST_ITEMS, Interval
from ..metrics.metric import Measure
from .columns import Column
from .comparison import QUESTIONS, Comparison, Question, compare
from .grid import Cell

WHOLE = {"distinct_1": "distinct words", "distinct_2": "distinct word pairs", "self_bleu": "self-BLEU"}


@dataclass(frozen=True)
class Table:
    """Something measured beside the tasks, as text, with a note on how to read it."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str


@dataclass(frozen=True)
class GridReport:
    """Contents of the reports.

    run    base, options, machine, versions; names and values
    cells  in the order of tasks, precisions and hats
    tables other measurements
    lead   tables shown before everything else
    """

    run: Mapping[str, str]
    cells: Sequence[Cell]
    comparisons: Sequence[Comparison]
    tables: Sequence[Table] = ()
    title: str = "Every hat on every precision"
    lead: Sequence[Table] = ()

    @classmethod
    def of(
        cls,
        run: Mapping[str, str],
        cells: Sequence[Cell],
        tables: Sequence[Table] = (),
        *,
        title: str = "Every hat on every precision",
        lead: Sequence[Table] = (),
    ) -> Self:
        """The report of cells, with every comparison that a question is about."""
        return cls(run, cells, compare(cells), tables, title, lead)

    @property
    def tasks(self) -> dict[str, list[Cell]]:
        """Task -> its cells."""
        return {name: list(cells) for name, cells in groupby(self.cells, key=lambda cell: cell.task.name)}

    def to_json(self) -> dict[str, Any]:
        """grid.json. Texts are not in it: they are in the folder `texts` beside it."""
        return {
            "run": dict(self.run),
            "cells": [cell.to_json() for cell in self.cells],
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
            "left_out": {name: list(cells[0].left_out) for name, cells in self.tasks.items() if cells[0].left_out},
        }


def pairs(comparisons: Iterable[Comparison]) -> Iterator[tuple[Column, Column, list[Comparison]]]:
    """The comparisons of each pair of columns together: before, after, one for each measure."""
    for (before, after), group in groupby(comparisons, key=lambda comparison: (comparison.before, comparison.after)):
        yield before, after, list(group)


def answers(comparisons: Sequence[Comparison]) -> list[tuple[str, list[str]]]:
    """(question, sentences): one sentence for each task and pair of columns, on the primary measures."""
    found = []
    for question, title in QUESTIONS.items():
        asked = [one for one in comparisons if one.question == question and one.measure.primary]
        sentences = [
            _sentence(question, task, before, after, group)
            for task, of_task in groupby(asked, key=lambda one: one.task)
            for before, after, group in pairs(of_task)
        ]
        if sentences:
            found.append((title, sentences))
    return found


def _sentence(question: str, task: str, before: Column, after: Column, group: Sequence[Comparison]) -> str:
    if question == "gain":
        subject = f"{after.adapter} on {after.setting}"
    else:
        subject = f"{after.adapter or 'the base alone'} on {after.setting} instead of {before.setting}"
    if all(_is_same(one) for one in group):
        return f"{task}, {subject}, n = {group[0].n}: every score is the same."
    same = [one.measure.name for one in group if _is_same(one)]
    distinct = [f"{one.measure.name} {show_difference(one)}" for one in group if one.interval.is_clear_of_zero]
    rest = [
        f"{one.measure.name} {show_difference(one)}"
        for one in group
        if one.interval.low <= 0 <= one.interval.high and one.measure.name not in same
    ]
    few = [
        f"{one.measure.name} {show_difference(one)}"
        for one in group
        if one.counted < LEAST_ITEMS and one.interval.difference == one.interval.difference and not _is_same(one)
    ]
    parts = (
        (", ".join(few), f"under {LEAST_ITEMS} items, so no interval and no verdict: "),
        (", ".join(distinct), ""),
        (", ".join(rest), "not told apart from none: "),
        (", ".join(same), "the same: "),
    )
    changes = "; ".join(beginning + part for part, beginning in parts if part) or "no score has a value"
    return f"{task}, {subject}, n = {group[0].n}: {changes}."


def _is_same(one: Comparison) -> bool:
    """True if a score is the same on both sides, in every resample or of too few items to resample."""
    return one.interval == Interval(0, 0, 0) or (one.counted < LEAST_ITEMS and one.interval.difference == 0)


def answer_rows(comparisons: Sequence[Comparison], question: Question) -> list[list[str]]:
    """A question as rows of a table: task, hat, weights, measure, difference, interval, verdict; primary measures."""
    rows = []
    asked = [one for one in comparisons if one.question == question and one.measure.primary]
    for before, after, group in pairs(asked):
        weights = after.setting if question == "gain" else f"{before.setting} -> {after.setting}"
        names = [group[0].task, after.adapter or "none", weights]
        same = [one.measure.name for one in group if _is_same(one)]
        if len(same) == len(group):
            rows.append([*names, "every score", "the same", "", ""])
            continue
        for one in group:
            if one.measure.name not in same:
                shown = one.measure.show(one.interval.difference, signed=True)
                rows.append([*names, with_unit(one.measure, "points"), shown, show_span(one).strip(), one.verdict])
                names = ["", "", ""]
        if same:
            rows.append([*names, ", ".join(same), "the same", "", ""])
    return rows


def show_difference(one: Comparison) -> str:
    """ "+52.0 points [+48.1, +55.9]", "-0.110 nats per token [-0.120, -0.101]", "0.0 points" """
    unit = "points" if one.measure.unit == "share" else one.measure.unit
    return f"{one.measure.show(one.interval.difference, signed=True)} {unit}{show_span(one)}"


def show_span(one: Comparison) -> str:
    """ " [+48.1, +55.9]", or nothing where there is no interval."""
    low, high = one.interval.low, one.interval.high
    if low != low:
        return ""
    return f" [{one.measure.show(low, signed=True)}, {one.measure.show(high, signed=True)}]"


def score_rows(cells: Sequence[Cell]) -> list[list[str]]:
    """A row for each measure: its name, and its value in each cell of a task."""
    rows = [
        [with_unit(measure), *(measure.show(cell.scores[measure.key]) for cell in cells)]
        for measure in cells[0].task.all_measures
    ]
    whole = [key for key in WHOLE if key in cells[0].scores]
    rows += [[WHOLE[key], *(Measure(key, key).show(cell.scores[key]) for cell in cells)] for key in whole]
    return rows


def with_unit(measure: Measure, share: str = "") -> str:
    """ "loss, nats per token"; a share has no unit, or in a difference the one that is given."""
    unit = share if measure.unit == "share" else measure.unit
    return f"{measure.name}, {unit}" if unit else measure.name


def markdown(report: GridReport) -> str:
    """grid.md: the answers, every score, every difference, and the run."""
    lines = [f"# {report.title}", ""]
    for shown in report.lead:
        lines += [f"## {shown.title}", "", shown.note, "", *_table(shown.head, shown.rows), ""]
    for title, sentences in answers(report.comparisons):
        lines += [f"## {title}", "", *(f"- {sentence}" for sentence in sentences), ""]
    for name, cells in report.tasks.items():
        lines += [f"## Scores: {name}", "", f"n = {len(cells[0].outputs)}. {' '.join(cells[0].task.notes)}".strip(), ""]
        lines += [*_table(["measure", *(cell.column.name for cell in cells)], score_rows(cells)), ""]
        if left_out := cells[0].left_out:
            lines += [f"{len(left_out)} items do not fit into the context and are left out: {', '.join(left_out)}.", ""]
    for shown in report.tables:
        lines += [f"## {shown.title}", "", shown.note, "", *_table(shown.head, shown.rows), ""]
    lines += ["## Differences", "", "95 % intervals: paired bootstrap over items. Shares are in points of 100.", ""]
    head = ["question", "task", "before", "after", "measure", "difference", "95 %", "verdict"]
    lines += _table(head, map(difference_row, report.comparisons))
    lines += ["", "## The run", "", *_table(["what", "value"], map(list, report.run.items()))]
    return "\n".join(lines) + "\n"


def difference_row(one: Comparison) -> list[str]:
    """The cells of a comparison in a table."""
    shown = one.measure.show(one.interval.difference, signed=True)
    names = [one.question, one.task, one.before.name, one.after.name, with_unit(one.measure)]
    return [*names, shown, show_span(one).strip() or "–", one.verdict]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]
