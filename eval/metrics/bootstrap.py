"""Intervals for differences of scores under resampling of documents: the paired bootstrap    (Efron 1979; Koehn 2004)

    d[r] = score(items of resample r, after) - score(items of resample r, before),    r = 1 .. RESAMPLES
    the interval: the 2.5 and 97.5 percentiles of d

A resample draws n of the n items with replacement, and both sides are scored on the same draw: what is hard for both
cancels. With few items the interval is too narrow: that of a mean over 20 by a tenth (z for Student's t, n for n - 1).
It says nothing of other seeds, hats or bases.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .metric import Array, Measure

RESAMPLES = 10_000
SEED = 20_260_101
LEVEL = 0.95
LEAST_ITEMS = 10  # of fewer, a difference has no interval and no verdict: see `eval.grid.comparison`
_CHUNK = 1_000


@dataclass(frozen=True)
class Interval:
    """A difference and where 95 % of the resampled differences lie; NaN where a score has no value."""

    difference: float
    low: float
    high: float

    @property
    def is_clear_of_zero(self) -> bool:
        """True if the interval does not contain zero."""
        return self.low > 0 or self.high < 0


def paired_interval(measure: Measure, before: Array, after: Array, resamples: int = RESAMPLES) -> Interval:
    """The difference of a measure between two sides of the same items.

    before, after  [items, parts], item by item the same
    A resample in which a score has no value does not count; the interval is NaN if over half have none.
    """
    assert before.shape == after.shape, (before.shape, after.shape)
    draws = _draws(len(before), resamples)
    moved = measure.form(_sums(draws, after)) - measure.form(_sums(draws, before))
    difference = measure.value(after) - measure.value(before)
    counted = moved[~np.isnan(moved)]
    if 2 * len(counted) < resamples or np.isnan(difference):
        return Interval(difference, float("nan"), float("nan"))
    low, high = np.quantile(counted, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(difference, float(low), float(high))


def _sums(draws: NDArray[np.int16], parts: Array) -> Array:
    """[resamples, items] x [items, parts], a chunk at a time: the counts are small numbers, their products are not."""
    chunks = [draws[start : start + _CHUNK] @ parts for start in range(0, len(draws), _CHUNK)]
    return np.concatenate(chunks)


@lru_cache(maxsize=2)
def _draws(items: int, resamples: int) -> NDArray[np.int16]:
    """Counts of each item in each resample, int16 [resamples, items]: the same for every measure and pair."""
    generator = np.random.default_rng(SEED)
    return generator.multinomial(items, np.full(items, 1 / items), size=resamples).astype(np.int16)
