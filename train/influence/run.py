"""The folder of a run, read back: what it learned from, its steps, and the hat and the moments of each checkpoint."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowrank.adapters import adapter_parameters
from lowrank.checkpoints.embedded import base_folder
from lowrank.checkpoints.load import load, load_tokenizer
from lowrank.data.encoding.batching import Example
from lowrank.data.jsonl import parse_json
from lowrank.kernels.weights.quantized_weight import DENSE_DTYPES
from lowrank.model.tokenizer import Tokenizer
from lowrank.text_file import read_text

from ..assemble import new_adapter, new_optimizer
from ..batch_schedule import BatchSchedule
from ..checkpoint import Checkpoints, Cursor, read_state
from ..config import TrainConfig
from ..data import examples_sha256, read_run_data
from ..parallel.single import SingleProcess
from ..resume.folder import CONFIG
from .effects import Method

CHECKPOINTS = 4  # that a run is advised to keep


@dataclass(frozen=True)
class RunFolder:
    """A run that is over, before anything is loaded.

    examples  as it learned from them
    log       a row a step
    kept      the steps of each checkpoint, in their order
    """

    folder: Path
    config: TrainConfig
    tokenizer: Tokenizer
    examples: list[Example]
    log: list[dict[str, Any]]
    kept: list[int]

    def checkpoint(self, steps: int) -> dict[str, Any]:
        """The state after so many steps."""
        return read_state(_path(self.folder, steps))


def read_run(folder: Path) -> RunFolder:
    """The run in a folder.

    Raises ValueError, one line, for no run, one without checkpoints, a kind of run whose gradients are not those of
    documents, and data that are no longer what they were.
    """
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder}: must be the folder of a run, with its {CONFIG}")
    config = TrainConfig.from_dict(parse_json(read_text(folder / CONFIG)), str(folder / CONFIG))
    _check_kind(config, folder)
    kept = [cursor.step for cursor in Checkpoints(folder, 1).cursors() if not cursor.batch]
    tokenizer = load_tokenizer(base_folder(config.base.path))
    examples = read_run_data(config, tokenizer).examples
    if not kept:
        every = math.ceil(BatchSchedule.of(examples, config).steps / CHECKPOINTS)
        raise ValueError(
            f"{folder}: kept no checkpoint, at which gradients could be taken: train with run.checkpoint_every={every} "
            f"run.keep={CHECKPOINTS}"
        )
    newest = read_state(_path(folder, kept[-1]))
    if "tensors" not in newest:
        raise ValueError(f"{folder}: run.parallel must be 'replicas', got 'shards': its checkpoints are in parts")
    _check_same(newest, "data.sha256", examples_sha256(examples), folder)
    return RunFolder(folder, config, tokenizer, examples, newest["log"], kept)


class LoadedRun:
    """The base of a run in memory, with a hat that `put` fills.  Raises ValueError for a base that is another now."""

    def __init__(self, run: RunFolder, *, progress: bool = True) -> None:
        self._run, config = run, run.config
        folder, dtype = base_folder(config.base.path), DENSE_DTYPES.get(config.base.dtype)
        self.model = load(folder, config.base.weights or None, dtype, config.base.device, progress=progress)
        fingerprint = self.model.source.get("fingerprint")
        _check_same(run.checkpoint(run.kept[-1]), "base.fingerprint", fingerprint, run.folder)
        new_adapter(self.model, replace(config, adapter=replace(config.adapter, dropout=0.0)))
        self.parameters = adapter_parameters(self.model, config.adapter.name)
        self._optimizer = new_optimizer(self.parameters, config, SingleProcess())

    def put(self, steps: int) -> dict[Method, Tensor]:
        """Makes the hat that of a checkpoint; returns the scales D [P] of its gradients, by method (`effects`)."""
        state = self._run.checkpoint(steps)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["tensors"][f"adapter.{name}"])
        self._optimizer.load_state_dict({"steps": state["optimizer_steps"], **state["tensors"]})
        return {"sgd": self._scale(None), "adam": self._scale(1 - self._optimizer.betas[1] ** self._optimizer.steps)}

    def _scale(self, correction: float | None) -> Tensor:
        """D; correction: 1 - b2^n of Adam's second moment, None without it."""
        parts = []
        for name, parameter in self.parameters.items():
            rate = self._optimizer.rates.get(name, 1.0)
            if correction is None:
                parts.append(torch.full((parameter.numel(),), rate, device=parameter.device))
            else:
                root = self._optimizer.v[name].read().flatten().sqrt() / math.sqrt(correction)
                parts.append(rate / (root + self._optimizer.eps))
        return torch.cat(parts)


def unique(examples: Sequence[Example]) -> list[Example]:
    """Each example once, in their order: an entry of weight 2 is one document."""
    return list(dict.fromkeys(examples))


def _check_kind(config: TrainConfig, folder: Path) -> None:
    """Refuses a loss that is no sum over documents of their own, and a hat whose linears are rounded as it trains."""
    for key, value in (
        ("preference.loss", config.preference.loss),
        ("adapter.merge_aware", config.adapter.merge_aware),
    ):
        if value:
            raise ValueError(f"{folder}: {key} must be empty where influence is asked for, got {value!r}")


def _check_same(state: dict[str, Any], key: str, now: str | None, folder: Path) -> None:
    """Refuses data or a base that a checkpoint does not know."""
    if state["identity"][key] != now:
        raise ValueError(f"{folder}: its {key.partition('.')[0]} must be what it was trained with, got another {key}")


def _path(folder: Path, steps: int) -> Path:
    return Checkpoints(folder, 1).path(Cursor(steps))
