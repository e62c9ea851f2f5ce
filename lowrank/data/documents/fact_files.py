"""Files of facts: text, CSV, XLSX or JSON; a record a file, a row a company, or a sheet a company.

    text   lines, or a Markdown table (`fact_lines`)
    CSV    a label and its value a row; or, under a head that begins with "company" or the like, a record a row
    XLSX   the same; with several sheets, a record a sheet. A cell is what it shows: 0.412 as a per cent is 41.2%
    JSON   an object; a list of objects, or one a line, are a record each

A place is a line, a JSON key, or a cell: "line 7", "Sheet1!B7". Text is UTF-8 or UTF-16 by its mark; what is neither is
read as Windows-1252 (Latin-1), and told.
"""

import csv
import datetime
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..facts.figures import read_figure
from ..workbook import NotAWorkbookError, open_workbook
from .fact_lines import Line, Locate, Row, lines_of, lines_of_object, lines_of_rows, read_cells, read_delimited
from .kind import Field

MAX_CELLS = 1_000_000
MAX_TEXT = 50_000_000  # bytes

_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
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


@dataclass(frozen=True)
class FactFile:
    """The records of a file, in order.

    told   how the file was read, where that was not plain
    text   the text of a file of lines, "" of another: then the record is shown as its facts
    """

    path: Path
    records: tuple[RawRecord, ...]
    told: tuple[str, ...] = ()
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


def read_fact_file(path: Path, fields: Mapping[str, Field]) -> FactFile:
    """The records of a file.

    fields  those of a kind, or none: their labels tell a head from a row
    Raises ValueError, a line that begins with the path, for a file that is missing, empty, too large or no text.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    with path.open("rb") as file:
        begins = file.read(4)
    if begins == b"PK\x03\x04" or path.suffix.lower() in (".xlsx", ".xlsm"):
        return FactFile(path, tuple(_workbook(path, _labels(fields))))
    text, told = decode(path)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise ValueError(f"{path}: is empty")
    if (objects := _objects(path, text)) is not None:
        named = [RawRecord(_name(lines), tuple(lines)) for lines in map(list, map(lines_of_object, objects))]
        return FactFile(path, tuple(named), told)
    delimiter = _delimiter(path, text)
    rows = read_delimited(text, delimiter) if delimiter else read_cells(text)
    if rows is not None:
        return FactFile(path, tuple(_records(rows, _labels(fields))), told)
    lines, not_read = lines_of(text)
    return FactFile(path, (RawRecord("", tuple(lines), tuple(not_read)),), told, text)


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
        return data.decode("cp1252", errors="replace"), (f"is not UTF-8 (byte {error.start}): read as Windows-1252",)


def _labels(fields: Mapping[str, Field]) -> frozenset[str]:
    return frozenset(label.casefold() for field in fields.values() for label in field.labels)


def _objects(path: Path, text: str) -> list[Mapping[str, Any]] | None:
    """The objects of JSON, None for a file that is none. Raises ValueError for one that says that it is."""
    is_named = path.suffix.lower() in (".json", ".jsonl")
    if not is_named and not text.lstrip().startswith(("{", "[{")):
        return None
    try:
        data = json.loads(text, parse_float=str, parse_int=str)
    except RecursionError:
        raise ValueError(f"{path}: must be JSON of few levels, is nested too deep") from None
    except json.JSONDecodeError as error:
        try:
            data = [json.loads(line, parse_float=str, parse_int=str) for line in text.split("\n") if line.strip()]
        except (json.JSONDecodeError, RecursionError):
            if not is_named:
                return None
            raise ValueError(f"{path}: must be JSON: {error}") from None
    rows = data if isinstance(data, list) else [data]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: must be a JSON object, or a list of them, got {type(data).__name__}")
    return [row["facts"] if isinstance(row.get("facts"), dict) else row for row in rows]


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


def _records(rows: Sequence[Row], labels: frozenset[str], locate: Locate | None = None) -> Iterator[RawRecord]:
    """The record of rows of labels with values, or those of rows under a head.

    locate  says where a cell is; None: "line 4, revenue" under a head, else "line 4"
    """
    if rows and len(rows) > 1 and _is_head(rows[0][1], labels):
        head = rows[0][1]
        for place, cells in rows[1:]:
            lines = [
                Line(locate(place, number) if locate else f"{place}, {label}", label, cell)
                for number, (label, cell) in enumerate(zip(head, cells, strict=False))
                if label and cell
            ]
            spare = [cell for cell in cells[len(head) :] if cell]
            yield RawRecord(_name(lines), tuple(lines), tuple((place, cell) for cell in spare))
        return
    lines, not_read = lines_of_rows(rows, locate)
    yield RawRecord("", tuple(lines), tuple(not_read))


def _is_head(cells: Sequence[str], labels: frozenset[str]) -> bool:
    """True if the first row names facts, a record a row below it."""
    if len(cells) < 3 or any(read_figure(cell) is not None for cell in cells):
        return False
    known = sum(cell.casefold() in labels for cell in cells)
    return _NAMES_A_RECORD.fullmatch(cells[0].strip()) is not None or known >= 2


def _name(lines: Sequence[Line]) -> str:
    """The name of a record: the value under a label that names one, else its first value."""
    named = [line.value for line in lines if _NAMES_A_RECORD.fullmatch(line.label)]
    return (named or [line.value for line in lines] or [""])[0]


# Spreadsheets


def _workbook(path: Path, labels: frozenset[str]) -> Iterator[RawRecord]:
    """The records of a workbook: a sheet each, or of its only sheet as of a CSV."""
    try:
        book = open_workbook(path, "reading a spreadsheet")
    except NotAWorkbookError as error:
        raise ValueError(f"{path}: must be a workbook (XLSX), {error}") from None
    try:
        sheets = [(sheet.title, list(_sheet_rows(path, sheet))) for sheet in book.worksheets]
    finally:
        book.close()
    filled = [(title, rows) for title, rows in sheets if rows]
    if not filled:
        raise ValueError(f"{path}: is empty")
    for title, rows in filled:
        for record in _sheet_records(rows, labels):
            name = record.name if len(filled) == 1 or record.name else title
            yield RawRecord(name, record.lines, record.not_read)


def _sheet_records(rows: list[tuple[str, list[tuple[str, str]]]], labels: frozenset[str]) -> Iterator[RawRecord]:
    """The records of a sheet, each value at its own cell."""
    places = {(place, column): cell for place, cells in rows for column, (cell, _) in enumerate(cells)}
    plain = [(place, [text for _, text in cells]) for place, cells in rows]
    return _records(plain, labels, lambda place, column: places[place, column])


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


_DECIMALS = re.compile(r"0(?:\.(0+))?")
_THOUSANDS = re.compile(r"[0#](,+)(?![0#,])")  # each comma behind the last digit divides by a thousand
_LITERAL = re.compile(r'"([^"]*)"[ ]*$')
_CURRENCY = re.compile(r"\[\$([^\]-]+)[^\]]*\]|([$€£¥₹])|\"([A-Z]{3}|[$€£¥₹])[ ]?\"")


def shown(cell: Any) -> str:
    """The text that a cell shows, by its value and its number format."""
    value, format = cell.value, str(getattr(cell, "number_format", "") or "General")
    if value is None:
        return ""
    if isinstance(value, datetime.datetime):
        return value.date().isoformat()
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return " ".join(str(value).split())
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    first = format.split(";")[0]
    is_percent = "%" in first
    number = number * 100 if is_percent else number
    bare = re.sub(r'\[[^\]]*\]|"[^"]*"|\\\\.|_.', "", first)
    number = number.scaleb(-3 * len(_THOUSANDS.findall(bare)[0])) if _THOUSANDS.search(bare) else number
    places = _DECIMALS.search(bare)
    if places is not None and first != "General":
        text = f"{round(number, len(places[1] or '')):,.{len(places[1] or '')}f}"
    else:
        text = f"{number.normalize():f}"
    sign, text = ("-", text[1:]) if text.startswith("-") else ("", text)
    currency = _CURRENCY.search(first)
    named = next(filter(None, currency.groups()), "").strip() if currency else ""
    if named:
        text = f"{named} {text}" if named.isalpha() else f"{named}{text}"
    behind = _LITERAL.search(first)
    said = behind[1].rstrip() if behind and behind[1].strip() != named else ""
    return f"{sign}{text}{'%' if is_percent else said}"
