"""lowrank data documents, and the parser of `lowrank data`, whose other verbs are the rooms data_*"""

import argparse
from itertools import chain
from pathlib import Path
from typing import Any

from ..arguments import add_verb
from . import check as data_check
from . import import_examples, kind, mixture, show, spoil


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "data",
        "make, check and look at the data that hats learn from",
        "lowrank data documents --n 100 --seed 7",
    )
    kinds = parser.add_subparsers(title="data sets", metavar="SET", required=True)
    documents = add_verb(
        kinds,
        "documents",
        "financial documents with their facts: train, validation and test, with disjoint names and ranges",
        "lowrank data documents --n 1000 --seed 7",
    )
    documents.add_argument(
        "out",
        metavar="OUT",
        type=Path,
        nargs="?",
        default=Path("data/documents"),
        help="folder for train.jsonl, validation.jsonl, test.jsonl and their manifest (default: %(default)s)",
    )
    documents.add_argument("--n", type=int, default=100, help="entries to train on (default: %(default)s)")
    documents.add_argument("--seed", type=int, default=7, help="default: %(default)s")
    documents.add_argument(
        "--hold-out", metavar="KIND", help="train on the other nine kinds and test on this one alone"
    )
    documents.set_defaults(run=run_documents)
    mixture.add(kinds)
    data_check.add(kinds)
    import_examples.add(kinds)
    kind.add(kinds)
    show.add(kinds)
    spoil.add(kinds)


def run_documents(args: argparse.Namespace) -> int:
    """Writes the three files and their manifest, every document checked against its facts first."""
    from ...data.documents.document_set import document_splits, write_document_set
    from ...eval.metrics.faithfulness import check

    if args.n < 1:
        raise ValueError(f"--n must be at least 1, got {args.n}")
    splits = document_splits(args.n, seed=args.seed, hold_out=args.hold_out)
    for entry in chain.from_iterable(splits.values()):
        marks = check(entry, entry.output)
        assert marks.sections == marks.precision == marks.recall == marks.binding == 1, (entry.id, marks)
    manifest = write_document_set(args.out, splits, seed=args.seed, hold_out=args.hold_out)
    for name, about in manifest["output"].items():
        print(f"{args.out / name}: {about['entries']} entries, every figure, section and label checked")
    return 0
