"""A page that shows which tokens are trained on: every token with its id and position, and the totals of the data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lowrank.data.encoding.token_view import Shown, Token, Totals

from ..html.page import escape, render_page, table
from ..html.sections import show_share

_STYLE = """
.entry { margin: 3rem 0; } .entry .legend { margin-bottom: .75rem; }
.tokens { background: var(--wash); border-radius: .3rem; padding: 1rem 1.1rem; font-family: var(--sans);
  font-variant-numeric: tabular-nums; }
.token { display: inline-block; vertical-align: top; margin: 0 .3rem .55rem 0; font-size: .9375rem; line-height: 1.35;
  color: var(--soft); white-space: pre-wrap; overflow-wrap: anywhere; }
.token small { display: block; font-size: .6875rem; line-height: 1.3; color: var(--soft); }
.token b { font-weight: 400; display: block; border-bottom: 2px solid transparent; }
.token i { font-style: normal; opacity: .45; }
.learned b { font-weight: 600; color: var(--strong); border-bottom: 2px solid var(--strong); }
@media print { .tokens { padding: 0; } }
"""


@dataclass(frozen=True)
class TokenPage:
    """Contents of the page: source of the data (`about`: file, template, tokenizer), totals, rows."""

    about: Mapping[str, str]
    totals: Totals
    rows: Sequence[Shown]


def render(page: TokenPage) -> str:
    """The page as text to be written in UTF-8; the same arguments give the same bytes."""
    title = "What is trained, token by token"
    body = [
        f"<h1>{title}</h1>",
        *_lead(page.totals),
        *_totals(page.about, page.totals),
        *_rows(page.rows),
        *_left_out(page.totals),
    ]
    return render_page(title, _STYLE, body)


def _lead(totals: Totals) -> Iterator[str]:
    trained = totals.entries - len(totals.over_long)
    yield (
        f'<p class="lead">{trained:,} of {totals.entries:,} entries are trained on. Of their {totals.tokens:,} tokens '
        f"{show_share(totals.supervised_share)} are supervised: the model is asked to predict them. The others it is "
        "given.</p>"
    )


def _totals(about: Mapping[str, str], totals: Totals) -> Iterator[str]:
    figures = {
        "entries": f"{totals.entries:,}",
        f"left out: over {totals.max_tokens:,} tokens": f"{len(totals.over_long):,}",
        "tokens to train on": f"{totals.tokens:,}",
        "supervised": f"{totals.supervised:,}",
        "length of an entry, p50": f"{totals.p50:,}",
        "p95": f"{totals.p95:,}",
        "longest": f"{totals.longest:,}",
        f"rows of {totals.row_length:,} tokens when packed": f"{totals.rows:,}",
        "packing efficiency": show_share(totals.packing_efficiency),
    }
    caption = ", ".join(f"{name} {escape(value)}" for name, value in about.items())
    rows = [[name, value] for name, value in figures.items()]
    yield table(f"{caption[:1].upper()}{caption[1:]}. Lengths are in tokens.", ["what", "value"], rows, words=1)


def _left_out(totals: Totals) -> Iterator[str]:
    if totals.over_long:
        yield "<h2>Left out</h2>"
        rows = [[escape(id), f"{length:,}"] for id, length in totals.over_long.items()]
        caption = f"Entries of more than {totals.max_tokens:,} tokens are left out whole, never cut."
        yield table(caption, ["entry", "tokens"], rows, words=1)


def _rows(rows: Sequence[Shown]) -> Iterator[str]:
    if not rows:
        return
    yield "<h2>Tokens</h2>"
    yield (
        '<p class="legend">Under each token its id and, behind the dot, its position. '
        '<span class="learned"><b>Bold and underlined</b></span>: supervised. ▁ is a space, \\n a line break. Each '
        "segment is a text of its own: it sees no other, and its positions begin at 0.</p>"
    )
    for place, row in enumerate(rows, start=1):
        for number, entry in enumerate(row.entries):
            yield _segment(place, number, entry, row)


def _segment(place: int, number: int, entry: str, row: Shown) -> str:
    tokens = row.segment(number)
    supervised = sum(token.supervised for token in tokens)
    left_out = ", left out of training: too long" if row.left_out else ""
    cells = "".join(map(_token, tokens))
    return (
        f'<section class="entry">\n<h3>{escape(entry)}</h3>\n<p class="legend">Row {place}, segment {number}: '
        f"{len(tokens):,} tokens, {supervised:,} supervised{left_out}.</p>\n"
        f'<div class="tokens">{cells}</div>\n</section>'
    )


def _token(token: Token) -> str:
    """The piece over its id and position; a line ends where the text's does."""
    kind, role = ("token learned", "supervised") if token.supervised else ("token", "given")
    piece = escape(token.piece).replace("▁", "<i>▁</i>")
    ends_line = "<br>" if token.piece.endswith(("\\n", "<0x0A>")) else ""
    return (
        f'<span class="{kind}" title="{role}, segment {token.segment}"><b>{piece}</b>'
        f"<small>{token.id}·{token.position}</small></span>{ends_line}"
    )
