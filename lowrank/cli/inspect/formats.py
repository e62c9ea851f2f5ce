"""lowrank inspect formats"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import add_verb

if TYPE_CHECKING:
    from ...data.encoding.batching import Example


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
    parser.set_defaults(run=run)


def add_documents(parser: argparse.ArgumentParser, help: str) -> None:
    """--data and --n"""
    parser.add_argument("--data", type=Path, help="JSONL of documents (default: --n of our own)")
    parser.add_argument("--n", type=int, default=40, help=help)


def run(args: argparse.Namespace) -> int:
    """Prints a row a format."""
    from ...checkpoints.embedded import base_folder
    from ...eval.formats.beside import study_formats
    from ...eval.formats.simulated import formats

    known = formats()
    names = [name.strip() for name in args.only.split(",")] if args.only else list(known)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"--only must name formats of {', '.join(known)}, got {unknown[0]!r}")
    chosen = {name: known[name] for name in names}
    found = study_formats(base_folder(args.base), chosen, documents(args), state=args.state, progress=not args.json)
    if args.json:
        print(json.dumps(found.to_json(), indent=2))
        return 0
    print(found.table())
    if found.loss is not None:
        print(f"in full precision: {found.loss:.4f} nats a token over {found.documents} documents; intervals of 95 %")
    return 0


def documents(args: argparse.Namespace) -> "list[Example]":
    """Those of --data, or of our own, that fit into the context, at most --n."""
    from ...checkpoints.embedded import base_folder
    from ...checkpoints.load import load_tokenizer
    from ...checkpoints.open_base import open_base
    from ...data.documents.document import make_documents
    from ...data.encoding.batching import encode_all
    from ...data.imports.examples import read_conversations

    if args.n < 0:
        raise ValueError(f"--n must be at least 0, got {args.n}")
    if args.n == 0:
        return []
    base = base_folder(args.base)
    if args.data:
        conversations = read_conversations(args.data, is_preference=False)[: args.n]
    else:
        conversations = [entry.conversation for entry in make_documents(args.n, seed=7, split="test")]
    return encode_all(conversations, load_tokenizer(base), "alpaca", open_base(base).config.max_seq_len)[0]
