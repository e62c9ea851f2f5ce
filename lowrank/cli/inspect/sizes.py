"""lowrank inspect sizes"""

import argparse
import json
from typing import Any

from ...text_table import table
from ..arguments import add_verb, read_bytes
from ..flags import flags_in_errors
from .model_argument import add_model
from .params import read_targets

BASES = "bf16,int8,nf4,nf4-dq"


def add(what: Any) -> None:
    """The arguments of `lowrank inspect sizes`."""
    parser = add_verb(
        what,
        "sizes",
        "bytes of a base in every format, and the adapters whose file has a given size",
        "lowrank inspect sizes --model 7b --adapter-bytes 80MB",
    )
    add_model(parser)
    parser.add_argument("--weights", default=BASES, help="formats of the base, by commas (default: %(default)s)")
    parser.add_argument(
        "--adapter-bytes",
        action="append",
        type=read_bytes,
        metavar="SIZE",
        help="default: 80MB and 67.3MB, the write-up's",
    )
    parser.add_argument("--within", type=float, default=0.005, help="a fraction of that size (default: %(default)s)")
    parser.add_argument("--rank", type=int, action="append", help="only this rank (default: 1 to 256 by doubling)")
    parser.add_argument("--any-rank", action="store_true", help="every rank, not only the ordinary ones")
    parser.add_argument("--targets", action="append", help='only these: "all", "attention", or names by commas')
    parser.add_argument("--type", action="append", choices=("fp32", "bf16", "fp16"), help="default: fp32 and bf16")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the bytes of a base, part by part, and the adapters of the sizes asked for."""
    from ...adapters.accounting import ADAPTER_TYPES, COMMON_RANKS
    from ...atomic_io import write_text
    from ...checkpoints.model_shape import shape_of
    from ...eval.inspect.sizes import WRITE_UP_BYTES, count_sizes
    from ...eval.inspect.sizes_page import adapters_table, base_table, render_sizes

    if args.rank and args.any_rank:
        raise ValueError("--rank and --any-rank exclude each other")
    flags = {name: f"--{name}" for name in ("model must", "within must", "rank must", "weights must")}
    with flags_in_errors(flags):
        sizes = count_sizes(
            shape_of(args.model),
            args.model,
            weights=args.weights.split(","),
            adapter_bytes=args.adapter_bytes or WRITE_UP_BYTES,
            within=args.within,
            ranks=None if args.any_rank else args.rank or COMMON_RANKS,
            targets=[read_targets(text) for text in args.targets or ()],
            dtypes=args.type or ADAPTER_TYPES,
        )
    if args.html:
        write_text(args.html, render_sizes(sizes))
    if args.json:
        print(json.dumps(sizes.to_json(), indent=2))
        return 0
    for name in sizes.bases:
        head, rows = base_table(sizes, name)
        print(table(rows, head) + "\n")
    for size, shapes in sizes.adapters.items():
        print(f"adapters of {size / 1e6:g} MB (within {args.within:.2%}):")
        head, rows = adapters_table(sizes, size)
        print((table(rows, head) if shapes else "  none") + "\n")
    print(sizes.rule)
    return 0
