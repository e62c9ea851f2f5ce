"""lowrank adapter extract"""

import argparse
from pathlib import Path
from typing import Any

from ..arguments import add_overwrite, add_verb, refuse_existing
from .account import print_worked
from .reduce import add_size


def add(work: Any) -> None:
    """The arguments of `lowrank adapter extract`."""
    parser = add_verb(
        work,
        "extract",
        "a hat out of two checkpoints: what training has added to a base, as far as a rank holds it",
        "lowrank adapter extract llama-2-7b llama-2-7b-tuned hat --rank 64 --sketch",
    )
    parser.add_argument("base", metavar="BASE", help='folder of weights, a GGUF file, or "embedded"')
    parser.add_argument("tuned", metavar="TUNED", help="the same after training, all of it")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    add_size(parser)
    parser.add_argument(
        "--sketch", action="store_true", help="with --rank: from products with random vectors, in place of SVDs"
    )
    add_overwrite(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the hat, prints its error and what a hat cannot hold."""
    from ...adapters.algebra.extract import extract_adapter

    refuse_existing(args.out, args.overwrite)
    found = extract_adapter(
        args.base,
        args.tuned,
        args.out,
        rank=args.rank,
        energy=args.energy,
        sketch=args.sketch,
        progress=not args.json,
    )
    print_worked(found.adapter, args.json, {"left_out": found.left_out})
    if found.left_out and not args.json:
        name, change = max(found.left_out.items(), key=lambda item: item[1])
        print(
            f"{len(found.left_out)} other parameters differ, which no hat holds: {name} most, by {change:.1e} of itself"
        )
    return 0
