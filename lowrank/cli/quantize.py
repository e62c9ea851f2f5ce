"""lowrank quantize"""

import argparse
from pathlib import Path
from typing import Any

from .arguments import add_verb


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "quantize",
        "a full-precision folder in 4 or 8 bits",
        "lowrank quantize llama-2-7b llama-2-7b-nf4 --weights nf4-dq",
    )
    parser.add_argument("base", metavar="BASE", help='full-precision folder (Meta or Hugging Face), or "embedded"')
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument("--weights", default="nf4-dq", help="nf4-dq (default), nf4, fp4-dq, fp4 or int8")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the folder and says how large it became."""
    from ..embedded import base_folder
    from ..quantizer import quantize_folder

    folder = quantize_folder(base_folder(args.base), args.out, args.weights, progress=True)
    size = (folder / "model.safetensors").stat().st_size
    print(f"{folder}: {args.weights}, model.safetensors {size / 1e6:.2f} MB")
    return 0
