"""A page that needs no network, no script and no font of its own: its frame, tables, and the style all pages share."""

import html
from collections.abc import Iterable, Sequence

Rows = tuple[Sequence[str], Sequence[Sequence[str]]]  # of a table: head, rows
LIGHT = {
    "paper": "#fdfcf9",
    "ink": "#1e1f21",
    "soft": "#5a5b5f",
    "rule": "#dcd8cf",
    "wash": "#f5f2ea",
    "strong": "#24558a",
    "plain": "#8b887f",
    "right": "#17633a",
    "loose": "#8a5a00",
    "wrong": "#a3231f",
}
DARK = {
    "paper": "#17191c",
    "ink": "#e7e4dd",
    "soft": "#a6a59f",
    "rule": "#363a3f",
    "wash": "#1f2226",
    "strong": "#82b1e2",
    "plain": "#85878b",
    "right": "#7fcb9b",
    "loose": "#e3b341",
    "wrong": "#f4938d",
}
_VISIBLE = (
    {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
    | {0x7F: 0x2421}
    | dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF], 0xFFFD)
)


def _properties(palette: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in palette.items())


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = (
    f"""
:root {{ {_properties(LIGHT)}
  --serif: "Iowan Old Style", "Palatino Linotype", Palatino, Charter, Georgia, "Liberation Serif", serif;
  --sans: system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans", sans-serif; }}
@media (prefers-color-scheme: dark) {{ :root {{ {_properties(DARK)} }} }}
"""
    + """* { box-sizing: border-box; overflow-wrap: break-word; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1.0625rem/1.6 var(--serif); }
main { max-width: 72rem; margin: 0 auto; padding: clamp(2rem, 6vw, 5rem) clamp(1rem, 4vw, 2rem) 5rem; }
main > p, main > ul, main > .scroll, .words { max-width: 46rem; }
h1, h2, h3 { line-height: 1.2; font-weight: 600; text-wrap: balance; }
h1 { font-size: clamp(1.8rem, 5vw, 2.5rem); margin: 0 0 1.5rem; letter-spacing: -.01em; }
h2 { font-size: 1.45rem; margin: 4rem 0 1rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1.15rem; margin: 0 0 .25rem; }
p { margin: 0 0 1rem; }
.lead { font-size: 1.25rem; line-height: 1.5; text-wrap: pretty; }
.notes { padding-left: 1.1rem; color: var(--soft); }
.notes li { margin-bottom: .35rem; }
caption, .legend { color: var(--soft); font-size: .9375rem; line-height: 1.5; }
.scroll { overflow-x: auto; margin: 1.5rem 0; }
table { border-collapse: collapse; width: 100%; font: .9375rem/1.4 var(--sans); font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .5rem; font-family: var(--serif); }
th, td { padding: .4rem .75rem .4rem 0; text-align: left; vertical-align: top; border-top: 1px solid var(--rule); }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--soft); vertical-align: bottom; border-top: 0; border-bottom: 1px solid var(--ink); }
thead + tbody tr:first-child > * { border-top: 0; }
th { font-weight: 600; } tbody th { font-weight: 400; }
.number { text-align: right; } td.number { white-space: nowrap; }
.words th, .words td { overflow-wrap: anywhere; } .words thead th { overflow-wrap: normal; }
@media (max-width: 34rem) { body { font-size: 1rem; } .lead { font-size: 1.125rem; } }
@media print { :root { --paper: #fff; --ink: #000; --soft: #444; --rule: #bbb; --wash: #fff; --strong: #24558a;
    --plain: #888; --right: #17633a; --loose: #8a5a00; --wrong: #a3231f; } main { max-width: none; padding: 0; }
  tr { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""
)


def visible(text: str) -> str:
    """The text as any file can hold it, whatever a model wrote.

    Control characters become their pictures (U+2400 on), and code points that UTF-8 cannot encode the replacement
    character; so do those that XML has not.
    """
    return text.translate(_VISIBLE)


def escape(text: str) -> str:
    """The text as HTML shows it, also inside a quoted attribute; what no file can hold is made `visible`."""
    return html.escape(visible(text), quote=True)


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], words: int) -> str:
    """A table of ready HTML cells: the first `words` columns hold words, the others numbers."""
    kinds = [""] * words + [' class="number"'] * (len(head) - words)
    names = "".join(f'<th scope="col"{kind}>{name}</th>' for kind, name in zip(kinds, head, strict=True))
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds[1:], others, strict=True))
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    body = "\n".join(lines)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}">\n'
        f"<table>\n<caption>{caption}</caption>\n"
        f"<thead><tr>{names}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def render_page(title: str, style: str, body: Iterable[str]) -> str:
    """A whole page, to be written in UTF-8; `style` follows the shared CSS, `body` is ready HTML, one part a line."""
    return _PAGE.format(title=escape(title), style=_STYLE + style, body="\n".join(body))
