"""Sums of outliers: every large weight counts for its layer, its channel, and its neuron where there is one."""

import torch

from lowrank.eval.inspect.outliers import OutlierSums


def places(*pairs: tuple[int, int]) -> torch.Tensor:
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)


def test_a_weight_counts_for_the_channel_and_the_neuron_that_its_linear_gives_it() -> None:
    sums = OutlierSums()
    sums.add("layers.0.attention.wq.weight", places((1, 7), (2, 7)), 100)  # inputs are channels
    sums.add("layers.0.attention.wo.weight", places((7, 3)), 100)  # outputs are
    sums.add("layers.2.feed_forward.w1.weight", places((40, 7), (40, 5)), 200)  # outputs are neurons
    sums.add("layers.2.feed_forward.w2.weight", places((7, 40)), 200)  # inputs are
    sums.add("layers.2.feed_forward.w3.weight", places(), 200)
    assert (sums.count, sums.weights) == (6, 800)
    assert sums.by_layer == {0: 3, 2: 3}
    assert sums.by_channel == {7: 5, 5: 1} and sums.layers_of_channel[7] == {0, 2}
    assert sums.by_neuron == {(2, 40): 3}
    _, rows = sums.table()
    assert ["channel 7", "5", "83.3%", "in 2 of 2 layers"] in rows
    assert ["neuron 40 of layer 2", "3", "50.0%", ""] in rows
    (sentence,) = sums.sentences(6)
    assert (
        "6 of 800 weights" in sentence and "1 of 2 layers hold half of them, 1 channels half, and 1 neurons" in sentence
    )


def test_a_base_without_outliers_says_so() -> None:
    sums = OutlierSums()
    sums.add("layers.0.attention.wq.weight", places(), 100)
    assert list(sums.sentences(6)) == ["No weight of the block linears lies beyond 6 standard deviations."]
    assert sums.table()[1] == []
