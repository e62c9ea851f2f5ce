"""The hat of any checkpoint of a run, in files as the run itself writes them at its end."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowrank.adapters.files import save_adapter
from lowrank.adapters.starts import SUBTRACTED, Factors, joined
from lowrank.atomic_io import check_replaceable
from lowrank.checkpoints.embedded import base_folder
from lowrank.checkpoints.open_base import open_base
from lowrank.layers.lora import AdapterConfig

from ..assemble import only_adapter
from ..checkpoint import Checkpoints, read_state
from ..config import TrainConfig
from .folder import ADAPTER_FILES


def save_checkpoint_adapter(source: Path, out: Path) -> int:
    """Writes the hat of a checkpoint into a folder, and returns the steps that it was trained for.

    source  a checkpoint, or a run, whose newest is taken
    Raises ValueError for no checkpoint, one that is damaged or of an earlier version, and a base that is not there.
    """
    check_replaceable(out, ADAPTER_FILES)
    path = _newest(source)
    state = read_state(path)
    if not {"config", "layers", "source", "notes"} <= state.keys():
        raise ValueError(f"{path}: is of an earlier version: resume its run once, which writes a newer one")
    config = TrainConfig.from_dict(state["config"], str(path))
    model = open_base(base_folder(config.base.path)).config
    tensors = _tensors(state, path, model.linear_shapes())
    name = config.adapter.name
    layers = {}
    for linear, fields in state["layers"].items():
        options = AdapterConfig(**{key: value for key, value in fields.items() if key != "scaling"})
        factors, start = (
            Factors(*(tensors.get(f"{part}.{linear}.{matrix}", torch.empty(0)) for matrix in ("lora_A", "lora_B")))
            for part in ("adapter", "start")
        )
        if config.adapter.start in SUBTRACTED:
            options, factors = joined(options, factors, start)
        layers[linear] = (options, *factors, tensors.get(f"adapter.{linear}.lora_magnitude_vector"))
    save_adapter(only_adapter(model, state["source"], name, layers), name, out, notes=state["notes"])
    return int(state["cursor"][0])


def _newest(source: Path) -> Path:
    """The checkpoint itself, or the newest of a run."""
    if source.is_file() or source.suffix == ".parts":
        return source
    checkpoints = Checkpoints(source, 1)
    if not (cursors := checkpoints.cursors()):
        raise ValueError(f"{source}: neither a checkpoint nor a run with one")
    return checkpoints.path(cursors[-1])


def _tensors(state: dict[str, Any], path: Path, shapes: dict[str, tuple[int, int]]) -> dict[str, Tensor]:
    """The adapter's matrices, float32; of a run in shards they are put together."""
    found = {}
    for linear, options in state["layers"].items():
        out_features, in_features = shapes[linear.split(".", 2)[2]]
        for part in ("adapter", "start") if state["config"]["adapter"].get("start") in SUBTRACTED else ("adapter",):
            found[f"{part}.{linear}.lora_A"] = torch.empty(options["rank"], in_features)
            found[f"{part}.{linear}.lora_B"] = torch.empty(out_features, options["rank"])
        if options["dora"]:
            found[f"adapter.{linear}.lora_magnitude_vector"] = torch.empty(out_features)
    Checkpoints(path.parent.parent, 1).fill(state, path, found, {})
    return found
