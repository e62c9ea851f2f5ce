"""lowrank export"""

import argparse
from pathlib import Path
from typing import Any

from .arguments import add_force, add_overwrite, add_verb, refuse_existing


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "export",
        "a hat for PEFT or llama.cpp, or a base for llama.cpp",
        "lowrank export runs/hat/hat finance.gguf --format gguf --base llama-2-7b",
    )
    parser.add_argument(
        "source", metavar="SOURCE", help='a hat, as PEFT\'s files; for GGUF also a folder of weights, or "embedded"'
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder (peft) or file (gguf) to write")
    parser.add_argument("--format", choices=("peft", "gguf"), required=True)
    parser.add_argument("--dtype", help="fp32, fp16 or bf16 (not in gguf); default: fp32 for a hat, fp16 for a base")
    parser.add_argument(
        "--base",
        help="of a hat in gguf: the folder of its base, whose heads order its rows; of PEFT's PiSSA or OLoRA: what it "
        "started from, in full precision, of which it becomes an ordinary hat",
    )
    parser.add_argument("--base-name", help='of a hat for PEFT: what it is to load, e.g. "meta-llama/Llama-2-7b-hf"')
    parser.add_argument("--template", default="", help="of a base in gguf: its chat template, e.g. alpaca")
    add_force(parser)
    add_overwrite(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes what was asked for, which is read back and compared, and says how large it is."""
    from ..adapters.peft_config import CONFIG_FILE

    refuse_existing(args.out, args.overwrite)
    is_adapter = (Path(args.source) / CONFIG_FILE).is_file()
    if args.format == "peft":
        from ..adapters.export import export_peft
        from ..adapters.files import WEIGHTS_FILE
        from ..checkpoints.embedded import base_folder

        source = args.source if is_adapter else base_folder(args.source)  # to be told that it is a base
        base = base_folder(args.base) if args.base else None
        written = export_peft(source, args.out, dtype=args.dtype or "fp32", base_name=args.base_name, base=base)
        written = written / WEIGHTS_FILE
    else:
        written = _export_gguf(args, is_adapter)
    print(f"{args.out}: {written.stat().st_size / 1e6:.2f} MB, read back and compared tensor by tensor")
    return 0


def _export_gguf(args: argparse.Namespace, is_adapter: bool) -> Path:
    """Raises ValueError if the package for it is missing, and a hat without --base."""
    from ..checkpoints.embedded import base_folder
    from ..extras import need

    need("gguf", "--format gguf")
    from ..gguf.export import export_adapter_gguf, export_base_gguf

    if args.base_name:
        raise ValueError("--base-name is of a hat for PEFT")
    if not is_adapter:
        dtype = args.dtype or "fp16"
        return export_base_gguf(base_folder(args.source), args.out, dtype=dtype, template=args.template, progress=True)
    if args.template:
        raise ValueError("--template is of a base: a hat has its own")
    if not args.base:
        raise ValueError("--base must name the base of the hat: its heads order the rows of wq and wk in gguf")
    base = base_folder(args.base)
    return export_adapter_gguf(args.source, base, args.out, dtype=args.dtype or "fp32", force=args.force)
