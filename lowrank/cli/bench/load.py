"""lowrank bench load"""

import argparse
import sys
from pathlib import Path
from typing import Any

from ...text_table import table
from ..arguments import add_verb, file_to_write
from .sides import check_at_least, rows_of


def add(benches: Any) -> None:
    """The arguments of the bench."""
    parser = add_verb(
        benches,
        "load",
        "a Llama of true size with random weights: quantized, loaded, run and trained for a step, on the CPU",
        "lowrank bench load --shape 7b --scratch /big/disk",
    )
    parser.add_argument("--shape", default="tiny", help="tiny (default), 167m, 7b, 13b or 70b")
    parser.add_argument("--scratch", type=Path, help="folder for the weights, emptied again: 7b needs 17.5 GB")
    parser.add_argument("--threads", type=int, help="of torch (as many as it takes)")
    parser.add_argument("--out", type=file_to_write, metavar="FILE", help="append the rows, one JSON object a line")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints a line a stage."""
    from ...bench.models.load import run as run_bench

    if args.threads is not None:
        check_at_least(1, ("--threads", args.threads))
    rows = rows_of(args, lambda scratch: run_bench(args.shape, scratch, threads=args.threads, tell=_print_row))
    if args.json:
        return 0
    figures = [
        (row["stage"], f"{row['seconds']:.1f}", f"{row['gb_per_s']:.3f}", f"{row['peak_resident_bytes'] / 1e9:.2f}")
        for row in rows
    ]
    print(table(figures, ("stage", "seconds", "GB/s", "peak resident GB")))
    return 0


def _print_row(row: dict[str, Any]) -> None:
    """Prints each stage as it ends: those of a large model take minutes."""
    print(f"{row['stage']}: {row['seconds']:.1f} s", file=sys.stderr)
