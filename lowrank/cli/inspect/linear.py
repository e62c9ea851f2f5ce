"""lowrank inspect linear"""

import argparse
import json
from pathlib import Path
from typing import Any

from ...text_table import table
from ..arguments import add_force, add_verb, file_to_write
from ..flags import flags_in_errors


def add(what: Any) -> None:
    """The arguments of `lowrank inspect linear`."""
    parser = add_verb(
        what,
        "linear",
        "the microscope: the 64 weights of a block as they are stored, and one output of the forward pass, taken apart",
        'lowrank inspect linear embedded layers.0.attention.wq --row 5 --block 1 --text "The balance sheet"'
        " --adapter runs/quickstart/hat",
    )
    parser.add_argument("base", metavar="BASE", help='folder of weights with a tokenizer, or "embedded"')
    parser.add_argument("linear", metavar="LINEAR", help="such as layers.0.attention.wq, or Hugging Face's name")
    parser.add_argument("--row", type=int, default=0, help="output channel, in the base's own order (default: 0)")
    parser.add_argument("--block", type=int, default=0, help="which 64 weights of the row (default: 0)")
    parser.add_argument("--text", required=True, help="what the model reads")
    parser.add_argument(
        "--token", type=int, default=-1, help="which token of it, 0 the begin token (default: the last)"
    )
    parser.add_argument("--adapter", metavar="DIR", type=Path, help="a hat, as PEFT's files")
    parser.add_argument("--weights", help="int8, nf4, nf4-dq, fp4, fp4-dq (default: nf4-dq, or as stored)")
    add_force(parser)
    parser.add_argument("--json", action="store_true", help="print every figure as JSON")
    parser.add_argument("--html", metavar="FILE", type=file_to_write, help="write a page with plots")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the block and the sum; status 1 if the sum is not what the forward pass has."""
    from ...atomic_io import write_text
    from ...checkpoints.embedded import base_folder
    from ...eval.inspect.linear import inspect_linear, to_json
    from ...eval.inspect.linear_page import block_table, equation, maximum_lines, product_table, render, verdict

    with flags_in_errors({"token must": "--token must"}):
        xray = inspect_linear(
            base_folder(args.base),
            args.linear,
            row=args.row,
            block=args.block,
            text=args.text,
            token=args.token,
            adapter=args.adapter,
            weights=args.weights,
            force=args.force,
            progress=not args.json,
        )
    if args.html:
        write_text(args.html, render(xray))
    status = 0 if xray.product.is_exact and xray.product.is_within else 1
    if args.json:
        print(json.dumps(to_json(xray), indent=2))
        return status
    print(f"{xray.path} [{xray.shape[0]}, {xray.shape[1]}] in {xray.block.format}, row {xray.row}: {xray.where}")
    print(f"\nblock {xray.block.index} of the tensor")
    print("\n".join(maximum_lines(xray.block)) + "\n")
    head, rows = block_table(xray.block)
    print(table(rows, head))
    print(f"\ntoken {xray.product.token} of {len(xray.pieces)}: {xray.product.piece}\n{equation(xray)}\n")
    head, rows = product_table(xray)
    print(table(rows, head) + "\n")
    if hat := xray.product.hat:
        print("x A         " + " ".join(f"{value:+.4f}" for value in hat.inner))
        print(f"B[:, {xray.row}]".ljust(12) + " ".join(f"{value:+.4f}" for value in hat.outer) + "\n")
    print(verdict(xray))
    if args.html:
        print(f"{args.html}: the page")
    return status
