"""Steps of a run: of whole epochs, of a part of one, and of no more than are asked for."""

import pytest

from lowrank.data.encoding.batching import Example
from lowrank.train.batch_schedule import BatchSchedule
from lowrank.train.config import TrainConfig

EXAMPLES = [Example(str(number), (1, 2 + number), (-100, 2 + number)) for number in range(10)]


def schedule(**run: object) -> BatchSchedule:
    return BatchSchedule.of(EXAMPLES, TrainConfig.from_dict({"run": {"batch": 2, "accumulate": 2, **run}}))


def names(of: BatchSchedule, first: int = 0) -> list[list[str]]:
    return [
        [example.id for batch in batches for row in batch for example in row.examples]
        for _, batches in of.from_step(first)
    ]


@pytest.mark.parametrize(
    ("run", "steps"),
    [
        ({"epochs": 3}, 9),
        ({"epochs": 0.5}, 2),
        ({"epochs": 1.1}, 4),
        ({"epochs": 0.001}, 1),
        ({"epochs": 3, "max_steps": 4}, 4),
        ({"epochs": 1, "max_steps": 4}, 3),
        ({"epochs": 0.1, "batch": 1, "accumulate": 1}, 1),
        ({"epochs": 0.3, "batch": 1, "accumulate": 1}, 3),
        ({"epochs": 1.1, "batch": 1, "accumulate": 1}, 11),
    ],
    ids=str,
)
def test_steps_by_hand(run: dict[str, object], steps: int) -> None:
    of = schedule(**run)
    assert of.steps == steps
    assert [number for number, _ in of.from_step(0)] == list(range(steps))


def test_a_shorter_run_is_the_beginning_of_a_longer_one() -> None:
    whole = names(schedule(epochs=3))
    assert names(schedule(epochs=1.5)) == whole[:5]
    assert names(schedule(epochs=3, max_steps=7)) == whole[:7]
    assert names(schedule(epochs=2.5), first=4) == whole[4:8]
