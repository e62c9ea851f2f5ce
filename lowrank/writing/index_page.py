"""The page of a folder of documents: each with its files, its audit and the counts of its figures."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from ..eval.html.page import escape, render_page

STYLE = """
main { max-width: 80rem; } main > .scroll { max-width: none; } a { color: var(--strong); }
.wrong { color: var(--wrong); font-weight: 600; } .loose { color: var(--loose); }
td a { white-space: nowrap; }
"""
WORDS = ("document", "files", "audit")
COUNTS = {
    "figures": "figures",
    "right": "right",
    "other_name": "other name",
    "not_in_the_facts": "not in the facts",
    "not_understood": "not understood",
    "facts_not_used": "facts not used",
    "facts_not_understood": "facts not understood",
    "sections_missing": "sections missing",
}


def render_index(summary: Mapping[str, Any]) -> str:
    """The page of a summary (`Job.summarize`), to be written in UTF-8."""
    head = ['<th scope="col" class="number">#</th>', *(f'<th scope="col">{name}</th>' for name in WORDS)]
    head += [f'<th scope="col" class="number">{name}</th>' for name in COUNTS.values()]
    head.append('<th scope="col">ended by</th>')
    lead = f"{summary['finished']} of {summary['records']} documents. {totals(summary)}"
    body = [
        "<h1>Documents</h1>",
        f'<p class="lead">{escape(lead)}.</p>',
        *_notes(summary["notes"]),
        f'<div class="scroll"><table>\n<thead><tr>{"".join(head)}</tr></thead>\n<tbody>',
        *(_row(row) for row in summary["documents"]),
        "</tbody>\n</table></div>",
        "<h2>The job</h2>",
        '<div class="scroll words"><table><tbody>',
        *(
            f'<tr><th scope="row">{escape(key.replace("_", " "))}</th><td>{escape(_plain(value))}</td></tr>'
            for key, value in summary["job"].items()
        ),
        "</tbody></table></div>",
    ]
    return render_page("Documents", STYLE, body)


def totals(summary: Mapping[str, Any]) -> str:
    """ "84 figures: 84 in the facts, 82 under their own name; 3 facts not used; nothing that was not understood" """
    counts = summary["counts"]
    if not counts:
        return "nothing was written"
    figures = f"{counts['figures']} figure{'' if counts['figures'] == 1 else 's'}"
    parts = [
        f"{figures}: {counts['right'] + counts['other_name']} in the facts, {counts['right']} under their own name",
        f"{counts['facts_not_used']} fact{'' if counts['facts_not_used'] == 1 else 's'} not used",
    ]
    unclear = counts["not_understood"] + counts["facts_not_understood"]
    parts.append(f"{unclear} not understood" if unclear else "nothing that was not understood")
    return "; ".join(parts)


def _row(row: Mapping[str, Any]) -> str:
    links = " ".join(_link(name, name.rpartition(".")[2]) for name in row["files"][:-1])
    cells = "".join(_count(key, row["counts"][key]) for key in COUNTS)
    audit = f"{_link(row['files'][-1], 'page')} {_link(row['audit'], 'JSON')}"
    return (
        f'<tr><td class="number">{row["number"]}</td><th scope="row">{escape(row["name"])}</th><td>{links}</td>'
        f"<td>{audit}</td>{cells}<td>{escape(row['end'])}</td></tr>"
    )


def _count(key: str, number: int) -> str:
    kind = ""
    if number and key in ("not_in_the_facts", "not_understood", "sections_missing", "facts_not_understood"):
        kind = " wrong"
    elif number and key in ("other_name", "facts_not_used"):
        kind = " loose"
    return f'<td class="number{kind}">{number}</td>'


def _link(name: str, shown: str) -> str:
    return f'<a href="{escape(quote(f"./{name}"))}">{escape(shown)}</a>'


def _notes(notes: list[str]) -> Iterator[str]:
    if notes:
        yield f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>'


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    return "none" if value is None else str(value)
