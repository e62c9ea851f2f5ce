"""lowrank inspect base"""

import argparse
import json
from typing import Any

from ...text_table import table
from ..arguments import add_verb, file_to_write


def add(what: Any) -> None:
    """The arguments of `lowrank inspect base`."""
    parser = add_verb(
        what,
        "base",
        "a folder of weights: config, files and hashes (checklist.chk compared), layout, every tensor and its outliers",
        "lowrank inspect base embedded --html base.html",
    )
    parser.add_argument("base", metavar="BASE", help='folder of weights, a GGUF file, or "embedded"')
    parser.add_argument(
        "--no-hashes", action="store_true", help="do not hash the files, nor compare them with any list"
    )
    parser.add_argument("--tensors", action="store_true", help="print a row a tensor")
    parser.add_argument("--json", action="store_true", help="print every figure as JSON")
    parser.add_argument("--html", metavar="FILE", type=file_to_write, help="write a page with plots")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the config, a row a file, and the sums of outliers or a row a tensor."""
    from ...atomic_io import write_text
    from ...checkpoints.embedded import base_folder
    from ...eval.inspect.base import inspect_base, to_json
    from ...eval.inspect.base_page import file_table, findings, render, tensor_table

    xray = inspect_base(base_folder(args.base), hashes=not args.no_hashes, progress=not args.json)
    if args.html:
        write_text(args.html, render(xray))
    if args.json:
        print(json.dumps(to_json(xray), indent=2))
        return 0
    print(table([(key, str(value)) for key, value in xray.config.items()], ("config", "value")) + "\n")
    for head, rows in (file_table(xray), tensor_table(xray) if args.tensors else xray.outliers.table()):
        print(table(rows, head) + "\n")
    print("\n".join(findings(xray)))
    if args.html:
        print(f"{args.html}: the page")
    return 0
