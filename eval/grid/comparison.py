"""The questions that a grid answers separately: what does the hat gain, and what does 4 bit cost.

    gain        (hat, w) - (none, w)               the same precision, with the hat and without
    cost        (hat, q) - (hat, full)             the same hat, on quantized and on full-precision weights
    arithmetic  (hat, q) - (hat, dequant:q)        the same numbers, multiplied from their codes and in full precision
    grounding   (hat, w, grounded) - (hat, w)      the same model, its figures held to the facts and left to it

With the weights bf16, dequant:nf4-dq and nf4-dq the cost has two parts: what rounding the weights does (dequant:nf4-dq
against bf16), and what the 4-bit product adds (arithmetic), which should be nothing but another order of additions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ..metrics.bootstrap import LEAST_ITEMS, Interval, paired_interval
from ..metrics.metric import Measure
from .columns import Column
from .grid import Cell

FULL_PRECISION = ("fp32", "bf16", "fp16")
DEQUANT = "dequant:"
Question = Literal["gain", "cost", "arithmetic", "grounding"]
QUESTIONS: Mapping[Question, str] = {
    "gain": "What the hat gains",
    "cost": "What 4 bit costs",
    "arithmetic": "What multiplying from the codes adds",
    "grounding": "What grounding the figures changes",
}


@dataclass(frozen=True)
class Comparison:
    """One measure of one task between two columns that differ in one thing."""

    question: Question
    task: str
    measure: Measure
    before: Column
    after: Column
    n: int
    interval: Interval
    counted: int

    @property
    def verdict(self) -> str:
        """better, worse, "higher" or "lower" where neither is, or "not told apart" if the interval holds zero.

        No verdict, and why, for fewer items with a value than LEAST_ITEMS.
        """
        if self.counted < LEAST_ITEMS:
            return f"none: {self.counted} items, needs {LEAST_ITEMS}"
        if not self.interval.is_clear_of_zero:
            return "not told apart"
        direction = "higher" if self.interval.difference > 0 else "lower"
        return direction if not self.measure.better else "better" if direction == self.measure.better else "worse"

    def to_json(self) -> dict[str, Any]:
        """A row of grid.json; None for what has no value."""
        numbers = {"difference": self.interval.difference, "low": self.interval.low, "high": self.interval.high}
        return {
            "question": self.question,
            "task": self.task,
            "measure": self.measure.key,
            "before": asdict(self.before),
            "after": asdict(self.after),
            "n": self.n,
            "counted": self.counted,
            **{key: None if value != value else value for key, value in numbers.items()},
            "verdict": self.verdict,
        }


def compare(cells: Sequence[Cell]) -> list[Comparison]:
    """Every measure of every pair of cells that a question is about, in the order of questions, tasks and columns."""
    by_task: dict[str, dict[Column, Cell]] = {}
    for cell in cells:
        by_task.setdefault(cell.task.name, {})[cell.column] = cell
    return [
        _compared(question, task, measure, columns[before], columns[after])
        for question in QUESTIONS
        for task, columns in by_task.items()
        for before, after in _pairs(question, list(columns))
        for measure in columns[after].task.all_measures
    ]


def _compared(question: Question, task: str, measure: Measure, before: Cell, after: Cell) -> Comparison:
    parts = before.parts[measure.key], after.parts[measure.key]
    counted = int(((parts[0] != 0).any(axis=1) & (parts[1] != 0).any(axis=1)).sum())
    if counted < LEAST_ITEMS:
        interval = Interval(measure.value(parts[1]) - measure.value(parts[0]), float("nan"), float("nan"))
    else:
        interval = paired_interval(measure, *parts)
    return Comparison(question, task, measure, before.column, after.column, len(after.outputs), interval, counted)


def _pairs(question: Question, columns: Sequence[Column]) -> Iterator[tuple[Column, Column]]:
    """(before, after) of every pair that a question is about. Full precision is the finest that was measured."""
    full = next((name for name in FULL_PRECISION if any(column.weights == name for column in columns)), None)
    for after in columns:
        if question == "gain":
            before = replace(after, adapter=None) if after.adapter is not None else None
        elif question == "cost":
            before = replace(after, weights=full) if full and after.weights not in FULL_PRECISION else None
        elif question == "arithmetic":
            before = replace(after, weights=DEQUANT + after.weights)
        else:
            before = replace(after, grounded=False) if after.grounded else None
        if before in columns:
            assert before is not None
            yield before, after
