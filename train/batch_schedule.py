"""The batches of every step of a run."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Self

from lowrank.data.encoding.batching import Example, epoch_batches
from lowrank.data.encoding.packing import Row, pack, rows_of_one

from .config import TrainConfig
from .config_tables import RunConfig

StepBatches = list[list[Row]]  # the batches of one step


@dataclass(frozen=True)
class BatchSchedule:
    """Steps, in their order: a function of the rows, the config, and nothing that happens in the run."""

    rows: Sequence[Row]
    config: TrainConfig

    @classmethod
    def of(cls, examples: Sequence[Example], config: TrainConfig) -> Self:
        """Every example in a row of its own, or packed into rows of `data.pack` tokens."""
        return cls(pack(examples, config.data.pack) if config.data.pack else rows_of_one(examples), config)

    @property
    def steps_per_epoch(self) -> int:
        """The last step of an epoch may be short."""
        return steps_of_rows(len(self.rows), self.config.run)

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return run_steps(self.steps_per_epoch, self.config.run)

    def from_step(self, first: int) -> Iterator[tuple[int, StepBatches]]:
        """(number, batches) of every step from `first` on."""
        run = self.config.run
        for epoch in count(first // self.steps_per_epoch):
            batches = epoch_batches(
                self.rows, run.batch, run.seed, epoch, group_by_length=self.config.data.group_by_length
            )
            for index in range(self.steps_per_epoch):
                number = epoch * self.steps_per_epoch + index
                if number >= self.steps:
                    return
                if number >= first:
                    yield number, batches[index * run.accumulate : (index + 1) * run.accumulate]


def steps_of_rows(rows: int, run: RunConfig) -> int:
    """Steps of one epoch."""
    return math.ceil(math.ceil(rows / run.batch) / run.accumulate)


def run_steps(steps_per_epoch: int, run: RunConfig) -> int:
    """ceil(steps_per_epoch * epochs), or max_steps if that is less

    Of a product that is whole but for the rounding of a double, such as 30 x 0.1, that whole number.
    """
    steps = math.ceil(steps_per_epoch * run.epochs - 1e-9 * steps_per_epoch)
    return min(steps, run.max_steps) if run.max_steps else steps
