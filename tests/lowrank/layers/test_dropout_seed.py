"""Dropout that is a function of seed, batch and layer."""

import pytest
import torch

from lowrank.kernels.lora.dropout import apply_dropout, dropout
from lowrank.layers.dropout_seed import BatchCounter, DropoutSeed


def test_a_seed_gives_one_mask_and_others_give_others() -> None:
    x = torch.ones(64, 64)
    counter = BatchCounter(seed=3)
    seeds = []
    for counter.batch in (0, 1):
        seeds += [DropoutSeed(counter, layer).seed for layer in range(3)]
    seeds.append(DropoutSeed(BatchCounter(seed=4), 0).seed)
    masks = [apply_dropout(x, 0.5, seed) for seed in seeds]
    assert all(torch.equal(mask, apply_dropout(x, 0.5, seed)) for mask, seed in zip(masks, seeds, strict=True))
    for place, mask in enumerate(masks):
        for other in masks[:place]:
            assert 0.4 < (mask == other).float().mean() < 0.6  # independent ones agree by half


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_what_stays_is_scaled_so_that_the_mean_stays(share: float) -> None:
    y = apply_dropout(torch.ones(200, 500), share, 7)
    assert sorted(y.unique().tolist()) == pytest.approx([0.0, 1 / (1 - share)])
    assert (y == 0).float().mean().item() == pytest.approx(share, abs=0.01)  # 4 deviations of 100,000 draws


def test_torch_s_own_generator_is_not_touched() -> None:
    state = torch.get_rng_state()
    apply_dropout(torch.ones(9), 0.5, 1)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_gradient_goes_through_the_same_mask() -> None:
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: dropout(x, 0.3, 11), (x,))
