"""Hats of a sweep compared on entries that none of them was trained on.

    loss(hat) = sum over entries of nats / sum of supervised tokens
    d = mean over matched hats of loss(value) - loss(reference)        matched: all other swept settings are equal

Intervals are those of the paired bootstrap over entries (`eval.metrics.bootstrap`), 95 %; they say nothing of other
seeds, whose differences stand beside them one by one.

The smallest rank that is not worse: every rank is taken with the other settings (but the seed) that have the lowest
mean loss over seeds; the best rank is that of the lowest loss. A rank is not worse if the upper end of the interval of
loss(rank) - loss(best rank) is below the margin. Settings are chosen on the entries that they are compared on, which
favours larger grids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowrank.eval.metrics.bootstrap import LEAST_ITEMS, Interval, paired_interval
from lowrank.eval.metrics.metric import Measure

from .axes import SEED

RANK = "adapter.rank"
MARGIN = 0.01  # nats a supervised token
LOSS = Measure("loss", "held-out loss", "lower", "nats a token")

Array = NDArray[np.float64]


@dataclass(frozen=True)
class AdapterLoss:
    """The settings of a hat, and the nats of each held-out entry under it."""

    name: str
    values: Mapping[str, Any]
    nats: Sequence[float]


@dataclass(frozen=True)
class Difference:
    """The loss at a value of one setting less that at the reference; each: of every matched pair of hats."""

    axis: str
    reference: Any
    value: Any
    interval: Interval
    each: Sequence[float]
    entries: int

    @property
    def verdict(self) -> str:
        """better, worse or "not told apart"; none, and why, for too few entries."""
        if self.entries < LEAST_ITEMS:
            return f"none: {self.entries} entries, needs {LEAST_ITEMS}"
        if not self.interval.is_clear_of_zero:
            return "not told apart"
        return "better" if self.interval.difference < 0 else "worse"

    def to_json(self) -> dict[str, Any]:
        numbers = {key: None if value != value else value for key, value in asdict(self.interval).items()}
        return {
            "axis": self.axis,
            "reference": self.reference,
            "value": self.value,
            **numbers,
            "each": list(self.each),
            "entries": self.entries,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class SmallestRank:
    """The answer, or why there is none; compared: each rank with the best, by its interval."""

    rank: int | None
    best: int
    margin: float
    compared: Sequence[Difference]
    settings: Mapping[int, Mapping[str, Any]]
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "rank": self.rank,
            "best": self.best,
            "margin": self.margin,
            "reason": self.reason,
            "settings": {str(rank): dict(values) for rank, values in self.settings.items()},
            "compared": [one.to_json() for one in self.compared],
        }


def loss(adapters: Sequence[AdapterLoss], tokens: Sequence[int]) -> float:
    """The mean loss of hats over the same entries, nats a token."""
    return float(sum(sum(adapter.nats) for adapter in adapters) / (len(adapters) * sum(tokens)))


def differences(
    adapters: Sequence[AdapterLoss], tokens: Sequence[int], axes: Mapping[str, Sequence[Any]]
) -> list[Difference]:
    """Every value of every setting but the seed against the first one that was named.

    tokens: supervised ones of each entry
    """
    found = []
    for axis, (reference, *others) in axes.items():
        if axis == SEED:
            continue
        for value in others:
            pairs = [
                (before, after)
                for before in adapters
                for after in adapters
                if before.values[axis] == reference
                and after.values[axis] == value
                and all(before.values[key] == after.values[key] for key in axes if key != axis)
            ]
            if pairs:
                found.append(_difference(axis, reference, value, pairs, tokens))
    return found


def smallest_rank(
    adapters: Sequence[AdapterLoss], tokens: Sequence[int], axes: Mapping[str, Sequence[Any]], margin: float = MARGIN
) -> SmallestRank | None:
    """By the rule above; None if no rank is swept, or fewer than two have a hat."""
    if RANK not in axes:
        return None
    chosen: dict[int, list[AdapterLoss]] = {}
    for rank in sorted(axes[RANK]):
        by_settings: dict[tuple[Any, ...], list[AdapterLoss]] = {}
        for adapter in adapters:
            if adapter.values[RANK] == rank:
                key = tuple(str(value) for name, value in adapter.values.items() if name not in (RANK, SEED))
                by_settings.setdefault(key, []).append(adapter)
        seeds = max((len(group) for group in by_settings.values()), default=0)
        complete = [group for group in by_settings.values() if len(group) == seeds]  # none of whose seeds has failed
        if complete:
            chosen[rank] = min(complete, key=lambda group: loss(group, tokens))
    if len(chosen) < 2:
        return None
    best = min(chosen, key=lambda rank: loss(chosen[rank], tokens))
    compared = []
    for rank, group in chosen.items():
        if rank == best:
            continue
        pairs = [(a, b) for a in chosen[best] for b in group if a.values.get(SEED) == b.values.get(SEED)]
        compared.append(_difference(RANK, best, rank, pairs or [(chosen[best][0], group[0])], tokens))
    settings = {
        rank: {key: value for key, value in group[0].values.items() if key not in (RANK, SEED)}
        for rank, group in chosen.items()
    }
    if len(tokens) < LEAST_ITEMS:
        reason = f"{len(tokens)} held-out entries, needs {LEAST_ITEMS}"
        return SmallestRank(None, best, margin, compared, settings, reason)
    enough = [one.value for one in compared if one.interval.high < margin]
    return SmallestRank(min([*enough, best]), best, margin, compared, settings)


def _difference(
    axis: str, reference: Any, value: Any, pairs: Sequence[tuple[AdapterLoss, AdapterLoss]], tokens: Sequence[int]
) -> Difference:
    counts = np.asarray(tokens, dtype=np.float64)
    before, after = (np.sum([pair[side].nats for pair in pairs], axis=0) for side in (0, 1))
    each = [(sum(b.nats) - sum(a.nats)) / float(counts.sum()) for a, b in pairs]
    weights = len(pairs) * counts
    if len(tokens) < LEAST_ITEMS:
        interval = Interval(float(np.mean(each)), float("nan"), float("nan"))
    else:
        interval = paired_interval(LOSS, np.stack([before, weights], 1), np.stack([after, weights], 1))
    return Difference(axis, reference, value, interval, each, len(tokens))
