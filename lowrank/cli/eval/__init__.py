"""lowrank eval"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...data.encoding.template import NAMES
from ...text_table import table
from ..arguments import WEIGHTS_HELP, add_adapters, add_base, add_force, add_verb, compute_dtype
from ..flags import flags_in_errors
from .others import add_others, other_tables, prepare_others
from .tasks import DOCUMENTS, QUESTIONS, TASKS, build_tasks

if TYPE_CHECKING:
    from ...eval.grid.grid import Cell

_FLAGS = {
    "weights: ": "--weights: ",
    "tasks: ": "--tasks: ",
    "batch must": "--batch must",
    "temperature must": "--temperature must",
    "temperatures must": "--temperature must",
    "name another state folder": "name a new --out",
}


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "eval",
        "every hat, and none, on every precision: what the hat gains, and what 4 bit costs",
        "lowrank eval embedded --adapter finance=runs/hat/hat --weights fp32,dequant:nf4-dq,nf4-dq",
    )
    add_base(parser)
    add_adapters(parser)
    add_force(parser)
    parser.add_argument("--weights", default="nf4-dq,fp32", help=f"precisions, by commas ({WEIGHTS_HELP})")
    parser.add_argument("--tasks", default="documents", help=f"by commas, of {', '.join(TASKS)} (default: %(default)s)")
    parser.add_argument(
        "--data", type=Path, help="a file that training takes, with facts in it (default: our own test documents)"
    )
    parser.add_argument("--kind", metavar="FILE.toml", help="the kind of --data's documents, if they are of one's own")
    parser.add_argument(
        "--from",
        dest="public",
        metavar="DIR",
        type=Path,
        help="where the public sets are: a folder that `lowrank data mixture` wrote, or one as its --from takes it",
    )
    parser.add_argument(
        "--trained-on",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a file that hats were trained on: its texts are looked for in documents, its questions are not asked",
    )
    parser.add_argument(
        "--n", type=int, help=f"items a task (default: {DOCUMENTS} documents, {QUESTIONS} questions, else all)"
    )
    parser.add_argument("--overlap", action="store_true", help="documents: ROUGE, chrF and self-BLEU too (extra eval)")
    parser.add_argument(
        "--grounded", action="store_true", help="documents: each a second time, no figure but what the facts allow"
    )
    parser.add_argument(
        "--temperature",
        default="0",
        metavar="T,...",
        help="documents: at each of these (default: 0, the likeliest token)",
    )
    parser.add_argument("--template", choices=NAMES, help="default: that of the hats; another is refused")
    parser.add_argument("--batch", type=int, default=25, help="items written at a time (default: %(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/eval"),
        help="folder for grid.json, .md and .html, the texts, and what is kept to go on from (default: %(default)s)",
    )
    add_others(parser)
    parser.add_argument("--json", action="store_true", help="print grid.json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs what is not done yet, writes the reports, and prints the scores and the two answers."""
    from ...atomic_io import write_json, write_text
    from ...checkpoints.embedded import base_folder
    from ...eval.grid.comparison import QUESTIONS
    from ...eval.grid.grid import evaluate_grid
    from ...eval.grid.page import render_grid
    from ...eval.grid.report import GridReport, answer_rows, markdown
    from ...eval.grid.score_table import score_table

    adapters = named_once(args.adapter)
    weights = args.weights.split(",")
    base = base_folder(args.base)
    with flags_in_errors({"public sets in ": "--from "}):
        tasks = build_tasks(args, adapters)
    measure_others = prepare_others(args)
    common: dict[str, Any] = {
        "dtype": compute_dtype(args.dtype),
        "device": args.device,
        "force": args.force,
        "progress": not args.json,
    }
    with flags_in_errors(_FLAGS):
        cells = evaluate_grid(
            base,
            adapters,
            weights,
            tasks,
            template=args.template,
            batch=args.batch,
            grounded=args.grounded,
            temperatures=read_temperatures(args.temperature),
            state=args.out / "cells",
            **common,
        )
    others = measure_others(base, adapters, weights)
    report = GridReport.of(_about(args, base), cells, other_tables(others))
    figures = report.to_json() | others
    write_json(args.out / "grid.json", figures)
    write_text(args.out / "grid.md", markdown(report))
    write_text(args.out / "grid.html", render_grid(report))
    write_texts(args.out / "texts", cells)
    if args.json:
        print(json.dumps(figures, indent=2))
        return 0
    for name, group in report.tasks.items():
        print(f"{name}, n = {len(group[0].outputs)}")
        print(score_table(group), end="\n\n")
        if left_out := group[0].left_out:
            print(f"{len(left_out)} items of {name} do not fit into the context and are left out\n")
    for shown in report.tables:
        print(f"{shown.title}. {shown.note}\n{table(shown.rows, shown.head)}", end="\n\n")
    for question, title in QUESTIONS.items():
        if rows := answer_rows(report.comparisons, question):
            print(f"{title}:")
            print(table(rows, ("task", "hat", "weights", "measure", "difference", "95 % interval", "")), end="\n\n")
    print(f"{args.out / 'grid.html'} has every difference and every document, side by side.")
    return 0


def read_temperatures(text: str) -> list[float]:
    """The numbers of --temperature.  Raises ValueError for what is none."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--temperature must be numbers by commas, got {text!r}") from None


def named_once(adapters: Sequence[tuple[str, Path]]) -> dict[str, Path]:
    """The hats by name.  Raises ValueError for a name that is given twice, or that is no word."""
    names = [name for name, _ in adapters]
    if odd := [name for name in names if not re.fullmatch(r"\w[\w-]*", name)]:
        raise ValueError(f"--adapter: a name must be letters, digits, _ and -, got {odd[0]!r}")
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"--adapter {doubled[0]}=...: the name is given twice")
    return dict(adapters)


def write_texts(folder: Path, cells: "Sequence[Cell]") -> None:
    """Every text of every cell: one JSONL a cell, a line an item."""
    from ...data.jsonl import write_lines

    for cell in cells:
        setting = cell.column.setting.replace(":", "-").replace(", ", "-")
        name = f"{cell.task.name}.{cell.column.adapter or 'base'}.{setting}.jsonl"
        pairs = zip(cell.task.items, cell.outputs, strict=True)
        write_lines(folder / name, ({"id": i.id, "text": o.text, "ended": o.ended} for i, o in pairs))


def _about(args: argparse.Namespace, base: Path) -> dict[str, str]:
    import platform

    import torch

    from ... import __version__
    from ...eval.grid.cache import base_sha256

    about = {
        "base": str(args.base),
        "base, SHA-256": base_sha256(base)[:16],
        "hats": ", ".join(f"{name} ({path})" for name, path in args.adapter) or "none",
        "precisions": args.weights,
        "tasks": args.tasks,
        "decoding": "greedy" if args.temperature == "0" else f"at temperature {args.temperature}, a seed an item",
        "intervals": "95 %, paired bootstrap over items, 10,000 resamples",
        "machine": f"{platform.machine()}, {args.device}, {torch.get_num_threads()} threads",
        "versions": f"lowrank {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
    }
    if args.overlap or "qa" in args.tasks.split(","):
        from ...eval.metrics.overlap import chrf_signature

        about["chrF"] = chrf_signature()
    return about
