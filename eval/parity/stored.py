"""Our outputs against those that another program stored, as the largest difference.

B rows, T positions, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lowrank.model.llama import KVCache, Llama


@dataclass(frozen=True)
class Difference:
    """max |ours - theirs|, its mean, and the share of positions where both choose the same token"""

    largest: float
    mean: float
    same_choice: float


def difference(ours: Tensor, theirs: Tensor) -> Difference:
    """Difference of two tensors of logits [B, T, V].  Raises ValueError if their shapes differ."""
    if ours.shape != theirs.shape:
        raise ValueError(f"ours has shape {list(ours.shape)}, the reference {list(theirs.shape)}")
    gap = (ours.float() - theirs.float()).abs()
    same = (ours.argmax(-1) == theirs.argmax(-1)).float().mean().item()
    return Difference(gap.max().item(), gap.mean().item(), same)


@torch.inference_mode()
def logits(model: Llama, tokens: Tensor, prefill: int | None = None) -> Tensor:
    """float32 [B, T, V]: in one pass, or `prefill` tokens and then one at a time through the cache."""
    weight = model.tok_embeddings.weight
    tokens = tokens.to(weight.device)
    if prefill is None:
        full: Tensor = model(tokens)
        return full.cpu()
    cache = KVCache(model.config, tokens.shape[0], tokens.shape[1], weight.dtype, weight.device)
    pieces = [tokens[:, :prefill], *tokens[:, prefill:].split(1, dim=1)]
    return torch.cat([model(piece, cache) for piece in pieces], dim=1).cpu()
