"""lowrank inspect data"""

import argparse
import json
from pathlib import Path
from typing import Any

from ...text_table import table
from ..arguments import add_verb, file_to_write


def add(what: Any) -> None:
    """The arguments of `lowrank inspect data`."""
    parser = add_verb(
        what,
        "data",
        "which training documents helped and hurt each test document, from the gradients of single documents",
        "lowrank inspect data runs/hat --html influence.html",
    )
    parser.add_argument("folder", metavar="RUN", type=Path, help="the folder of a training run that kept checkpoints")
    parser.add_argument("--test", metavar="FILE", type=Path, help="documents to be explained (default: --n of our own)")
    parser.add_argument("--n", type=int, default=20, help="test documents, at most (default: %(default)s)")
    parser.add_argument(
        "--top", metavar="K", type=int, default=3, help="documents that are shown of each side (default: %(default)s)"
    )
    parser.add_argument(
        "--method",
        choices=("adam", "sgd"),
        default="adam",
        help="the step that a gradient is taken to have made: Adam's (default), or the rate times the gradient",
    )
    parser.add_argument("--json", action="store_true", help="print every figure as JSON")
    parser.add_argument("--html", metavar="FILE", type=file_to_write, help="write a page, with texts side by side")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints a row a test document, and the training documents that taught most of themselves."""
    from ...atomic_io import write_text
    from ...eval.inspect.influence_page import findings, render, tables
    from ...train.influence.trace import influence

    xray = influence(args.folder, args.test, n=args.n, top=args.top, method=args.method, progress=not args.json)
    if args.html:
        write_text(args.html, render(xray))
    if args.json:
        print(json.dumps(xray.to_json(), indent=2))
        return 0
    print("\n\n".join(table(rows, head) for head, rows in tables(xray)))
    print("\n" + "\n".join(findings(xray)))
    if args.html:
        print(f"{args.html}: the page")
    return 0
