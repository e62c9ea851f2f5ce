"""lowrank train"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..arguments import add_recipe_words, add_verb, recipe_words, refuse_existing
from . import plan


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs, "train", "a new hat on a frozen base", "lowrank train documents-7b run.epochs=5 optimizer.lr=1e-4 --plan"
    )
    add_recipe_words(
        parser,
        "RECIPE|table.key=value",
        "the name of a recipe, or a TOML file, and what is put over it; docs/training.md has every key",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--resume",
        choices=("newest", "auto"),
        metavar="auto",
        help="go on from the newest checkpoint of run.out; --resume=auto: or begin where there is none, for a job that "
        "is queued again",
    )
    mode.add_argument("--overwrite", action="store_true", help="start again where run.out holds a run already")
    mode.add_argument("--plan", action="store_true", help="say what the run would take; nothing is loaded or written")
    mode.add_argument(
        "--report", type=Path, metavar="RUN", help="draw the run in this folder as RUN/report.html, at any time"
    )
    mode.add_argument(
        "--stop", type=Path, metavar="RUN", help="end the run that trains into this folder after its step, with its hat"
    )
    mode.add_argument(
        "--hat-from",
        nargs=2,
        type=Path,
        metavar=("CHECKPOINT", "OUT"),
        help="write the hat of a checkpoint, or of a run's newest, into the folder OUT",
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out rows that cannot be learned; run.out/skipped.jsonl says why"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.bare = {"--resume": "newest"}
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains, and says where the hat is."""
    from ...train.config import TrainConfig
    from ...train.from_config import train_from_config
    from ...train.resume.folder import is_going_on
    from ...train.resume.signals import RunStopped

    if args.report or args.stop or args.hat_from:
        return of_a_run(args)
    recipe, overrides = recipe_words(args.words)
    if recipe is None:
        raise ValueError("name a recipe or a TOML file; docs/training.md has both")
    config = TrainConfig.read(recipe, [*overrides, *(["data.skip_bad=true"] if args.skip_bad else [])])
    if args.plan:
        return plan.show(config, args.json)
    resume: Any = {"newest": True, "auto": "auto"}.get(args.resume, False)
    is_going_on(Path(config.run.out), resume, args.overwrite)  # before the limit is measured
    limit = plan.limit_tflops(config)
    try:
        result = train_from_config(config, resume=resume, overwrite=args.overwrite, limit_tflops=limit)
    except RunStopped as stopped:
        if int(os.environ.get("RANK", "0")) == 0:
            print(
                f"lowrank: {stopped}; it goes on with:\n{command_to_go_on(args.words, args.skip_bad)}", file=sys.stderr
            )
        return 1
    if int(os.environ.get("RANK", "0")) > 0:  # one of several processes, of which the first tells
        return 0
    return tell(result.adapter, result.rows, result.parameters, args.json)


def of_a_run(args: argparse.Namespace) -> int:
    """Draws the page of a run, ends it, or writes the hat of a checkpoint."""
    if args.words:
        raise ValueError(f"{args.words[0]!r}: --report, --stop and --hat-from take no recipe")
    if args.report:
        from ...train.report import write_report

        print(write_report(args.report))
    elif args.stop:
        from ...train.resume.folder import ask_to_stop

        print(f"{args.stop}: {ask_to_stop(args.stop)} ends after its step, and writes its hat")
    else:
        from ...train.resume.checkpoint_adapter import save_checkpoint_adapter

        source, out = args.hat_from
        refuse_existing(out, overwrite=False)
        print(f"{out}: the hat after {save_checkpoint_adapter(source, out):,} steps")
    return 0


def command_to_go_on(words: Sequence[str], skip_bad: bool) -> str:
    """The command that goes on with the run of these words."""
    several = "torchrun ... -m " if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
    return f"{several}lowrank train {shlex.join(words)}{' --skip-bad' if skip_bad else ''} --resume"


def tell(adapter: Path, rows: list[dict[str, Any]], parameters: int, as_json: bool) -> int:
    """One line, or one object."""
    losses = [row["loss"] for row in rows if row["loss"] is not None]
    filling = 1 - sum(row["tokens"] for row in rows) / sum(row["positions"] for row in rows)
    skipped = len(rows) - len(losses)
    if not losses:
        raise FloatingPointError(f"{adapter}: no step of {len(rows)} was finite: the hat has learned nothing")
    if as_json:
        figures = {"steps": len(rows), "skipped": skipped, "parameters": parameters, "filling": filling}
        print(json.dumps({"hat": str(adapter), "first_loss": losses[0], "last_loss": losses[-1], **figures}))
        return 0
    right = rows[-1].get("reward_accuracy")
    of = "a token" if right is None else f"a pair, {right:.0%} of the last ones right,"
    print(
        f"{adapter}: loss {losses[0]:.3f} -> {losses[-1]:.3f} nats {of} in {len(rows)} steps"
        f"{f' ({skipped} skipped)' if skipped else ''}, {parameters:,} parameters, "
        f"{filling:.1%} of the positions filling"
    )
    return 0
