"""The difference of two tensors of logits."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lowrank.eval.parity.stored import difference, logits
from lowrank.model.llama import Llama


def test_the_difference_is_the_largest_the_mean_and_the_same_choices() -> None:
    theirs = torch.zeros(1, 2, 3)
    ours = torch.tensor([[[0.0, 0.5, 0.0], [0.25, 0.0, 0.0]]])
    found = difference(ours, theirs)
    assert (found.largest, found.mean, found.same_choice) == (0.5, 0.125, 0.5)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"ours has shape \[1, 2, 3\], the reference \[1, 3, 2\]"):
        difference(torch.zeros(1, 2, 3), torch.zeros(1, 3, 2))


def test_a_token_at_a_time_gives_the_logits_of_one_pass(
    make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]
) -> None:
    model, tokens = make_llama(), random_tokens(2, 9)
    torch.testing.assert_close(logits(model, tokens, prefill=4), logits(model, tokens))
