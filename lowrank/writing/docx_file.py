"""Markdown as a DOCX file, through python-docx: Word's own headings, lists and tables, and every text as text.

    # title   Title        ## heading   Heading 1        - item   List Bullet        | a | b |   a table with its head

`lowrank data import` reads it back as the same Markdown. A run of Word is a text whatever it begins with: "=1+1", "+5"
and "@name" become neither fields nor formulas. The numbers of a numbered list are written out as they stand in the
text, since Word would count by itself.
"""

import datetime
import io
import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic_io import new_file
from ..eval.html.page import visible
from ..extras import need
from .markdown import blocks_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markdown_it.token import Token

DEEPEST = 3  # Word's template has three levels of lists


def write_docx(target: Path, text: str, title: str) -> None:
    """Writes the file, whole or not at all.

    text   Markdown
    title  in the file's properties
    Raises ValueError if python-docx or markdown-it-py is missing.
    """
    data = docx_bytes(text, title)
    with new_file(target) as aside:
        aside.write_bytes(data)


def docx_bytes(text: str, title: str) -> bytes:
    """The bytes of a DOCX file; arguments and errors as of `write_docx`."""
    document = need("docx", "writing a DOCX file").Document()
    about = document.core_properties
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None, microsecond=0)
    about.title, about.author, about.comments = visible(title)[:255], "", ""
    about.created = about.modified = now
    _Writer(document).write(blocks_of(text))
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


class _Writer:
    """Puts the blocks of a text at the end of a document.

    lists    for each list that is open, True if it is numbered
    numbers  of items that are open, until they are written: "5. "
    is_item  True until the first paragraph of an item is written
    """

    def __init__(self, document: Any) -> None:
        self.document = document
        self.lists: list[bool] = []
        self.quotes = 0
        self.numbers = ""
        self.is_item = False
        self.heading = 0

    def write(self, tokens: "Sequence[Token]") -> None:
        """Writes all of them."""
        place = 0
        while place < len(tokens):
            token = tokens[place]
            if token.type == "table_open":
                self._flush()
                end = next(n for n in range(place, len(tokens)) if tokens[n].type == "table_close")
                self._table(tokens[place : end + 1])
                place = end
            else:
                self._block(token)
            place += 1

    def _block(self, token: "Token") -> None:
        match token.type:
            case "bullet_list_open" | "ordered_list_open":
                self.lists.append(token.type == "ordered_list_open")
            case "bullet_list_close" | "ordered_list_close":
                self.lists.pop()
            case "list_item_open":
                self.numbers += f"{token.info}{token.markup} " if token.info else ""
                self.is_item = True
            case "list_item_close":
                self._flush()
            case "blockquote_open":
                self.quotes += 1
            case "blockquote_close":
                self.quotes -= 1
            case "heading_open":
                self.heading = int(token.tag[1:])
            case "heading_close":
                self.heading = 0
            case "hr":
                self._flush()
                self._rule()
            case "inline":
                self._paragraph(token)
            case _:
                pass  # the ends of paragraphs

    def _paragraph(self, token: "Token") -> None:
        paragraph = self.document.add_paragraph(style=self._style())
        if self.numbers:
            paragraph.add_run(self.numbers)
        _put_inline(paragraph, token)
        self.numbers, self.is_item = "", False

    def _flush(self) -> None:
        """Writes the numbers of items that have no text of their own."""
        if self.numbers:
            self.document.add_paragraph(self.numbers.rstrip(), style=self._style())
            self.numbers, self.is_item = "", False

    def _style(self) -> str:
        if self.heading:
            return "Title" if self.heading == 1 else f"Heading {self.heading - 1}"
        if self.lists:
            depth = min(len(self.lists), DEEPEST)
            level = f" {depth}" if depth > 1 else ""
            if not self.is_item:
                return f"List Continue{level}"
            return f"List{level}" if self.lists[-1] else f"List Bullet{level}"
        return "Quote" if self.quotes else "Normal"

    def _rule(self) -> None:
        from docx.oxml import OxmlElement
        from docx.oxml.ns import qn

        properties = self.document.add_paragraph()._p.get_or_add_pPr()
        borders, bottom = OxmlElement("w:pBdr"), OxmlElement("w:bottom")
        for name, value in (("val", "single"), ("sz", "6"), ("space", "1"), ("color", "auto")):
            bottom.set(qn(f"w:{name}"), value)
        borders.append(bottom)
        properties.append(borders)

    def _table(self, tokens: "Sequence[Token]") -> None:
        rows: list[list[tuple[Token, str, bool]]] = []
        for token, inside in pairwise(tokens):
            if token.type == "tr_open":
                rows.append([])
            elif token.type in ("th_open", "td_open"):
                rows[-1].append((inside, str(token.attrGet("style") or ""), token.type == "th_open"))
        table = self.document.add_table(rows=0, cols=max(map(len, rows)), style="Table Grid")
        for row in rows:
            cells = table.add_row().cells
            for cell, (token, style, is_head) in zip(cells, row, strict=False):
                paragraph = cell.paragraphs[0]
                _put_inline(paragraph, token, bold=is_head)
                if side := re.search(r"text-align:(right|center)", style):
                    paragraph.alignment = {"center": 1, "right": 2}[side[1]]
        _repeat_head(table.rows[0])
        self.document.add_paragraph()  # Word joins tables that follow each other


def _repeat_head(row: Any) -> None:
    """The head of a table again on each page that it reaches."""
    from docx.oxml import OxmlElement

    row._tr.get_or_add_trPr().append(OxmlElement("w:tblHeader"))


def _put_inline(paragraph: Any, token: "Token", *, bold: bool = False) -> None:
    """The texts of an inline token as runs."""
    strong, emphasis = int(bold), 0
    for child in token.children or ():
        match child.type:
            case "strong_open":
                strong += 1
            case "strong_close":
                strong -= 1
            case "em_open":
                emphasis += 1
            case "em_close":
                emphasis -= 1
            case "softbreak" | "hardbreak":
                paragraph.add_run().add_break()
            case _:
                if child.content:
                    run = paragraph.add_run(child.content)
                    run.bold, run.italic = strong > 0 or None, emphasis > 0 or None
                    if child.type == "code_inline":
                        run.font.name = "Courier New"
