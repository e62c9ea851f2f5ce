"""lowrank inspect params"""

import argparse
import json
from typing import Any

from ...text_table import table
from ..arguments import add_verb
from ..flags import flags_in_errors
from .model_argument import add_model

WRITE_UP = 'The write-up calls 160,000 of 100,000,000 "0.016%"; it is 0.16 % (0.0016 as a fraction).'
ELSEWHERE = "0.016 % itself is right for d = 100,000 at rank 8, and for Llama 2 7B at rank 2 on wq and wv (0.01556 %)."


def add(what: Any) -> None:
    """The arguments of `lowrank inspect params`."""
    parser = add_verb(
        what,
        "params",
        "what is trained: the shapes of A and B, their share of the model, the bytes of the file",
        "lowrank inspect params --model 13b --rank 16 --targets wq,wv --type bf16",
    )
    parser.add_argument("--d", type=int, help="one d x d matrix instead of a model")
    add_model(parser)
    parser.add_argument("--rank", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--targets", default="all", help='"all" (default), "attention", or names by commas')
    parser.add_argument("--type", choices=("fp32", "bf16", "fp16"), default="fp32", help="default: %(default)s")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints shapes, counts and bytes."""
    from ...atomic_io import write_text
    from ...checkpoints.model_shape import shape_of
    from ...eval.inspect.sizes import count_params
    from ...eval.inspect.sizes_page import params_table, render_params

    with flags_in_errors({"model must": "--model must", "rank must": "--rank must", "d must": "--d must"}):
        model = args.d if args.d is not None else shape_of(args.model)
        params = count_params(model, rank=args.rank, targets=read_targets(args.targets), dtype=args.type)
    if args.html:
        write_text(args.html, render_params(params))
    if args.json:
        print(json.dumps(params.to_json()))
        return 0
    head, rows = params_table(params)
    print(table(rows, head))
    print(f"\nin {params.where}")
    fraction = params.trainable / params.whole
    print(f"\ntrainable {params.trainable:,} of {params.whole:,}: {fraction:.4%} ({fraction:.3g} as a fraction)")
    in_file = f", a file of {params.file_bytes:,}" if params.file_bytes else ""
    print(f"in {params.dtype}: {params.matrix_bytes:,} bytes{in_file}")
    if (args.d, args.rank) == (10_000, 8):
        print(f"{WRITE_UP}\n{ELSEWHERE}")
    return 0


def read_targets(text: str) -> tuple[str, ...]:
    """--targets as Meta's names.  Raises ValueError for a name that is none."""
    from ...adapters import resolve_targets

    return resolve_targets(text if text in ("all", "attention") else text.split(","))
