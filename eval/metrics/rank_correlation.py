"""Spearman's rank correlation, and its mean over items with an interval.

    rho(a, b) = the correlation of rank(a) with rank(b), where equal values share the mean of their ranks

An attribution is scored by it: the linear datamodeling score is the mean over test documents of rho between what a sum
of influences predicts for subsets of the training documents and what runs on these subsets gave (arXiv 2303.14186).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .bootstrap import LEVEL, SEED, Interval, paired_interval
from .metric import Array, Measure

RESAMPLES = 1_000  # of `interval_over_runs`, which ranks anew in each
RHO = Measure("rho", "rank correlation", unit="of 1")


def ranks(values: Array) -> Array:
    """Ranks from 0 of n values, ties at the mean of theirs; float64 [n]"""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts + 1) / 2)[places])


def rank_correlation(a: Array, b: Array) -> float:
    """rho of two vectors; NaN where one of them is constant"""
    one, other = (ranks(values) - (len(values) - 1) / 2 for values in (a, b))
    length = np.sqrt((one @ one) * (other @ other))
    return float(one @ other / length) if length else float("nan")


def mean_correlation(rhos: Sequence[float], beside: Sequence[float] | None = None) -> Interval:
    """The mean of one rho an item, less that of another if there is one, with its interval over the items."""
    after = _parts(rhos)
    return paired_interval(RHO, np.array([[0.0, 1.0]] * len(rhos)) if beside is None else _parts(beside), after)


def interval_over_runs(predicted: Array, actual: Array, resamples: int = RESAMPLES) -> Interval:
    """The mean over items of rho over runs, with its interval where both are drawn again

    predicted, actual  [items, runs]
    Items that are looked at after the same runs move together: an interval over items alone is of these very runs. NaN
    if over half of the resamples have no value.
    """
    items, runs = actual.shape
    generator = np.random.default_rng(SEED)
    of_runs, of_items = (
        generator.multinomial(count, np.full(count, 1 / count), size=resamples) for count in (runs, items)
    )
    rhos = np.array([_rhos_of_draws(*pair, of_runs) for pair in zip(predicted, actual, strict=True)])  # [items, R]
    means = (rhos.T * of_items).sum(1) / items
    mean = float(np.mean([rank_correlation(*pair) for pair in zip(predicted, actual, strict=True)]))
    counted = means[~np.isnan(means)]
    if 2 * len(counted) < resamples or np.isnan(mean):
        return Interval(mean, float("nan"), float("nan"))
    low, high = np.quantile(counted, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high))


def _rhos_of_draws(a: Array, b: Array, draws: NDArray[np.int64]) -> Array:
    """rho [R] of draws [R, n] that hold each of the n pairs so many times"""
    one, other = (_ranks_of_draws(values, draws) - (draws.shape[1] - 1) / 2 for values in (a, b))
    length = np.sqrt((draws * one * one).sum(1) * (draws * other * other).sum(1))
    return np.where(length > 0, (draws * one * other).sum(1) / np.where(length > 0, length, 1), np.nan)


def _ranks_of_draws(values: Array, draws: NDArray[np.int64]) -> Array:
    """The rank [R, n] that each value has in each draw."""
    _, places = np.unique(values, return_inverse=True)
    counts = draws @ np.eye(places.max() + 1)[places]  # of every level, [R, levels]
    return np.asarray((np.cumsum(counts, 1) - (counts + 1) / 2)[:, places])


def _parts(rhos: Sequence[float]) -> Array:
    return np.array([[rho, 1.0] for rho in rhos])
