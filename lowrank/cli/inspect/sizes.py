"""lowrank inspect sizes"""

import argparse
import json
from typing import Any

from ...text_table import table
from ..arguments import add_verb, read_bytes
from .model_argument import add_model, config_of
from .params import read_targets

SIZE_RULE = (
    "An adapter's size follows from its rank, its targets and its type, never from the data set it was trained on."
)
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
    from ...adapters.accounting import ADAPTER_TYPES, COMMON_RANKS, COMMON_TARGETS, adapters_of_size, base_items
    from ...atomic_io import write_text
    from ...eval.inspect.sizes_page import Sizes, render_sizes
    from ...kernels.weights.quantized_weight import DENSE_DTYPES, QUANTIZED_NAMES

    if not 0 < args.within < 1 or (args.rank and min(args.rank) < 1):
        raise ValueError(f"--within must lie between 0 and 1, --rank at least at 1, got {args.within} and {args.rank}")
    if args.rank and args.any_rank:
        raise ValueError("--rank and --any-rank exclude each other")
    config, formats = config_of(args.model), args.weights.split(",")
    if foreign := [name for name in formats if name not in (*DENSE_DTYPES, *QUANTIZED_NAMES)]:
        raise ValueError(f"--weights must be of {', '.join((*DENSE_DTYPES, *QUANTIZED_NAMES))}, got {foreign[0]!r}")
    bases = {weights: base_items(config, weights) for weights in formats}
    found = {
        size: adapters_of_size(
            size,
            args.within,
            config,
            ranks=None if args.any_rank else args.rank or COMMON_RANKS,
            targets={", ".join(_short(text)): read_targets(text) for text in args.targets or ()} or COMMON_TARGETS,
            dtypes=args.type or ADAPTER_TYPES,
        )
        for size in args.adapter_bytes or [80e6, 67.3e6]
    }
    if args.html:
        write_text(args.html, render_sizes(Sizes(args.model, bases, found, SIZE_RULE)))
    if args.json:
        figures = {
            "bases": {name: {item.what: item.bytes for item in items} for name, items in bases.items()},
            "adapters": {f"{size:.0f}": [vars(shape) for shape in shapes] for size, shapes in found.items()},
        }
        print(json.dumps(figures, indent=2))
        return 0
    for name, items in bases.items():
        total = sum(item.bytes for item in items)
        rows = [(item.what, f"{item.parameters:,}", f"{item.bytes:,}", f"{item.bytes / 1e9:.3f}") for item in items]
        last = (f"{args.model} in {name}", "", f"{total:,}", f"{total / 1e9:.3f}")
        print(table([*rows, last], ("part", "parameters", "bytes", "GB")) + "\n")
    for size, shapes in found.items():
        print(f"adapters of {size / 1e6:g} MB (within {args.within:.2%}):")
        matches = [
            (shape.rank, shape.targets, shape.dtype, f"{shape.parameters:,}", f"{shape.bytes / 1e6:.2f}",
             f"{shape.file_bytes:,}", f"{(size - shape.file_bytes) / 1e6:+.2f}")
            for shape in shapes
        ]  # fmt: skip
        head = ("rank", "targets", "type", "parameters", "MB", "bytes of the file", "unexplained MB")
        print((table(matches, head) if matches else "  none") + "\n")
    print(SIZE_RULE)
    return 0


def _short(text: str) -> tuple[str, ...]:
    return tuple(name.partition(".")[2] for name in read_targets(text))
