"""lowrank bench sweep"""

import argparse
from typing import Any

from ...text_table import table
from ..arguments import add_verb
from .sides import add_arguments, measure, time_over_ours


def add(benches: Any) -> None:
    """The arguments of the bench."""
    parser = add_verb(
        benches,
        "sweep",
        "nine hats in one pass through a random Llama, and nine runs one after another, in turns, on the CPU",
        "lowrank bench sweep --out results.jsonl",
    )
    add_arguments(parser, "of one step of all nine", peers=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints a line a side and length, and whether the bars are held."""
    from ...bench.models import sweep

    rows = measure(args, sweep.run)
    if args.json:
        return 0
    header = ("provider", "tokens a row", "tok/s", "spread, ms", "peak GB", "time over ours")
    print(table([_cells(row) for row in rows], header))
    for bar in sweep.bars(rows):
        print(bar)
    return 0


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    speed, peak = f"{row['tokens_per_s']:.0f}", f"{row['peak_bytes'] / 1e9:.2f}"
    spread = f"{row['ms_spread']:.0f} of {row['ms']:.0f}"
    return row["provider"], str(row["tokens_a_row"]), speed, spread, peak, time_over_ours(row["versus_ours"])
