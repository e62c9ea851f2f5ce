"""One tensor, two names: Meta's checkpoint keys, which this package uses, and Hugging Face's."""

import re

_BLOCK = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_OUTSIDE = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"}

HEAD = "output"
LINEARS = tuple(name for name in _BLOCK if not name.endswith("norm"))
HF_LINEARS = tuple(_BLOCK[name] for name in LINEARS)


def to_hf(name: str) -> str:
    """ "layers.0.attention.wq" -> "model.layers.0.self_attn.q_proj", with or without a suffix such as ".weight"."""
    return _translate(name, r"layers\.(\d+)\.", "model.layers.{}.", _BLOCK, _OUTSIDE)


def to_meta(name: str) -> str:
    """The inverse of `to_hf`.  Raises KeyError for a name that is no part of a Llama."""
    blocks, outside = ({hf: meta for meta, hf in table.items()} for table in (_BLOCK, _OUTSIDE))
    return _translate(name, r"model\.layers\.(\d+)\.", "layers.{}.", blocks, outside)


def is_block_linear(name: str) -> bool:
    """True if Meta's parameter or module name is one of the seven linears of a block, the ones that are quantized."""
    return re.fullmatch(rf"layers\.\d+\.({'|'.join(map(re.escape, LINEARS))})(\.weight)?", name) is not None


def is_quantizable(name: str) -> bool:
    """True if Meta's parameter or module name is a block linear, or the output head: what may be stored quantized."""
    return is_block_linear(name) or name in (HEAD, f"{HEAD}.weight")


def _translate(name: str, block: str, prefix: str, inside: dict[str, str], outside: dict[str, str]) -> str:
    match = re.match(block, name)
    table, rest = (inside, name[match.end() :]) if match else (outside, name)
    for old, new in table.items():
        if rest == old or rest.startswith(old + "."):
            return (prefix.format(match[1]) if match else "") + new + rest[len(old) :]
    raise KeyError(name)
