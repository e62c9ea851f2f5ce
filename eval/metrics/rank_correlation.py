"""Spearman's rank correlation, and its mean over items with an interval.

    rho(a, b) = the correlation of rank(a) with rank(b), where equal values share the mean of their ranks

An attribution is scored by it: the linear datamodeling score is the mean over test documents of rho between what a sum
of influences predicts for subsets of the training documents and what runs on these subsets gave (arXiv 2303.14186).
"""

from collections.abc import Sequence

import numpy as np

from .bootstrap import Interval, paired_interval
from .metric import Array, Measure

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


def _parts(rhos: Sequence[float]) -> Array:
    return np.array([[rho, 1.0] for rho in rhos])
