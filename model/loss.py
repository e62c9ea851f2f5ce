"""The loss of next-token prediction, over supervised tokens only.

B batch, T time, V vocabulary, S supervised tokens.
"""

import torch.nn.functional as F
from torch import Tensor

from .llama import Llama

IGNORED = -100


def next_token_loss(model: Llama, tokens: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """sum over supervised t of -log p(labels[t] | tokens[< t]), in nats, and how many there are

    tokens, labels int64 [B, T]; labels are the tokens, or -100 where nothing is to be learned (a prompt, padding at
    the right). The first column has nothing before it and never counts. Logits [S, V] are computed for the supervised
    positions alone.
    """
    targets = labels[:, 1:]
    supervised = targets != IGNORED
    hidden = model.hidden(tokens[:, :-1])[supervised]
    loss = F.cross_entropy(model.logits(hidden), targets[supervised], reduction="sum")
    return loss, int(supervised.sum())
