"""The figures of `lowrank reproduce --lora`: best rates, and everything else at them, seed by seed.

    best rate of a seed     the minimum of the parabola through the lowest ln loss over ln rate and its two neighbours
    at its best             at the rate of the grid whose mean loss over seeds is the lowest: one rate for every seed;
                            of rates whose losses are within `TIED` of that, the smallest, which forgets least

A run that ended early, or left the facts worse known than before, counts as one that learned nothing. Where the lowest
loss is at an end of the grid, a better rate may lie beyond it: then there is no best rate, and no comparison at it.
But a loss within `TIED` of 0 is the best there is, wherever it is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from ..bench.rows import Row
from .lora_plan import Method, Plan

TIED = 0.01 * math.log(10)  # nats a digit: a hundredth of what there is to learn


class CannotTell(Exception):
    """The reason why a figure is not known."""


@dataclass(frozen=True)
class Results:
    """The rows of whole seeds of a plan, in any order."""

    plan: Plan
    rows: Sequence[Row]

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds, ascending."""
        return sorted({row["seed"] for row in self.rows})

    @cached_property
    def _cells(self) -> dict[tuple[str, Method, float, int], Row]:
        return {
            (row["part"], Method(row["rank"], row["targets"], row["alpha"]), row["rate"], row["seed"]): row
            for row in self.rows
        }

    def row(self, part: str, method: Method, rate: float, seed: int) -> Row:
        """The row of one run."""
        return self._cells[part, method, rate, seed]

    def rates(self, part: str, method: Method) -> list[float]:
        """The grid of a method.  Raises CannotTell for one that the part has not."""
        for one, rates in self.plan.part(part).grids:
            if one == method:
                return sorted(rates)
        raise CannotTell(f"{method.title} is not run on {part}")

    def losses(self, part: str, method: Method) -> list[list[float]]:
        """[rates, seeds], nats a digit"""
        return [
            [learned_loss(self.row(part, method, rate, seed)) for seed in self.seeds]
            for rate in self.rates(part, method)
        ]

    def best_place(self, part: str, method: Method) -> int:
        """The place in the grid of the rate at which the method is at its best."""
        means = [fmean(losses) for losses in self.losses(part, method)]
        return next(place for place, mean in enumerate(means) if mean <= min(means) + TIED)

    def is_at_end(self, part: str, method: Method) -> bool:
        """True if that, or the lowest mean loss, is the first or the last, and the loss could be lower yet."""
        means = [fmean(losses) for losses in self.losses(part, method)]
        places = {self.best_place(part, method), means.index(min(means))}
        return min(means) > TIED and not places.isdisjoint((0, len(means) - 1))

    def best_row(self, part: str, method: Method, seed: int) -> Row:
        """The run of a seed at the rate that is the best of the grid."""
        return self.row(part, method, self.rates(part, method)[self.best_place(part, method)], seed)

    def at_best(self, part: str, method: Method, key: str) -> list[float]:
        """A measurement at the best rate of the grid, for each seed.  Raises CannotTell if it is at an end."""
        if self.is_at_end(part, method):
            raise CannotTell(f"the best rate of {method.title} on {part} is at an end of its grid")
        return [measured(self.best_row(part, method, seed), key) for seed in self.seeds]

    def least_forgotten(self, part: str, method: Method, loss: float) -> list[float]:
        """Forgetting at the rate that forgets least of those that come below a loss, for each seed

        Raises CannotTell for a seed that has none.
        """
        found = []
        for seed in self.seeds:
            rows = [self.row(part, method, rate, seed) for rate in self.rates(part, method)]
            fitting = [measured(row, "forgotten") for row in rows if row.get("loss", math.inf) < loss]
            if not fitting:
                raise CannotTell(f"{method.title} on {part}, seed {seed}, comes below {loss:.3f} nats at no rate")
            found.append(min(fitting))
        return found

    def log_best_rates(self, part: str, method: Method) -> list[float]:
        """ln of the best rate of each seed.  Raises CannotTell if that of any is at an end of the grid."""
        logs = [math.log(rate) for rate in self.rates(part, method)]
        found = []
        for seed, losses in zip(self.seeds, zip(*self.losses(part, method), strict=True), strict=True):
            place = losses.index(min(losses))
            if place in (0, len(logs) - 1):
                raise CannotTell(
                    f"the best rate of {method.title} on {part}, seed {seed}, is at an end of its grid, "
                    f"{math.exp(logs[place]):.3g}"
                )
            around = slice(place - 1, place + 2)
            found.append(lowest(logs[around], [math.log(loss) for loss in losses[around]]))
        return found


def learned_loss(row: Row) -> float:
    """Nats a digit, at most what they were before."""
    return min(float(row.get("loss", math.inf)), float(row["loss_before"]))


def measured(row: Row, key: str) -> float:
    """A measurement of a run; "forgotten" and "intruder share" follow from others

    Raises CannotTell for a run that ended early.
    """
    if key == "loss":
        return learned_loss(row)
    if "loss" not in row:
        raise CannotTell(f"the run of seed {row['seed']} at {row['rate']:g} ended early")
    if key == "forgotten":
        return float(row["kept"] - row["kept_before"])
    if key == "intruder share":
        return float(row["intruders"] / row["looked_at"])
    return float(row[key])


def lowest(x: Sequence[float], y: Sequence[float]) -> float:
    """The x of the minimum of the parabola through three points, the middle one of which is the lowest."""
    left, right = (y[0] - y[1]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])  # how steeply it rises on both sides
    if left + right == 0:
        return x[1]
    slope, bend = (right * (x[1] - x[0]) - left * (x[2] - x[1])) / (x[2] - x[0]), (left + right) / (x[2] - x[0])
    return x[1] - slope / (2 * bend)
