"""JSON lines: one JSON value a line, UTF-8."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..atomic_io import write_text


def write_lines(path: Path, values: Iterable[Any]) -> None:
    """One line a value."""
    write_text(path, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))


def read_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """The place, "FILE:LINE", and the value of every line; blank lines are skipped.

    Raises ValueError that starts with the place of a line that is no JSON.
    """
    # Not splitlines: it also breaks at U+2028, which JSON leaves as it is.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            place = f"{path}:{number}"
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{place}: expected a JSON object, {error.msg} at column {error.colno}") from None
            yield place, value
