"""Spearman's rank correlation: scipy's, ties among it, and an interval over items."""

import numpy as np
import pytest
from scipy import stats

from lowrank.eval.metrics.rank_correlation import (
    _rhos_of_draws,
    interval_over_runs,
    mean_correlation,
    rank_correlation,
    ranks,
)


@pytest.mark.parametrize("levels", [3, 1000], ids=["many ties", "few ties"])
def test_ranks_and_correlation_are_scipys(levels: int) -> None:
    generator = np.random.default_rng(0)
    a, b = (generator.integers(levels, size=60).astype(float) for _ in range(2))
    assert (ranks(a) + 1 == stats.rankdata(a)).all()
    assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_a_constant_has_no_correlation() -> None:
    assert np.isnan(rank_correlation(np.ones(5), np.arange(5.0)))


def test_the_mean_and_the_difference_of_two_means() -> None:
    rhos = [0.1 * place for place in range(10)]
    alone = mean_correlation(rhos)
    assert alone.difference == pytest.approx(np.mean(rhos)) and alone.low < alone.difference < alone.high
    beside = mean_correlation(rhos, [rho - 0.25 for rho in rhos])
    assert (beside.low, beside.difference, beside.high) == pytest.approx((0.25, 0.25, 0.25))


def test_an_interval_over_runs_covers_what_items_share() -> None:
    """All items move alike: over items alone the interval has no width, over runs it is that of one correlation."""
    generator = np.random.default_rng(0)
    one = generator.standard_normal((2, 30))
    predicted, actual = (np.tile(row, (8, 1)) for row in one)
    rhos = [rank_correlation(*pair) for pair in zip(predicted, actual, strict=True)]
    alone, wide = mean_correlation(rhos), interval_over_runs(predicted, actual, 200)
    assert alone.low == pytest.approx(alone.high) and wide.difference == pytest.approx(alone.difference)
    assert wide.low < wide.difference < wide.high
    assert interval_over_runs(predicted, predicted, 50).low == pytest.approx(1.0)


def test_the_correlation_of_a_draw_is_that_of_its_pairs() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.integers(6, size=12).astype(float), generator.standard_normal(12)
    draws = generator.multinomial(12, np.full(12, 1 / 12), size=20)
    found = _rhos_of_draws(a, b, draws)
    for rho, counts in zip(found, draws, strict=True):
        assert rho == pytest.approx(rank_correlation(a.repeat(counts), b.repeat(counts)))


def test_one_run_has_no_interval() -> None:
    assert np.isnan(interval_over_runs(np.ones((4, 1)), np.ones((4, 1)), 50).low)
