"""The first call on a real device: smoke test, decode step, products, training; every row is written as it comes.

    make bench-gpu                 or, with rows in a second folder:   make bench-gpu OUT=/some/folder
    make bench-gpu BENCH_FLAGS=--dry-run

A stage is a process of its own: a wrong result or a crash in one does not keep the others from running, and fails the
exit status. What is done is kept in a file, so that a second call goes on, and begins anew if the kernels or the bench
have changed. What is imported must be this checkout, whatever else is installed.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import lowrank
from lowrank import kernels
from lowrank.atomic_io import write_text

from .. import machine
from .stages import STAGES, Stage

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / "build" / "bench-gpu.json"
SECONDS = 480  # of a whole call
LEAST = 10  # with less left no stage is begun
WRONG, DONE, STOPPED, ABSENT = "wrong", "done", "stopped", "absent"


def other_checkout() -> str:
    """The path of another checkout whose code would be measured, "" if it is this one."""
    paths = [Path(lowrank.__file__ or ""), Path(next(iter(kernels.__path__)))]
    return next((str(path) for path in paths if not path.resolve().is_relative_to(ROOT)), "")


def read_state(path: Path, source: str) -> dict[str, str]:
    """The end of each stage so far, with the same source."""
    if not path.exists():
        return {}
    kept: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    return kept.get(source, {})


def run_stage(stage: Stage, out: list[Path], seconds: float, dry_run: bool) -> str:
    """Runs a stage for so long at most; how it ended."""
    if (missing := stage.missing()) and not dry_run:
        print(f"{stage.name}: {missing} is not here", flush=True)
        return ABSENT
    command = stage.command(sys.executable, out, dry_run)
    print(f"== {stage.name}: {' '.join(command)}", flush=True)
    start = time.monotonic()
    process = subprocess.Popen(command, start_new_session=True)
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        print(f"{stage.name}: stopped after {seconds:.0f} s", flush=True)
        return STOPPED
    print(f"{stage.name}: exit status {status} after {time.monotonic() - start:.1f} s", flush=True)
    return WRONG if status else DONE


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 if a stage failed or was stopped, in this call or an earlier one; 2 for another checkout."""
    parser = argparse.ArgumentParser("python -m lowrank.bench.gpu.call", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", action="append", default=[], type=Path, metavar="FOLDER", help="add the rows here")
    parser.add_argument("--state", type=Path, default=STATE, metavar="FILE", help="what is done (%(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the whole call (%(default)s)")
    parser.add_argument("--only", default="", help="stages whose name holds this")
    parser.add_argument("--again", action="store_true", help="also what is done")
    parser.add_argument("--dry-run", action="store_true", help="let every stage print its plan; nothing is timed")
    args = parser.parse_args(arguments)
    if other := other_checkout():
        print(f"{parser.prog}: {other} would be measured, not {ROOT}: set PYTHONPATH as the Makefile does")
        return 2
    source, out = machine.source(), [folder.resolve() for folder in args.out]
    ended = {} if args.again or args.dry_run else read_state(args.state, source)
    deadline = time.monotonic() + args.seconds
    for stage in (stage for stage in STAGES if args.only in stage.name):
        if ended.get(stage.name) in (DONE, WRONG):
            print(f"{stage.name}: {ended[stage.name]} by an earlier call")
            continue
        left = deadline - time.monotonic()
        if left < LEAST:
            print(f"{stage.name}: no time is left: the next call goes on here")
            ended.setdefault(stage.name, STOPPED)
            continue
        ended[stage.name] = run_stage(stage, out, min(left, stage.seconds), args.dry_run)
        if not args.dry_run:
            args.state.parent.mkdir(parents=True, exist_ok=True)
            write_text(args.state, json.dumps({source: ended}) + "\n")
    print("; ".join(f"{name}: {how}" for name, how in ended.items()))
    return 1 if {WRONG, STOPPED} & set(ended.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
