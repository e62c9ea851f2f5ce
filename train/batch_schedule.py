"""The batches of every step of a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from lowrank.data.encoding.batching import Example, epoch_batches
from lowrank.data.encoding.packing import Row, pack, rows_of_one

from .config import TrainConfig

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
        batches = -(-len(self.rows) // self.config.run.batch)
        return -(-batches // self.config.run.accumulate)

    @property
    def steps(self) -> int:
        """Steps of all epochs."""
        return self.steps_per_epoch * self.config.run.epochs

    def from_step(self, first: int) -> Iterator[tuple[int, StepBatches]]:
        """(number, batches) of every step from `first` on."""
        run = self.config.run
        for epoch in range(first // self.steps_per_epoch, run.epochs):
            batches = epoch_batches(
                self.rows, run.batch, run.seed, epoch, group_by_length=self.config.data.group_by_length
            )
            for index in range(self.steps_per_epoch):
                number = epoch * self.steps_per_epoch + index
                if number >= first:
                    yield number, batches[index * run.accumulate : (index + 1) * run.accumulate]
