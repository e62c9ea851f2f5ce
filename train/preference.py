"""Preference training: DPO (arXiv 2305.18290), which learns from pairs of answers to one prompt.

    pi(y) = sum over the tokens t of answer y of log p(y[t] | prompt, y[< t])        nats, with the hat
    h     = beta ((pi(chosen) - ref(chosen)) - (pi(rejected) - ref(rejected)))       equation 7; ref: without the hat
    loss  = -log sigmoid(h)
    d loss / d pi(chosen) = -beta sigmoid(-h),    d loss / d pi(rejected) = beta sigmoid(-h)

and, with a weight for it, the chosen answer's own loss, -pi(chosen) over its tokens (arXiv 2404.19733, equation 1).

The reference is the model as it was before the run: the base with the hat off, or, where the run starts from a hat,
that hat, kept frozen beside the one that learns. docs/math.md has the derivation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lowrank.adapters import using_adapter
from lowrank.data.encoding.batching import Example, PreferencePair, collate
from lowrank.data.encoding.packing import Row
from lowrank.kernels.llama_ops.linear_cross_entropy import linear_cross_entropy
from lowrank.model.llama import Llama
from lowrank.model.loss import IGNORED

from .step import BatchLoss


@dataclass(frozen=True)
class DPOLoss:
    """The loss of pairs.

    beta       strength of the pull back to the reference
    answers    weight of the chosen answer's own loss, nats a token
    reference  the name of the frozen hat that is the reference; None: the base alone
    """

    beta: float
    reference: str | None = None
    answers: float = 0.0

    measures = ("reward_margin", "reward_accuracy", "reward_chosen", "reward_rejected")

    def units(self, rows: Sequence[Row]) -> int:
        """Pairs of these rows, by which the step's loss is divided."""
        return len(rows)

    def __call__(self, model: Llama, rows: Sequence[Row]) -> BatchLoss:
        """The sum of the losses of some pairs, and of what is measured of them: rewards are beta (pi - ref)."""
        pairs = [_pair(row) for row in rows]
        sequences = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
        if not sequences:
            sequences = [Example("", (0, 0), (IGNORED, IGNORED))] * 2  # processes that share a model run in step
        with torch.no_grad(), using_adapter(model, self.reference):
            reference = log_likelihoods(model, sequences)
        likelihoods = log_likelihoods(model, sequences)
        rewards = self.beta * (likelihoods - reference)
        chosen, rejected = rewards.chunk(2)
        losses = dpo_loss(chosen, rejected)
        if self.answers:
            learned = likelihoods.new_tensor([max(1, one.supervised) for one in sequences[: len(chosen)]])
            losses = losses - self.answers * likelihoods[: len(chosen)] / learned
        if not pairs:
            return BatchLoss(0.0 * losses.sum(), 0, 0, (0.0,) * len(self.measures))
        margins = (chosen - rejected).detach()
        sums = (margins, (margins > 0).double(), chosen.detach(), rejected.detach())
        length = max(map(len, sequences))
        positions = length * len(sequences)
        return BatchLoss(losses.sum(), positions, positions * length, tuple(one.sum().item() for one in sums))


def dpo_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log sigmoid(chosen - rejected) of the rewards beta (pi - ref) of pairs, [n]"""
    return -F.logsigmoid(chosen - rejected)


def log_likelihoods(model: Llama, sequences: Sequence[Example]) -> Tensor:
    """pi of each sequence, the sum over its learned tokens of log p, in nats;  [n]"""
    device = model.tok_embeddings.weight.device
    tokens, labels = (tensor.to(device) for tensor in collate(sequences))
    targets = labels[:, 1:]
    learned = targets != IGNORED
    hidden = model.hidden(tokens[:, :-1])
    head = model.output.weight.to(hidden.dtype)
    each = [
        linear_cross_entropy(states[mask], head, row[mask])
        for states, mask, row in zip(hidden, learned, targets, strict=True)
    ]
    return -torch.stack(each)


def _pair(row: Row) -> PreferencePair:
    (pair,) = row.examples
    assert isinstance(pair, PreferencePair), pair
    return pair
