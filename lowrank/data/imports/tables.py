"""Tables of examples: CSV, XLSX and Parquet, a row an example under a header of keys.

CSV is separated by commas, semicolons or tabs, whichever splits its header most. A cell under one of LISTS holds JSON.
"""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...extras import need
from ...text_file import read_text
from ..jsonl import parse_json
from ..workbook import NotAWorkbookError, open_workbook
from .item import Item

SEPARATORS = (",", ";", "\t")
LISTS = ("messages", "conversations", "history", "tools")


def read_csv(path: Path) -> Iterator[Item]:
    """The rows of a CSV or TSV file.

    Raises ValueError, one line with file and place, for a header with no or doubled names, and for an open quote.
    """
    text = read_text(path)
    csv.field_size_limit(sys.maxsize)
    head = text.lstrip("\r\n").splitlines()[:1]
    separator = max(SEPARATORS, key=lambda mark: len(next(csv.reader(head, delimiter=mark), [])))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            first, line = line, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = _header([cell.strip() for cell in cells], f"{path}:{first}")
            else:
                yield _item(header, cells, first, str(first))
    except csv.Error as error:
        raise ValueError(f"{path}:{line}: must be CSV: {error}") from None


def read_xlsx(path: Path) -> Iterator[Item]:
    """The rows of the first sheet of a workbook.

    Raises ValueError for a file that is none or too large (`open_workbook`), and for a header with no or doubled names.
    """
    try:
        book = open_workbook(path, "reading an XLSX file")
    except NotAWorkbookError as error:
        raise ValueError(f"{path}: must be an XLSX workbook: {error}") from None
    header: list[str] | None = None
    for number, cells in enumerate(book.worksheets[0].iter_rows(values_only=True), start=1):
        if all(cell is None for cell in cells):
            continue
        if header is None:
            header = _header(["" if cell is None else str(cell).strip() for cell in cells], f"{path}:{number}")
        else:
            yield _item(header, ["" if cell is None else cell for cell in cells], number, str(number))
    book.close()


def read_parquet(path: Path) -> Iterator[Item]:
    """The rows of a Parquet file.  Raises ValueError for a file that is none."""
    need("pyarrow", "reading a Parquet file")
    parquet = need("pyarrow.parquet", "reading a Parquet file")
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: must be a Parquet file: {str(error).splitlines()[0]}") from None
    _header(table.column_names, str(path))
    for number, row in enumerate(table.to_pylist(), start=1):
        yield Item(number, f"[{number}]", row)


def _header(names: list[str], place: str) -> list[str]:
    while names and not names[-1]:  # columns that only look like some in a spreadsheet
        names = names[:-1]
    if not all(names):
        raise ValueError(f"{place}: each column must have a name in the first row, got {names}")
    if doubled := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{place}: each column must have a name of its own, got {doubled[0]!r} twice")
    return names


def _item(header: Sequence[str], cells: Sequence[Any], number: int, place: str) -> Item:
    if len(cells) < len(header) or any(cell != "" for cell in cells[len(header) :]):
        return Item(number, place, None, f"must have a cell for each of {len(header)} columns, got {len(cells)} cells")
    row = dict(zip(header, cells, strict=False))
    for key in LISTS:
        if isinstance(cell := row.get(key), str) and cell.strip():
            try:
                row[key] = parse_json(cell)
            except ValueError as error:
                return Item(number, place, None, f"{key}: {error}")
    return Item(number, place, row)
