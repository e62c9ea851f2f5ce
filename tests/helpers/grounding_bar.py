"""Free against grounded, as the second reader has it: the table of docs/evaluation.md.

python tests/helpers/grounding_bar.py OUT    the folder that `lowrank eval --n N --grounded --temperature ...` wrote

A figure is right where it states the fact under whose name it stands, of another name where it states another fact of
the record, else wrong. Intervals are those of `eval.metrics.bootstrap`, over documents.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from second_reader import read, recall

from lowrank.data.documents.document import make_documents
from lowrank.eval.metrics.bootstrap import paired_interval
from lowrank.eval.metrics.metric import Measure
from lowrank.workflows.real import TEST_SEED

COUNTED = (("sections", "sections"), ("figure_recall", "recall"), ("ended", "ended by itself"))


def verdicts(path: Path) -> list[tuple[str, str, float]]:
    """(verdicts of figures, of directions, recall under own names), a document each."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    entries = make_documents(len(rows), seed=TEST_SEED, split="test")
    assert [entry.id for entry in entries] == [row["id"] for row in rows], f"{path}: other documents than the test's"
    return [
        (*read(entry.kind, entry.input, row["text"]), recall(entry.kind, entry.input, row["text"]) or 0.0)
        for entry, row in zip(entries, rows, strict=True)
    ]


def difference(before: list[float], after: list[float]) -> str:
    """The paired difference of a mean over documents, with its interval."""
    parts = [np.array([[value, 1.0] for value in values]) for values in (before, after)]
    found = paired_interval(Measure("figures", "figures", "", unit="figures"), *parts)
    return f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def table(out: Path, adapter: str) -> list[str]:
    """The rows of a hat: verdicts, and what grounding changes."""
    grid: dict[str, Any] = json.loads((out / "grid.json").read_text(encoding="utf-8"))
    compared = {
        (one["before"]["temperature"], one["measure"]): one
        for one in grid["comparisons"]
        if one["question"] == "grounding" and one["before"]["adapter"] == adapter
    }
    lines = [
        "| T | right / other name / wrong: free | grounded | directions wrong: free, grounded | "
        "right figures a document | all figures a document | recall under own names | "
        + " | ".join(title for _, title in COUNTED)
        + " |",
        "|" + "---|" * (7 + len(COUNTED)),
    ]
    for temperature in sorted({temperature for temperature, _ in compared}):
        name = f"documents.{adapter}.nf4-dq" + (f"-temperature {temperature:g}" if temperature else "")
        free, grounded = (verdicts(out / "texts" / f"{name}{end}.jsonl") for end in ("", "-grounded"))
        counts = [
            "/".join(str(sum(figures.count(mark) for figures, _, _ in side)) for mark in "rlw")
            for side in (free, grounded)
        ]
        against = [sum(directions.count("-") for _, directions, _ in side) for side in (free, grounded)]
        right = [[float(figures.count("r")) for figures, _, _ in side] for side in (free, grounded)]
        every = [[float(len(figures)) for figures, _, _ in side] for side in (free, grounded)]
        named = [[recalled for _, _, recalled in side] for side in (free, grounded)]
        cells = [f"{temperature:g}", *counts, f"{against[0]}, {against[1]}"]
        cells += [difference(*right), difference(*every), difference(*named)]
        for measure, _ in COUNTED:
            one = compared[temperature, measure]
            cells.append(f"{one['difference']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    print("\n".join(table(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "finance")))
