"""The shape and constants of a Llama, and those of Llama 2 by name. `config_json` reads them from files."""

import math
from dataclasses import dataclass, replace
from typing import Literal

RopeLayout = Literal["interleaved", "half"]


@dataclass(frozen=True)
class RopeScaling:
    """The change of RoPE's frequencies f that lets a model see further than it was first trained for

    linear   f' = f / factor                                                          (arXiv 2306.15595)
    llama3   f' = f / factor where a wave is longer than L / low_freq_factor positions, f' = f where it is shorter than
             L / high_freq_factor, and between them (1 - s) f / factor + s f with
             s = (L f / 2 pi - low_freq_factor) / (high_freq_factor - low_freq_factor)   (Llama 3.1's apply_scaling)
             L = original_max_seq_len
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_seq_len: int = 8192

    def __post_init__(self) -> None:
        for name in ("factor", "low_freq_factor", "high_freq_factor", "original_max_seq_len"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
                raise ValueError(f"rope scaling: {name} must be a number above 0, got {value!r}")
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"rope scaling: high_freq_factor must be above low_freq_factor = {self.low_freq_factor}, "
                f"got {self.high_freq_factor}"
            )


@dataclass(frozen=True)
class ModelConfig:
    """Shape and constants of one Llama.

    vocab_size may be -1 in Meta's files: it is then read off the embedding when a checkpoint is opened.
    rope_layout names which two channels of a head turn together: "interleaved" (2i, 2i+1), as Meta trains and stores,
    or "half" (i, i + head_dim/2), as Hugging Face stores.
    own_head_dim is the channels of a head where they are not dim / n_heads: attention is then n_heads * head_dim wide
    between wq and wo, and the residual stream dim. Where it is dim / n_heads it becomes None.
    """

    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    hidden_dim: int
    vocab_size: int
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    max_seq_len: int = 4096
    tie_embeddings: bool = False
    rope_layout: RopeLayout = "interleaved"
    rope_scaling: RopeScaling | None = None
    own_head_dim: int | None = None

    def __post_init__(self) -> None:
        for name in ("dim", "n_layers", "n_heads", "n_kv_heads", "hidden_dim", "max_seq_len"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        if self.vocab_size != -1 and self.vocab_size < 1:
            raise ValueError(f"vocab_size must be at least 1, or -1 (read off the embedding), got {self.vocab_size}")
        for name in ("norm_eps", "rope_theta"):
            if not isinstance(getattr(self, name), int | float) or getattr(self, name) <= 0:
                raise ValueError(f"{name} must be a number above 0, got {getattr(self, name)!r}")
        if (own := self.own_head_dim) is not None:
            if not isinstance(own, int) or isinstance(own, bool) or own < 2 or own % 2:
                raise ValueError(f"head_dim must be an even number of 2 or more, got {own!r}")
            if own * self.n_heads == self.dim:
                object.__setattr__(self, "own_head_dim", None)  # two configs of one shape are equal
        elif self.dim % self.n_heads or self.head_dim % 2:
            raise ValueError(f"dim / n_heads must be a whole even number, got {self.dim} / {self.n_heads}")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads must be a multiple of n_kv_heads, got {self.n_heads} and {self.n_kv_heads}")

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.dim // self.n_heads if self.own_head_dim is None else self.own_head_dim

    @property
    def attention_dim(self) -> int:
        """Channels of all query heads: what wq puts out and wo takes."""
        return self.n_heads * self.head_dim

    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """[out_features, in_features] of the seven linears of one block, by Meta's names."""
        kv_dim = self.n_kv_heads * self.head_dim
        return {
            "attention.wq": (self.attention_dim, self.dim),
            "attention.wk": (kv_dim, self.dim),
            "attention.wv": (kv_dim, self.dim),
            "attention.wo": (self.dim, self.attention_dim),
            "feed_forward.w1": (self.hidden_dim, self.dim),
            "feed_forward.w2": (self.dim, self.hidden_dim),
            "feed_forward.w3": (self.hidden_dim, self.dim),
        }

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter by Meta's key; a tied output head is not one of its own."""
        shapes: dict[str, tuple[int, ...]] = {"tok_embeddings.weight": (self.vocab_size, self.dim)}
        for layer in range(self.n_layers):
            block = f"layers.{layer}"
            shapes |= {f"{block}.{linear}.weight": shape for linear, shape in self.linear_shapes().items()}
            shapes |= {f"{block}.{norm}.weight": (self.dim,) for norm in ("attention_norm", "ffn_norm")}
        shapes["norm.weight"] = (self.dim,)
        if not self.tie_embeddings:
            shapes["output.weight"] = (self.vocab_size, self.dim)
        return shapes


def ffn_hidden_dim(dim: int, multiple_of: int, ffn_dim_multiplier: float | None = None) -> int:
    """int(8 dim / 3), times the multiplier if there is one, rounded up to a multiple    (Meta's llama/model.py)"""
    hidden = int(2 * (4 * dim) / 3)
    if ffn_dim_multiplier is not None:
        hidden = int(ffn_dim_multiplier * hidden)
    return multiple_of * -(-hidden // multiple_of)


_LLAMA_2_7B = ModelConfig(
    dim=4096, n_layers=32, n_heads=32, n_kv_heads=32, hidden_dim=11008, vocab_size=32_000, max_seq_len=4096
)
PRESETS = {
    "7b": _LLAMA_2_7B,
    "13b": replace(_LLAMA_2_7B, dim=5120, n_layers=40, n_heads=40, n_kv_heads=40, hidden_dim=13_824),
    "70b": replace(_LLAMA_2_7B, dim=8192, n_layers=80, n_heads=64, n_kv_heads=8, hidden_dim=28_672),
}
