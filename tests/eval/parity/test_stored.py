"""The difference of two tensors of logits."""

import pytest
import torch

from lowrank.eval.parity.stored import difference, logits


def test_the_difference_is_the_largest_the_mean_and_the_same_choices():
    theirs = torch.zeros(1, 2, 3)
    ours = torch.tensor([[[0.0, 0.5, 0.0], [0.25, 0.0, 0.0]]])
    found = difference(ours, theirs)
    assert (found.largest, found.mean, found.same_choice) == (0.5, 0.125, 0.5)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"ours has shape \[1, 2, 3\], the reference \[1, 3, 2\]"):
        difference(torch.zeros(1, 2, 3), torch.zeros(1, 3, 2))


def test_a_token_at_a_time_gives_the_logits_of_one_pass(make_llama, random_tokens):
    model, tokens = make_llama(), random_tokens(2, 9)
    torch.testing.assert_close(logits(model, tokens, prefill=4), logits(model, tokens))
