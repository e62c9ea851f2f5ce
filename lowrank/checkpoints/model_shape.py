"""The shape of a Llama by its name, its folder, or its config alone: weights are not needed."""

from dataclasses import replace
from pathlib import Path

from ..gguf.header import is_gguf
from ..model.config import PRESETS, ModelConfig
from ..model.config_json import from_hf, from_meta, read_config, read_json
from ..model.tokenizer import Tokenizer
from ..model.tokenizer.tokenizer import FILES, has_tokenizer
from .embedded import EMBEDDED, base_folder
from .open_base import open_base


def shape_of(model: str | Path) -> ModelConfig:
    """The shape of "7b", "13b", "70b", "embedded", a folder, a GGUF file, a params.json or a config.json.

    Raises ValueError for a name that is none, and a vocabulary size that stands nowhere.
    """
    if model in PRESETS:
        return PRESETS[str(model)]
    path = base_folder(model)
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
        raise ValueError(f"model must be one of {known}, got {str(model)!r}")
    return config if config.vocab_size != -1 else replace(config, vocab_size=_vocabulary(path))


def _vocabulary(folder: Path) -> int:
    """The rows of the embedding, or the pieces of the tokenizer, where Meta's params.json says -1."""
    if any(folder.glob("consolidated.*.pth")) or any(folder.glob("*.safetensors")):
        return open_base(folder).config.vocab_size
    if has_tokenizer(folder):
        return Tokenizer(folder).vocab_size
    raise ValueError(
        f"{folder}: vocab_size is -1, and neither weights nor a tokenizer ({' or '.join(FILES)}) say what it is: "
        "write it into params.json (Llama 2: 32000)"
    )
