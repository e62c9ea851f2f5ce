"""JSON, and files of JSON lines: one JSON value a line, UTF-8."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..atomic_io import write_text
from ..text_file import read_text

SPACE = " \t\r\n"  # what JSON takes for white space


def write_lines(path: Path, values: Iterable[Any]) -> None:
    """One line a value."""
    write_text(path, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))


def read_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """The place, "FILE:LINE", and the value of every line; blank lines are skipped.

    Raises ValueError that starts with the place of a line that is no JSON.
    """
    # Not splitlines: it also breaks at U+2028, which JSON leaves as it is.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            place = f"{path}:{number}"
            try:
                value = parse_json(line)
            except NotJSONError as error:
                raise ValueError(f"{place}: {error}, at column {error.place + 1}") from None
            yield place, value


class NotJSONError(ValueError):
    """A text that is no JSON: the rule that it breaks, and the place in the text, from 0."""

    def __init__(self, rule: str, place: int) -> None:
        super().__init__(rule)
        self.place = place


def parse_json(text: str) -> Any:
    """The JSON value that a text is as a whole.  Raises NotJSONError as `parse_json_at` does."""
    value, end = parse_json_at(text, 0)
    rest = text[end:].strip(SPACE)
    if rest:
        reason = "a comma behind the value" if rest == "," else "more behind the value"
        raise NotJSONError(f"must be one JSON value, got {reason}", text.index(rest, end))
    return value


def parse_json_at(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins at a place of a text, white space before it skipped, and the place behind it.

    Raises NotJSONError for any other text, for a key that an object has twice, for what is nested deeper than Python
    can follow, and for a whole number of more digits than it takes.
    """
    while start < len(text) and text[start] in SPACE:
        start += 1
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        before = text[start : error.pos].rstrip(SPACE)
        if (before.endswith(",") and text[error.pos : error.pos + 1] in ("}", "]")) or "trailing comma" in error.msg:
            raise NotJSONError("must be JSON, got a comma before a closing bracket", error.pos) from None
        raise NotJSONError(f"must be JSON, got none: {error.msg[0].lower()}{error.msg[1:]}", error.pos) from None
    except RecursionError:
        raise NotJSONError("must be JSON, got values nested too deeply", start) from None
    except ValueError as error:  # of _once, or of int
        rule = str(error) if "twice" in str(error) else "must be JSON, got a number of too many digits"
        raise NotJSONError(rule, start) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of its keys and values.  Raises ValueError for a key that is there twice: one would be lost."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"must be JSON with each key once, got {double!r} twice")
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_once)
