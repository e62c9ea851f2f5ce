"""Files of examples as people have them: the rows in each, whatever the rows say.

    .jsonl, .json, any other   a JSON value a line, or values behind each other, or one array
    .csv, .tsv, .xlsx, .parquet   see `tables`

`.gz` may follow the name of a text. A row that cannot be read is an item too, so that the others can be used.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...text_file import no_file_reason, read_text
from ..jsonl import SPACE, NotJSONError, parse_json, parse_json_at
from .item import Item
from .tables import read_csv, read_parquet, read_xlsx

TABLES = {".csv": read_csv, ".tsv": read_csv, ".xlsx": read_xlsx, ".parquet": read_parquet}

SPACES = re.compile(f"[{SPACE}]*")


def read_items(path: Path) -> list[Item]:
    """The rows of a file, at least one; blank lines are skipped.

    Raises ValueError, one line with file and place, for a file that is missing, in another encoding or broken.
    """
    if reason := no_file_reason(path):
        raise ValueError(f"{path}: {reason}")
    table = TABLES.get(Path(path.name.removesuffix(".gz")).suffix.casefold())
    items = list(table(path) if table else _json(path, read_text(path)))
    if not items:
        raise ValueError(f"{path}: must hold at least one entry, got none")
    return items


def _json(path: Path, text: str) -> Iterator[Item]:
    """An array if the text begins as one; else lines, unless only values behind each other make sense of it."""
    if text.lstrip().startswith("["):
        for number, data in enumerate(_array(path, text), start=1):
            yield Item(number, f"[{number}]", data)
        return
    # Not splitlines: it also breaks at U+2028, which JSON leaves as it is. Old Macs ended lines by \r alone.
    lines = text.split("\n" if "\n" in text else "\r")
    items = [_line(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if all(item.error is None for item in items):
        yield from items
        return
    values, fault, is_indented = _behind_each_other(text)
    if fault is None:
        yield from values
    elif is_indented:
        raise _placed(path, text, fault)
    else:
        yield from items


def _array(path: Path, text: str) -> list[Any]:
    try:
        rows = parse_json(text)
    except NotJSONError as error:
        raise _placed(path, text, error) from None
    assert isinstance(rows, list)  # it begins as one
    return rows


def _line(number: int, text: str) -> Item:
    try:
        return Item(number, str(number), parse_json(text))
    except NotJSONError as error:
        return Item(number, str(number), None, f"{error}, at column {error.place + 1}")


def _behind_each_other(text: str) -> tuple[list[Item], NotJSONError | None, bool]:
    """The values of a text, one behind another, what ended them too early, and if the first takes several lines."""
    items: list[Item] = []
    is_indented = text.lstrip().partition("\n")[0].rstrip() == "{"
    end, line = 0, 1
    while (start := SPACES.match(text, end).end()) < len(text):  # type: ignore[union-attr]  # it matches anywhere
        line += text.count("\n", end, start)
        try:
            data, end = parse_json_at(text, start)
        except NotJSONError as error:
            return items, error, is_indented
        items.append(Item(line, str(line), data))
        line += text.count("\n", start, end)
    return items, None, is_indented


def _placed(path: Path, text: str, error: NotJSONError) -> ValueError:
    line, column = text.count("\n", 0, error.place) + 1, error.place - text.rfind("\n", 0, error.place)
    return ValueError(f"{path}:{line}: {error}, at column {column}")
