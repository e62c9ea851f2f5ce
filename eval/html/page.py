"""A page that needs no network, no script and no font of its own: its frame, and the look that every page shares."""

from collections.abc import Iterable

from .charts import escape

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

_STYLE = """
:root { --paper: #fdfcf9; --ink: #1e1f21; --soft: #5a5b5f; --rule: #dcd8cf; --wash: #f5f2ea;
  --strong: #24558a; --plain: #8b887f; --right: #17633a; --wrong: #a3231f;
  --serif: "Iowan Old Style", "Palatino Linotype", Palatino, Charter, Georgia, "Liberation Serif", serif;
  --sans: system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans", sans-serif; }
@media (prefers-color-scheme: dark) { :root { --paper: #17191c; --ink: #e7e4dd; --soft: #a6a59f; --rule: #363a3f;
  --wash: #1f2226; --strong: #82b1e2; --plain: #85878b; --right: #7fcb9b; --wrong: #f4938d; } }
* { box-sizing: border-box; overflow-wrap: break-word; }
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
    --plain: #888; --right: #17633a; --wrong: #a3231f; } main { max-width: none; padding: 0; }
  tr { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""


def render_page(title: str, style: str, body: Iterable[str]) -> str:
    """The page, to be written in UTF-8. `style` comes behind the shared one; `body` is ready HTML, a part a line."""
    return _PAGE.format(title=escape(title), style=_STYLE + style, body="\n".join(body))
