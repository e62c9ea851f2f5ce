"""lowrank data check"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ...data.encoding.template import DEFAULT, NAMES
from ...data.imports.formats import FORMATS
from ..arguments import add_verb
from ..kinds import given_kind
from .show import MAX_TOKENS, find_tokenizer

if TYPE_CHECKING:
    from ...data.documents.document import Entry
    from ...data.imports.examples import Examples, Fault
    from ...eval.metrics.faithfulness import Check
    from ...model.tokenizer import Tokenizer


def add(sets: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]  # argparse names no public type
    """The arguments of `lowrank data check`."""
    parser = add_verb(
        sets,
        "check",
        "say what `lowrank train` would refuse in a file, a line a kind of fault; exit status 1 if anything",
        "lowrank data check mine.jsonl --template llama2-chat --tokenizer llama-2-7b",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="JSONL, JSON, CSV, XLSX or Parquet")
    parser.add_argument("--format", choices=list(FORMATS), help="default: told by the keys that most rows have")
    parser.add_argument("--template", default=DEFAULT, choices=NAMES, help="default: %(default)s")
    parser.add_argument(
        "--tokenizer", default="embedded", metavar="T", help='tokenizer.model, its folder, or "embedded" (default)'
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        default=MAX_TOKENS,
        metavar="N",
        help="longer entries are left out (default: %(default)s)",
    )
    parser.add_argument(
        "--preference", action="store_true", help="of a file for a recipe with preference.loss: chosen and rejected"
    )
    parser.add_argument("--kind", metavar="FILE.toml", help="the kind of entries that are of one's own")
    parser.add_argument("--json", action="store_true", help="print every fault and note as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints a line a kind of fault and of note: a fault makes a row unusable, a note does not."""
    from ...data.imports.examples import read_examples, summary

    given_kind(args.kind)
    read = read_examples(args.file, args.template, args.format, is_preference=args.preference)
    too_long, is_refused = lengths(read, find_tokenizer(args.tokenizer), args.template, args.max_tokens)
    notes = [*too_long, *row_notes(read)]
    if args.json:
        print(json.dumps(to_json(read, notes, is_refused), indent=2))
    else:
        lines = [f"{args.file}:{line}" for line in summary(read.faults)]
        lines += [f"{args.file}:{line}" for line in summary(notes, "note: ")]
        if is_refused:
            lines.append(f"{args.file}: none of {len(too_long)} entries has at most {args.max_tokens} tokens")
        counts = f"{read.rows} examples, {len(read.faults)} wrong, {len(notes)} notes"
        print("\n".join([*lines, f"{args.file}: {read.format}, {counts}"]))
    return 1 if read.faults or is_refused else 0


def to_json(read: "Examples", notes: "list[Fault]", is_refused: bool) -> dict[str, object]:
    """The object that --json prints."""
    return {
        "file": str(read.path),
        "format": read.format,
        "examples": read.rows,
        "wrong": len(read.faults),
        "all_too_long": is_refused,
        "problems": [asdict(fault) for fault in read.faults],
        "notes": [asdict(note) for note in notes],
    }


def lengths(read: "Examples", tokenizer: "Tokenizer", template: str, max_tokens: int) -> "tuple[list[Fault], bool]":
    """A note for each entry that training leaves out, and if it leaves out all and so refuses the file."""
    from ...data.encoding.batching import encode, longest_sequence
    from ...data.imports.examples import Fault

    sizes = [longest_sequence(encode(conversation, tokenizer, template)) for conversation in read.conversations]
    notes = [
        Fault(place, f"must have at most {max_tokens} tokens to be learned", str(size))
        for place, size in zip(read.places, sizes, strict=True)
        if size > max_tokens
    ]
    return notes, bool(sizes) and len(notes) == len(sizes)


def row_notes(read: "Examples") -> "Iterator[Fault]":
    """Notes that keep no row from being learned: keys that are not read, rows twice over, doubtful facts."""
    from ...data.imports.examples import Fault

    for key, count in read.unread.items():
        yield Fault("1", f"nothing is learned from the key {key!r}", f"{count} row{'s' if count > 1 else ''} with it")
    seen: Counter[object] = Counter()
    for place, conversation in zip(read.places, read.conversations, strict=True):
        seen[content := (conversation.system, conversation.turns, conversation.rejected)] += 1
        if seen[content] == 2:
            yield Fault(place, "a row that is there twice is learned twice")
    for place, entry in read.entries.items():
        yield from (Fault.of(place, ValueError(note)) for note in entry_notes(entry))


def entry_notes(entry: "Entry") -> Iterator[str]:
    """The findings of `consistency` on an entry, and which sections, figures and facts of its document are wrong."""
    from ...data.documents.consistency import findings
    from ...eval.metrics.faithfulness import check

    yield from findings(entry)
    marks = check(entry, entry.output)
    if marks.sections not in (None, 1.0):
        yield f"output: must have each of its required sections, with a text, got {marks.sections:.0%} of them"
    yield from strange_figures(marks)
    if unbound := [f"{figure.text} ({figure.fact})" for figure in marks.figures if figure.right and not figure.bound]:
        yield f"output: each figure must stand under its own label, got {', '.join(unbound)}"
    stated = {figure.fact for figure in marks.figures}
    if missing := [key for key, fact in entry.facts.items() if fact.required and fact.is_figure and key not in stated]:
        yield f"output: each figure of the facts must be stated, got none for {', '.join(missing)}"


def strange_figures(marks: "Check") -> Iterator[str]:
    """The figures of a checked document that state none of its facts, in one line, if there are any."""
    strange = [figure.text for figure in marks.figures if not figure.right]
    if strange:
        yield f"output: each figure must be in the facts, got {', '.join(strange)}"
