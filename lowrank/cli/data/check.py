"""lowrank data check"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...data.imports.formats import FORMATS, Item, conversation, detect, read_items
from ..arguments import add_verb

if TYPE_CHECKING:
    from ...data.documents.document import Entry
    from ...data.imports.schema import Problem


def add(sets: Any) -> None:
    """The arguments of `lowrank data check`."""
    parser = add_verb(
        sets,
        "check",
        "say what is wrong with a file of examples, line by line; exit status 1 if anything is",
        "lowrank data check mine.jsonl --format alpaca",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="JSONL: our entries, Alpaca, ShareGPT or chat messages")
    parser.add_argument("--format", choices=list(FORMATS), help="default: told by the keys that most lines have")
    parser.add_argument("--json", action="store_true", help="print problems and notes as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints a line a problem and a line a note: a problem makes an example unusable, a note does not."""
    items = read_items(args.file)
    format = args.format or detect(items, str(args.file))
    problems_found: list[Problem] = []
    notes: list[tuple[int, str]] = []
    for item in items:
        wrong, entry = examine(format, item)
        problems_found += wrong
        if entry is not None:
            notes += [(item.line, note) for note in entry_notes(entry)]
    wrong_lines = len({problem.line for problem in problems_found})
    if args.json:
        counts = {"file": str(args.file), "format": format, "examples": len(items), "wrong": wrong_lines}
        noted = [{"line": line, "note": note} for line, note in notes]
        print(
            json.dumps({**counts, "problems": [vars(problem) for problem in problems_found], "notes": noted}, indent=2)
        )
    else:
        for problem in problems_found:
            print(f"{args.file}:{problem}")
        for line, note in notes:
            print(f"{args.file}:{line}: note: {note}")
        print(f"{args.file}: {format}, {len(items)} examples, {wrong_lines} wrong, {len(notes)} notes")
    return 1 if problems_found else 0


def examine(format: str, item: Item) -> "tuple[list[Problem], Entry | None]":
    """The problems of an example; and if there are none and it is one of our entries, that entry."""
    from ...data.documents.document import Entry
    from ...data.imports.schema import problem_of, problems

    if wrong := problems(format, item):
        return wrong, None
    try:
        if format == "entry":
            return [], Entry.from_json(item.data, "$")
        conversation(format, item.data, "")
    except ValueError as error:
        return [problem_of(item.line, error)], None
    return [], None


def entry_notes(entry: "Entry") -> Iterator[str]:
    """The findings of `consistency` on an entry, and each share of its document's check that is below 1."""
    from ...data.documents.consistency import findings
    from ...eval.metrics.faithfulness import check

    yield from findings(entry)
    marks = check(entry, entry.output)
    for name in ("sections", "precision", "recall", "binding"):
        if (share := getattr(marks, name)) is not None and share < 1:
            yield f"output: {name} {share:.2f} of 1"
    yield from strange_figures(entry)


def strange_figures(entry: "Entry") -> Iterator[str]:
    """The figures of an entry's document that state none of its facts, in one line, if there are any."""
    from ...eval.metrics.faithfulness import check

    strange = [figure.text for figure in check(entry, entry.output).figures if not figure.right]
    if strange:
        yield f"output: figures that are not in the facts: {', '.join(strange)}"
