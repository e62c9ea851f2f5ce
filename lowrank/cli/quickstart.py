"""lowrank quickstart"""

import argparse
from pathlib import Path
from typing import Any

from .arguments import add_verb


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "quickstart",
        "the whole path on the embedded base, in a few minutes on a CPU",
        "lowrank quickstart --out runs/quickstart",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/quickstart"), help="folder to write (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, same figures (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Quantizes, trains, evaluates, writes; ends with the page to open."""
    from ..workflows.quickstart import quickstart

    quickstart(args.out, seed=args.seed)
    return 0
