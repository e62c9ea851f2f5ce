"""lowrank reproduce"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..text_table import table
from .arguments import add_recipe_words, add_verb, recipe_words
from .flags import flags_in_errors

# The flags of each of the two, by the name of the argument: the value that says it was not given.
WRITE_UP = {"mixture": None, "public": None, "full": None, "n": 20, "device": "cpu"}
LORA = {"jobs": 1, "seeds": None, "short": False}
FLAGS = {"public": "--from"}


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "reproduce",
        "the write-up in one command: both hats, on 4 bit and on full precision, its claims beside ours",
        "lowrank reproduce llama-2-7b --mixture data/mixture/train.jsonl --from data/mixture --device cuda",
    )
    add_recipe_words(
        parser,
        "BASE|table.key=value",
        'folder of full-precision weights, or "embedded"; overrides are put over both training runs',
    )
    parser.add_argument(
        "--mixture",
        type=Path,
        metavar="FILE",
        help="what the second hat learns from: train.jsonl of `lowrank data mixture`, or a stand-in of your own",
    )
    parser.add_argument(
        "--from", dest="public", type=Path, metavar="DIR", help="where the public sets are, to test on them too"
    )
    parser.add_argument("--out", type=Path, help="folder to write (runs/reproduce, of --lora runs/lora)")
    parser.add_argument("--full", choices=("fp32", "bf16", "fp16"), help="the full precision (default: bf16)")
    parser.add_argument("--n", type=int, default=WRITE_UP["n"], help="test documents (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="where to compute: cpu (default), cuda, cuda:1 ...")
    parser.add_argument(
        "--lora",
        action="store_true",
        help="instead: LoRA beside full fine-tuning of the embedded base, against what three works say of them",
    )
    parser.add_argument("--jobs", type=int, default=LORA["jobs"], help="of --lora: processes of one thread each (1)")
    parser.add_argument("--seeds", type=int, help="of --lora: seeds, from which intervals are (3)")
    parser.add_argument("--short", action="store_true", help="of --lora: a few steps of each kind, to see that it runs")
    parser.add_argument("--json", action="store_true", help="print reproduce.json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains, evaluates, and prints each claim, then what the pages have."""
    _refuse_foreign(args, WRITE_UP if args.lora else LORA, "not of --lora" if args.lora else "of --lora alone")
    return _run_lora(args) if args.lora else _run_write_up(args)


def _refuse_foreign(args: argparse.Namespace, unset: Mapping[str, Any], why: str) -> None:
    """Raises ValueError for a flag that belongs to the other of the two."""
    for name, value in unset.items():
        if getattr(args, name) != value:
            raise ValueError(f"{FLAGS.get(name, f'--{name}')} is {why}, got {getattr(args, name)}")


def _run_lora(args: argparse.Namespace) -> int:
    from ..workflows.lora import PLAN, SHORT, reproduce_lora
    from ..workflows.lora_page import claim_rows
    from ..workflows.lora_plan import SEEDS

    base, overrides = recipe_words(args.words)
    if overrides:
        raise ValueError(f"--lora takes no overrides, got {overrides[0]}")
    if base not in (None, "embedded"):
        raise ValueError(f"--lora is of the embedded base, got {base}")
    out, seeds = args.out or Path("runs/lora"), SEEDS if args.seeds is None else args.seeds
    with flags_in_errors(
        {
            "seeds must": "--seeds must",
            "jobs must": "--jobs must",
            " out must be": " --out must be",
            "name another run.out": "name another --out",
        }
    ):
        found = reproduce_lora(
            out, seeds=seeds, jobs=args.jobs, plan=SHORT if args.short else PLAN, progress=not args.json
        )
    if args.json:
        print(json.dumps(json.loads((out / "lora.json").read_text(encoding="utf-8")), indent=2))
        return 0
    for work, says, figure, wanted, measured, verdict in claim_rows(found.judged):
        print(f"{says}\n    {work}\n    {figure}: {measured} ({wanted})\n    verdict: {verdict}")
    print(f"\n{out / 'lora.html'} has rates, curves and every method.")
    return 0


def _run_write_up(args: argparse.Namespace) -> int:
    from ..eval.grid.comparison import QUESTIONS
    from ..eval.grid.report import answer_rows
    from ..eval.grid.score_table import score_table
    from ..workflows.reproduce import reproduce

    if args.n < 1:
        raise ValueError(f"--n must be at least 1, got {args.n}")
    base, overrides = recipe_words(args.words)
    if base is None:
        raise ValueError('name the base: a folder of full-precision weights, or "embedded"')
    if args.mixture is None:
        raise ValueError("--mixture: name the file that the second hat learns from")
    out = args.out or Path("runs/reproduce")
    with flags_in_errors(
        {"mixture: ": "--mixture: ", "public sets in ": "--from ", "name another state folder": "name a new --out"}
    ):
        found = reproduce(
            base,
            args.mixture,
            out,
            public_sets=args.public,
            full=args.full,
            overrides=overrides,
            n=args.n,
            device=args.device,
            progress=not args.json,
        )
    if args.json:
        print(json.dumps(json.loads((out / "reproduce.json").read_text(encoding="utf-8")), indent=2))
        return 0
    for claim in found.claims:
        print(f"{claim.what}\n    the write-up: {claim.theirs}")
        for name, value in (("its shapes", claim.ours), ("found here", claim.found), ("verdict", claim.verdict)):
            if value:
                print(f"    {name}: {value}")
    for name, cells in found.report.tasks.items():
        print(f"\n{name}, n = {len(cells[0].outputs)}\n{score_table(cells)}")
    for question, title in QUESTIONS.items():
        if rows := answer_rows(found.report.comparisons, question):
            print(f"\n{title}:")
            print(table(rows, ("task", "hat", "weights", "measure", "difference", "95 % interval", "")))
    print(f"\n{out / 'reproduce.html'} has every document side by side.")
    return 0
