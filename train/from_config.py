"""From a config to a hat: loads the base and the data that the config names, and trains."""

import hashlib
import json
import os
import sys
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowrank.adapters import adapter_parameters
from lowrank.adapters.files import read_adapter
from lowrank.atomic_io import sha256_of
from lowrank.checkpoints.embedded import base_folder
from lowrank.checkpoints.load import load, load_tokenizer
from lowrank.data.encoding.template import template_entry
from lowrank.kernels.weights.quantized_weight import DENSE_DTYPES
from lowrank.model.tokenizer import Tokenizer

from .assemble import check_machine, check_originals, single_process
from .batch_schedule import BatchSchedule
from .config import TrainConfig
from .data import RunData, difference_notes, read_run_data
from .monitor import HeldOut
from .notes import odd_settings
from .parallel.single import SingleProcess
from .plan.plan import shape_of
from .resume.folder import ADAPTER, Resume, is_going_on, locked
from .trackers import find_tracker
from .trainer import train


@dataclass(frozen=True)
class Result:
    """Where the hat is, the rows of the log, and how many parameters were trained."""

    adapter: Path
    rows: list[dict[str, Any]]
    parameters: int


def train_from_config(
    config: TrainConfig,
    *,
    data: RunData | None = None,
    resume: Resume = False,
    overwrite: bool = False,
    progress: bool = True,
    limit_tflops: float | None = None,
) -> Result:
    """Trains the hat that `config` describes; entries that cannot be learned are left out and told (see `data`).

    data: of `read_run_data`, where that has been called already.
    Raises ValueError for a base, data file or checkpoint that does not fit.
    """
    shape_of(config)
    check_originals(config)
    check_machine(config)
    for name in config.watch.trackers:
        find_tracker(name)
    out = Path(config.run.out)
    with join(config) as team, locked(out) if team.is_first else nullcontext():
        is_going_on(out, resume, overwrite)
        return _train(config, data, team, resume, overwrite, progress and team.is_first, limit_tflops)


def join(config: TrainConfig) -> SingleProcess:
    """The processes that torchrun has started, or this one alone.  Raises ValueError for more of them than rows."""
    if not is_one_of_several():
        return single_process(config)
    if config.run.numerics == "exact":
        raise ValueError("run.numerics = 'exact' is one process: the sums of several have no order of their own")
    from .parallel.torchrun import TorchrunGroup

    team = TorchrunGroup(config.run.parallel == "shards")
    if team.size > config.run.batch:
        team.close()
        raise ValueError(f"run.batch = {config.run.batch} rows cannot be shared by {team.size} processes")
    return team


def is_one_of_several() -> bool:
    """True if torchrun has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _train(
    config: TrainConfig,
    data: RunData | None,
    team: SingleProcess,
    resume: Resume,
    overwrite: bool,
    progress: bool,
    limit_tflops: float | None,
) -> Result:
    folder, dtype = base_folder(config.base.path), DENSE_DTYPES.get(config.base.dtype)
    tokenizer = load_tokenizer(folder)
    data = data or read_run_data(config, tokenizer)
    if team.is_first:
        steps = BatchSchedule.of(data.examples, config).steps
        for line in (*data.notes, *difference_notes(config, data.examples)):
            print(line, file=sys.stderr)
        for note in odd_settings(config, shape_of(config), steps):
            warnings.warn(note, stacklevel=2)
        data.write_skipped(Path(config.run.out))
    weights, device = config.base.weights or None, config.base.device
    model = load(folder, weights, dtype, device, progress=progress, keep=team.keep_shard)
    notes = notes_of(config, data, tokenizer)
    held_out = None
    if data.held_out:
        held_out = HeldOut(data.held_out, tokenizer, config.watch.every, config.watch.samples)
    rows = train(
        model,
        data.examples,
        config,
        resume=resume,
        overwrite=overwrite,
        notes=notes,
        held_out=held_out,
        progress=progress,
        limit_tflops=None if limit_tflops is None else limit_tflops * team.size,
        team=team,
        is_locked=True,
    )
    count = sum(parameter.numel() for parameter in adapter_parameters(model, config.adapter.name).values())
    return Result(Path(config.run.out) / ADAPTER, rows, count)


def notes_of(config: TrainConfig, data: RunData, tokenizer: Tokenizer) -> dict[str, Any]:
    """The provenance of a hat: its data, template, tokenizer and config."""
    return {
        "template": template_entry(config.data.template, tokenizer),
        "data": data.origin,
        **({"kinds": data.kinds} if data.kinds else {}),
        **({"learned_kinds": sorted(data.learned_kinds)} if data.learned_kinds else {}),
        "tokenizer_sha256": sha256_of(tokenizer.path),
        "seed": config.run.seed,
        **({"started_from": start_of(config)} if config.adapter.from_ else {}),
        "config_sha256": hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest(),
    }


def start_of(config: TrainConfig) -> dict[str, Any]:
    """Provenance of the hat that a run starts from: its folder, the hash of its weights, and its own record."""
    stored = read_adapter(config.adapter.from_)
    return {
        "folder": str(stored.folder),
        "weights_sha256": stored.record.get("weights_sha256"),
        "record": stored.record,
    }
