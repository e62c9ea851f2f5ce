"""lowrank inspect forgetting"""

import argparse
import json
from pathlib import Path
from typing import Any

from ..arguments import add_force, add_verb, file_to_write


def add(what: Any) -> None:
    """The arguments of `lowrank inspect forgetting`."""
    parser = add_verb(
        what,
        "forgetting",
        "what hats learned of a task, and what their base forgot: losses with intervals over documents",
        "lowrank inspect forgetting embedded runs/quickstart/hat --n 20",
    )
    parser.add_argument("base", metavar="BASE", help='their base, a folder or "embedded"')
    parser.add_argument(
        "adapters", metavar="HAT", nargs="+", help="hats, as PEFT's files: those after the first also beside the first"
    )
    add_measured(parser)
    add_force(parser)
    parser.add_argument("--json", action="store_true", help="print every figure as JSON")
    parser.add_argument("--html", metavar="FILE", type=file_to_write, help="write a page with plots")
    parser.set_defaults(run=run)


def add_measured(parser: argparse.ArgumentParser, more: str = "") -> None:
    """--data, --kept and --n: the documents on which losses are measured."""
    parser.add_argument("--data", type=Path, help="JSONL of documents of the task (default: --n of our own)")
    parser.add_argument(
        "--kept",
        type=Path,
        help="JSONL of documents that are to be kept (default, of embedded: --n samples of what it was taught)",
    )
    parser.add_argument(
        "--n", type=int, default=50, help=f"documents of each to measure on, at most{more} (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Prints a row a hat, and what it comes to."""
    from ...atomic_io import write_text
    from ...eval.inspect.forgetting import forgetting_of
    from ...eval.inspect.forgetting_page import findings, render

    adapters = {str(Path(adapter)): Path(adapter) for adapter in args.adapters}
    found = forgetting_of(args.base, adapters, data=args.data, kept=args.kept, n=args.n, force=args.force)
    if args.html:
        write_text(args.html, render(found))
    if args.json:
        print(json.dumps(found.to_json(), indent=2))
        return 0
    print(found.table())
    print("\n" + "\n".join(findings(found)))
    if args.html:
        print(f"{args.html}: the page")
    return 0
