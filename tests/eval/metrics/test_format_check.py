"""The errors of a document, and none for a valid one."""

import pytest

from lowrank.data.documents.document import make_documents
from lowrank.eval.metrics.format_check import defects

TABLE = "| item | price |\n|---|---:|\n| a | 1 |\n"


@pytest.mark.parametrize("entry", make_documents(20, seed=3, split="test"), ids=lambda entry: entry.id)
def test_our_own_documents_are_sound(entry) -> None:
    assert defects(entry.output, "markdown") == []


@pytest.mark.parametrize(
    ("text", "format", "expected"),
    [
        (TABLE, "markdown", []),
        (TABLE + "| b \\| c | 2 |\n\nText | with a bar.\n", "markdown", []),
        (TABLE + "| b |\n", "markdown", ["line 4: 1 cells in a table of 2"]),
        ("# Head\n##\n- \n", "markdown", ["line 2: ## without words", "line 3: - without words"]),
        ("```\n# \n", "markdown", ["a code fence is not closed"]),
        ("```\n# \n```\n~~~~\n```\n~~~~\n", "markdown", []),
        (" \n", "markdown", ["nothing was written"]),
        ('{"a": 1}', "json", []),
        ('{"a": 1, "a": 2}', "json", ["the key 'a' stands twice in one object"]),
        ('{"a": NaN}', "json", ["NaN is no JSON"]),
        ("[1]", "json", ["must be one object"]),
        ('{"a": 1', "json", ["line 1: Expecting ',' delimiter"]),
        ("<h1>A</h1><p>1 &lt; 2<br></p>", "html", []),
        ("<h1>A</h2>", "html", ["line 1: </h2> closes nothing that is open", "<h1> is not closed"]),
    ],
)
def test_what_is_wrong(text, format, expected) -> None:
    assert defects(text, format) == expected


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format must be one of markdown, json, html, got 'latex'"):
        defects("x", "latex")
