"""lowrank data documents, data mixture"""

import argparse
from pathlib import Path
from typing import Any

from . import data_mixture
from .arguments import add_verb


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs, "data", "make the data that hats learn from", "lowrank data documents data/ --n 100 --seed 7"
    )
    kinds = parser.add_subparsers(title="data sets", metavar="SET", required=True)
    documents = add_verb(
        kinds,
        "documents",
        "financial documents with their facts: train, validation and test, with disjoint names",
        "lowrank data documents data/ --n 1000 --seed 7",
    )
    documents.add_argument(
        "out", metavar="OUT", type=Path, help="folder for train.jsonl, validation.jsonl and test.jsonl"
    )
    documents.add_argument("--n", type=int, default=100, help="entries to train on (default: %(default)s)")
    documents.add_argument("--seed", type=int, default=7, help="default: %(default)s")
    documents.set_defaults(run=run_documents)
    data_mixture.add(kinds)


def run_documents(args: argparse.Namespace) -> int:
    """Writes the three files, every document checked against its facts first."""
    from ..data.documents import make_documents, write_jsonl
    from ..eval.faithfulness import check

    if args.n < 1:
        raise ValueError(f"--n must be at least 1, got {args.n}")
    args.out.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", args.n), ("validation", 50), ("test", 200)):
        entries = make_documents(count, seed=args.seed, split=split)
        for entry in entries:
            marks = check(entry, entry.output)
            assert marks.sections == marks.precision == marks.recall == marks.binding == 1, entry.id
        path = args.out / f"{split}.jsonl"
        write_jsonl(path, entries)
        print(f"{path}: {count} entries, every figure, section and label checked")
    return 0
