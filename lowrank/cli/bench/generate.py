"""lowrank bench generate"""

import argparse
import sys
from pathlib import Path
from typing import Any

from ...text_table import table
from ..arguments import add_verb
from .sides import add_arguments, measure, time_over_ours


def add(benches: Any) -> None:
    """The arguments of the bench."""
    parser = add_verb(
        benches,
        "generate",
        "64 tokens from a random Llama: ours, transformers + PEFT + bitsandbytes, and llama.cpp in turns, on the CPU",
        "lowrank bench generate --peers --out results.jsonl",
    )
    shapes = "167m (default) or tiny; 7b, beside llama.cpp alone, needs 40 GB of disk and 20 GB of memory"
    add_arguments(parser, "of one prompt each, after one that is not counted", shapes=shapes)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints a line a side, and whether the bar is held; with --peers also beside llama.cpp, where it is built."""
    from ...bench.models import generate, llamacpp

    if args.shape == llamacpp.LARGE and not args.peers:
        raise ValueError(f"--shape {llamacpp.LARGE} is measured beside llama.cpp alone: it wants --peers")
    rows = [] if args.shape == llamacpp.LARGE else measure(args, generate.run)
    beside = []
    if args.peers:
        if reason := llamacpp.not_built_reason():
            print(f"llama.cpp is left out: {reason}", file=sys.stderr)
        else:
            beside = measure(args, _beside_llamacpp)
    if args.json:
        return 0
    header = ("provider", "tok/s", "spread, ms a token", "peak GB", "time over ours", "equal tokens, turn by turn")
    if rows:
        print(table([_cells(row) for row in rows], header))
    for row in rows:
        if row["missing"]:
            print(f"{row['provider']}: {row['missing']}")
    for bar in generate.bars(rows):
        print(bar)
    if beside:
        names = ("provider", "bits a weight", "MB a token", "prompt 128, tok/s", "prompt 512, tok/s", "tokens/s", "GB")
        print(table([_compared(row) for row in beside], names))
    return 0


def _beside_llamacpp(shape: str, scratch: Path, *, peers: bool, **options: Any) -> list[dict[str, Any]]:
    from ...bench.models import llamacpp

    return llamacpp.run(shape, scratch, **options)


def _compared(row: dict[str, Any]) -> tuple[str, ...]:
    """A line of the table beside llama.cpp: tokens a second, and behind them its time over ours."""
    speeds = []
    for what in ("prompt_128", "prompt_512", "tokens"):
        versus = row[what].get("versus_ours")
        against = f"; {versus[0]:.2f} ({versus[1]:.2f} to {versus[2]:.2f})" if versus else ""
        speeds.append(f"{row[what]['per_s']:.1f}{against}")
    name = f"{row['provider']} {row['format']}, head {row['head']}{', hat' if row['hat'] else ''}"
    sizes = f"{row['bits_a_weight']:.2f}", f"{row['bytes_a_token'] / 1e6:.1f}"
    return name, *sizes, *speeds, f"{row['peak_bytes'] / 1e9:.2f}"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    versus = row["versus_ours"]
    equal = f"{', '.join(map(str, versus['equal_tokens']))} of {row['new_tokens']}" if versus else ""
    speed, peak = f"{row['tokens_per_s']:.1f}", f"{row['peak_bytes'] / 1e9:.2f}"
    return row["provider"], speed, f"{row['ms_spread']:.2f} of {row['ms']:.2f}", peak, time_over_ours(versus), equal
