"""Markdown as HTML: headings, emphasis, lists and tables, and nothing else that HTML could do.

Raw HTML, links, images, entities and code blocks are text here, and all text is escaped: nothing that a model or a
facts file says becomes a tag, a script or an address. A line break stays one, as in the address of a letter.

**No figure is lost or changed.** Some of Markdown hides text (the fifth cell of a row of four) or joins it ("**$5**
million" reads as $5, and would show as $5 million). A block that does not show every letter, and exactly its figures,
is shown without the rules that are in the way.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from ..data.facts.figures import read_figures
from ..eval.html.page import render_page, visible
from ..extras import need

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

ALWAYS = ("heading", "hr", "blockquote", "paragraph", "newline", "text")
OPTIONAL = ("table", "list", "emphasis", "escape", "backticks")
# Rules to leave out, the first that shows the text as it is.
LEFT_OUT: tuple[tuple[str, ...], ...] = ((), *((rule,) for rule in OPTIONAL), OPTIONAL)
_OPEN, _CLOSE = "\ue000", "\ue001"  # around a mark, while Markdown is read
_PRIVATE = {ord(_OPEN): 0xFFFD, ord(_CLOSE): 0xFFFD}

STYLE = """
main { max-width: 46rem; }
table { width: auto; max-width: 100%; margin: 1.25rem 0; }
h2 { font-size: 1.3rem; margin: 2rem 0 .75rem; border: 0; padding: 0; }
"""


class Mark(NamedTuple):
    """A span of a text with HTML to put before and behind it: well-formed, and escaped where it has to be."""

    start: int
    end: int
    before: str
    after: str


def to_html(text: str, marks: Sequence[Mark] = ()) -> str:
    """The HTML of a Markdown text, without a page around it.

    marks  in order, none in another; one whose text is broken by a tag is left out
    Raises ValueError if markdown-it-py is missing.
    """
    private = text.translate(_PRIVATE)
    pieces, end = [], 0
    for mark in marks:
        pieces += [private[end : mark.start], _OPEN, private[mark.start : mark.end], _CLOSE]
        end = mark.end
    lines = visible("".join([*pieces, private[end:]])).split("\n")
    html = "".join(
        _reader(rules).renderer.render(_tokens(rules, lines[first:last]), _reader(rules).options, {})
        for first, last, rules in _plan(visible(private))
    )
    waiting = iter(marks)

    def put(match: re.Match[str]) -> str:
        mark = next(waiting)
        return match[1] if "<" in match[1] else f"{mark.before}{match[1]}{mark.after}"

    return re.sub(f"{_OPEN}(.*?){_CLOSE}", put, html, flags=re.DOTALL)


def html_page(title: str, text: str) -> str:
    """A page of its own with the document; it loads nothing and runs nothing."""
    return render_page(title, STYLE, [f'<article class="letter">\n{to_html(text)}</article>'])


def blocks_of(text: str) -> "list[Token]":
    """The tokens of a Markdown text, as `to_html` shows it."""
    shown = visible(text.translate(_PRIVATE))
    lines = shown.split("\n")
    return [token for first, last, rules in _plan(shown) for token in _tokens(rules, lines[first:last])]


def shown_text(tokens: "Sequence[Token]") -> str:
    """The characters that a reader of the document sees, a line a block or a line break, cells with bars between."""
    return "".join(_shown(tokens)).strip("\n")


def _shown(tokens: "Sequence[Token]") -> Iterator[str]:
    for token in tokens:
        if token.type == "inline":
            for child in token.children or ():
                yield "\n" if child.type in ("softbreak", "hardbreak") else child.content
            yield "\n"
        elif token.type == "list_item_open" and token.info:
            yield f"{token.info}{token.markup} "
        elif token.type in ("th_close", "td_close"):
            yield " | "


def _plan(text: str) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """(first line, line behind the last, rules to leave out) of each block of a text, so that it shows what it says."""
    lines = text.split("\n")
    for token in _tokens((), lines):
        if token.level == 0 and token.nesting >= 0 and token.map is not None and token.type != "inline":
            first, last = token.map
            yield first, last, _left_out(lines[first:last])


def _left_out(lines: Sequence[str]) -> tuple[str, ...]:
    letters, figures = _letters("\n".join(lines)), _figures("\n".join(lines))
    for rules in LEFT_OUT:
        shown = shown_text(_tokens(rules, lines))
        if _letters(shown) == letters and _figures(shown) == figures:
            return rules
    return OPTIONAL


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def _figures(text: str) -> list[str]:
    return [re.sub(r"\s", "", figure.text) for figure in read_figures(text)]


@cache
def _reader(left_out: tuple[str, ...]) -> "MarkdownIt":
    """A reader with the rules of this module but some."""
    markdown_it = need("markdown_it", "writing HTML or DOCX")
    reader: MarkdownIt = markdown_it.MarkdownIt("zero", {"html": False, "breaks": True, "xhtmlOut": False})
    reader.enable([rule for rule in (*ALWAYS, *OPTIONAL) if rule not in left_out])
    return reader


def _tokens(left_out: tuple[str, ...], lines: Sequence[str]) -> "list[Token]":
    tokens = _reader(left_out).parse("\n".join(lines))
    for token in tokens:
        if token.type == "list_item_open" and token.info:
            token.attrSet("value", token.info)  # the number that stands there, not the one that would follow
    return tokens
