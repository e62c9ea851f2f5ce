"""lowrank bench generate"""

import argparse
from typing import Any

from ...text_table import table
from ..arguments import add_verb
from .sides import add_arguments, measure, time_over_ours


def add(benches: Any) -> None:
    """The arguments of the bench."""
    parser = add_verb(
        benches,
        "generate",
        "64 tokens from a random Llama in a hat: ours and transformers + PEFT + bitsandbytes in turns, on the CPU",
        "lowrank bench generate --peers --out results.jsonl",
    )
    add_arguments(parser, "of one prompt each, after one that is not counted")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints a line a side, and whether the bar is held."""
    from ...bench.models import generate

    rows = measure(args, generate.run)
    if args.json:
        return 0
    header = ("provider", "tok/s", "spread, ms a token", "peak GB", "time over ours", "equal tokens, turn by turn")
    print(table([_cells(row) for row in rows], header))
    for bar in generate.bars(rows):
        print(bar)
    return 0


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    versus = row["versus_ours"]
    equal = f"{', '.join(map(str, versus['equal_tokens']))} of {row['new_tokens']}" if versus else ""
    speed, peak = f"{row['tokens_per_s']:.1f}", f"{row['peak_bytes'] / 1e9:.2f}"
    return row["provider"], speed, f"{row['ms_spread']:.2f} of {row['ms']:.2f}", peak, time_over_ours(versus), equal
