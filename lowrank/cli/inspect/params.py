"""lowrank inspect params"""

import argparse
import json
from typing import Any

from ...text_table import table
from ..arguments import add_verb
from .model_argument import add_model, config_of

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
    from ...adapters.accounting import adapter_file_bytes, adapter_parameters, lora_parameters, model_parameters
    from ...atomic_io import write_text
    from ...eval.inspect.sizes_page import Params, render_params
    from ...kernels.weights.quantized_weight import DENSE_DTYPES

    if args.rank < 1 or (args.d is not None and args.d < 1):
        raise ValueError(f"--rank and --d must be at least 1, got {args.rank} and {args.d}")
    file_bytes = None
    if args.d is not None:
        where, layers = f"one {args.d:,} x {args.d:,} matrix", 1
        count, whole = lora_parameters(args.d, args.d, args.rank), args.d**2
        shapes = [("W", f"{args.d:,} x {args.d:,}", whole), *_factors("", args.d, args.d, args.rank)]
    else:
        config = config_of(args.model)
        targets = read_targets(args.targets)
        where, layers = f"each of {config.n_layers} layers", config.n_layers
        count, whole = adapter_parameters(config, args.rank, targets), model_parameters(config)
        linears = config.linear_shapes()
        shapes = []
        for name in targets:
            d_out, d_in = linears[name]
            shapes += _factors(f"{name}: ", d_in, d_out, args.rank)
        file_bytes = adapter_file_bytes(config, args.rank, targets, args.type)
    matrix_bytes = count * DENSE_DTYPES[args.type].itemsize
    params = Params(shapes, where, layers, args.type, count, whole, matrix_bytes, file_bytes)
    if args.html:
        write_text(args.html, render_params(params))
    if args.json:
        figures = {"trainable": count, "of": whole, "fraction": count / whole, "type": args.type}
        print(json.dumps({**figures, "matrix_bytes": matrix_bytes, "file_bytes": file_bytes}))
        return 0
    print(table([(name, shape, f"{numbers:,}") for name, shape, numbers in shapes], ("matrix", "shape", "numbers")))
    print(f"\nin {where}")
    print(f"\ntrainable {count:,} of {whole:,}: {count / whole:.4%} ({count / whole:.3g} as a fraction)")
    print(f"in {args.type}: {matrix_bytes:,} bytes" + (f", a file of {file_bytes:,}" if file_bytes else ""))
    if (args.d, args.rank) == (10_000, 8):
        print(f"{WRITE_UP}\n{ELSEWHERE}")
    return 0


def read_targets(text: str) -> tuple[str, ...]:
    """--targets as Meta's names.  Raises ValueError for a name that is none."""
    from ...adapters import resolve_targets

    return resolve_targets(text if text in ("all", "attention") else text.split(","))


def _factors(prefix: str, d_in: int, d_out: int, rank: int) -> list[tuple[str, str, int]]:
    return [
        (f"{prefix}A", f"{d_in:,} x {rank}", d_in * rank),
        (f"{prefix}B", f"{rank} x {d_out:,}", rank * d_out),
    ]
