"""The primary measures of a task, a row for each hat and precision, as text."""

from collections.abc import Sequence

from lowrank.text_table import table

from .grid import Cell


def score_table(cells: Sequence[Cell]) -> str:
    """The primary measures of a task's cells, as text."""
    measures = [measure for measure in cells[0].task.all_measures if measure.primary]
    rows = [
        (
            cell.column.adapter or "none",
            cell.column.setting,
            *(
                "-"
                if (value := cell.scores[measure.key]) != value
                else f"{value:.3f}"
                if measure.unit == "share"
                else f"{value:.4f}"
                for measure in measures
            ),
        )
        for cell in cells
    ]
    names = (m.name if m.unit == "share" else f"{m.name} ({m.unit.replace(' per ', '/')})" for m in measures)
    return table(rows, ("hat", "weights", *names))
