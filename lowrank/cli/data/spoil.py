"""lowrank data spoil"""

import argparse
from pathlib import Path

from ..arguments import add_verb, file_to_write


def add(sets: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]  # argparse names no public type
    """The arguments of `lowrank data spoil`."""
    parser = add_verb(
        sets,
        "spoil",
        "preferences out of entries: each document, chosen, beside the same with some figures spoiled, rejected",
        "lowrank data spoil data/documents/train.jsonl preferences.jsonl",
    )
    parser.add_argument("file", metavar="ENTRIES", type=Path, help="entries with typed facts, such as train.jsonl")
    parser.add_argument("out", metavar="OUT.jsonl", type=file_to_write, help="a file for a recipe with preference.loss")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the preferences, and says how many of each way of spoiling there are."""
    from collections import Counter

    from ...data.documents.document import read_jsonl
    from ...data.documents.spoiled import preference_row, spoiled_preferences
    from ...data.jsonl import write_lines

    preferences = list(spoiled_preferences(read_jsonl(args.file), args.seed))
    if not preferences:
        raise ValueError(f"{args.file}: its documents have no figure, date or period of their facts to spoil")
    write_lines(args.out, (preference_row(preference) for preference in preferences))
    ways = Counter(preference.id.rpartition(":")[2] for preference in preferences)
    print(f"{args.out}: {len(preferences)} preferences: {', '.join(f'{n} by {way}' for way, n in ways.items())}")
    return 0
