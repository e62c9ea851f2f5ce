"""Labels with values in a text: where each stands, and which lines are none.

label: value      "-", "*" and ** around it may be there; a full-width colon or "=" does as well
| label | value |     a Markdown table; with more columns, each value under its head: "revenue, 2024"
label,value           CSV, with commas, semicolons or tabs, if every line is
{"label": "value"}    JSON, objects in objects by both labels: "balance sheet, cash"
"""

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from ..facts.dates import is_period
from ..facts.figures import read_figure
from ..facts.numerals import MAX_DIGITS

MAX_LABEL = 300
Row = tuple[str, list[str]]  # its place, its cells
Locate = Callable[[str, int], str]  # the place of a row, the number of a column -> the place of the cell


class Line(NamedTuple):
    """A label with its value, and where it stands: "line 7", "row 3", "Sheet1!B7"."""

    place: str
    label: str
    value: str


_BULLET = r"[ \t\u00a0]*(?:(?:[-*•]|\d{1,2}[.)])[ \t\u00a0]+)?"
_LABELLED = re.compile(
    rf"{_BULLET}\**(?P<label>[^\s:：*|][^:：\n*|]{{0,{MAX_LABEL - 1}}}?)"
    r"\**[ \t\u00a0]*(?::(?!//)|：)\**[ \t\u00a0]*(?P<value>\S.*?)[ \t\u00a0]*$"
)
_EQUATED = re.compile(
    rf"{_BULLET}\**(?P<label>[^\s=*|][^=\n*|]{{0,{MAX_LABEL - 1}}}?)"
    r"\**[ \t\u00a0]*=\**[ \t\u00a0]*(?P<value>\S.*?)[ \t\u00a0]*$"
)
_RULE = re.compile(r"(?=.*(?:--|:))\|?[ ]*:?-+:?[ ]*(?:\|[ ]*:?-+:?[ ]*)*\|?")
_MEANINGLESS = re.compile(r"[ \t\u00a0]*(?:#.*|[-=_*]{3,}|```\w*|[^:：=|]*[:：])?[ \t\u00a0]*")
_HEADS = re.compile(
    r"(?:items?|labels?|facts?|fields?|names?|keys?|metrics?|measures?|concepts?|line items?|description|values?"
    r"|amounts?|figures?|numbers?|)",
    re.IGNORECASE,
)
_UNITS_HEAD = re.compile(r"units?|currency|einheit(?:en)?|währung|unité|unidad|unità", re.IGNORECASE)
UNIT_KEYS = ("currency", "scale", "unit")  # beside a "value" of JSON
LABEL_HEADS = (
    "item",
    "label",
    "fact",
    "field",
    "key",
    "metric",
    "measure",
    "concept",
    "line item",
    "description",
    "name",
)


def lines_of(text: str) -> tuple[list[Line], list[tuple[str, str]]]:
    """The labels with their values, in order, and (place, line) of what is neither that nor a heading."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if (found := _json(text)) is not None:
        return found, []
    rows = [row.strip(" \t\u00a0") for row in text.split("\n")]  # a long run of spaces is slow to search
    labelled = sum(_match(row) is not None for row in rows)
    if not labelled and (table := _delimited(rows)) is not None:
        return lines_of_rows(table)
    lines: list[Line] = []
    not_read: list[tuple[str, str]] = []
    number = 0
    while number < len(rows):
        row, place = rows[number], f"line {number + 1}"
        if row.lstrip().startswith("|") or _is_table(rows, number):
            end = next((n for n in range(number, len(rows)) if "|" not in rows[n]), len(rows))
            cells = [
                (f"line {n + 1}", _cells(rows[n])) for n in range(number, end) if not _RULE.fullmatch(rows[n].strip())
            ]
            found, unread = lines_of_rows(cells)
            lines += found
            not_read += unread
            number = end
            continue
        match = _match(row)
        if match is not None:
            lines.append(Line(place, match["label"].strip(" \t\u00a0"), match["value"]))
        elif not _MEANINGLESS.fullmatch(row):
            not_read.append((place, row.strip()))
        number += 1
    return lines, not_read


def _match(row: str) -> re.Match[str] | None:
    return None if row.lstrip().startswith("|") else _LABELLED.match(row) or _EQUATED.match(row)


def _is_table(rows: Sequence[str], number: int) -> bool:
    return "|" in rows[number] and number + 1 < len(rows) and _RULE.fullmatch(rows[number + 1].strip()) is not None


def _cells(row: str) -> list[str]:
    inner = row.strip().removeprefix("|").removesuffix("|")
    return [cell.strip(" \t\u00a0*").replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inner)]


def read_cells(text: str) -> list[Row] | None:
    """The rows of a text that is one Markdown table, None for another text."""
    rows = [(f"line {number}", row) for number, row in enumerate(text.split("\n"), start=1) if row.strip()]
    if not rows or not all("|" in row for _, row in rows) or not any(_RULE.fullmatch(row.strip()) for _, row in rows):
        return None
    return [(place, _cells(row)) for place, row in rows if not _RULE.fullmatch(row.strip())]


def _json(text: str) -> list[Line] | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        data = json.loads(text, parse_float=plain_number, parse_int=str)
    except (ValueError, RecursionError):
        return None
    return list(lines_of_object(data)) if isinstance(data, dict) else None


def plain_number(written: str) -> str:
    """A number of JSON as people write it: 4.125e8 is 412500000."""
    number = Decimal(written) if "e" in written.lower() else None
    return written if number is None or abs(number.adjusted()) > MAX_DIGITS else f"{number:f}"


def lines_of_object(data: Mapping[str, Any], above: str = "") -> Iterator[Line]:
    """The labels of a JSON object (numbers as they are written); of objects and lists in it, with the label above.

    {"value": 412.5, "unit": "USD m"} is a value with its unit.
    """
    for key, value in data.items():
        label = f"{above}, {_spaced(key)}" if above else _spaced(key)
        if isinstance(value, Mapping) and "value" in value and set(value) <= {"value", *UNIT_KEYS}:
            unit = " ".join(str(value[name]) for name in UNIT_KEYS if value.get(name))
            if value["value"] is not None and str(value["value"]).strip():
                named = f"{label} ({unit})" if unit else label
                yield Line(label, named, " ".join(str(value["value"]).split()))
        elif isinstance(value, Mapping):
            yield from lines_of_object(value, label)
        elif isinstance(value, list):
            yield from lines_of_object({str(place): item for place, item in enumerate(value, start=1)}, label)
        elif value is not None and str(value).strip():
            yield Line(label, label, " ".join(str(value).split()))


def _spaced(key: str) -> str:
    """ "gross_margin" and "grossMargin" -> "gross margin" """
    if " " in key:
        return key.strip()
    return re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", key.replace("_", " ")).strip() or key


def _delimited(rows: Sequence[str]) -> list[Row] | None:
    """The rows of a text with one delimiter in every line, None for another text."""
    filled = [row for row in rows if row.strip()]
    for delimiter in ("\t", ";", ","):
        if (
            filled
            and all(delimiter in row for row in filled)
            and (len(filled) > 1 or len(filled[0].split(delimiter)) == 2)
        ):
            return read_delimited("\n".join(rows), delimiter)
    return None


def read_delimited(text: str, delimiter: str) -> list[Row]:
    """The rows of a CSV with cells in them, each with the line it ends in."""
    csv.field_size_limit(
        sys.maxsize
    )  # of the process: a cell that is too long is told as a fact, whoever set it before
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    rows = ((reader.line_num, [" ".join(cell.split()) for cell in row]) for row in reader)
    return [(f"line {number}", row) for number, row in rows if any(row)]


def lines_of_rows(rows: Sequence[Row], locate: Locate | None = None) -> tuple[list[Line], list[tuple[str, str]]]:
    """A label in the first column with its value in the second; with more columns, a value a column, by its head.

    A column that is headed "unit" has that of each row. Without a head, further columns have their numbers.

    locate  says where a cell is; None: where its row is
    """
    lines: list[Line] = []
    not_read: list[tuple[str, str]] = []
    if not rows:
        return [], []
    head: list[str] = []
    width = max(len(cells) for _, cells in rows)
    first = rows[0][1]
    if (
        (width > 2 and not any(map(_is_amount, first[1:])))
        or all(_HEADS.fullmatch(cell) for cell in first)
        or (_HEADS.fullmatch(first[0]) and first[0].lower().rstrip("s") in LABEL_HEADS)
    ):
        head, rows = first, rows[1:]
    units = next((number for number, cell in enumerate(head) if number and _UNITS_HEAD.fullmatch(cell)), None)
    for place, cells in rows:
        values = [(number, cell) for number, cell in enumerate(cells[1:], start=1) if cell and number != units]
        label = cells[0] if cells else ""
        if not label or not values:
            if any(cells) and not (label and len(rows) > 1 and width > 2 and not values):
                not_read.append((place, " | ".join(cells)))
            continue
        for number, value in values:
            heading = head[number] if number < len(head) else "" if head or number == 1 else str(number)
            named = label if width == 2 or not heading or _HEADS.fullmatch(heading) else f"{label}, {heading}"
            if units is not None and len(cells) > units and cells[units]:
                named = f"{named} ({cells[units]})"
            lines.append(Line(locate(place, number) if locate else place, named, value))
    return lines, not_read


def _is_amount(cell: str) -> bool:
    """True for a figure that heads no column: 2024, Q3 2024 and "12 months" do."""
    figure = None if is_period(cell) else read_figure(cell)
    return figure is not None and figure.kind != "unknown" and not figure.unit
