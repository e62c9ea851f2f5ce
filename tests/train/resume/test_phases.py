"""The schedule of a run whose length is changed, and the settings that go with it."""

import pytest

from lowrank.train.config import TrainConfig
from lowrank.train.resume.phases import Phase, phases_from


def phase(end: int, start: int = 0, epochs: float = 3, **optimizer: object) -> Phase:
    config = TrainConfig.from_dict(
        {"optimizer": {"lr": 1e-3, "schedule": "linear", **optimizer}, "run": {"epochs": epochs}}
    )
    return Phase.of(config, start, end)


def test_a_run_of_the_same_settings_goes_on_with_its_schedule() -> None:
    assert phases_from([phase(9)], phase(9), 4, "x") == [phase(9)]


def test_added_epochs_have_a_schedule_of_their_own() -> None:
    first, second = phases_from([phase(9)], phase(12, epochs=4, lr=5e-4), 9, "x")
    assert first == phase(9)
    assert (second.start, second.end) == (9, 12)
    assert [second.rate(step) for step in (9, 10, 11)] == pytest.approx([5e-4, 2.5e-4, 0])


def test_a_warm_up_is_that_of_the_phase() -> None:
    added = Phase.of(TrainConfig.from_dict({"optimizer": {"lr": 1.0, "warmup_ratio": 0.5}}), 100, 104)
    assert [added.rate(step) for step in range(100, 104)] == [0.5, 1, 1, 1]


def test_another_rate_without_another_length_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"x: belongs to a run with optimizer\.lr = 0\.001, not 0\.0005: a new rate is"
    ):
        phases_from([phase(9)], phase(9, lr=5e-4), 4, "x")


def test_a_length_that_is_behind_the_run_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x: 9 steps are done, and with run\.epochs = 2 .* the run ends after 6"):
        phases_from([phase(9)], phase(6, epochs=2), 9, "x")


def test_a_phase_survives_its_own_json() -> None:
    assert Phase(**phase(9).to_json()) == phase(9)
