"""Format errors of a Markdown, JSON or HTML document, in words.

Markdown is never an error to a parser, so the rules are those that a reader would see broken: a table whose rows have
another number of cells than its head, a code fence that is not closed, a heading without words, a list item without.
"""

import json
import re
from html.parser import HTMLParser
from typing import Any

FORMATS = ("markdown", "json", "html")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_BARE = re.compile(r"^ {0,3}(?:#{1,6}|[-*+]|\d{1,9}[.)])[ \t]*$")
_DELIMITER = re.compile(r"^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


def defects(text: str, format: str) -> list[str]:
    """The errors in the order of the text; empty for a valid one.  Raises ValueError for an unknown format."""
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    if not text.strip():
        return ["nothing was written"]
    return {"markdown": _markdown, "json": _json, "html": _html}[format](text)


def _markdown(text: str) -> list[str]:
    found, fence, width = [], "", 0
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        if mark := _FENCE.match(line):
            if not fence:
                fence = mark[1]
            elif line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
            continue
        if fence:
            continue
        follows = lines[number] if number < len(lines) else ""
        if not width and "|" in line and _DELIMITER.match(follows) and "|" in follows:
            width = _cells(line)
        elif width and "|" not in line:
            width = 0
        if width and _cells(line) != width:
            found.append(f"line {number}: {_cells(line)} cells in a table of {width}")
        if _BARE.match(line):
            found.append(f"line {number}: {line.strip()} without words")
    return [*found, *(["a code fence is not closed"] if fence else [])]


def _cells(row: str) -> int:
    """The cells of a table row: an escaped bar does not part them, those at the ends are a frame."""
    return len(re.split(r"(?<!\\)\|", row.strip().removeprefix("|").removesuffix("|")))


def _json(text: str) -> list[str]:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in items]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the key {doubled[0]!r} stands twice in one object")
        return dict(items)

    def no_constant(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        return [f"line {error.lineno}: {error.msg}"]
    except ValueError as error:
        return [str(error)]
    return [] if isinstance(value, dict) else ["must be one object"]


def _html(text: str) -> list[str]:
    page = _Page()
    page.feed(text)
    page.close()
    return [*page.found, *(f"<{tag}> is not closed" for tag in page.open)]


class _Page(HTMLParser):
    """Follows which elements are open."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.found.append(f"line {self.getpos()[0]}: </{tag}> closes nothing that is open")
