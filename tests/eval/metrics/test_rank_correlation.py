"""Spearman's rank correlation: scipy's, ties among it, and an interval over items."""

import numpy as np
import pytest
from scipy import stats

from lowrank.eval.metrics.rank_correlation import mean_correlation, rank_correlation, ranks


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
