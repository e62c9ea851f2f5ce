"""lowrank adapter reduce"""

import argparse
from pathlib import Path
from typing import Any

from ..arguments import add_overwrite, add_verb, refuse_existing
from .account import print_worked


def add(work: Any) -> None:
    """The arguments of `lowrank adapter reduce`."""
    parser = add_verb(
        work,
        "reduce",
        "the best hat of a lower rank, and how far it is from the whole",
        "lowrank adapter reduce runs/finance/hat smaller --rank 4",
    )
    parser.add_argument("adapter", metavar="HAT", type=Path, help="the hat, as PEFT's files")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    add_size(parser)
    add_overwrite(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=run)


def add_size(parser: argparse.ArgumentParser) -> None:
    """--rank or --energy"""
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--rank", type=int, help="of every linear")
    size.add_argument("--energy", type=float, help="the share of the sum of s^2 that each linear keeps, such as 0.99")


def run(args: argparse.Namespace) -> int:
    """Writes the hat and prints its error."""
    from ...adapters.algebra.reduce import reduce_rank

    refuse_existing(args.out, args.overwrite)
    print_worked(reduce_rank(args.adapter, args.out, rank=args.rank, energy=args.energy), args.json)
    return 0
