"""lowrank train"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from ..arguments import add_verb
from . import plan


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs, "train", "a new hat on a frozen base", "lowrank train documents-7b run.epochs=5 optimizer.lr=1e-4 --plan"
    )
    parser.add_argument(
        "recipe",
        nargs="?",
        metavar="RECIPE",
        help="the name of a recipe, or a TOML file; docs/training.md has every key",
    )
    parser.add_argument("overrides", nargs="*", metavar="table.key=value", help="put over the file")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of run.out")
    mode.add_argument("--overwrite", action="store_true", help="start again where run.out holds a run already")
    mode.add_argument("--plan", action="store_true", help="say what the run would take; nothing is loaded or written")
    mode.add_argument(
        "--report", type=Path, metavar="RUN", help="draw the run in this folder as RUN/report.html, at any time"
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out rows that cannot be learned; run.out/skipped.jsonl says why"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains, and says where the hat is."""
    from ...train.config import TrainConfig
    from ...train.from_config import train_from_config

    if args.report:
        from ...train.report import write_report

        print(write_report(args.report))
        return 0
    if args.recipe is None:
        raise ValueError("name a recipe or a TOML file; docs/training.md has both")
    config = TrainConfig.read(args.recipe, [*args.overrides, *(["data.skip_bad=true"] if args.skip_bad else [])])
    if args.plan:
        return plan.show(config, args.json)
    limit = plan.limit_tflops(config)
    result = train_from_config(config, resume=args.resume, overwrite=args.overwrite, limit_tflops=limit)
    if int(os.environ.get("RANK", "0")) > 0:  # one of several processes, of which the first tells
        return 0
    return tell(result.hat, result.rows, result.parameters, args.json)


def tell(hat: Path, rows: list[dict[str, Any]], parameters: int, as_json: bool) -> int:
    """One line, or one object."""
    losses = [row["loss"] for row in rows if row["loss"] is not None]
    filling = 1 - sum(row["tokens"] for row in rows) / sum(row["positions"] for row in rows)
    skipped = len(rows) - len(losses)
    if as_json:
        figures = {"steps": len(rows), "skipped": skipped, "parameters": parameters, "filling": filling}
        print(json.dumps({"hat": str(hat), "first_loss": losses[0], "last_loss": losses[-1], **figures}))
        return 0
    print(
        f"{hat}: loss {losses[0]:.3f} -> {losses[-1]:.3f} nats a token in {len(rows)} steps"
        f"{f' ({skipped} skipped)' if skipped else ''}, {parameters:,} parameters, "
        f"{filling:.1%} of the positions filling"
    )
    return 0
