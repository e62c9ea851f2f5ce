"""lowrank bench judge"""

import argparse
import json
from pathlib import Path
from typing import Any

from ...text_table import table
from ..arguments import add_verb, file_to_write
from .sides import check_at_least, tell_line, time_over_ours


def add(benches: Any) -> None:
    """The arguments of the bench."""
    parser = add_verb(
        benches,
        "judge",
        "a kernel of somebody else's: whether it is right at every call, and its time beside ours and plain torch's",
        "lowrank bench judge mine.py --task nf4-gemv",
    )
    parser.add_argument(
        "submission",
        metavar="SUBMISSION",
        type=Path,
        help="a .py with custom_kernel(data), or a .so with the function of bench/judge/tasks/nf4-linear/nf4_linear.h",
    )
    parser.add_argument("--task", default="nf4-gemv", help="nf4-gemv (default) or nf4-linear")
    parser.add_argument("--threads", type=int, default=1, help="that it may compute with (1)")
    parser.add_argument("--repetitions", type=int, default=20, help="of each timed case (20); 0: nothing is timed")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds that a call may take (60)")
    parser.add_argument("--out", type=file_to_write, metavar="FILE", help="append the rows, one JSON object a line")
    parser.add_argument("--json", action="store_true", help="print the verdict and the rows as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the verdict, and a line a timed case; exit status 1 if a rule was broken."""
    from ...bench.judge.judge import OURS, PLAIN, THEIRS, judge
    from ...bench.rows import append

    check_at_least(1, ("--threads", args.threads))
    check_at_least(0, ("--repetitions", args.repetitions))
    if not args.limit > 0:
        raise ValueError(f"--limit must be above 0, got {args.limit}")
    options = {"threads": args.threads, "repetitions": args.repetitions, "limit": args.limit, "tell": tell_line}
    found = judge(args.submission, args.task, **options)
    if args.out and found.rows:
        append(args.out, found.rows)
    if args.json:
        print(json.dumps(found.to_json()))
        return 0 if found.passed else 1
    print(found.sentence())
    if found.rows:
        theirs = [row for row in found.rows if row["provider"] == THEIRS]
        header = ("M x N x K", "ms", "spread", "time over ours", "time over plain torch")
        print(table([_cells(row, OURS, PLAIN) for row in theirs], header))
        print(f"of each call {theirs[0]['round_trip_ms']:.3f} ms are the way to its process and back, on every side")
    return 0 if found.passed else 1


def _cells(row: dict[str, Any], ours: str, plain: str) -> tuple[str, ...]:
    shape = f"{row['M']} x {row['N']} x {row['K']}"
    figures = f"{row['ms']:.3f}", f"{row['ms_spread']:.3f}"
    return shape, *figures, time_over_ours(row["over"][ours]), time_over_ours(row["over"][plain])
