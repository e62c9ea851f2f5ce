"""lowrank inspect adapter"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ...text_table import table
from ..arguments import add_force, add_verb, file_to_write


def add(what: Any) -> None:
    """The arguments of `lowrank inspect adapter`."""
    parser = add_verb(
        what,
        "adapter",
        "a hat: spectrum and rank of what it adds, its size beside W and beside what 4 bit takes, a second hat",
        "lowrank inspect adapter runs/quickstart/hat embedded --intruders --html hat.html",
    )
    parser.add_argument("adapter", metavar="DIR", type=Path, help="the hat, as PEFT's files")
    parser.add_argument("base", metavar="BASE", nargs="?", help='its base, a folder or "embedded": for what needs W')
    parser.add_argument("--other", metavar="DIR2", type=Path, help="a second hat: the angles between the two")
    parser.add_argument("--weights", help="the format whose error the hat is measured against (default: nf4-dq)")
    parser.add_argument(
        "--intruders",
        metavar="K",
        nargs="?",
        type=int,
        const=10,
        help="look for intruder dimensions among the K (10) leading singular vectors of W + delta W: some seconds for"
        " a linear of a 7B",
    )
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="an intruder's largest cosine is below it (default: %(default)s)"
    )
    parser.add_argument(
        "--exact", action="store_true", help="with --intruders: by SVDs, a minute or more for a linear of a 7B"
    )
    add_force(parser)
    parser.add_argument("--json", action="store_true", help="print every figure as JSON")
    parser.add_argument("--html", metavar="FILE", type=file_to_write, help="write a page with plots")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints a row a linear, and what they come to."""
    from ...atomic_io import write_text
    from ...checkpoints.embedded import base_folder
    from ...eval.inspect.adapter import IntruderSearch, inspect_adapter, to_json
    from ...eval.inspect.adapter_page import figures_table, findings, render

    if args.exact and args.intruders is None:
        raise ValueError("--exact is of --intruders: it says how they are looked for")
    xray = inspect_adapter(
        args.adapter,
        None if args.base is None else base_folder(args.base),
        other=args.other,
        weights=args.weights,
        intruders=None if args.intruders is None else IntruderSearch(args.intruders, args.threshold, args.exact),
        force=args.force,
        progress=not args.json,
    )
    if xray.stored_as:
        print(
            f"lowrank: note: {xray.base} is stored as {xray.stored_as}: W is what that says it is, and its error is "
            "not known",
            file=sys.stderr,
        )
    if args.html:
        write_text(args.html, render(xray))
    if args.json:
        print(json.dumps(to_json(xray), indent=2))
        return 0
    head, rows = figures_table(xray)
    print(table(rows, head))
    print("\n" + "\n".join(findings(xray)))
    if args.html:
        print(f"{args.html}: the page")
    return 0
