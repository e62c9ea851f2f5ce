"""lowrank reproduce"""

import argparse
import json
from pathlib import Path
from typing import Any

from ..text_table import table
from .arguments import add_recipe_words, add_verb, recipe_words
from .flags import flags_in_errors


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "reproduce",
        "the write-up in one command: both hats, on 4 bit and on full precision, its claims beside ours",
        "lowrank reproduce llama-2-7b --mixture data/mixture/train.jsonl --from data/mixture --device cuda",
    )
    add_recipe_words(
        parser,
        "BASE|table.key=value",
        'folder of full-precision weights, or "embedded"; overrides are put over both training runs',
    )
    parser.add_argument(
        "--mixture",
        type=Path,
        metavar="FILE",
        required=True,
        help="what the second hat learns from: train.jsonl of `lowrank data mixture`, or a stand-in of your own",
    )
    parser.add_argument(
        "--from", dest="public", type=Path, metavar="DIR", help="where the public sets are, to test on them too"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce"), help="folder to write (%(default)s)")
    parser.add_argument("--full", choices=("fp32", "bf16", "fp16"), help="the full precision (default: bf16)")
    parser.add_argument("--n", type=int, default=20, help="test documents (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="where to compute: cpu (default), cuda, cuda:1 ...")
    parser.add_argument("--json", action="store_true", help="print reproduce.json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains, evaluates, and prints each claim, then both answers of the grid."""
    from ..eval.grid.comparison import QUESTIONS
    from ..eval.grid.report import answer_rows
    from ..eval.grid.score_table import score_table
    from ..workflows.reproduce import reproduce

    if args.n < 1:
        raise ValueError(f"--n must be at least 1, got {args.n}")
    base, overrides = recipe_words(args.words)
    if base is None:
        raise ValueError('name the base: a folder of full-precision weights, or "embedded"')
    with flags_in_errors(
        {"mixture: ": "--mixture: ", "public sets in ": "--from ", "name another state folder": "name a new --out"}
    ):
        found = reproduce(
            base,
            args.mixture,
            args.out,
            public_sets=args.public,
            full=args.full,
            overrides=overrides,
            n=args.n,
            device=args.device,
            progress=not args.json,
        )
    if args.json:
        print(json.dumps(json.loads((args.out / "reproduce.json").read_text(encoding="utf-8")), indent=2))
        return 0
    for claim in found.claims:
        print(f"{claim.what}\n    the write-up: {claim.theirs}")
        for name, value in (("its shapes", claim.ours), ("found here", claim.found), ("verdict", claim.verdict)):
            if value:
                print(f"    {name}: {value}")
    for name, cells in found.report.tasks.items():
        print(f"\n{name}, n = {len(cells[0].outputs)}\n{score_table(cells)}")
    for question, title in QUESTIONS.items():
        if rows := answer_rows(found.report.comparisons, question):
            print(f"\n{title}:")
            print(table(rows, ("task", "hat", "weights", "measure", "difference", "95 % interval", "")))
    print(f"\n{args.out / 'reproduce.html'} has every document side by side.")
    return 0
