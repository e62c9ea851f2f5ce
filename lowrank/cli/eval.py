"""lowrank eval"""

import argparse
import json
from pathlib import Path
from typing import Any

from ..data.template import TEMPLATES
from .arguments import WEIGHTS_HELP, add_adapters, add_base, add_force, add_verb, compute_dtype, table


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "eval",
        "every hat, and none, on every precision, over unseen documents",
        "lowrank eval embedded --adapter finance=runs/hat/hat --weights nf4-dq,fp32",
    )
    add_base(parser)
    add_adapters(parser)
    add_force(parser)
    parser.add_argument("--weights", default="nf4-dq,fp32", help=f"precisions, by commas ({WEIGHTS_HELP})")
    parser.add_argument("--data", type=Path, help="JSONL of entries (default: --n of our own test documents)")
    parser.add_argument("--n", type=int, default=20, help="how many documents (default: %(default)s)")
    parser.add_argument("--template", choices=TEMPLATES, help="default: that of the hats; another is refused")
    parser.add_argument("--out", type=Path, help="file for the rows, as JSON")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the grid and what it says."""
    from ..data.documents import make_documents, read_jsonl
    from ..embedded import base_folder
    from ..eval.findings import findings
    from ..eval.grid import evaluate_grid
    from ..files import write_json

    entries = read_jsonl(args.data)[: args.n] if args.data else make_documents(args.n, seed=7, split="test")
    if not entries:
        raise ValueError(f"--n and --data must leave at least one document, got --n {args.n}")
    weights = args.weights.split(",")
    evaluated = evaluate_grid(
        base_folder(args.base),
        dict(args.adapter),
        weights,
        entries,
        template=args.template,
        dtype=compute_dtype(args.dtype),
        device=args.device,
        force=args.force,
        progress=not args.json,
    )
    rows = [result.to_json() for result in evaluated]
    if args.out:
        write_json(args.out, rows)
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    print(grid_table(rows))
    print("\n".join(findings(rows)))
    return 0


def grid_table(rows: list[dict[str, Any]]) -> str:
    """The rows of eval.json as text."""
    shares = ("sections", "figure_precision", "figure_recall", "binding")
    return table(
        [
            (
                row["adapter"] or "none",
                row["weights"],
                row["n"],
                f"{row['loss']:.4f}",
                *(f"{row[s]:.3f}" for s in shares),
            )
            for row in rows
        ],
        ("hat", "weights", "n", "loss (nats/token)", "sections", "precision", "recall", "binding"),
    )
