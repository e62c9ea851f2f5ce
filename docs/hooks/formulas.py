"""Formulas of the pages as MathML, which browsers draw themselves: a hook of `make docs`.

A page writes $$ ... $$ on lines of their own, or \\( ... \\) in a line, in TeX; GitHub draws the former as well.
"""

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert

ARITHMATEX = re.compile(r'<(div|span) class="arithmatex">(?:\\\[|\\\()(.*?)(?:\\\]|\\\))</\1>', re.DOTALL)


def on_page_content(html: str, **_: Any) -> str:
    """Called by mkdocs with the body of each page."""
    return ARITHMATEX.sub(_drawn, html)


def _drawn(found: re.Match[str]) -> str:
    kind, tex = found[1], unescape(found[2]).strip().replace("{aligned}", "{align*}")  # the converter knows the latter
    mathml: str = convert(tex, display="block" if kind == "div" else "inline")
    words = re.sub(r"<[^>]*>", " ", mathml)
    assert "\\" not in words and " & " not in words, (
        f"no MathML for {tex!r}"
    )  # what it did not understand it leaves there
    return f'<{kind} class="formula">{mathml}</{kind}>'
