"""lowrank sweep"""

import argparse
import json
import re
import shlex
import sys
from typing import TYPE_CHECKING, Any

from ..text_table import table
from .arguments import add_recipe_words, add_verb, recipe_words

if TYPE_CHECKING:
    from ..train.sweep.axes import Sweep
    from ..train.sweep.plan import SweepPlan


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "sweep",
        "many hats at once on one base, and which of them is worth its size",
        "lowrank sweep documents-7b adapter.rank=4,8,16 optimizer.lr=1e-4,3e-4 seed=0,1,2",
    )
    add_recipe_words(
        parser,
        "RECIPE|table.key=value,value",
        "as `lowrank train` takes them; a key with several values is swept, and seed stands for run.seed",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--resume", action="store_true", help="go on from every hat's newest checkpoint")
    mode.add_argument("--overwrite", action="store_true", help="start again where run.out holds a sweep already")
    mode.add_argument("--plan", action="store_true", help="say what memory the sweep would take; nothing is written")
    parser.add_argument(
        "--together", type=int, metavar="N", help="positions that one pass takes, of as many hats as fit (640)"
    )
    parser.add_argument(
        "--margin", type=float, help="nats a token by which the loss of a rank that is not worse may be higher (0.01)"
    )
    parser.add_argument("--json", action="store_true", help="print results.json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains all hats, compares them, and prints the comparison."""
    from ..checkpoints.embedded import base_folder
    from ..checkpoints.load import load_tokenizer
    from ..train.data import read_run_data
    from ..train.plan.flops import runtime_bytes
    from ..train.plan.plan import shape_of
    from ..train.resume.signals import RunStopped
    from ..train.sweep.axes import Sweep
    from ..train.sweep.plan import make_plan
    from ..train.sweep.results import MARGIN
    from ..train.sweep.run import POSITIONS, check_folder, train_together
    from ..train.sweep.write import write_results

    at_once, margin = args.together or POSITIONS, MARGIN if args.margin is None else args.margin
    if args.together is not None and args.together < 1:
        raise ValueError(f"--together must be at least 1, got {args.together}")
    if not 0 < margin < float("inf"):
        raise ValueError(f"--margin must be above 0, got {margin:g}")
    words = [re.sub(r"^seed\s*=", "run.seed=", word) for word in args.words]
    recipe, settings = recipe_words(words)
    if recipe is None:
        raise ValueError("name a recipe or a TOML file; docs/training.md has both")
    sweep = Sweep.read(recipe, settings)
    if not args.plan:
        check_folder(sweep, args.resume, args.overwrite)
    model = shape_of(sweep.config)
    data = read_run_data(sweep.config, load_tokenizer(base_folder(sweep.config.base.path)))
    for line in (*sweep.notes, *data.notes):
        print(f"lowrank: note: {line}", file=sys.stderr)
    plan = make_plan(model, sweep.points, data.examples, at_once, runtime_bytes(sweep.config.run.recompute))
    if args.plan:
        return _show(plan, args.json)
    print(_line(sweep, plan), file=sys.stderr)
    try:
        trained = train_together(
            sweep,
            data,
            resume=args.resume,
            overwrite=args.overwrite,
            progress=not args.json,
            at_once=at_once,
        )
    except RunStopped as stopped:
        several = f" --together {args.together}" if args.together else ""
        command = f"lowrank sweep {shlex.join(args.words)}{several} --resume"
        print(f"lowrank: {stopped}; it goes on with:\n{command}", file=sys.stderr)
        return 1
    results = write_results(sweep, data, trained, margin)
    if args.json:
        print(json.dumps(results, indent=2))
        return 0
    _print_results(sweep, results)
    return 0


def _line(sweep: "Sweep", plan: "SweepPlan") -> str:
    """The needs of the sweep, in one line.  Raises ValueError if that is more than there is."""
    import torch

    from ..train.sweep.plan import available_bytes

    free = available_bytes(torch.device(sweep.config.base.device))
    needed = plan.peak_bytes - plan.parts[0].bytes  # this process has the first part already
    line = (
        f"{len(sweep.points)} hats of {plan.parameters:,} parameters in all: predicted peak "
        f"{plan.peak_bytes / 1e9:.2f} GB, up to {plan.positions:,} positions in one pass"
    )
    if free is not None and needed > free:
        raise ValueError(
            f"{line}: {free / 1e9:.2f} GB are free: take a smaller --together or run.batch, or fewer values"
        )
    return line


def _show(plan: "SweepPlan", as_json: bool) -> int:
    if as_json:
        parts = [{"what": part.what, "parameters": part.parameters, "bytes": part.bytes} for part in plan.parts]
        print(json.dumps({"parts": parts, "peak_bytes": plan.peak_bytes, "positions": plan.positions}))
        return 0
    rows = [(part.what, f"{part.bytes:,}", f"{part.bytes / 1e9:.3f}") for part in plan.parts]
    rows.append(("predicted peak", f"{plan.peak_bytes:,}", f"{plan.peak_bytes / 1e9:.3f}"))
    print(table(rows, ("part", "bytes", "GB")))
    print(f"up to {plan.positions:,} positions in one pass")
    return 0


def _print_results(sweep: "Sweep", results: dict[str, Any]) -> None:
    from ..train.sweep.page import lead
    from ..train.sweep.run import PAGE

    rows = [
        (
            point["name"],
            f"{point['parameters']:,}",
            "–" if point["train_loss"] is None else f"{point['train_loss']:.4f}",
            point["failed"] if point["held_out_loss"] is None else f"{point['held_out_loss']:.4f}",
        )
        for point in results["points"]
    ]
    print(table(rows, ("hat", "parameters", "training loss", "held-out loss")))
    for one in results["differences"]:
        bounds = "" if one["low"] is None else f" [{one['low']:+.4f}, {one['high']:+.4f}]"
        change = f"{one['difference']:+.4f}{bounds} {one['verdict']}"
        print(f"{one['axis']} {one['value']} against {one['reference']}: {change}")
    print(f"{lead(results)}\n{sweep.out / PAGE}")
