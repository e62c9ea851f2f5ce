"""lowrank generate"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.template import TEMPLATES, template_for
from .arguments import WEIGHTS_HELP, add_adapters, add_base, add_force, add_verb, compute_dtype


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "generate",
        "write a text, as it comes",
        "lowrank generate embedded --adapter finance=runs/quickstart/hat --use finance"
        " --facts runs/quickstart/facts.txt --kind credit_memo",
    )
    add_base(parser)
    add_adapters(parser)
    add_force(parser)
    parser.add_argument("--use", metavar="NAME", help="the hat to wear: NAME, a mix NAME=0.7,OTHER=0.3, or none")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--prompt", help="text to go on from, as it is")
    asked.add_argument("--facts", type=Path, help='file with one fact a line, "label: value"; needs --kind')
    parser.add_argument("--kind", help="the kind of document to write from --facts, such as credit_memo")
    parser.add_argument(
        "--template", choices=TEMPLATES, help="of --facts (default: that of the hats in use; another is refused)"
    )
    parser.add_argument("--weights", help=f"{WEIGHTS_HELP} (default: nf4-dq, or as stored)")
    parser.add_argument("--max-new-tokens", type=int, default=400, help="default: %(default)s")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 (default) takes the likeliest token")
    parser.add_argument("--top-p", type=float, default=1.0, help="keep the likeliest tokens up to this share")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Streams the text to standard output."""
    from ..adapter_files import load_adapter
    from ..adapters import use_adapter
    from ..embedded import base_folder
    from ..loader import load, load_tokenizer
    from ..model.generate import stream

    if args.max_new_tokens < 1 or args.temperature < 0 or not 0 < args.top_p <= 1:
        raise ValueError("--max-new-tokens must be at least 1, --temperature at least 0, --top-p in (0, 1]")
    if args.template and args.prompt is not None:
        raise ValueError("--template is of --facts: --prompt is taken as it is")
    adapters = dict(args.adapter)
    use = read_use(args.use, list(adapters))
    folder = base_folder(args.base)
    tokenizer = load_tokenizer(folder)
    model = load(folder, args.weights, compute_dtype(args.dtype), args.device)
    records = {name: load_adapter(model, name, path, force=args.force) for name, path in adapters.items()}
    use_adapter(model, use)
    prompt = args.prompt
    if prompt is None:
        worn = [use] if isinstance(use, str) else list(use or {})
        hats = {str(adapters[name]): records[name] for name in worn}
        prompt = prompt_from_facts(args.facts, args.kind, template_for(hats, args.template))
    pieces = stream(
        model,
        tokenizer,
        prompt,
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_p=args.top_p,
        seed=args.seed,
    )
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return 0


def read_use(text: str | None, names: list[str]) -> str | Mapping[str, float] | None:
    """--use as `use_adapter` takes it; left out, the only hat there is.

    Raises ValueError if several hats leave the choice open, or a weight is no number.
    """
    if text is None:
        if len(names) > 1:
            raise ValueError(f"--use must name one of the hats {', '.join(names)}, a mix of them, or none")
        return names[0] if names else None
    if "=" not in text:
        return None if text == "none" else text
    mix = {}
    for part in text.split(","):
        name, _, weight = part.partition("=")
        try:
            mix[name] = float(weight)
        except ValueError:
            raise ValueError(f"--use: a mix is NAME=WEIGHT,NAME=WEIGHT, got {part!r}") from None
    return mix


def prompt_from_facts(path: Path, kind: str | None, template: str) -> str:
    """The instruction of a kind over the facts of a file, in a template.

    Raises ValueError for a file that is not there or empty, and a kind that is none.
    """
    from ..data.kinds import KINDS
    from ..data.template import render

    if kind is None or kind not in KINDS:
        raise ValueError(f"--kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if not path.is_file():
        raise ValueError(f"--facts: {path}: no such file")
    facts = path.read_text(encoding="utf-8").strip()
    if not facts:
        raise ValueError(f"--facts: {path} is empty")
    return render(template, KINDS[kind].instruction(), facts)
