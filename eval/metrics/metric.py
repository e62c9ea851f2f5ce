"""A score as a function of sums over items, so that it can be had of any resample of them.

    value = form(sum over items i of parts[i])

    form         parts of an item
    ratio        a, b                                   sum a / sum b: a mean, if every b is 1
    f1           true positives, false ones, missed     2 tp / (2 tp + fp + fn)
    macro_f1     its cell of the confusion matrix       the mean over classes of their F1
    weighted_f1  the same                               the mean weighted by how often a class is right

What has no value (0 / 0: no number was written, so none was right) is NaN, and None in JSON.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Parts = Mapping[str, Array]  # key of a measure -> [items, parts]


def ratio(sums: Array) -> Array:
    """[..., 2] -> sum a / sum b"""
    return _divide(sums[..., 0], sums[..., 1])


def f1(sums: Array) -> Array:
    """[..., 3] -> 2 tp / (2 tp + fp + fn); 0 where there is nothing to find and nothing was found, as seqeval has it"""
    tp, fp, fn = np.moveaxis(sums, -1, 0)
    return np.nan_to_num(_divide(2 * tp, 2 * tp + fp + fn))


def macro_f1(sums: Array) -> Array:
    """[..., C (C + 1)] -> the mean F1 of C classes

    The confusion matrix has a row for what was right and a column for what was said; the last column is what was said
    and is no class.
    """
    return np.asarray(_class_f1(sums)[0].mean(-1))


def weighted_f1(sums: Array) -> Array:
    """[..., C (C + 1)] -> sum over classes of their share of the items, times their F1"""
    scores, support = _class_f1(sums)
    return _divide((scores * support).sum(-1), support.sum(-1))


def _class_f1(sums: Array) -> tuple[Array, Array]:
    """F1 and support of every class: two [..., C]."""
    classes = (isqrt(4 * sums.shape[-1] + 1) - 1) // 2
    confusion = sums.reshape(*sums.shape[:-1], classes, classes + 1)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    predicted, support = confusion.sum(-2)[..., :classes], confusion.sum(-1)
    return np.nan_to_num(_divide(2 * hits, predicted + support)), support


def _divide(a: Array, b: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(b == 0, np.nan, a / np.where(b == 0, 1, b)))


@dataclass(frozen=True)
class Measure:
    """A measure: its key in JSON, its printed name, its formula, and which direction is better.

    better   "higher", "lower", or "" where neither is
    unit     "share" for what lies between 0 and 1, else the unit in words
    primary  whether reports put it in front
    """

    key: str
    name: str
    better: Literal["higher", "lower", ""] = "higher"
    unit: str = "share"
    form: Callable[[Array], Array] = ratio
    primary: bool = False

    def value(self, parts: Array) -> float:
        """The score over all items; NaN if it has none."""
        return float(self.form(parts.sum(0)))

    def show(self, value: float | None, signed: bool = False) -> str:
        """The value as reports print it: "91.4%", "0.130", a dash for none; a difference of shares in points."""
        if value is None or value != value:
            return "–"
        if self.unit == "share":
            return f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}%"
        return f"{value:+.3f}" if signed else f"{value:.3f}"


def stack(rows: Sequence[Mapping[str, Iterable[float]]], keys: Iterable[str]) -> dict[str, Array]:
    """Parts item by item -> parts measure by measure."""
    return {key: np.array([tuple(row[key]) for row in rows], dtype=np.float64) for key in keys}
