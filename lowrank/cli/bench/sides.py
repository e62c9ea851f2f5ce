"""Shared by the benches of whole models: the arguments of two sides that take turns, and the rows of their file."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..arguments import file_to_write


def add_arguments(
    parser: argparse.ArgumentParser, turn: str, peers: bool = True, shapes: str = "167m (default) or tiny"
) -> None:
    """--peers if there are any, --shape, --turns, --threads, --scratch, --out, --json; `turn` says what one is."""
    if peers:
        parser.add_argument("--peers", action="store_true", help="also transformers + PEFT + bitsandbytes")
    parser.add_argument("--shape", default="167m", help=shapes)
    parser.add_argument("--turns", type=int, default=5, help=f"{turn} (5)")
    parser.add_argument("--threads", type=int, help="of torch (as many as there are cores)")
    parser.add_argument("--scratch", type=Path, help="folder for the weights, emptied again: 1 GB")
    parser.add_argument("--out", type=file_to_write, metavar="FILE", help="append the rows, one JSON object a line")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")


def measure(args: argparse.Namespace, bench: Callable[..., list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The rows of a bench of two sides, written and printed as `rows_of` does."""
    peers = {"peers": args.peers} if "peers" in args else {}
    options = {**peers, **turns_and_threads(args), "tell": tell_line}
    return rows_of(args, lambda scratch: bench(args.shape, scratch, **options))


def turns_and_threads(args: argparse.Namespace) -> dict[str, int]:
    """--turns and --threads, which are all cores if left out.  Raises ValueError for one that is out of range."""
    threads = len(os.sched_getaffinity(0)) if args.threads is None else args.threads
    check_at_least(1, ("--turns", args.turns), ("--threads", threads))
    return {"turns": args.turns, "threads": threads}


def check_at_least(least: int, *numbers: tuple[str, int]) -> None:
    """Raises ValueError for the first of some options, (name, value), that is less."""
    for name, value in numbers:
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def rows_of(args: argparse.Namespace, bench: Callable[[Path], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The rows of a bench that works in --scratch, written to --out, and printed if --json asks for them."""
    from ...bench.rows import append

    if args.scratch:
        Path(args.scratch).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lowrank-bench-", dir=args.scratch) as scratch:
        try:
            rows = bench(Path(scratch))
        except RuntimeError as error:
            raise OSError(str(error)) from None
    if args.out:
        append(args.out, rows)
    if args.json:
        print("\n".join(json.dumps(row) for row in rows))
    return rows


def time_over_ours(versus: dict[str, Any] | None) -> str:
    """ "2.04 (1.91 to 2.15)", and nothing for ours"""
    return f"{versus['ratio']:.2f} ({versus['low']:.2f} to {versus['high']:.2f})" if versus else ""


def tell_line(line: str) -> None:
    """A line for whoever waits, on standard error."""
    print(line, file=sys.stderr)
