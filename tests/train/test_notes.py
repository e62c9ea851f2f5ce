"""Settings that are allowed and hardly meant: each is told in a line."""

import pytest

from lowrank.model.config import ModelConfig
from lowrank.train.config import TrainConfig
from lowrank.train.notes import odd_settings

SHAPE = ModelConfig(dim=192, n_layers=2, n_heads=4, n_kv_heads=4, hidden_dim=512, vocab_size=100)


def notes(**tables: dict[str, object]) -> list[str]:
    return list(odd_settings(TrainConfig.from_dict(tables), SHAPE, 10))


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"optimizer": {"warmup": 10}}, "the warm-up takes 10 steps and the run 10"),
        ({"adapter": {"rank": 193}}, "adapter.rank = 193 is more than 192, the smaller side of attention.wq"),
        ({"adapter": {"alpha": 0}}, "adapter.alpha = 0 scales the hat to nothing"),
    ],
)
def test_each_is_told(tables: dict[str, dict[str, object]], said: str) -> None:
    (line,) = notes(**tables)
    assert line.startswith(said)


def test_a_usual_run_is_told_nothing() -> None:
    assert notes(adapter={"rank": 192}, optimizer={"warmup": 9}) == []
