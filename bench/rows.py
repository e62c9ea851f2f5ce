"""Rows of results: one JSON object a line, in a file that is whole or as it was before."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lowrank.atomic_io import write_text

Row = dict[str, Any]


def append(path: Path, rows: Sequence[Row]) -> None:
    """Adds the rows after those of the file, which is replaced as a whole; NaN and infinity are refused."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    added = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    write_text(path, before + added)


def read(path: Path) -> list[Row]:
    """Every row, in the order of the file.  Raises ValueError with file and line for what is no JSON object."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: not a row of JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number}: a row must be a JSON object, got {line[:60]}")
        rows.append(row)
    return rows


def latest(rows: Sequence[Row]) -> list[Row]:
    """The last row of every provider at every case and dtype: a file may hold several runs."""
    keyed = {tuple(row[key] for key in ("op", "provider", "dtype", "M", "N", "K")): row for row in rows}
    return list(keyed.values())


def of_one_commit(rows: Sequence[Row]) -> list[Row]:
    """The rows of the commit that has the most, the latest of several: a chart never mixes two states of the code."""
    counts = Counter(row["commit"] for row in rows)
    places = {row["commit"]: place for place, row in enumerate(rows)}
    chosen = max(counts, key=lambda commit: (counts[commit], places[commit]), default=None)
    return [row for row in rows if row["commit"] == chosen]
