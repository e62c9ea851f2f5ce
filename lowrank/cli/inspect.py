"""lowrank inspect params, lowrank inspect sizes"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import add_verb, read_bytes, table

if TYPE_CHECKING:
    from ..model.config import ModelConfig

WRITE_UP = 'The write-up calls 160,000 of 100,000,000 "0.016%"; it is 0.16 % (0.0016 as a fraction).'
SIZE_RULE = (
    "An adapter's size follows from its rank, its targets and its type, never from the data set it was trained on."
)


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(verbs, "inspect", "parameters and bytes, from shapes alone", "lowrank inspect params --d 10000")
    what = parser.add_subparsers(title="what to look at", metavar="WHAT", required=True)
    params = add_verb(
        what,
        "params",
        "what is trained: the shapes of A and B and their share of the model",
        "lowrank inspect params --d 10000 --rank 8",
    )
    params.add_argument("--d", type=int, help="one d x d matrix instead of a model")
    _add_model(params)
    params.add_argument("--rank", type=int, default=8, help="default: %(default)s")
    params.add_argument("--targets", default="all", help='"all" (default), "attention", or names by commas')
    params.set_defaults(run=run_params)
    sizes = add_verb(
        what,
        "sizes",
        "bytes of a base in every format, and the adapters that have a given size",
        "lowrank inspect sizes --model 7b --adapter-bytes 80MB",
    )
    _add_model(sizes)
    sizes.add_argument(
        "--adapter-bytes",
        action="append",
        type=read_bytes,
        metavar="SIZE",
        help="default: 80MB and 67.3MB, the write-up's",
    )
    sizes.set_defaults(run=run_sizes)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="7b", help="7b (default), 13b, 70b, a folder, or embedded")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def _config(name: str) -> "ModelConfig":
    from ..embedded import base_folder
    from ..model.checkpoint import open_checkpoint
    from ..model.config import PRESETS

    if name in PRESETS:
        return PRESETS[name]
    if name != "embedded" and not Path(name).is_dir():
        raise ValueError(f"--model must be one of {', '.join(PRESETS)}, embedded, or a folder, got {name!r}")
    return open_checkpoint(base_folder(name)).config


def run_params(args: argparse.Namespace) -> int:
    """Prints shapes and counts."""
    from ..accounting import adapter_parameters, lora_parameters, model_parameters
    from ..adapters import resolve_targets

    if args.rank < 1 or (args.d is not None and args.d < 1):
        raise ValueError(f"--rank and --d must be at least 1, got {args.rank} and {args.d}")
    if args.d is not None:
        count, whole = lora_parameters(args.d, args.d, args.rank), args.d**2
        shapes = [("W", f"{args.d:,} x {args.d:,}", whole), *_factors("", args.d, args.d, args.rank)]
    else:
        config = _config(args.model)
        targets = resolve_targets(args.targets if args.targets in ("all", "attention") else args.targets.split(","))
        count, whole = adapter_parameters(config, args.rank, targets), model_parameters(config)
        linears = config.linear_shapes()
        shapes = []
        for name in targets:
            d_out, d_in = linears[name]
            shapes += _factors(f"{name}: ", d_in, d_out, args.rank)
    figures = {"trainable": count, "of": whole, "fraction": count / whole}
    if args.json:
        print(json.dumps(figures))
        return 0
    print(table([(what, shape, f"{numbers:,}") for what, shape, numbers in shapes], ("matrix", "shape", "numbers")))
    if args.d is None:
        print(f"\nin each of {config.n_layers} layers")
    print(f"\ntrainable {count:,} of {whole:,}: {count / whole:.4%} ({count / whole:.3g} as a fraction)")
    if (args.d, args.rank) == (10_000, 8):
        print(WRITE_UP)
        print(
            "0.016 % itself is right for d = 100,000 at rank 8, and for Llama 2 7B at rank 2 on wq and wv (0.01556 %)."
        )
    return 0


def _factors(prefix: str, d_in: int, d_out: int, rank: int) -> list[tuple[str, str, int]]:
    return [
        (f"{prefix}A", f"{d_in:,} x {rank}", d_in * rank),
        (f"{prefix}B", f"{rank} x {d_out:,}", rank * d_out),
    ]


def run_sizes(args: argparse.Namespace) -> int:
    """Prints the bytes of a base, part by part, and the adapters of the sizes asked for."""
    from ..accounting import adapters_of_size, base_items

    config = _config(args.model)
    bases = {weights: base_items(config, weights) for weights in ("bf16", "int8", "nf4", "nf4-dq")}
    wanted = args.adapter_bytes or [80e6, 67.3e6]
    found = {size: adapters_of_size(size, 0.005, config) for size in wanted}
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
        print(table([*rows, (f"{args.model} in {name}", "", f"{total:,}", f"{total / 1e9:.3f}")],
                    ("part", "parameters", "bytes", "GB")))  # fmt: skip
        print()
    for size, shapes in found.items():
        print(f"adapters of {size / 1e6:g} MB (within 0.5 %):")
        matches = [
            (shape.rank, shape.targets, shape.dtype, f"{shape.parameters:,}", f"{shape.bytes / 1e6:.2f}",
             f"{(size - shape.bytes) / 1e6:+.2f}")
            for shape in shapes
        ]  # fmt: skip
        print(
            table(matches, ("rank", "targets", "type", "parameters", "MB", "unexplained MB")) if matches else "  none"
        )
        print()
    print(SIZE_RULE)
    return 0
