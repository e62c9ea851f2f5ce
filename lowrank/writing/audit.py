"""The audit of a text: every figure with the fact that it states and the cell where that stands.

    state of a figure   right             states a fact, under that fact's name
                        other name        equals a fact, not under its name
                        not in the facts  states none
                        not understood    an amount of which something is unknown, which states none

`lowrank.eval.metrics.faithfulness` decides; a fact that follows from others by a formula has their cells.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ..data.documents.facts_record import Cell, FactsRecord
from ..data.facts.figure_matching import Record
from ..data.facts.formula import parse
from ..eval.metrics.faithfulness import Check, Figure, check, missing_sections
from ..eval.metrics.tally import faults, not_used, tally

State = Literal["right", "other name", "not in the facts", "not understood"]


@dataclass(frozen=True)
class AuditedFigure:
    """A figure of the text, from `start` to `end`.

    fact   the key of the fact that it states, None if it states none
    cells  where that fact stands, or those that it follows from
    """

    figure: Figure
    state: State
    line: int
    fact: str | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Audit:
    """All that a reader of a text has to know of its figures.

    unused  the keys of the required figures, names and dates that the text does not state
    """

    subject: FactsRecord
    text: str
    check: Check
    figures: tuple[AuditedFigure, ...]
    unused: tuple[str, ...]
    missing_sections: tuple[str, ...]

    @classmethod
    def of(cls, subject: FactsRecord, text: str) -> "Audit":
        """The audit of a text that was written from a record."""
        entry = subject.entry()
        result = check(entry, text)
        figures = tuple(
            AuditedFigure(
                figure,
                state_of(figure),
                text.count("\n", 0, figure.start) + 1,
                figure.fact,
                tuple(cells_of(subject, figure.fact)),
            )
            for figure in result.figures
        )
        return cls(
            subject,
            text,
            result,
            figures,
            tuple(not_used(entry, text, result)),
            missing_sections(entry.required_sections, text),
        )

    @property
    def sentence(self) -> str:
        """ "8 figures: 8 in the facts, 8 under their own name; 1 fact not used; nothing that was not understood" """
        return tally(self.subject.entry(), self.text, self.check, self.subject.unread)

    @property
    def faults(self) -> list[str]:
        """A line a kind of fault of figures: in no fact, under another name, not understood; none if all are right."""
        return list(faults(self.check))

    @property
    def is_clean(self) -> bool:
        """True if every figure is right and stands under its own name, and nothing was not understood."""
        return all(figure.state == "right" for figure in self.figures) and not self.subject.unclear

    def counts(self) -> dict[str, int]:
        """The number of figures in each state, and of what else there is to know."""
        states: list[State] = ["right", "other name", "not in the facts", "not understood"]
        return {
            "figures": len(self.figures),
            **{state.replace(" ", "_"): sum(figure.state == state for figure in self.figures) for state in states},
            "facts": len(self.subject.facts),
            "facts_not_used": len(self.unused),
            "facts_not_understood": len(self.subject.unclear),
            "sections_missing": len(self.missing_sections),
        }

    def to_json(self) -> dict[str, Any]:
        """The audit as a JSON object.  docs/formats.md describes it."""
        subject = self.subject
        record = Record(subject.facts)
        stated = {figure.fact for figure in self.figures}
        return {
            "record": {"name": subject.name, "number": subject.number, "kind": subject.kind},
            "counts": self.counts(),
            "sentence": self.sentence,
            "figures": [_figure_json(figure, subject) for figure in self.figures],
            "facts": [
                {
                    "key": key,
                    "label": fact.label,
                    "print": fact.print,
                    "value": fact.value,
                    "type": fact.type,
                    "formula": fact.source,
                    "cells": [cell.to_json() for cell in cells_of(subject, key)],
                    "stated": key in stated if fact.is_figure else record.is_mentioned(fact, self.text),
                    "required": fact.required,
                }
                for key, fact in subject.facts.items()
            ],
            "not_used": list(self.unused),
            "sections_missing": list(self.missing_sections),
            "not_understood": {
                "facts": [{"place": place, "text": text} for place, text in subject.unclear],
                "text": [figure.figure.text for figure in self.figures if figure.state == "not understood"],
            },
            "notes": list(subject.notes),
            "shares": {
                "precision": self.check.precision,
                "recall": self.check.recall,
                "binding": self.check.binding,
                "sections": self.check.sections,
            },
        }


def state_of(figure: Figure) -> State:
    """The state of a figure, as the module defines them."""
    if not figure.is_understood:
        return "not understood"
    if not figure.right:
        return "not in the facts"
    return "right" if figure.bound else "other name"


def cells_of(subject: FactsRecord, key: str | None) -> Iterator[Cell]:
    """The cell of a fact, or the cells of those that its formula has; none for None."""
    if key is None:
        return
    if key in subject.cells:
        yield subject.cells[key]
        return
    if (formula := subject.facts[key].source) is not None:
        for operand in parse(formula).keys:
            yield from cells_of(subject, operand)


def where(figure: AuditedFigure, subject: FactsRecord) -> str:
    """ "revenue: $412.5 million (companies.csv: line 4, revenue)": the fact of a figure, or why it has none."""
    if figure.fact is None:
        reason = figure.figure.read.reason
        return f"not understood: {reason}" if figure.state == "not understood" else "not in the facts"
    fact = subject.facts[figure.fact]
    formula = f" = {fact.source}" if fact.source is not None and figure.fact not in subject.cells else ""
    cells = "; ".join(map(str, figure.cells))
    other = ", but under another name" if figure.state == "other name" else ""
    return f"{' '.join(f'{fact.label}: {fact.print}'.split())}{formula}{other}{f' ({cells})' if cells else ''}"


def _figure_json(figure: AuditedFigure, subject: FactsRecord) -> dict[str, Any]:
    read = figure.figure
    fact = None if figure.fact is None else subject.facts[figure.fact]
    return {
        "text": read.text,
        "start": read.start,
        "end": read.end,
        "line": figure.line,
        "state": figure.state,
        "fact": figure.fact,
        "label": None if fact is None else fact.label,
        "print": None if fact is None else fact.print,
        "formula": None if fact is None else fact.source,
        "cells": [cell.to_json() for cell in figure.cells],
        "reason": read.read.reason or None,
    }
