"""The loss of next-token prediction, over supervised tokens only.

B batch, T time, V vocabulary, S supervised tokens.
"""

import torch.nn.functional as F
from torch import Tensor

from .llama import Llama

IGNORED = -100


def next_token_loss(model: Llama, tokens: Tensor, labels: Tensor, segments: Tensor | None = None) -> tuple[Tensor, int]:
    """sum over supervised t of -log p(labels[t] | tokens[< t]), in nats, and how many there are

    tokens, labels int64 [B, T]; labels are the tokens, or -100 where nothing is to be learned (a prompt, padding at
    the right). segments int64 [B, T] tell apart the texts of a packed row (`Llama.hidden`): "before" is then inside a
    segment. The first token of a row or segment has nothing before it and never counts. Logits [S, V] are computed
    for the supervised positions alone.
    """
    targets = labels[:, 1:]
    supervised = targets != IGNORED
    if segments is not None:
        supervised = supervised & (segments[:, 1:] == segments[:, :-1])
        segments = segments[:, :-1]
    hidden = model.hidden(tokens[:, :-1], segments=segments)[supervised]
    loss = F.cross_entropy(model.logits(hidden), targets[supervised], reduction="sum")
    return loss, int(supervised.sum())
