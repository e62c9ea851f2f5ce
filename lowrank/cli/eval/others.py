"""`lowrank eval` without its own tasks: the perplexity of a text, and tasks of lm-evaluation-harness."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import compute_dtype

if TYPE_CHECKING:
    from ...eval.grid.report import Table


def add_others(parser: argparse.ArgumentParser) -> None:
    """The arguments --perplexity and --lm-eval, and those that belong to them."""
    parser.add_argument("--perplexity", metavar="FILE", type=Path, help="also of this text, through a sliding window")
    parser.add_argument("--window", type=int, help="tokens of that window (default: the model's context)")
    parser.add_argument("--stride", type=int, help="tokens that it moves on by (default: half of it)")
    parser.add_argument("--lm-eval", metavar="TASKS", help="also tasks of lm-evaluation-harness (extra lm-eval)")
    parser.add_argument("--include-path", metavar="DIR", type=Path, help="a folder with task files for --lm-eval")
    parser.add_argument("--limit", type=int, help="items a task of --lm-eval (default: all)")


Measured = dict[str, list[dict[str, Any]]]


def prepare_others(args: argparse.Namespace) -> Callable[[Path, Mapping[str, Path], Sequence[str]], Measured]:
    """(base, hats, precisions) -> what was asked for, of every column; each precision is loaded once.

    Raises ValueError, before anything is run, for options without what they are of, a file or a task that is not there,
    and a library that is missing.
    """
    if args.perplexity is None and (args.window or args.stride):
        raise ValueError("--window and --stride are of --perplexity")
    if args.lm_eval is None and (args.include_path or args.limit):
        raise ValueError("--include-path and --limit are of --lm-eval")
    if args.perplexity and not args.perplexity.is_file():
        raise ValueError(f"--perplexity: {args.perplexity}: no such file")
    text = args.perplexity.read_text(encoding="utf-8") if args.perplexity else None
    harness = _harness(args) if args.lm_eval else None

    def measure(base: Path, adapters: Mapping[str, Path], weights: Sequence[str]) -> Measured:
        if text is None and harness is None:
            return {}
        from ...checkpoints.load import load_tokenizer
        from ...eval.grid.columns import each_column
        from ...eval.metrics.perplexity import text_perplexity

        tokenizer = load_tokenizer(base)
        found: Measured = {}
        columns = each_column(base, adapters, weights, compute_dtype(args.dtype), args.device, args.force)
        for column, model in columns:
            names = {"adapter": column.adapter, "weights": column.weights}
            if text is not None:
                result = text_perplexity(model, tokenizer, text, window=args.window, stride=args.stride)
                figures = {"tokens": result.tokens, "bytes": result.bytes, "nats": result.nats}
                figures |= {"perplexity": result.per_token, "bits_per_byte": result.bits_per_byte}
                found.setdefault("perplexity", []).append({**names, "file": str(args.perplexity), **figures})
            if harness is not None:
                found.setdefault("lm_eval", []).extend({**names, **row} for row in harness(model, tokenizer))
        return found

    return measure


def other_tables(figures: Measured) -> "list[Table]":
    """The perplexities and the harness's scores as tables."""
    from ...eval.grid.report import Table

    tables = []
    if rows := figures.get("perplexity"):
        cells = [
            (row["adapter"] or "none", row["weights"], f"{row['perplexity']:.3f}", f"{row['bits_per_byte']:.4f}")
            for row in rows
        ]
        note = f"{rows[0]['tokens']:,} tokens, {rows[0]['bytes']:,} bytes, each token once, through a sliding window."
        head: tuple[str, ...] = ("hat", "weights", "perplexity a token", "bits a byte")
        tables.append(Table(f"Perplexity of {rows[0]['file']}", head, cells, note))
    if rows := figures.get("lm_eval"):
        harness = [
            (row["adapter"] or "none", row["weights"], row["task"], row["metric"], f"{row['value']:.4f}", row["error"])
            for row in rows
        ]
        head = ("hat", "weights", "task", "metric", "value", "standard error")
        tables.append(Table("Tasks of lm-evaluation-harness", head, harness, "As the harness scores them."))
    return tables


def _harness(args: argparse.Namespace) -> Any:
    """(model, tokenizer) -> the rows of the tasks.  Raises ValueError for an unknown task."""
    from ...extras import need

    evaluator = need("lm_eval.evaluator", "--lm-eval")
    manager_of = need("lm_eval.tasks", "--lm-eval").TaskManager
    names = args.lm_eval.split(",")
    folder = str(args.include_path) if args.include_path else None
    # The harness's own tasks are thousands of files, which take seconds to look through: only if they are asked for.
    manager = manager_of(include_path=folder, include_defaults=False)
    if not all(manager.match_tasks([name]) for name in names):
        manager = manager_of(include_path=folder)
    if unknown := [name for name in names if not manager.match_tasks([name])]:
        raise ValueError(f"--lm-eval: the harness knows no task {unknown[0]!r}")

    def run(model: Any, tokenizer: Any) -> list[dict[str, Any]]:
        from ...eval.lm_eval_model import HarnessModel

        found = evaluator.simple_evaluate(
            HarnessModel(model, tokenizer), tasks=names, task_manager=manager, limit=args.limit, log_samples=False
        )
        rows = []
        for task, metrics in found["results"].items():
            for key, value in metrics.items():
                metric, _, filter = key.partition(",")
                if isinstance(value, float) and not metric.endswith("_stderr"):
                    error = metrics.get(f"{metric}_stderr,{filter}", "")
                    shown = f"{error:.4f}" if isinstance(error, float) else ""
                    rows.append({"task": task, "metric": metric, "filter": filter, "value": value, "error": shown})
        return rows

    return run
