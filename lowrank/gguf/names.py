"""llama.cpp's names of tensors and Meta's: "blk.0.attn_q.weight", "layers.0.attention.wq.weight"."""

import re

_BLOCK = {
    "attn_q": "attention.wq",
    "attn_k": "attention.wk",
    "attn_v": "attention.wv",
    "attn_output": "attention.wo",
    "ffn_gate": "feed_forward.w1",
    "ffn_down": "feed_forward.w2",
    "ffn_up": "feed_forward.w3",
    "attn_norm": "attention_norm",
    "ffn_norm": "ffn_norm",
}
_OUTSIDE = {"token_embd": "tok_embeddings", "output_norm": "norm", "output": "output"}


def to_meta(name: str) -> str | None:
    """ "blk.0.attn_q.weight" -> "layers.0.attention.wq.weight"; None for what a Llama does not have."""
    if match := re.fullmatch(r"blk\.(0|[1-9]\d*)\.(\w+)\.weight", name):
        return f"layers.{match[1]}.{_BLOCK[match[2]]}.weight" if match[2] in _BLOCK else None
    stem = name.removesuffix(".weight")
    return f"{_OUTSIDE[stem]}.weight" if stem in _OUTSIDE and stem != name else None


def to_gguf(name: str) -> str:
    """ "layers.0.attention.wq" -> "blk.0.attn_q", with or without ".weight".  Raises KeyError for no such name."""
    stem = name.removesuffix(".weight")
    suffix = name[len(stem) :]
    if match := re.fullmatch(r"layers\.(\d+)\.(.+)", stem):
        return f"blk.{match[1]}.{_TO_BLOCK[match[2]]}{suffix}"
    return f"{_TO_OUTSIDE[stem]}{suffix}"


_TO_BLOCK = {meta: name for name, meta in _BLOCK.items()}
_TO_OUTSIDE = {meta: name for name, meta in _OUTSIDE.items()}
