"""lowrank inspect mixed"""

import argparse
import json
from pathlib import Path
from typing import Any

from ..arguments import add_verb, file_to_write
from .formats import add_documents


def add(what: Any) -> None:
    """The arguments of `lowrank inspect mixed`."""
    parser = add_verb(
        what,
        "mixed",
        "which linears deserve 8 bits for a budget: sensitivities, the best plan, and its curve",
        "lowrank inspect mixed embedded --bits 5 --out plan.json",
    )
    parser.add_argument("base", metavar="BASE", help='folder of weights, a GGUF file, or "embedded"')
    parser.add_argument("--bits", type=float, required=True, help="the budget, bits a weight over all block linears")
    parser.add_argument("--choices", default="nf4-dq,int8", help="formats to choose among (default: %(default)s)")
    parser.add_argument(
        "--out", type=file_to_write, metavar="FILE", help="write the plan, for `lowrank quantize --plan`"
    )
    add_documents(parser, "documents whose gradients are taken, one at a time (default: %(default)s)")
    parser.add_argument(
        "--measure",
        type=int,
        default=0,
        metavar="N",
        help="the loss of the plan, of its neighbours and of random plans of its size on N other documents",
    )
    parser.add_argument("--json", action="store_true", help="print plan, sensitivities and curve as JSON")
    parser.add_argument("--html", metavar="FILE", type=file_to_write, help="write a page with plots")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the plan, its curve, and what was measured."""
    from ...atomic_io import write_json, write_text
    from ...eval.formats.functions import mixed
    from ...eval.formats.page import mixed_findings

    choices = [name.strip() for name in args.choices.split(",")]
    xray = mixed(args.base, args.bits, choices, data=args.data, n=args.n, measure=args.measure, progress=not args.json)
    if args.out:
        write_json(Path(args.out), xray.result.plan.to_json())
    if args.html:
        write_text(args.html, xray.plot().text)
    if args.json:
        print(json.dumps(xray.to_json(), indent=2))
        return 0
    print(xray.table())
    print("\n" + "\n".join(mixed_findings(xray.result)))
    for what, path in (("the plan", args.out), ("the page", args.html)):
        if path:
            print(f"{path}: {what}")
    return 0
