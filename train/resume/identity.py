"""The settings that must be the same for a run to go on: everything that its losses and weights depend on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lowrank.adapters import resolve_targets
from lowrank.checkpoints.load import DEFAULT_WEIGHTS
from lowrank.data.encoding.batching import Example
from lowrank.kernels.weights.quantized_weight import DENSE_DTYPES
from lowrank.model.llama import Llama

from ..config import TrainConfig
from ..data import examples_sha256
from .phases import LENGTH, RATE

# May differ between a run and the one that goes on with it: docs/training.md has the list. Data and base are the same
# by their hashes, wherever they lie; LENGTH and RATE make a new phase.
MAY_CHANGE = (
    *("run.out", "run.checkpoint_every", "run.checkpoint_minutes", "run.keep", "run.parallel"),
    *("base.path", "base.shape", "adapter.name", "optimizer.max_skipped"),
    "run.numerics",  # told as another path of computing is
    *("data.train", "data.entries", "data.tokens", "data.supervised", "data.estimated"),
)
MAY_CHANGE_TABLE = "watch"


def identity(model: Llama, examples: Sequence[Example], config: TrainConfig) -> dict[str, Any]:
    """The config's keys that a result depends on, each in one form, the base's fingerprint, the data's SHA-256."""
    names = {dtype: name for name, dtype in DENSE_DTYPES.items()}
    found = {
        **_fixed(config.to_dict()),
        "base.dtype": names[model.norm.weight.dtype],
        "base.fingerprint": model.source.get("fingerprint"),
        "data.sha256": examples_sha256(examples),
    }
    if not config.base.weights and "weights" in model.source:
        found["base.weights"] = model.source["weights"]
    return found


def check_same_run(stored: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Raises ValueError naming the first key in which a checkpoint is of another run.

    A key that a checkpoint of an earlier version does not have is at its default there.
    """
    before = {**_fixed(TrainConfig().to_dict()), **{key: _one_form(key, value) for key, value in stored.items()}}
    for key, value in now.items():
        theirs = before.get(key)
        if key == "base.dtype" and theirs == "":  # of an earlier version
            theirs = "fp32" if before.get("base.device") == "cpu" else "bf16"
        if theirs != value:
            raise ValueError(f"{path}: belongs to a run with {key} = {theirs!r}, not {value!r}")


def _fixed(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    keys = {f"{table}.{key}": value for table, values in tables.items() for key, value in values.items()}
    free = {*MAY_CHANGE, *LENGTH, *RATE}
    return {
        name: _one_form(name, value)
        for name, value in keys.items()
        if name not in free and name.partition(".")[0] != MAY_CHANGE_TABLE
    }


def _one_form(key: str, value: Any) -> Any:
    """A value that has several names, by one of them."""
    if key == "base.device":
        return torch.device(value).type  # its number is a place, as a path is
    if key == "base.weights":
        return value or DEFAULT_WEIGHTS
    if key == "adapter.targets":
        return list(resolve_targets(value))
    return value
