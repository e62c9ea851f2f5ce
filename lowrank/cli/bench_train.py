"""lowrank bench train"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from .arguments import add_verb, table


def add(benches: Any) -> None:
    """The arguments of the bench."""
    parser = add_verb(
        benches,
        "train",
        "steps of QLoRA on a random Llama: ours and transformers + PEFT + bitsandbytes in turns, on the CPU",
        "lowrank bench train --peers --out results.jsonl",
    )
    parser.add_argument("--peers", action="store_true", help="also transformers + PEFT + bitsandbytes")
    parser.add_argument("--shape", default="167m", help="167m (default) or tiny")
    parser.add_argument("--turns", type=int, default=5, help="of 3 steps each (5)")
    parser.add_argument("--threads", type=int, help="of torch (as many as there are cores)")
    parser.add_argument("--scratch", type=Path, help="folder for the weights, emptied again: 1 GB")
    parser.add_argument("--out", type=Path, metavar="FILE", help="append the rows, one JSON object a line")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints a line a side."""
    from ..bench.bench_train import missing_peers
    from ..bench.bench_train import run as run_bench
    from ..bench.rows import append

    threads = args.threads or len(os.sched_getaffinity(0))
    for name, value in (("--turns", args.turns), ("--threads", threads)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    with tempfile.TemporaryDirectory(prefix="lowrank-bench-", dir=args.scratch) as scratch:
        try:
            rows = run_bench(args.shape, Path(scratch), peers=args.peers, turns=args.turns, threads=threads, tell=_tell)
        except RuntimeError as error:
            raise OSError(str(error)) from None
    if args.out:
        append(args.out, rows)
    if args.json:
        print("\n".join(json.dumps(row) for row in rows))
        return 0
    print(
        table(
            [_cells(row) for row in rows],
            ("provider", "tok/s", "spread, ms", "peak GB", "time over ours", "loss off by"),
        )
    )
    for line in missing_peers():
        print(line)
    return 0


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    versus = row["versus_ours"]
    ratio = f"{versus['ratio']:.2f} ({versus['low']:.2f} to {versus['high']:.2f})" if versus else ""
    parity = f"{versus['largest_loss_difference']:.4f}" if versus else ""
    speed, peak = f"{row['tokens_per_s']:.0f}", f"{row['peak_bytes'] / 1e9:.2f}"
    return row["provider"], speed, f"{row['ms_spread']:.0f} of {row['ms']:.0f}", peak, ratio, parity


def _tell(line: str) -> None:
    print(line, file=sys.stderr)
