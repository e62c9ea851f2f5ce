"""Meta's names of llama.cpp's tensors. `writer.tensor_name` is the way back, by the table of the gguf package."""

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
