"""A tiny base, ten examples, and a config of a run on them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lowrank
from lowrank.data.encoding.batching import Example
from lowrank.model.llama import Llama
from lowrank.train.config import TrainConfig

Configure = Callable[..., TrainConfig]


@pytest.fixture
def base(golden: Path) -> Callable[[], Llama]:
    return lambda: lowrank.load(golden / "meta-tiny-mha", "nf4-dq")


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 512, (6 + number,), generator=generator).tolist() for number in range(10)]
    return [Example(str(number), tuple(row), (-100, *row[1:])) for number, row in enumerate(rows)]


@pytest.fixture
def config(golden: Path) -> Configure:
    """config(out, {"table": {...}}): five batches an epoch, three steps."""

    def make(out: Path, **tables: dict[str, object]) -> TrainConfig:
        run = {"out": str(out), "epochs": 3, "batch": 2, "accumulate": 2, "checkpoint_every": 100}
        return TrainConfig.from_dict(
            {
                **tables,
                "base": {"path": str(golden / "meta-tiny-mha"), **tables.get("base", {})},
                "adapter": {"rank": 4, **tables.get("adapter", {})},
                "optimizer": {"lr": 1e-3, "schedule": "cosine", **tables.get("optimizer", {})},
                "run": {**run, **tables.get("run", {})},
            }
        )

    return make
