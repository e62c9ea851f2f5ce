"""Keys of adapters' files under the names that wrappers gave them -> PEFT's own.

PEFT writes "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight". A model that was compiled, sharded or put
into another wrapper when its state was saved leaves "_orig_mod.", "module." and the like in the names; a bare state
dict has the adapter's own name in them ("lora_A.default.weight"), or no "base_model.model." before them.
"""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from ..model.param_names import to_hf

PREFIX = "base_model.model."
WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
ROWS, TOKEN_ROWS = "weight", "token_adapter.trainable_tokens_delta"  # of an embedding or a head: all, or some
_PREFIX = r"(?:base_model\.|model\.)*"
_MATRIX = re.compile(
    _PREFIX + r"(?P<path>layers\.\d+\.(?:self_attn|mlp)\.\w+)\.(?P<matrix>lora_A|lora_B|lora_magnitude_vector)"
    r"(?:\.(?!weight$)[\w-]+)?(?:\.weight)?"
)
_SAVED = re.compile(
    _PREFIX + r"(?P<module>embed_tokens|lm_head)\.(?:modules_to_save\.(?:(?!weight$)[\w-]+\.)?)?(?P<part>weight|"
    r"token_adapter\.trainable_tokens_delta)(?:\.[\w-]+)?"
)


def tensor_key(path: str, matrix: str) -> str:
    """("layers.0.attention.wq", "lora_A") -> PEFT's key of that matrix; a DoRA's magnitude has no ".weight"."""
    ending = "" if matrix == "lora_magnitude_vector" else ".weight"
    return f"{PREFIX}{to_hf(path)}.{matrix}{ending}"


def rows_key(path: str, part: str = ROWS) -> str:
    """("tok_embeddings", ROWS) -> PEFT's key of the embedding's rows"""
    return f"{PREFIX}{to_hf(path)}.{part}"


def peft_key(key: str) -> str:
    """The key that PEFT writes for a tensor, whatever wrappers are in its name; an unknown one as it is."""
    inner = ".".join(part for part in key.split(".") if part not in WRAPPERS)
    if match := _MATRIX.fullmatch(inner):
        ending = match["matrix"] + ("" if match["matrix"] == "lora_magnitude_vector" else ".weight")
        return f"base_model.model.model.{match['path']}.{ending}"
    if match := _SAVED.fullmatch(inner):
        return rows_key("output" if match["module"] == "lm_head" else "tok_embeddings", match["part"])
    return key


def with_peft_keys(tensors: Mapping[str, Tensor], where: object) -> dict[str, Tensor]:
    """The tensors by PEFT's keys.  Raises ValueError for two of them that come to one key: of two hats, say."""
    origins: dict[str, str] = {}
    for key in tensors:
        first = origins.setdefault(peft_key(key), key)
        if first != key:
            raise ValueError(f"{where}: {first} and {key} are both {peft_key(key)}: one hat a file")
    return {name: tensors[key] for name, key in origins.items()}


def first_key(keys: Iterable[str]) -> str:
    """The end of a message about a file in which nothing is found: what is in it."""
    first = next(iter(sorted(keys)), None)
    return "the file holds no tensor" if first is None else f"first key: {first}"
