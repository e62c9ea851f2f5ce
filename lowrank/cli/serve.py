"""lowrank serve"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from ..data.documents.kind_file import read_kind
from ..data.documents.kinds import add_kind
from ..data.encoding.template import NAMES
from ..extras import need
from .arguments import (
    FASTER_DTYPE,
    HEADS,
    WEIGHTS_HELP,
    add_adapters,
    add_cache,
    add_cache_limit,
    add_force,
    add_verb,
    cache_bytes,
    compute_dtype,
    tell_dtype,
    writing_dtype,
)
from .kinds import add_stored, stored_kinds
from .start import import_torch

PORT = 7411
TOKEN_VARIABLE = "LOWRANK_SERVE_TOKEN"


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "serve",
        "a workbench in the browser, and OpenAI's API, on this machine",
        "lowrank serve embedded --adapter finance=runs/quickstart/hat",
    )
    parser.add_argument(
        "bases", nargs="+", metavar="BASE", help='folder of weights, or "embedded"; NAME=DIR gives it another name'
    )
    add_adapters(parser)
    add_force(parser)
    parser.add_argument(
        "--kind", action="append", default=[], metavar="FILE.toml", help="one more kind of document, your own"
    )
    parser.add_argument("--template", choices=NAMES, help="of the bases alone, and of hats that record none")
    parser.add_argument("--weights", help=f"{WEIGHTS_HELP} (default: nf4-dq, or as stored)")
    parser.add_argument("--device", default="cpu", help="where to compute: cpu (default), cuda, cuda:1 ...")
    parser.add_argument("--head", choices=HEADS, help="format of the output head (default: as stored, or --dtype)")
    add_cache(parser)
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), help=f"compute type ({FASTER_DTYPE})")
    parser.add_argument("--max-new-tokens", type=int, default=1024, help="the most a text may have: %(default)s")
    parser.add_argument("--active", type=int, default=8, help="texts that are written at once: %(default)s")
    parser.add_argument("--waiting", type=int, default=16, help="texts that may wait: %(default)s; more are refused")
    add_cache_limit(parser, "of the texts of a base")
    parser.add_argument("--port", type=int, default=PORT, help="default: %(default)s; 0 takes a free one")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: this machine alone); see --exposed"
    )
    parser.add_argument(
        "--exposed", action="store_true", help="allow a --host that other machines reach; nothing is encrypted"
    )
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help="a further name of this server",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Loads what is named, and serves until it is interrupted."""
    for module in ("starlette", "uvicorn"):
        need(module, "lowrank serve")
    import_torch()
    from ..layers.quantized_cache import use_cache_format
    from ..serve.doorkeeper import check_token
    from ..serve.server import LOOPBACK, bind, serve
    from ..serve.shelf import Shelf

    check_numbers(args)
    limit = cache_bytes(args)
    token = os.environ.get(TOKEN_VARIABLE)
    if token is not None:
        check_token(token)
    hats = [path for _, path in args.adapter]
    add_stored(hats)
    kinds = [*stored_kinds(hats)]
    for file in args.kind:
        kind = read_kind(file)
        add_kind(kind)
        kinds.append(kind.name)
    with bind(args.host, args.port) as bound:
        if bound.getsockname()[0] not in LOOPBACK:
            if not args.exposed:
                raise ValueError(
                    f"--host {args.host}: other machines reach this address, and nothing is encrypted: "
                    "say --exposed if that is meant, and put TLS before it"
                )
            print(f"lowrank: note: other machines reach {args.host}, and nothing is encrypted", file=sys.stderr)
        dtype, reason = writing_dtype(args.dtype, args.device)
        shelf = Shelf.load(
            [named_base(text) for text in args.bases],
            args.adapter,
            kinds,
            template=args.template,
            weights=args.weights,
            force=args.force,
            dtype=compute_dtype(dtype),
            device=args.device,
            head=args.head,
            progress=True,
        )
        for base in shelf.bases:
            use_cache_format(base.model, args.cache)
            tell_dtype(base.name, base.model, reason)
        serve(
            shelf,
            bound,
            token=token,
            names=args.name,
            active=args.active,
            waiting=args.waiting,
            most_tokens=args.max_new_tokens,
            cache_bytes=limit,
        )
    return 0


def check_numbers(args: argparse.Namespace) -> None:
    """Raises ValueError, with the name of the argument, for a number out of range."""
    for name, low, high in (
        ("max_new_tokens", 1, 10**6),
        ("active", 1, 64),
        ("waiting", 0, 10_000),
        ("port", 0, 65535),
    ):
        value = getattr(args, name)
        if not low <= value <= high:
            raise ValueError(f"--{name.replace('_', '-')} must be {low} to {high}, got {value}")


def named_base(text: str) -> tuple[str, str]:
    """ "llama=models/llama-2-7b" -> ("llama", "models/llama-2-7b"); a folder alone goes by its own name."""
    name, equals, folder = text.partition("=")
    if equals and not Path(text).exists():
        return name, folder
    return Path(text).resolve().name if text != "embedded" else text, text
