"""How well a model predicts text that is already there."""

from collections.abc import Sequence

import torch

from lowrank.data.batching import Example, collate
from lowrank.kernels.linear_cross_entropy import linear_cross_entropy
from lowrank.model.llama import Llama
from lowrank.model.loss import next_token_loss


@torch.inference_mode()
def completion_loss(model: Llama, examples: Sequence[Example], batch_size: int = 16) -> float:
    """sum of -log p(token | prompt, tokens before it) / number of completion tokens, in nats, end of text included

    The mean is over tokens, not over examples, so it does not depend on the batches.
    """
    device = model.tok_embeddings.weight.device
    nats, count = 0.0, 0
    for start in range(0, len(examples), batch_size):
        tokens, labels = collate(examples[start : start + batch_size])
        loss, supervised = next_token_loss(model, tokens.to(device), labels.to(device), head_loss=linear_cross_entropy)
        nats += loss.item()
        count += supervised
    return nats / count
