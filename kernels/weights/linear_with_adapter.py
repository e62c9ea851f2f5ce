"""A linear as the products take it: its weight, and what one adapter adds; and the seven of a block, with its norms.

N out_features, K in_features, r rank, B rows of a batch.
"""

from typing import NamedTuple

from torch import Tensor

from .quantized_weight import QuantizedWeight


class LinearWithAdapter(NamedTuple):
    """y = gain * (x W^T + scaling * (d(x) lora_A^T) lora_B^T)

    weight     W [N, K], quantized or dense
    lora_A     [r, K], and lora_B [N, r]; both None where there is no adapter
    drop       p and the seed of the mask of d(x) = x mask / (1 - p), or None; p a number, or float32 [B], one a row
    rank_mask  bool [B, r], true where row b of the batch uses column j of d(x) lora_A^T; None: every row uses all
    gain       [N], a factor of each output, with a gradient of its own (DoRA); None: 1. Not together with drop
    """

    weight: QuantizedWeight | Tensor
    lora_A: Tensor | None = None
    lora_B: Tensor | None = None
    scaling: float = 1.0
    drop: tuple[float | Tensor, int] | None = None
    rank_mask: Tensor | None = None
    gain: Tensor | None = None


class BlockWeights(NamedTuple):
    """The weights of one block: its two norms [D], and its linears wq, wk, wv, wo, w1, w3, w2."""

    attention_norm: Tensor
    ffn_norm: Tensor
    linears: tuple[LinearWithAdapter, ...]
