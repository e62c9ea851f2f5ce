"""lowrank data import"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...data.imports.formats import FOREIGN, detect, read_items
from ..arguments import add_verb
from .check import examine, strange_figures

if TYPE_CHECKING:
    from ...data.documents.document import Entry


def add(sets: Any) -> None:
    """The arguments of `lowrank data import`."""
    parser = add_verb(
        sets,
        "import",
        "turn a file of Alpaca, ShareGPT or chat examples into entries with facts",
        "lowrank data import gpt.json mine.jsonl --kind custom",
    )
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="JSONL or a JSON array; inputs have `label: value` lines"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="the JSONL of entries to write")
    parser.add_argument("--format", choices=FOREIGN, help="default: told by the keys that most examples have")
    parser.add_argument(
        "--kind", help='what an example is whose instruction names none of our kinds (default: "custom")'
    )
    parser.add_argument("--license", default="unspecified", help="of the examples (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the entries, and says per line what was left out, and which figures of a document are in no fact."""
    from ...data.documents.document import write_jsonl
    from ...data.imports.importing import import_entry
    from ...data.imports.schema import problem_of

    items = read_items(args.file)
    format = args.format or detect(items, str(args.file))
    if format not in FOREIGN:
        raise ValueError(f"{args.file}: must be one of {', '.join(FOREIGN)}, got entries, which need no import")
    entries: list[Entry] = []
    for item in items:
        wrong, _ = examine(format, item)
        if not wrong:
            try:
                entry = import_entry(format, item.data, len(entries), kind=args.kind, license=args.license)
            except ValueError as error:
                wrong = [problem_of(item.line, error)]
            else:
                entries.append(entry)
                for note in strange_figures(entry):
                    print(f"{args.file}:{item.line}: note: {note}")
        for problem in wrong:
            print(f"{args.file}:{problem}; left out")
    if not entries:
        raise ValueError(f"{args.file}: must hold at least one example with facts, got none of {len(items)}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(args.out, entries)
    left_out = len(items) - len(entries)
    print(f"{args.out}: {len(entries)} entries of {len(items)} examples, {left_out} left out")
    return 1 if left_out else 0
