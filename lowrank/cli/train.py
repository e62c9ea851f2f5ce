"""lowrank train"""

import argparse
from typing import Any

from .arguments import add_verb


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs, "train", "a new hat on a frozen base", "lowrank train recipe.toml run.epochs=5 optimizer.lr=1e-4"
    )
    parser.add_argument("config", metavar="CONFIG.toml", help="the run; see docs/training.md for every key")
    parser.add_argument("overrides", nargs="*", metavar="table.key=value", help="put over the file")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint of run.out")
    parser.add_argument("--overwrite", action="store_true", help="start again where run.out holds a run already")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains, and says where the hat is."""
    from ..train.config import TrainConfig
    from ..train.run import train_from_config

    config = TrainConfig.read(args.config, args.overrides)
    result = train_from_config(config, resume=args.resume, overwrite=args.overwrite)
    filling = 1 - sum(row["tokens"] for row in result.rows) / sum(row["positions"] for row in result.rows)
    losses = [row["loss"] for row in result.rows if row["loss"] is not None]
    print(
        f"{result.hat}: loss {losses[0]:.3f} -> {losses[-1]:.3f} nats a token "
        f"in {len(result.rows)} steps, {result.parameters:,} parameters, {filling:.1%} of the positions filling"
    )
    return 0
