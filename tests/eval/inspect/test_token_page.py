"""The page of tokens: all of them there, in order, escaped, and nothing fetched."""

import re
from html.parser import HTMLParser

import pytest

from lowrank.data.documents.document import make_documents
from lowrank.data.encoding.batching import encode
from lowrank.data.encoding.packing import pack
from lowrank.data.encoding.token_view import Shown, Token, Totals, count, show
from lowrank.eval.inspect.token_page import TokenPage, render

ABOUT = {"file": "train.jsonl", "template": "alpaca, version 1"}
TOTALS = Totals(4, 300, {"long-1": 311}, 900, 450, 250, 300, 311, 300, 3, 1.0)


class Cells(HTMLParser):
    """The tokens of a page: (class, title, text), and the tags it uses."""

    def __init__(self, page):
        super().__init__()
        self.found, self.tags, self.text = [], set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        values = dict(attributes)
        if tag == "span" and values.get("class", "").startswith("token"):
            self.found.append([values["class"], values["title"], ""])

    def handle_data(self, data):
        self.text += data
        if self.found:
            self.found[-1][2] += data


def page(*rows):
    return render(TokenPage(ABOUT, TOTALS, rows))


@pytest.fixture(scope="module")
def packed(tokenizer):
    examples = [encode(entry.conversation, tokenizer, "alpaca") for entry in make_documents(4, seed=1, split="train")]
    return count(examples, 400, 800), [show(row, tokenizer) for row in pack(examples, 800)]


def test_every_token_is_there_with_its_id_position_label_and_segment(packed) -> None:
    totals, rows = packed
    cells = Cells(render(TokenPage(ABOUT, totals, rows))).found
    tokens = [token for row in rows for token in row.tokens]
    assert len(cells) == len(tokens) == totals.tokens
    for (kind, title, text), token in zip(cells, tokens, strict=True):
        assert text.startswith(f"{token.piece}{token.id}·{token.position}")
        assert title == f"{'supervised' if token.supervised else 'given'}, segment {token.segment}"
        assert ("learned" in kind) == token.supervised


def test_a_piece_or_an_id_cannot_be_markup() -> None:
    row = Shown(("<script>alert(1)</script>",), (Token('"><img src=x>&', 5, True, 0, 0),))
    text = page(row)
    assert not {"script", "img"} & Cells(text).tags
    assert "&lt;script&gt;" in text and "&quot;&gt;&lt;img src=x&gt;&amp;" in text


def test_the_page_fetches_nothing_and_follows_light_and_dark() -> None:
    text = page()
    assert not re.search(r"(src|href)=|url\(|@import|https?://", text)
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text


def test_totals_and_what_is_left_out_are_told() -> None:
    text = Cells(page()).text
    for told in ("3 of 4 entries", "900", "50.0%", "long-1", "311", "over 300 tokens", "alpaca, version 1"):
        assert told in text


def test_an_entry_that_is_left_out_says_so() -> None:
    row = Shown(("long-1",), (Token("<s>", 1, False, 0, 0),), left_out=True)
    assert "left out of training: too long" in page(row)
    assert "left out of training" not in page()
