"""The two sides of the sweep's bench, each in a process of its own: see `worker`.

A job is a step of every hat on the tokens int64 [hats, length], a row each; what is written down of it is their losses.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowrank.checkpoints.load import load
from lowrank.data.encoding.batching import Example
from lowrank.data.encoding.packing import Row, rows_of_one
from lowrank.model.llama import Llama
from lowrank.train.config import TrainConfig
from lowrank.train.monitor import NullMonitor
from lowrank.train.prepared_model import PreparedModel
from lowrank.train.step import StepState, accumulate, finish
from lowrank.train.sweep.axes import Point
from lowrank.train.sweep.plan import groups, positions_of
from lowrank.train.sweep.run import POSITIONS, SweptAdapter, train_pass
from lowrank.train.trainer import Trainer

from .worker import Job, serve

TOGETHER, ALONE = "nine hats together", "nine runs alone"
LR, CLIP = 2e-4, 0.3


def together(folder: Path) -> Job:
    """The passes and updates of `lowrank sweep` itself."""
    model, tokens = _base(folder)
    configs = [_config(folder, number) for number in range(len(tokens))]
    hats: list[SweptAdapter] = []
    for config, own in zip(configs, tokens, strict=True):
        run = Trainer(model, _examples(own), config)
        hats.append(SweptAdapter(Point(config.adapter.name, {}, config), run, NullMonitor(), iter(())))

    def step(tokens: Tensor) -> Any:
        for hat, own in zip(hats, tokens, strict=True):
            hat.batches, hat.run.under_way = [_rows(own)], StepState()
        for group in groups([positions_of(hat.batch) for hat in hats], POSITIONS):
            train_pass(model, [hats[number] for number in group])
        return [_update(hat.run, hat.batches) for hat in hats]

    return step


def alone(folder: Path) -> Job:
    """A run of `lowrank train`, whose steps each take as long as one of any of the others."""
    model, tokens = _base(folder)
    run = Trainer(model, _examples(tokens[0]), _config(folder, 0))

    def step(tokens: Tensor) -> Any:
        losses = []
        for own in tokens:
            rows, run.under_way = _rows(own), StepState()
            accumulate(model, rows, sum(row.supervised for row in rows), run.under_way, run.team)
            losses.append(_update(run, [rows]))
        return losses

    return step


def _base(folder: Path) -> tuple[Llama, Tensor]:
    model = load(folder / "base", "nf4-dq", torch.bfloat16)
    PreparedModel(model, "none").__enter__()  # until the process ends
    tokens: Tensor = torch.load(folder / "tokens.pt", weights_only=True)[0]
    return model, tokens


def _config(folder: Path, number: int) -> TrainConfig:
    adapter = {"name": f"hat{number}", "rank": 8, "alpha": 16}
    return TrainConfig.from_dict({"adapter": adapter, "run": {"out": str(folder / "run"), "seed": number}})


def _rows(tokens: Tensor) -> list[Row]:
    return rows_of_one(_examples(tokens))


def _examples(tokens: Tensor) -> list[Example]:
    """One row, of which every token but the first is learned."""
    row = tuple(tokens.tolist())
    return [Example("0", row, (-100, *row[1:]))]


def _update(run: Trainer, batches: list[list[Row]] | None) -> float:
    assert batches is not None
    return float(finish(batches, run.under_way, run.optimizer, LR, CLIP, run.team)["loss"])


PROVIDERS = {TOGETHER: together, ALONE: alone}

if __name__ == "__main__":
    serve(PROVIDERS)
