"""lowrank quantize"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from .arguments import HEADS, add_verb, read_bytes


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "quantize",
        "a full-precision folder in 4 or 8 bits, tensor by tensor; interrupted, the same command goes on",
        "lowrank quantize llama-2-7b llama-2-7b-nf4 --weights nf4-dq --verify",
    )
    parser.add_argument(
        "base", metavar="BASE", help='full-precision folder (Meta or Hugging Face), a GGUF file, or "embedded"'
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument("--weights", default="nf4-dq", help="nf4-dq (default), nf4, fp4-dq, fp4 or int8")
    parser.add_argument("--head", choices=HEADS, help="format of the output head (default: as it is stored)")
    parser.add_argument(
        "--plan",
        type=Path,
        metavar="FILE",
        help="a format for each linear, as `lowrank inspect mixed --out` writes it; --weights for the others",
    )
    parser.add_argument(
        "--max-file-size",
        type=read_bytes,
        default=5e9,
        metavar="SIZE",
        help="of one file of weights (5GB)",
    )
    parser.add_argument("--verify", action="store_true", help="first compare the MD5 sums of Meta's checklist.chk")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the folder and says how large it became."""
    from ..atomic_io import partial_folder
    from ..checkpoints.embedded import base_folder
    from ..checkpoints.quantize_folder import quantize_folder
    from ..model.meta_checksums import verify_checklist

    base = Path(base_folder(args.base))
    if args.verify:
        checked = verify_checklist(base)
        print(f"{base}: the MD5 sums of {', '.join(checked)} are right", file=sys.stderr)
    plan = _plan(args.plan) if args.plan else None
    started = time.perf_counter()
    try:
        folder = quantize_folder(
            base,
            args.out,
            args.weights,
            plan=plan,
            head=args.head,
            max_file_bytes=args.max_file_size,
            progress=True,
        )
    except (KeyboardInterrupt, OSError):
        if partial_folder(args.out).exists():
            print(f"lowrank: {args.out} is not finished: the same command goes on where it was", file=sys.stderr)
        raise
    files = sorted(folder.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    if args.json:
        figures = {"folder": str(folder), "weights": args.weights, "head": args.head}
        figures["files"] = [file.name for file in files]
        print(json.dumps({**figures, "bytes": size, "seconds": time.perf_counter() - started}))
    else:
        names = files[0].name if len(files) == 1 else f"{len(files)} files"
        formats = f"{args.weights} and {args.plan}" if plan else args.weights
        head = f", head {args.head}" if args.head else ""
        print(f"{folder}: {formats}{head}, {names} {size / 1e6:.2f} MB")
    return 0


def _plan(path: Path) -> dict[str, str]:
    """The formats of a plan.  Raises ValueError for a file that is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        values = None
    formats = values.get("formats") if isinstance(values, dict) else None
    if not isinstance(formats, dict) or not all(isinstance(form, str) for form in formats.values()):
        raise ValueError(f"{path}: must be a JSON object with `formats`, a format a linear")
    return formats
