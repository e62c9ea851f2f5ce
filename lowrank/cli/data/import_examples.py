"""lowrank data import"""

import argparse
from pathlib import Path
from typing import Any

from ...data.imports.formats import FOREIGN
from ..arguments import add_verb
from .check import strange_figures


def add(sets: Any) -> None:
    """The arguments of `lowrank data import`."""
    parser = add_verb(
        sets,
        "import",
        "turn examples that others wrote, or letters beside a table, into entries with facts",
        "lowrank data import gpt.json mine.jsonl --kind letter.toml",
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="JSONL, JSON, CSV, XLSX or Parquet, whose inputs have `label: value` lines or whose facts are an object; "
        "or a folder of letters (Markdown, text, DOCX)",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="the JSONL of entries to write")
    parser.add_argument("--table", type=Path, help="CSV, XLSX or JSON of the facts, a row a letter of the folder")
    parser.add_argument("--format", choices=FOREIGN, help="default: told by the keys that most examples have")
    parser.add_argument(
        "--kind",
        help="the file of a kind, FILE.toml, that all are of; or the name of what an instruction does not tell"
        ' (default: "custom")',
    )
    parser.add_argument("--instruction", help="what asks for a document whose row does not say it")
    parser.add_argument("--license", default="unspecified", help="of the examples (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the entries, and says what was left out, and which figures of a document are in no fact."""
    from ...data.documents.document import write_jsonl
    from ...data.documents.kind_file import read_kind
    from ...data.documents.kinds import add_kind
    from ...data.imports.examples import Fault, summary
    from ...data.imports.importing import import_documents, read_documents
    from ...eval.metrics.faithfulness import check

    kind, instruction = args.kind, args.instruction
    if kind is not None and kind.endswith(".toml"):
        own = read_kind(kind)
        add_kind(own)
        kind, instruction = own.name, instruction or own.instruction()
    found = read_documents(args.file, format=args.format, instruction=instruction, table=args.table)
    if found.format == "entry":
        raise ValueError(f"{args.file}: must be one of {', '.join(FOREIGN)}, got entries, which need no import")
    imported = import_documents(found, kind=kind, license=args.license)
    notes = list(imported.notes)
    for place, entry in zip(imported.places, imported.entries, strict=True):
        notes += (Fault.of(place, ValueError(note)) for note in strange_figures(check(entry, entry.output)))
    for line in (*summary(notes, "note: "), *summary(imported.faults, "left out: ")):
        print(f"{args.file}:{line}")
    if not imported.entries:
        raise ValueError(f"{args.file}: must hold at least one example with facts, got none of {imported.rows}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(args.out, imported.entries)
    left_out = len(imported.faults)
    print(f"{args.out}: {len(imported.entries)} entries of {imported.rows} examples, {left_out} left out")
    return 1 if left_out else 0
