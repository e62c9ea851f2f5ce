"""lowrank inspect quant"""

import argparse
import json
from typing import Any

from ...text_table import table
from ..arguments import add_verb, file_to_write


def add(what: Any) -> None:
    """The arguments of `lowrank inspect quant`."""
    parser = add_verb(
        what,
        "quant",
        "what each number format costs a base, per tensor and head, and why NF4's levels are where they are",
        "lowrank inspect quant embedded --html quant.html",
    )
    parser.add_argument("base", metavar="BASE", help='folder of full-precision weights, or "embedded"')
    parser.add_argument(
        "--weights", default="nf4,nf4-dq,fp4,int8", help="formats by commas, also fp4-dq (default: %(default)s)"
    )
    parser.add_argument("--layers", help="only these, by commas (default: all): each of a 7B takes some 25 s")
    parser.add_argument("--json", action="store_true", help="print every figure as JSON")
    parser.add_argument("--html", metavar="FILE", type=file_to_write, help="write a page with plots")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints a row a tensor, a row a format, and the levels."""
    from ...atomic_io import write_text
    from ...checkpoints.embedded import base_folder
    from ...eval.inspect.quant import inspect_quant, to_json
    from ...eval.inspect.quant_page import findings, level_errors, levels_table, render, tensor_table, total_table

    xray = inspect_quant(
        base_folder(args.base), args.weights.split(","), layers=read_layers(args.layers), progress=not args.json
    )
    if args.html:
        write_text(args.html, render(xray))
    if args.json:
        print(json.dumps(to_json(xray), indent=2))
        return 0
    for head, rows in (tensor_table(xray), total_table(xray), levels_table(xray.study), level_errors(xray.study)):
        print(table(rows, head) + "\n")
    print("\n".join(findings(xray)))
    if args.html:
        print(f"{args.html}: the page")
    return 0


def read_layers(text: str | None) -> list[int] | None:
    """ "0,31" -> [0, 31]"""
    if text is None:
        return None
    try:
        return [int(layer) for layer in text.split(",")]
    except ValueError:
        raise ValueError(f"--layers must be numbers by commas, got {text!r}") from None
