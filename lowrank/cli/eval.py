"""lowrank eval"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.template import TEMPLATES
from .arguments import WEIGHTS_HELP, add_adapters, add_base, add_force, add_verb, compute_dtype, table

if TYPE_CHECKING:
    from ..eval.grid import Cell
    from ..eval.tasks import Task

TASKS = ("documents", "sentiment", "ner", "qa")
DOCUMENTS, QUESTIONS = 20, 200


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
    parser.add_argument("--data", type=Path, help="JSONL of entries (default: our own test documents)")
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
    parser.add_argument("--template", choices=TEMPLATES, help="default: that of the hats; another is refused")
    parser.add_argument("--batch", type=int, default=25, help="items written at a time (default: %(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/eval"),
        help="folder for grid.json, .md and .html, the texts, and what is kept to go on from (default: %(default)s)",
    )
    parser.add_argument("--perplexity", metavar="FILE", type=Path, help="also of this text, through a sliding window")
    parser.add_argument("--window", type=int, help="tokens of that window (default: the model's context)")
    parser.add_argument("--stride", type=int, help="tokens that it moves on by (default: half of it)")
    parser.add_argument("--json", action="store_true", help="print grid.json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs what is not done yet, writes the reports, and prints the scores and the two answers."""
    from ..embedded import base_folder
    from ..eval.comparison import QUESTIONS
    from ..eval.grid import evaluate_grid
    from ..eval.grid_page import render_grid
    from ..eval.grid_report import GridReport, answer_rows, markdown
    from ..files import write_json, write_text

    adapters = named_once(args.adapter)
    weights = args.weights.split(",")
    base = base_folder(args.base)
    tasks = build_tasks(args, adapters)
    common: dict[str, Any] = {
        "dtype": compute_dtype(args.dtype),
        "device": args.device,
        "force": args.force,
        "progress": not args.json,
    }
    cells = evaluate_grid(
        base, adapters, weights, tasks, template=args.template, batch=args.batch, state=args.out / "cells", **common
    )
    report = GridReport.of(_about(args, base), cells)
    figures = report.to_json()
    if args.perplexity:
        figures["perplexity"] = perplexities(args, base, adapters, weights)
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
    for row in figures.get("perplexity", ()):
        print(
            f"{args.perplexity}, {row['adapter'] or 'base'} on {row['weights']}: perplexity {row['perplexity']:.3f} a "
            f"token, {row['bits_per_byte']:.4f} bits a byte, {row['tokens']:,} tokens"
        )
    for question, title in QUESTIONS.items():
        if rows := answer_rows(report.comparisons, question):
            print(f"{title}:")
            print(table(rows, ("task", "hat", "weights", "measure", "difference", "95 % interval", "")), end="\n\n")
    print(f"{args.out / 'grid.html'} has every difference and every document, side by side.")
    return 0


def named_once(adapters: Sequence[tuple[str, Path]]) -> dict[str, Path]:
    """The hats by name.  Raises ValueError for a name that is given twice."""
    names = [name for name, _ in adapters]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"--adapter {doubled[0]}=...: the name is given twice")
    return dict(adapters)


def build_tasks(args: argparse.Namespace, adapters: Mapping[str, Path]) -> "list[Task]":
    """The tasks of --tasks.  Raises ValueError for one that is unknown, or whose data is not at hand."""
    from ..data.formats import read_conversations

    names = args.tasks.split(",")
    for name in names:
        if name not in TASKS:
            raise ValueError(f"--tasks must be of {', '.join(TASKS)}, got {name!r}")
    if args.n is not None and args.n < 1:
        raise ValueError(f"--n must leave at least one document or item, got {args.n}")
    trained = [conversation for path in args.trained_on for conversation in read_conversations(path)]
    outputs = [turn.output for conversation in trained for turn in conversation.turns if turn.output is not None]
    questions = [turn.input for conversation in trained for turn in conversation.turns]
    return [_task(name, args, adapters, outputs, questions) for name in names]


def _task(
    name: str, args: argparse.Namespace, adapters: Mapping[str, Path], outputs: list[str], questions: list[str]
) -> "Task":
    from ..data.documents import make_documents, read_jsonl
    from ..eval import public
    from ..eval.documents import Documents
    from ..eval.entities import Entities
    from ..eval.questions import Questions
    from ..eval.sentiment import Sentiment

    if name == "documents":
        n = args.n or DOCUMENTS
        entries = read_jsonl(args.data)[:n] if args.data else make_documents(n, seed=7, split="test")
        if not entries:
            raise ValueError(f"--data {args.data}: must hold at least one document, got none")
        return Documents(entries, training=outputs or _own_training(adapters), overlap=args.overlap)
    if args.public is None:
        raise ValueError(f"--tasks {name} needs --from DIR: the public sets, which are not part of this package")
    if name == "sentiment":
        return Sentiment(public.some(public.sentiment_rows(args.public), args.n))
    if name == "ner":
        return Entities(public.some(public.ner_rows(args.public), args.n))
    _check_trained_on(adapters, args.trained_on)
    return Questions(public.some(public.question_rows(args.public, questions), args.n or QUESTIONS))


def _own_training(adapters: Mapping[str, Path]) -> list[str]:
    """The texts of our own documents that hats say they were trained on."""
    from ..data.documents import make_documents
    from ..provenance import read_record

    data = [read_record(path).get("data", {}) for path in adapters.values()]
    seeds = sorted({int(record["seed"]) for record in data if record.get("made_by") == "lowrank"})
    return [entry.output for seed in seeds for entry in make_documents(100, seed=seed, split="train")]


def _check_trained_on(adapters: Mapping[str, Path], files: Sequence[Path]) -> None:
    """Raises ValueError for a hat whose training file is not named, so that no question of it could be left out."""
    from ..files import sha256_of
    from ..provenance import read_record

    known = {sha256_of(path) for path in files}
    for name, path in adapters.items():
        data = read_record(path).get("data", {})
        if data.get("made_by") != "lowrank" and data.get("sha256") not in known:
            told = data.get("file", "an unknown file")
            raise ValueError(f"--tasks qa: {name} was trained on {told}: name it by --trained-on, to leave it out")


def perplexities(
    args: argparse.Namespace, base: Path, adapters: Mapping[str, Path], weights: Sequence[str]
) -> list[dict[str, Any]]:
    """The perplexity of a text in every column of the grid."""
    from ..adapter_files import load_adapter
    from ..adapters import use_adapter
    from ..eval.perplexity import text_perplexity
    from ..loader import load, load_tokenizer

    text, tokenizer, rows = args.perplexity.read_text(encoding="utf-8"), load_tokenizer(base), []
    for precision in weights:
        model = load(base, precision, compute_dtype(args.dtype), args.device)
        for name, path in adapters.items():
            load_adapter(model, name, path, force=args.force)
        for adapter in (None, *adapters):
            use_adapter(model, adapter)
            found = text_perplexity(model, tokenizer, text, window=args.window, stride=args.stride)
            figures = {"tokens": found.tokens, "bytes": found.bytes, "nats": found.nats}
            figures |= {"perplexity": found.per_token, "bits_per_byte": found.bits_per_byte}
            rows.append({"adapter": adapter, "weights": precision, **figures})
    return rows


def write_texts(folder: Path, cells: "Sequence[Cell]") -> None:
    """Every text of every cell: one JSONL a cell, a line an item."""
    from ..data.jsonl import write_lines

    for cell in cells:
        name = f"{cell.task.name}.{cell.column.adapter or 'base'}.{cell.column.weights.replace(':', '-')}.jsonl"
        pairs = zip(cell.task.items, cell.outputs, strict=True)
        write_lines(folder / name, ({"id": i.id, "text": o.text, "ended": o.ended} for i, o in pairs))


def score_table(cells: "Sequence[Cell]") -> str:
    """The primary measures of a task's cells, as text."""
    measures = [measure for measure in cells[0].task.all_measures if measure.primary]
    rows = [
        (
            cell.column.adapter or "none",
            cell.column.weights,
            *(
                "-"
                if (value := cell.scores[measure.key]) != value
                else f"{value:.3f}"
                if measure.unit == "share"
                else f"{value:.4f}"
                for measure in measures
            ),
        )
        for cell in cells
    ]
    names = (m.name if m.unit == "share" else f"{m.name} ({m.unit.replace(' per ', '/')})" for m in measures)
    return table(rows, ("hat", "weights", *names))


def _about(args: argparse.Namespace, base: Path) -> dict[str, str]:
    import platform

    import torch

    from .. import __version__
    from ..eval.state import base_sha256

    told = {
        "base": str(args.base),
        "base, SHA-256": base_sha256(base)[:16],
        "hats": ", ".join(f"{name} ({path})" for name, path in args.adapter) or "none",
        "precisions": args.weights,
        "tasks": args.tasks,
        "decoding": "greedy",
        "intervals": "95 %, paired bootstrap over items, 10,000 resamples",
        "machine": f"{platform.machine()}, {args.device}, {torch.get_num_threads()} threads",
        "versions": f"lowrank {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
    }
    if args.overlap or "qa" in args.tasks.split(","):
        from ..eval.overlap import chrf_signature

        told["chrF"] = chrf_signature()
    return told
