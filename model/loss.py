"""The loss of next-token prediction, over supervised tokens only.

B batch, T time, D model dim, V vocabulary, S supervised tokens.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100


class HiddenStates(Protocol):
    """A model as its loss sees it: `Llama`, or another that computes its hidden states."""

    tok_embeddings: Any
    output: Any

    def hidden(self, tokens: Tensor, *, segments: Tensor | None = None) -> Tensor: ...


# (hidden states [S, D], weight of the output head [V, D], targets [S]) -> the sum of their losses
HeadLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def full_logits_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """sum over s of -log softmax(hidden weight^T)[s, targets[s]], the softmax in float32 at least, from all logits"""
    logits = F.linear(hidden, weight)
    return F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), targets, reduction="sum")


def next_token_loss(
    model: HiddenStates,
    tokens: Tensor,
    labels: Tensor,
    segments: Tensor | None = None,
    head_loss: HeadLoss = full_logits_loss,
) -> tuple[Tensor, int]:
    """sum over supervised t of -log p(labels[t] | tokens[< t]), in nats, and how many there are

    tokens, labels int64 [B, T]; labels are the tokens, or -100 where nothing is to be learned (a prompt, padding at
    the right). segments int64 [B, T] tell apart the texts of a packed row (`Llama.hidden`): "before" is then inside a
    segment. The first token of a row or segment has nothing before it and never counts. Logits [S, V] are computed
    for the supervised positions alone, by `head_loss`, which need not have them all in memory.
    """
    targets = labels[:, 1:]
    supervised = targets != IGNORED
    if segments is not None:
        supervised = supervised & (segments[:, 1:] == segments[:, :-1])
        segments = segments[:, :-1]
    hidden = model.hidden(tokens[:, :-1], segments=segments)[supervised]
    loss = head_loss(hidden, model.output.weight.to(hidden.dtype), targets[supervised])
    return loss, int(supervised.sum())
