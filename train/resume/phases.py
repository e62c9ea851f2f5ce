"""The stretches of a run that have a schedule of the learning rate each: one, and one more for every change of length.

A run whose epochs are changed goes on from where it is, with a new schedule over the steps that are left. With a rate
that depends on the place in the schedule, that is another run than one that had the new length from its beginning.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from ..config import TrainConfig
from ..optim import LRSchedule, learning_rate, warmup_steps

LENGTH = ("run.epochs", "run.max_steps")
RATE = ("optimizer.lr", "optimizer.schedule", "optimizer.floor", "optimizer.warmup", "optimizer.warmup_ratio")


@dataclass(frozen=True)
class Phase:
    """Steps start .. end - 1, and the settings of the config that they were run with."""

    start: int
    end: int
    settings: dict[str, Any]  # by "table.key", those of LENGTH and RATE

    @classmethod
    def of(cls, config: TrainConfig, start: int, end: int) -> Self:
        """The steps from `start` on, as a config has them."""
        return cls(start, end, settings_of(config.to_dict()))

    def rate(self, step: int) -> float:
        """The learning rate of a step, by its place in the phase (`optim.learning_rate`)."""
        lr, schedule, floor, warmup, ratio = (self.settings[key] for key in RATE)
        steps = self.end - self.start
        kind: LRSchedule = schedule
        return learning_rate(step - self.start, steps, lr, warmup_steps(steps, warmup, ratio), kind, floor)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def settings_of(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of length and rate, by "table.key"."""
    return {name: tables[name.partition(".")[0]][name.partition(".")[2]] for name in (*LENGTH, *RATE)}


def phases_from(stored: list[Phase], planned: Phase, done: int, where: str) -> list[Phase]:
    """The phases of a run that goes on: as stored, or with one more from `done` steps on if its length is another.

    planned  all of the config that it goes on with
    Raises ValueError for another rate without another length, and for a length that is behind it.
    """
    last = stored[-1]
    changed = [key for key in (*LENGTH, *RATE) if last.settings[key] != planned.settings[key]]
    if not changed:
        return stored
    if not set(changed) & set(LENGTH):
        before, now = last.settings[changed[0]], planned.settings[changed[0]]
        raise ValueError(
            f"{where}: belongs to a run with {changed[0]} = {before!r}, not {now!r}: a new rate is for another length, "
            "such as more run.epochs"
        )
    if planned.end <= done:
        raise ValueError(
            f"{where}: {done:,} steps are done, and with {LENGTH[0]} = {planned.settings[LENGTH[0]]:g} and {LENGTH[1]} "
            f"= {planned.settings[LENGTH[1]]} the run ends after {planned.end:,}"
        )
    return [*stored, Phase(done, planned.end, planned.settings)]


def phases_of_checkpoint(state: Mapping[str, Any], planned: Phase, done: int, where: str) -> tuple[list[Phase], str]:
    """The phases with which a checkpoint goes on, as `phases_from`, and a note if one of them is new ("" if none is).

    state  of the checkpoint; one of an earlier version has no phases: its schedule was that of one config
    """
    if "phases" in state:
        stored = [Phase(**phase) for phase in state["phases"]]
    else:
        defaults = settings_of(TrainConfig().to_dict())
        stored = [Phase(0, planned.end, {key: state["identity"].get(key, defaults[key]) for key in defaults})]
    phases = phases_from(stored, planned, done, where)
    if len(phases) == len(stored):
        return phases, ""
    new = phases[-1]
    schedule, lr = new.settings["optimizer.schedule"], new.settings["optimizer.lr"]
    return phases, (
        f"steps {new.start + 1:,} to {new.end:,} have a schedule of their own, {schedule} from {lr:g}: "
        "the run will not be one that had this length from its beginning"
    )
