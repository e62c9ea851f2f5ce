"""Rows of cells -> records: labels with values in two columns, or a record a row under a head that names its facts."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..facts.figures import read_figure
from .fact_lines import Line, Locate, Row, lines_of_rows

_NAMES_A_RECORD = re.compile(
    r"(?:company|companies|name|issuer|borrower|applicant|client|customer|fund|entity|firm|group|account|ticker|id|isin"
    r"|organi[sz]ation|counterparty|supplier|unternehmen|firma|gesellschaft|société|entreprise|empresa|società|azienda)"
    r"(?: name)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class RawRecord:
    """The labels and values of one record of a file, and (place, text) of what was not read.

    name  what the record is called in a file of several, "" in a file of one
    """

    name: str
    lines: tuple[Line, ...]
    not_read: tuple[tuple[str, str], ...] = ()


def records_of_rows(
    path: Path, rows: Sequence[Row], labels: frozenset[str], locate: Locate | None = None, *, is_table: bool = False
) -> Iterator[RawRecord]:
    """The record of rows of labels with values, or those of rows under a head.

    labels    of a kind's fields
    locate    says where a cell is; None: "line 4, revenue" under a head, else "line 4"
    is_table  True if there has to be a head, unless the rows are labels with values
    Raises ValueError for a table whose first row is no head, or names a column twice, or not.
    """
    titles = _titles(rows, labels, is_table)
    rows = rows[len(titles) :]
    not_read = [(place, " ".join(filter(None, cells))) for place, cells in titles]
    if is_table and rows and (len(rows) == 1 or not _is_pairs(rows, labels)):
        _check_head(path, rows)
        is_headed = True
    else:
        is_headed = len(rows) > 1 and _is_head(rows[0][1], labels)
    if not is_headed:
        lines, unread = lines_of_rows(rows, locate)
        yield RawRecord("", tuple(lines), (*not_read, *unread))
        return
    head = rows[0][1]
    for place, cells in rows[1:]:
        lines = [
            Line(locate(place, number) if locate else f"{place}, {label}", label, cell)
            for number, (label, cell) in enumerate(zip(head, cells, strict=False))
            if label and cell
        ]
        spare = [cell for number, cell in enumerate(cells) if cell and not "".join(head[number : number + 1])]
        not_read += [(place, cell) for cell in spare]
        yield RawRecord(name_of(lines), tuple(lines), tuple(not_read))
        not_read = []


def _titles(rows: Sequence[Row], labels: frozenset[str], is_table: bool) -> Sequence[Row]:
    """The rows of one cell above a head: the title of a table."""
    count = next((number for number, (_, cells) in enumerate(rows) if sum(map(bool, cells)) > 1), 0)
    return rows[:count] if count and (is_table or _is_head(rows[count][1], labels)) else ()


def _is_head(cells: Sequence[str], labels: frozenset[str]) -> bool:
    """True if the first row names facts, a record a row below it."""
    if len(cells) < 2 or any(read_figure(cell) is not None for cell in cells):
        return False
    if len(cells) == 2:
        return _NAMES_A_RECORD.fullmatch(cells[0].strip()) is not None and cells[1].casefold() in labels
    known = sum(cell.casefold() in labels for cell in cells)
    return _NAMES_A_RECORD.fullmatch(cells[0].strip()) is not None or known >= 2


def _is_pairs(rows: Sequence[Row], labels: frozenset[str]) -> bool:
    """True for two columns of which the first has labels of the kind below its first row: a label and a value a row."""
    return max(len(cells) for _, cells in rows) < 3 and any(cells[0].casefold() in labels for _, cells in rows[1:])


def _check_head(path: Path, rows: Sequence[Row]) -> None:
    """Raises ValueError unless the first row has a name of its own for each column, and a row is below it."""
    place, head = rows[0]
    if (figure := next((cell for cell in head if read_figure(cell) is not None), None)) is not None:
        raise ValueError(f"{path}: {place}: the first row of a table must name its columns, got {figure!r}")
    if len(rows) == 1:
        raise ValueError(f"{path}: {place}: a table must have a row below its head, got none")
    folded = [" ".join(cell.split()).casefold() for cell in head]
    if double := next((cell for cell, name in zip(head, folded, strict=True) if name and folded.count(name) > 1), None):
        raise ValueError(f"{path}: {place}: each column must have a name of its own, got {double!r} twice")
    for number, name in enumerate(head):
        if not name and any(len(cells) > number and cells[number] for _, cells in rows[1:]):
            raise ValueError(f"{path}: {place}: each column must have a name, got none for column {number + 1}")


def name_of(lines: Sequence[Line]) -> str:
    """The name of a record: the value under a label that names one, else its first value."""
    named = [line.value for line in lines if _NAMES_A_RECORD.fullmatch(line.label)]
    return (named or [line.value for line in lines] or [""])[0]
