"""lowrank adapter mitigate"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import add_force, add_overwrite, add_verb, file_to_write, refuse_existing
from ..inspect.forgetting import add_measured
from .account import print_worked

if TYPE_CHECKING:
    from ...eval.inspect.forgetting import Forgetting


def add(work: Any) -> None:
    """The arguments of `lowrank adapter mitigate`."""
    parser = add_verb(
        work,
        "mitigate",
        "a hat with its intruder dimensions scaled down; what was forgotten, and what comes back",
        "lowrank adapter mitigate runs/quickstart/hat embedded milder --keep 0.75",
    )
    parser.add_argument("adapter", metavar="HAT", type=Path, help="the hat, as PEFT's files")
    parser.add_argument("base", metavar="BASE", help='its base, a folder or "embedded"')
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument(
        "--keep", type=float, default=0.75, help="of an intruder's singular value, 0 to 1 (default: %(default)s)"
    )
    parser.add_argument(
        "--count", type=int, default=10, help="leading singular vectors to look at (default: %(default)s)"
    )
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="an intruder's largest cosine is below it (default: %(default)s)"
    )
    parser.add_argument("--exact", action="store_true", help="by SVDs, a minute or more for a linear of a 7B")
    parser.add_argument("--rank", type=int, help="of the result, at most (default: as many as it takes)")
    add_measured(parser, "; 0: do not")
    add_force(parser)
    add_overwrite(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--html", metavar="FILE", type=file_to_write, help="write a page of the losses, with plots")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the hat; prints the intruders, and losses before and after."""
    from ...atomic_io import write_text
    from ...checkpoints.embedded import base_folder
    from ...eval.inspect.adapter import IntruderSearch
    from ...eval.inspect.forgetting_page import findings, render
    from ...eval.inspect.mitigation import mitigate_intruders

    if args.n < 0:
        raise ValueError(f"--n must be at least 0, got {args.n}")
    if args.n and args.kept is None and args.base != "embedded":
        raise ValueError(
            "--kept must name documents that the base knows, or --n 0: only embedded says what it was taught"
        )
    if args.html and not args.n:
        raise ValueError("--html is the page of the losses: give --n 1 or more")
    refuse_existing(args.out, args.overwrite)
    done = mitigate_intruders(
        args.adapter,
        base_folder(args.base),
        args.out,
        keep=args.keep,
        search=IntruderSearch(args.count, args.threshold, args.exact),
        rank=args.rank,
        force=args.force,
        progress=not args.json,
    )
    measured = _measured(args) if args.n else None
    if measured and args.html:
        write_text(args.html, render(measured))
    more = {"intruders": {path: found.found for path, found in done.intruders.items()}}
    if measured:
        more["forgetting"] = measured.to_json()
    print_worked(done.adapter, args.json, more)
    if not args.json:
        looked = sum(len(found.sigma) for found in done.intruders.values())
        print(f"{done.found} intruders of {looked} singular vectors, each at {args.keep:g} of its size")
        if measured:
            print(measured.table() + "\n")
            print("\n".join(findings(measured)))
    return 0


def _measured(args: argparse.Namespace) -> "Forgetting":
    """Losses without a hat, with the old one and with the new one."""
    from ...eval.inspect.forgetting import forgetting_of

    adapters = {"the hat": args.adapter, "mitigated": args.out}
    return forgetting_of(args.base, adapters, data=args.data, kept=args.kept, n=args.n, force=args.force)
