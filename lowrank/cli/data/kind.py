"""lowrank data kind: a kind of document of one's own, as a file"""

import argparse
from pathlib import Path
from typing import Any

from ..arguments import add_verb, refuse_existing
from ..kinds import chosen_kind


def add(sets: Any) -> None:
    """The arguments of `lowrank data kind`."""
    parser = add_verb(
        sets,
        "kind",
        "a kind of document of your own: drafted from documents of it, and checked",
        "lowrank data kind new letters.jsonl letter.toml",
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    new = add_verb(
        verbs,
        "new",
        "draft the file of a kind from documents with their facts, sixty or so: fields, formulas, sections, wordings",
        "lowrank data kind new letters/ letter.toml --table companies.csv",
    )
    new.add_argument("documents", metavar="FILE", type=Path, help="what `lowrank data import` takes, or entries")
    new.add_argument("out", metavar="OUT.toml", type=Path, help="the file to write; one that is there stays as it is")
    new.add_argument("--table", type=Path, help="CSV, XLSX or JSON of the facts, if FILE is a folder of letters")
    new.add_argument("--name", help="of the kind (default: that of OUT)")
    new.add_argument("--instruction", help="what asks for a document whose row does not say it")
    new.set_defaults(run=run_new)
    check = add_verb(verbs, "check", "say what is wrong with the file of a kind", "lowrank data kind check letter.toml")
    check.add_argument("file", metavar="FILE.toml", type=Path)
    check.set_defaults(run=run_check)
    sample = add_verb(
        verbs,
        "sample",
        "write invented documents of a kind, and a table of their facts: to see what its file says, or to practise",
        "lowrank data kind sample letter.toml practice --n 60 --format docx",
    )
    sample.add_argument("kind", metavar="FILE.toml", help="the file of a kind whose fields have rules, or credit_memo")
    sample.add_argument("out", metavar="OUT", type=Path, help="a new folder, for `letters/` and facts.csv")
    sample.add_argument("--n", type=int, default=60, help="documents (default: %(default)s)")
    sample.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    sample.add_argument("--format", choices=("md", "docx"), default="md", help="default: %(default)s")
    sample.set_defaults(run=run_sample)


def run_new(args: argparse.Namespace) -> int:
    """Writes the draft, and says what was understood and what was not."""
    from ...atomic_io import write_text
    from ...data.documents.kind_file import kind_of_text
    from ...data.drafting.draft import Example, draft_kind
    from ...data.imports.examples import summary
    from ...data.imports.importing import read_documents

    if args.out.exists():
        raise ValueError(
            f"{args.out}: is there already, and a draft must not replace what was edited: name another file"
        )
    found = read_documents(args.documents, instruction=args.instruction, table=args.table)
    for line in summary(found.faults, "left out: "):
        print(f"{args.documents}:{line}")
    examples = [Example(document.instruction, document.record, document.text) for document in found.documents]
    if not examples:
        raise ValueError(f"{args.documents}: must hold at least one document with facts, got none of {found.rows}")
    draft = draft_kind(examples, args.name or args.out.stem.replace("-", "_").lower())
    kind_of_text(draft.text, str(args.out))  # what is drafted can be read
    write_text(args.out, draft.text)
    for line in draft.unclear:
        print(f"not understood: {line}")
    print(
        f"{args.out}: {draft.fields} fields, {draft.formulas} of them by a formula, {draft.sections} sections with "
        f"{draft.sentences} sentences, from {len(examples)} documents; {len(draft.unclear)} things not understood"
    )
    return 1 if found.faults else 0


def run_sample(args: argparse.Namespace) -> int:
    """Writes the folder whole, or not at all."""
    from ...atomic_io import new_folder
    from ...data.documents.facts_record import known_kind
    from ...data.documents.samples import as_csv, sample_documents
    from ...writing.docx_file import docx_bytes
    from ...writing.file_names import file_names

    refuse_existing(args.out, overwrite=False)
    kind = known_kind(chosen_kind(args.kind, ()))
    samples = sample_documents(kind, args.n, seed=args.seed)
    with new_folder(args.out) as folder:
        (folder / "letters").mkdir()
        (folder / "facts.csv").write_text(as_csv(kind, samples), encoding="utf-8", newline="\n")
        for name, sample in zip(file_names([sample.name for sample in samples]), samples, strict=True):
            path = folder / "letters" / f"{name}.{args.format}"
            path.write_bytes(docx_bytes(sample.text, kind.title) if args.format == "docx" else sample.text.encode())
    print(f"{args.out}: {len(samples)} letters and the table of their facts, facts.csv")
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Reads the file, and says what is in it."""
    from ...data.documents.kind_file import read_kind

    kind = read_kind(args.file)
    derived = sum(isinstance(field.source, str) for field in kind.fields.values())
    print(
        f"{args.file}: {kind.name}, {len(kind.fields)} fields, {derived} of them by a formula, "
        f"{len(kind.sections)} sections"
    )
    return 0
