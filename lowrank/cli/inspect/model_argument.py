"""--model of `inspect params` and `inspect sizes`: a Llama by its name, its folder, or its config alone."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..arguments import file_to_write

if TYPE_CHECKING:
    from ...model.config import ModelConfig


def add_model(parser: argparse.ArgumentParser) -> None:
    """--model, --json and --html."""
    parser.add_argument(
        "--model",
        default="7b",
        help="7b (default), 13b, 70b, embedded, a folder, a GGUF file, a params.json or config.json",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--html", metavar="FILE", type=file_to_write, help="write a page with plots")


def config_of(name: str) -> "ModelConfig":
    """The shape that --model names: weights are not needed.

    Raises ValueError for a name that is none, and a vocabulary size that stands nowhere.
    """
    from ...checkpoints.embedded import EMBEDDED, base_folder
    from ...checkpoints.open_base import open_base
    from ...gguf.header import is_gguf
    from ...model.config import PRESETS, from_hf, from_meta, read_config, read_json

    if name in PRESETS:
        return PRESETS[name]
    path = base_folder(name)
    if is_gguf(path):
        return open_base(path).config
    if path.is_file():
        values = read_json(path)
        config = (from_hf if "hidden_size" in values else from_meta)(values, str(path))
        path = path.parent
    elif path.is_dir():
        config = read_config(path)
    else:
        known = f"{', '.join(PRESETS)}, {EMBEDDED}, a folder, or its config"
        raise ValueError(f"--model must be one of {known}, got {name!r}")
    return config if config.vocab_size != -1 else replace(config, vocab_size=_vocabulary(path))


def _vocabulary(folder: Path) -> int:
    """The rows of the embedding, or the pieces of the tokenizer, where Meta's params.json says -1."""
    from ...checkpoints.open_base import open_base
    from ...model.tokenizer import Tokenizer
    from ...model.tokenizer.tokenizer import FILES, has_tokenizer

    if any(folder.glob("consolidated.*.pth")) or any(folder.glob("*.safetensors")):
        return open_base(folder).config.vocab_size
    if has_tokenizer(folder):
        return Tokenizer(folder).vocab_size
    raise ValueError(
        f"{folder}: vocab_size is -1, and neither weights nor a tokenizer ({' or '.join(FILES)}) say what it is: "
        "write it into params.json (Llama 2: 32000)"
    )
