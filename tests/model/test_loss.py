"""The loss: supervised tokens only, each predicted from those before it."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lowrank.model.llama import Llama
from lowrank.model.loss import IGNORED, next_token_loss


def test_loss_is_the_cross_entropy_of_the_whole_logits(
    make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]
) -> None:
    model, tokens = make_llama().double(), random_tokens(3, 11)
    labels = tokens.masked_fill(torch.rand(3, 11, generator=torch.Generator().manual_seed(2)) < 0.4, IGNORED)
    loss, count = next_token_loss(model, tokens, labels)
    logits = model.output(model.hidden(tokens))[:, :-1]
    whole = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum")
    torch.testing.assert_close(loss, whole)
    assert count == (labels[:, 1:] != -100).sum()


def test_the_first_column_never_counts(make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]) -> None:
    model, tokens = make_llama(), random_tokens(2, 5)
    alone = torch.full_like(tokens, IGNORED).index_copy_(1, torch.tensor([0]), tokens[:, :1])
    assert next_token_loss(model, tokens, alone) == (0.0, 0)


def test_a_sum_of_windows_over_their_count_is_the_mean_over_all(
    make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]
) -> None:
    model, tokens = make_llama(), random_tokens(4, 9)
    labels = tokens.clone()
    labels[0, :7], labels[2, 3:] = IGNORED, IGNORED
    whole, count = next_token_loss(model, tokens, labels)
    parts = [next_token_loss(model, tokens[i : i + 1], labels[i : i + 1]) for i in range(4)]
    assert sum(n for _, n in parts) == count == 2 + 8 + 2 + 8
    torch.testing.assert_close(sum(loss for loss, _ in parts), whole)


def test_padding_at_the_right_does_not_reach_the_loss(
    make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]
) -> None:
    model, tokens = make_llama(), random_tokens(1, 6)
    padded = F.pad(tokens, (0, 3), value=0)
    loss, count = next_token_loss(model, padded, F.pad(tokens, (0, 3), value=IGNORED))
    expected, _ = next_token_loss(model, tokens, tokens)
    assert count == 5
    torch.testing.assert_close(loss, expected)
