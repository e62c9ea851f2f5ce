"""The mean over a few runs, and its interval by Student's t.

mean +- t s / sqrt(n)        s the deviation over n runs that differ in their seed alone, n - 1 degrees of freedom
"""

import math
from collections.abc import Sequence

from .bootstrap import Interval

# Student's t at 97.5 %, by the number of runs.
T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean and where it lies with 95 %; the ends are NaN for one value.

    values  at least one, at most as many as `T` has
    """
    mean = math.fsum(values) / len(values)
    half = half_width(values) if len(values) > 1 else math.nan
    return Interval(mean, mean - half, mean + half)


def half_width(values: Sequence[float]) -> float:
    """t s / sqrt(n) of at least two values, at most as many as `T` has."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return T[len(values)] * math.sqrt(variance / len(values))
