"""lowrank bench train"""

import argparse
from typing import Any

from ...text_table import table
from ..arguments import add_verb
from .sides import add_arguments, measure, time_over_ours


def add(benches: Any) -> None:
    """The arguments of the bench."""
    parser = add_verb(
        benches,
        "train",
        "steps of QLoRA on a random Llama: ours and transformers + PEFT + bitsandbytes in turns, on the CPU",
        "lowrank bench train --peers --out results.jsonl",
    )
    add_arguments(parser, "of 3 steps each")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints a line a side."""
    from ...bench.models import train

    rows = measure(args, train.run)
    if args.json:
        return 0
    print(
        table(
            [_cells(row) for row in rows],
            ("provider", "tok/s", "spread, ms", "peak GB", "time over ours", "loss off by"),
        )
    )
    for line in train.missing_peers():
        print(line)
    return 0


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    versus = row["versus_ours"]
    parity = f"{versus['largest_loss_difference']:.4f}" if versus else ""
    speed, peak = f"{row['tokens_per_s']:.0f}", f"{row['peak_bytes'] / 1e9:.2f}"
    return row["provider"], speed, f"{row['ms_spread']:.0f} of {row['ms']:.0f}", peak, time_over_ours(versus), parity
