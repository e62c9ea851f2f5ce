"""A linear whose 4-bit weight holds its adapter: Q(W + scaling (A B)^T), as `lowrank merge` would store it.

N out_features, K in_features, r rank.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..kernels import ops
from ..kernels.weights.quantized_weight import QuantizedWeight


@dataclass(frozen=True)
class Requantized:
    """Stands in for W and the adapter `name`, where that is worn alone at weight 1.

    weight  Q(W + scaling (A B)^T) of the matrices as they were
    since   lora_A [r, K] and lora_B [N, r] of then, whose product is taken off again while A and B move on:
            y = x weight^T + scaling ((x A) B - (x A_then) B_then). None: they have not moved
    """

    name: str
    weight: QuantizedWeight
    since: tuple[Tensor, Tensor] | None = None

    def matrices(self, lora_A: Tensor, lora_B: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The matrices that are added to `weight`: none, or those of now and of then, [2 r, K] and [N, 2 r]."""
        if self.since is None:
            return None, None
        then_A, then_B = self.since
        return torch.cat([lora_A, then_A]), torch.cat([lora_B, -then_B], dim=1)


@torch.no_grad()
def requantized(w: Tensor, lora_A: Tensor, lora_B: Tensor, scaling: float, format: str, where: str) -> QuantizedWeight:
    """Q(W + scaling lora_B lora_A) in `format`, to the byte what `lowrank merge` writes

    w  W [N, K], float32, dequantized, which is written over
    """
    return ops.quantize(w.add_(scaling * (lora_B @ lora_A)), format, name=where)
