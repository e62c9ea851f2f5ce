"""Files of facts: text, CSV, XLSX or JSON; a record a file, a row a company, or a sheet a company.

    text   lines, or a Markdown table (`fact_lines`)
    CSV    a label and its value a row; or, under a head that begins with "company" or the like, a record a row
    XLSX   the same; with several sheets, a record a sheet. A cell is what it shows: 0.412 as a per cent is 41.2%
    JSON   an object; a list of objects, or one a line, are a record each

A place is a line, a JSON key, or a cell: "line 7", "Sheet1!B7". Text is UTF-8 or UTF-16 by its mark; what is neither is
read as Windows-1252 (Latin-1), and told.
"""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..workbook import NotAWorkbookError, merged_cells, open_workbook, uncomputed_cells
from .cell_format import shown
from .fact_lines import LABEL_HEADS, UNIT_KEYS, lines_of, lines_of_object, plain_number, read_cells, read_delimited
from .fact_tables import RawRecord, name_of, records_of_rows
from .kind import Field

MAX_CELLS = 1_000_000
MAX_TEXT = 50_000_000  # bytes

_STATED_DELIMITER = re.compile(r"sep=(?P<sign>[,;|\t])\n", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


@dataclass(frozen=True)
class FactFile:
    """The records of a file, in order.

    notes  how the file was read, where that was not plain
    text   the text of a file of lines, "" of another: then the record is shown as its facts
    """

    path: Path
    records: tuple[RawRecord, ...]
    notes: tuple[str, ...] = ()
    text: str = ""

    def choose(self, name: str | None = None) -> RawRecord:
        """The record of a name, or of a number from 1; the only one for None.

        Raises ValueError, a line that begins with the path, if there is none or more than one.
        """
        names = ", ".join(record.name for record in self.records[:8]) + ", ..." * (len(self.records) > 8)
        if name is None:
            if len(self.records) != 1:
                raise ValueError(f"{self.path}: holds {len(self.records)} records, name one of {names}")
            return self.records[0]
        found = [record for record in self.records if record.name.casefold() == name.casefold()]
        if not found and name.isdecimal() and 1 <= int(name) <= len(self.records):
            found = [self.records[int(name) - 1]]
        if len(found) != 1:
            raise ValueError(f"{self.path}: must hold one record {name!r}, has {len(found)}; there are {names}")
        return found[0]


def read_fact_file(path: Path, fields: Mapping[str, Field], *, is_table: bool = False) -> FactFile:
    """The records of a file.

    fields    those of a kind, or none: their labels tell a head from a row
    is_table  True if a file of rows is known to have a head and a record a row
    Raises ValueError, a line that begins with the path, for a file that is missing, empty, too large or no text, and
    for a table without a head of its own names.
    """
    if not path.is_file():
        raise ValueError(f"{path}: {'must be a file, is a folder' if path.is_dir() else 'no such file'}")
    with path.open("rb") as file:
        begins = file.read(4)
    if begins == b"PK\x03\x04" or path.suffix.lower() in (".xlsx", ".xlsm"):
        return _workbook(path, _labels(fields), is_table)
    text, notes = decode(path)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise ValueError(f"{path}: is empty")
    if (objects := _objects(path, text)) is not None:
        named = [RawRecord(name_of(lines), tuple(lines)) for lines in map(list, map(lines_of_object, objects))]
        return FactFile(path, tuple(named), notes)
    if (stated := _STATED_DELIMITER.match(text)) is not None:  # Excel's "sep=;"
        delimiter: str | None = stated["sign"]
        text = "\n" + text[stated.end() :]
    else:
        delimiter = _delimiter(path, text)
    rows = read_delimited(text, delimiter) if delimiter else read_cells(text)
    if rows is not None:
        return FactFile(path, tuple(records_of_rows(path, rows, _labels(fields), is_table=is_table)), notes)
    lines, not_read = lines_of(text)
    return FactFile(path, (RawRecord("", tuple(lines), tuple(not_read)),), notes, text)


def decode(path: Path) -> tuple[str, tuple[str, ...]]:
    """The text of a file, and what has to be told of its encoding.  Raises ValueError for what is no text."""
    if path.stat().st_size > MAX_TEXT:
        raise ValueError(f"{path}: must be at most {MAX_TEXT // 10**6} MB, got {path.stat().st_size // 10**6} MB")
    data = path.read_bytes()
    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig")):
        if data.startswith(mark):
            try:
                return data.decode(encoding).removeprefix("\ufeff"), () if encoding == "utf-8-sig" else (
                    "read as UTF-16",
                )
            except UnicodeDecodeError:
                break
    if data[1::2].count(0) > len(data) // 4 and len(data) % 2 == 0:  # UTF-16 without its mark
        return data.decode("utf-16-le", errors="replace"), ("read as UTF-16 without a mark",)
    if (found := _CONTROL.search(data)) is not None:
        raise ValueError(f"{path}: must be text, has the byte {found[0][0]:#04x} at {found.start()}")
    try:
        return data.decode("utf-8"), ()
    except UnicodeDecodeError as error:
        data = data.removeprefix(b"\xef\xbb\xbf")  # a mark before what is no UTF-8
        return data.decode("cp1252", errors="replace"), (f"is not UTF-8 (byte {error.start}): read as Windows-1252",)


def _labels(fields: Mapping[str, Field]) -> frozenset[str]:
    return frozenset(label.casefold() for field in fields.values() for label in field.labels)


def _objects(path: Path, text: str) -> list[Mapping[str, Any]] | None:
    """The objects of JSON, None for a file that is none. Raises ValueError for one that says that it is."""
    is_named = path.suffix.lower() in (".json", ".jsonl")
    if not is_named and not text.lstrip().startswith(("{", "[{")):
        return None
    try:
        data = _loads(text)
    except RecursionError:
        raise ValueError(f"{path}: must be JSON of few levels, is nested too deep") from None
    except _TwiceError as error:
        raise ValueError(f"{path}: an object must have each key once, got {str(error)!r} twice") from None
    except json.JSONDecodeError as error:
        try:
            data = [_loads(line) for line in text.split("\n") if line.strip()]
        except _TwiceError as twice:
            raise ValueError(f"{path}: an object must have each key once, got {str(twice)!r} twice") from None
        except (json.JSONDecodeError, RecursionError):
            if not is_named:
                return None
            raise ValueError(f"{path}: must be JSON: {error}") from None
    if isinstance(data, dict) and len(data) == 1:  # {"companies": [...]}
        (only,) = data.values()
        data = only if isinstance(only, list) and only and all(isinstance(row, dict) for row in only) else data
    rows = data if isinstance(data, list) else [data]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: must be a JSON object, or a list of them, got {type(data).__name__}")
    try:
        rows = [labelled] if (labelled := _labelled(rows)) is not None else rows
    except _TwiceError as error:
        raise ValueError(f"{path}: each label must stand once, got {str(error)!r} twice") from None
    return [row["facts"] if isinstance(row.get("facts"), dict) else row for row in rows]


def _labelled(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The object that a list of labels with values is, `[{"label": "cash", "value": "$5"}]`; None for another list."""
    label = next((key for key in rows[0] if key.lower() in LABEL_HEADS), None)
    if label is None or not all(
        label in row and "value" in row and set(row) <= {label, "value", *UNIT_KEYS} for row in rows
    ):
        return None
    return _object([(str(row[label]), {key: row[key] for key in row if key != label}) for row in rows])


class _TwiceError(Exception):
    """A key that an object has twice."""


def _loads(text: str) -> Any:
    """JSON with its numbers as they are written.  Raises JSONDecodeError, RecursionError and _TwiceError."""
    return json.loads(text, parse_float=plain_number, parse_int=str, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for key in keys if keys.count(key) > 1))
    return found


def _delimiter(path: Path, text: str) -> str | None:
    """The delimiter of a CSV by its name, None for another file; a text without a colon may be one too."""
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        sample = "\n".join(line for line in text.splitlines()[:50] if line.strip())
        if suffix == ".tsv" or "\t" in sample.split("\n")[0]:
            return "\t"
        try:
            return csv.Sniffer().sniff(sample, delimiters=",;\t|").delimiter
        except csv.Error:
            return ";" if sample.count(";") >= sample.count("\n") + 1 else ","
    return None


# Spreadsheets


def _workbook(path: Path, labels: frozenset[str], is_table: bool) -> FactFile:
    """The records of a workbook: a sheet each, or of its only sheet as of a CSV."""
    try:
        book = open_workbook(path, "reading a spreadsheet")
    except NotAWorkbookError as error:
        raise ValueError(f"{path}: must be a workbook (XLSX), {error}") from None
    try:
        hidden = [sheet.title for sheet in book.worksheets if sheet.sheet_state != "visible"]
        sheets = {sheet.title: list(_sheet_rows(path, sheet)) for sheet in book.worksheets if sheet.title not in hidden}
        merged = list(merged_cells(path, book)) if is_table else []
        uncomputed = [cell for cell in uncomputed_cells(path, book) if cell.rpartition("!")[0] in sheets]
    finally:
        book.close()
    filled = {title: rows for title, rows in sheets.items() if rows}
    if not filled:
        raise ValueError(f"{path}: is empty")
    for title, cells in merged:
        if title in filled:
            raise ValueError(
                f"{path}: {title}!{cells}: a cell of a table must stand alone, these are merged: unmerge them"
            )
    records: list[RawRecord] = []
    notes = [f"sheet {title!r} is hidden, and not read" for title in hidden]
    if uncomputed:
        more = f" and {len(uncomputed) - 3} more" if len(uncomputed) > 3 else ""
        formulas = f"{', '.join(uncomputed[:3])}{more}: a formula that was never computed"
        notes.append(f"{formulas}: open the file in a spreadsheet program and save it")
    for title, rows in filled.items():
        found = list(_sheet_records(path, rows, labels, is_table))
        if len(filled) > 1 and not any(record.lines for record in found):
            notes.append(f"sheet {title!r} has no label with a value, and is not read")
            continue
        for record in found:
            name = record.name if len(filled) == 1 or record.name else title
            records.append(RawRecord(name, record.lines, record.not_read))
    return FactFile(path, tuple(records), tuple(notes))


def _sheet_records(
    path: Path, rows: list[tuple[str, list[tuple[str, str]]]], labels: frozenset[str], is_table: bool
) -> Iterator[RawRecord]:
    """The records of a sheet, each value at its own cell."""
    places = {(place, column): cell for place, cells in rows for column, (cell, _) in enumerate(cells)}
    plain = [(place, [text for _, text in cells]) for place, cells in rows]
    return records_of_rows(path, plain, labels, lambda place, column: places[place, column], is_table=is_table)


def _sheet_rows(path: Path, sheet: Any) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(row, its (cell, text)) of every row of a sheet that is not empty, without empty columns on the left."""
    seen = 0
    rows = []
    for row in sheet.iter_rows():
        cells = [(_coordinate(sheet, cell), shown(cell)) for cell in row]
        seen += len(cells)
        if seen > MAX_CELLS:
            raise ValueError(f"{path}: {sheet.title}: must have at most {MAX_CELLS:,} cells")
        if any(text for _, text in cells):
            rows.append(cells)
    left = min((next(n for n, (_, text) in enumerate(cells) if text) for cells in rows), default=0)
    for cells in rows:
        kept = cells[left:]
        while kept and not kept[-1][1]:
            kept.pop()
        if kept:
            yield f"{sheet.title} row {re.sub('[^0-9]', '', kept[-1][0].rpartition('!')[2])}", kept


def _coordinate(sheet: Any, cell: Any) -> str:
    return f"{sheet.title}!{getattr(cell, 'coordinate', '')}"
