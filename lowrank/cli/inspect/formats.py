"""lowrank inspect formats"""

import argparse
import json
from pathlib import Path
from typing import Any

from ..arguments import add_verb, file_to_write


def add(what: Any) -> None:
    """The arguments of `lowrank inspect formats`."""
    parser = add_verb(
        what,
        "formats",
        "4-bit formats beside NF4: bits a weight, error, and loss with an interval",
        "lowrank inspect formats embedded --only 'nf4 b64,int4 b64,iq4_nl b32'",
    )
    parser.add_argument("base", metavar="BASE", help='folder of weights, a GGUF file, or "embedded"')
    parser.add_argument("--only", metavar="NAMES", help="these formats, separated by commas (default: all)")
    add_documents(parser, "documents whose loss is measured; 0: errors alone (default: %(default)s)")
    parser.add_argument(
        "--state", type=Path, metavar="FOLDER", help="keep each format here as it is measured, and go on from there"
    )
    parser.add_argument("--json", action="store_true", help="print every figure as JSON")
    parser.add_argument("--html", metavar="FILE", type=file_to_write, help="write a page with plots")
    parser.set_defaults(run=run)


def add_documents(parser: argparse.ArgumentParser, help: str) -> None:
    """--data and --n"""
    parser.add_argument("--data", type=Path, help="JSONL of documents (default: --n of our own)")
    parser.add_argument("--n", type=int, default=40, help=help)


def run(args: argparse.Namespace) -> int:
    """Prints a row a format."""
    from ...atomic_io import write_text
    from ...eval.formats.functions import formats
    from ...eval.formats.page import format_findings

    only = [name.strip() for name in args.only.split(",")] if args.only else None
    xray = formats(args.base, only, data=args.data, n=args.n, state=args.state, progress=not args.json)
    if args.html:
        write_text(args.html, xray.plot().text)
    if args.json:
        print(json.dumps(xray.to_json(), indent=2))
        return 0
    print(xray.table())
    study = xray.result
    if study.loss is not None:
        print(f"in full precision: {study.loss:.4f} nats a token over {study.documents} documents; intervals of 95 %")
    print("\n" + "\n".join(format_findings(study)))
    if args.html:
        print(f"{args.html}: the page")
    return 0
