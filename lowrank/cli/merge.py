"""lowrank merge"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..text_table import table
from .arguments import add_force, add_overwrite, add_verb, refuse_existing

if TYPE_CHECKING:
    from ..adapters.merge import Merged
    from ..adapters.survival import Survival
    from ..eval.parity.merge_drift import Drift

INTO_HELP = (
    "fp32, bf16 or fp16: the full-precision base, in that type; dequantized: the base as its 4-bit form says it is; "
    "nf4-dq, nf4, fp4-dq, fp4 or int8: quantized again, which loses part of the hat"
)


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "merge",
        "add a hat to the weights of its base for good, and say how much of it survives",
        "lowrank merge llama-2-7b runs/hat/hat llama-2-7b-finance --into fp16",
    )
    parser.add_argument("base", metavar="BASE", help='folder of weights (Meta or Hugging Face), or "embedded"')
    parser.add_argument("adapter", metavar="ADAPTER", type=Path, help="a hat, as PEFT's files")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument("--into", required=True, metavar="FORM", help=INTO_HELP)
    parser.add_argument("--format", choices=("hf", "meta"), default="hf", help="whose folder (default: %(default)s)")
    parser.add_argument(
        "--through", default="nf4-dq", help="--into dequantized: the 4- or 8-bit format (default: %(default)s)"
    )
    parser.add_argument("--dtype", default="fp16", help="--into dequantized: the type of OUT (default: %(default)s)")
    parser.add_argument("--data", type=Path, help="JSONL of documents to measure on (default: --n of our own)")
    parser.add_argument(
        "--n", type=int, default=4, help="documents to measure the change in logits and loss on; 0: do not (default: 4)"
    )
    add_force(parser)
    add_overwrite(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the folder, which is read back and compared, and prints what became of the hat."""
    from ..adapters.merge import merge_folder
    from ..checkpoints.embedded import base_folder
    from ..checkpoints.open_base import no_tokenizer_reason
    from ..data.documents.document import make_documents
    from ..data.imports.examples import read_conversations
    from ..eval.parity.merge_drift import measure_drift

    if args.n < 0:
        raise ValueError(f"--n must be at least 0, got {args.n}")
    refuse_existing(args.out, args.overwrite)
    base = base_folder(args.base)
    if args.data:
        conversations = read_conversations(args.data, is_preference=False)[: args.n]
    else:
        conversations = [entry.conversation for entry in make_documents(args.n, seed=7, split="test")]
    is_measured = bool(conversations) and not no_tokenizer_reason(base)
    drifts: list[Drift] = []
    merged = merge_folder(
        base,
        args.adapter,
        args.out,
        args.into,
        format=args.format,
        dtype=args.dtype,
        through=args.through,
        force=args.force,
        progress=not args.json,
        measure=(lambda aside: drifts.append(measure_drift(base, args.adapter, aside, conversations)))
        if is_measured
        else None,
    )
    drift = drifts[0] if drifts else None
    if conversations and not is_measured:
        print(f"lowrank: note: {base} has no tokenizer: logits and loss are not measured", file=sys.stderr)
    if args.json:
        print(json.dumps(figures(merged, drift), indent=2))
        return 0
    print(survival_table(merged.survival))
    print(f"all of the hat: cosine {merged.overall.cosine:.4f}, norm ratio {merged.overall.ratio:.4f}")
    if drift:
        print("\n".join(drift_lines(drift)))
    print(f"{args.out}: {merged.weights}, read back and compared tensor by tensor")
    return 0


def figures(merged: "Merged", drift: "Drift | None") -> dict[str, Any]:
    """Everything that was measured."""
    return {
        "out": str(merged.folder),
        "weights": merged.weights,
        "unmerged": merged.unmerged,
        "overall": asdict(merged.overall),
        "survival": [asdict(part) for part in merged.survival],
        "drift": asdict(drift) if drift else None,
    }


def survival_table(survival: "list[Survival]") -> str:
    """A row a layer, a column a projection; each cell the cosine and, behind it, the norm ratio."""
    cells: dict[int, dict[str, str]] = {}
    for part in survival:
        _, layer, linear = part.path.split(".", 2)
        cells.setdefault(int(layer), {})[linear] = f"{part.cosine:.4f} {part.ratio:.4f}"
    linears = list(dict.fromkeys(linear for row in cells.values() for linear in row))
    rows = [(layer, *(row.get(linear, "-") for linear in linears)) for layer, row in sorted(cells.items())]
    short = [linear.partition(".")[2] for linear in linears]
    return "the share of the hat that survives: cosine, norm ratio\n" + table(rows, ("layer", *short))


def drift_lines(drift: "Drift") -> Iterator[str]:
    """The change in loss and logits in words."""
    yield (
        f"loss over {drift.documents} documents, nats a token: {drift.loss_base:.4f} without the hat, "
        f"{drift.loss_worn:.4f} wearing it, {drift.loss_merged:.4f} merged"
    )
    yield (
        f"logits, merged against worn: at most {drift.logits.largest:.3g} apart, {drift.logits.mean:.3g} in the mean; "
        f"the same likeliest token at {drift.logits.same_choice:.1%} of the positions"
    )
