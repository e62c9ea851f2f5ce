"""lowrank adapter mix"""

import argparse
from pathlib import Path
from typing import Any

from ..arguments import add_force, add_overwrite, add_verb, refuse_existing
from .account import print_worked

METHODS_HELP = (
    "svd (default): the best product of a rank for the weighted sum; cat: the sum itself, ranks add up; linear, "
    "magnitude_prune, ties, dare_linear, dare_ties: A and B each by itself; the last four also with _svd: of the deltas"
)


def add(work: Any) -> None:
    """The arguments of `lowrank adapter mix`."""
    parser = add_verb(
        work,
        "mix",
        "several hats as one, by PEFT's methods, with the distance of the result from their weighted sum",
        "lowrank adapter mix mixed runs/finance/hat=0.7 runs/letters/hat=0.3 --method ties --density 0.5",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument(
        "adapters", metavar="HAT[=WEIGHT]", nargs="+", type=weighted, help="folders; a weight left out is 1"
    )
    parser.add_argument("--method", default="svd", help=METHODS_HELP)
    parser.add_argument("--rank", type=int, help="of svd methods (default: the largest of the hats')")
    parser.add_argument("--density", type=float, help="of methods that prune: the share of the numbers that stays")
    parser.add_argument(
        "--majority", choices=("total", "frequency"), default="total", help="of ties: how signs are elected"
    )
    parser.add_argument(
        "--clamp", type=float, help="of svd methods: a quantile beyond which numbers are cut down to it"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what dare drops (default: %(default)s)")
    add_force(parser)
    add_overwrite(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the hat and prints its distance from the sum."""
    from ...adapters.algebra.combine import Combination
    from ...adapters.algebra.mix import mix_adapters

    how = Combination(args.method, args.rank, args.density, args.majority, args.clamp, args.seed)
    refuse_existing(args.out, args.overwrite)
    print_worked(mix_adapters(args.adapters, args.out, how, force=args.force), args.json)
    return 0


def weighted(text: str) -> tuple[Path, float]:
    """ "runs/hat=0.7" -> (Path("runs/hat"), 0.7); a folder alone has weight 1."""
    folder, equals, weight = text.rpartition("=")
    try:
        return (Path(folder), float(weight)) if equals and folder else (Path(text), 1.0)
    except ValueError:
        return Path(text), 1.0
