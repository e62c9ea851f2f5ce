"""lowrank bench batch"""

import argparse
from typing import Any

from ...text_table import table
from ..arguments import add_verb
from .sides import add_arguments, check_at_least, rows_of, tell_line, turns_and_threads


def add(benches: Any) -> None:
    """The arguments of the bench."""
    parser = add_verb(
        benches,
        "batch",
        "1 to 64 texts at once from a random Llama on the CPU, as `generate --out` and `serve` write them",
        "lowrank bench batch --hats 4 --out results.jsonl",
    )
    add_arguments(parser, "of every number of texts, after one that is not counted", peers=False)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="compute type: %(default)s")
    parser.add_argument("--hats", type=int, default=1, help="that the texts wear in turns: %(default)s; 0 for none")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints a line for each number of texts."""
    from ...bench.models import batch_sizes

    about = {"dtype": args.dtype, "hats": args.hats, **turns_and_threads(args)}
    check_at_least(0, ("--hats", args.hats))
    rows = rows_of(args, lambda scratch: batch_sizes.run(args.shape, scratch, **about, tell=tell_line))
    if args.json:
        return 0
    header = ("texts at once", "tok/s of all", "times one alone", "tok/s of each", "spread, ms a step")
    print(table([_cells(row) for row in rows], header))
    return 0


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    each = f"{row['tokens_per_s'] / row['texts']:.1f}"
    spread = f"{row['step_ms_spread']:.2f} of {row['step_ms']:.2f}"
    return str(row["texts"]), f"{row['tokens_per_s']:.1f}", f"{row['times_one']:.2f}", each, spread
