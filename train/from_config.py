"""From a config to a hat: loads the base and the data that the config names, and trains."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowrank.adapters import adapter_parameters
from lowrank.atomic_io import sha256_of
from lowrank.checkpoints.embedded import base_folder
from lowrank.checkpoints.load import load, load_tokenizer
from lowrank.data.documents.document import make_documents
from lowrank.data.encoding.batching import Example, encode_all, name_some
from lowrank.data.encoding.template import Conversation, find
from lowrank.data.imports.formats import read_conversations
from lowrank.kernels.weights.quantized_weight import DENSE_DTYPES
from lowrank.model.tokenizer import Tokenizer

from .config import TrainConfig
from .monitor import HeldOut
from .parallel.single import SingleProcess
from .plan.plan import DOCUMENTS, missing_reason, shape_of
from .trackers import find_tracker
from .trainer import HAT, train

DOCUMENTS_SEED = 7
HELD_OUT_DOCUMENTS = 20


@dataclass(frozen=True)
class Result:
    """Where the hat is, the rows of the log, and how many parameters were trained."""

    hat: Path
    rows: list[dict[str, Any]]
    parameters: int


def train_from_config(
    config: TrainConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    limit_tflops: float | None = None,
) -> Result:
    """Trains the hat that `config` describes; entries over `data.max_tokens` are left out and told.

    Raises ValueError for a base, data file or checkpoint that does not fit.
    """
    shape_of(config)
    dtype = config.base.dtype
    if dtype and dtype not in DENSE_DTYPES:
        raise ValueError(f"base.dtype must be one of {', '.join(DENSE_DTYPES)}, got {dtype!r}")
    for name in config.watch.trackers:
        find_tracker(name)
    with join(config) as team:
        return _train(config, team, resume, overwrite, progress and team.first, limit_tflops)


def join(config: TrainConfig) -> SingleProcess:
    """The processes that torchrun has started, or this one alone.  Raises ValueError for more of them than rows."""
    if not started():
        return SingleProcess()
    from .parallel.torchrun import TorchrunGroup

    team = TorchrunGroup(config.run.parallel == "shards")
    if team.size > config.run.batch:
        team.close()
        raise ValueError(f"run.batch = {config.run.batch} rows cannot be shared by {team.size} processes")
    return team


def started() -> bool:
    """True if torchrun has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _train(
    config: TrainConfig, team: SingleProcess, resume: bool, overwrite: bool, progress: bool, limit_tflops: float | None
) -> Result:
    folder, dtype = base_folder(config.base.path), DENSE_DTYPES.get(config.base.dtype)
    entries, origin = _conversations(config.data.train)
    tokenizer = load_tokenizer(folder)
    examples, dropped = encode_all(entries, tokenizer, config.data.template, config.data.max_tokens)
    if dropped and team.first:
        print(
            f"{len(dropped)} of {len(entries)} entries have over {config.data.max_tokens} tokens and are left out: "
            f"{name_some([example.id for example in dropped])}"
        )
    if team.first:
        _tell_difference(config, examples)
    weights, device = config.base.weights or None, config.base.device
    model = load(folder, weights, dtype, device, progress=progress, keep=team.keep)
    notes = {
        "template": find(config.data.template).to_json(),
        "data": {
            **origin,
            "entries": len(examples),
            "left_out": [example.id for example in dropped],
            "examples_sha256": data_sha256(examples),
        },
        "tokenizer_sha256": sha256_of(tokenizer.path),
        "seed": config.run.seed,
        "config_sha256": hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest(),
    }
    rows = train(
        model,
        examples,
        config,
        resume=resume,
        overwrite=overwrite,
        notes=notes,
        held_out=_held_out(config, tokenizer),
        progress=progress,
        limit_tflops=None if limit_tflops is None else limit_tflops * team.size,
        team=team,
    )
    count = sum(parameter.numel() for parameter in adapter_parameters(model, config.adapter.name).values())
    return Result(Path(config.run.out) / HAT, rows, count)


def encoded_or_none(config: TrainConfig) -> list[Example] | None:
    """The entries of a config as they would be trained on; None if the data or the base's tokenizer are not there."""
    if missing_reason(config):
        return None
    entries, _ = _conversations(config.data.train)
    return encode_all(entries, load_tokenizer(config.base.path), config.data.template, config.data.max_tokens)[0]


def data_sha256(examples: Sequence[Example]) -> str:
    """SHA-256 of the tokens and labels that are learned from, in their order."""
    return hashlib.sha256(json.dumps([[example.tokens, example.labels] for example in examples]).encode()).hexdigest()


def _tell_difference(config: TrainConfig, examples: Sequence[Example]) -> None:
    """Says so where the data are not what the recipe states."""
    counted = {
        "entries": len(examples),
        "tokens": sum(map(len, examples)),
        "supervised": sum(example.supervised for example in examples),
    }
    for key, count in counted.items():
        stated = getattr(config.data, key)
        if stated and count != stated:
            says = "estimates" if config.data.estimated else "states"
            print(f"data.{key}: {count:,} an epoch, the recipe {says} {stated:,} ({count / stated - 1:+.1%})")


def _held_out(config: TrainConfig, tokenizer: Tokenizer) -> HeldOut | None:
    """The held-out examples that `watch.held_out` names, without those too long to be trained on."""
    if not config.watch.every:
        return None
    if config.watch.held_out == DOCUMENTS:
        made = make_documents(HELD_OUT_DOCUMENTS, seed=DOCUMENTS_SEED, split="validation")
        entries = [entry.conversation for entry in made]
    else:
        entries, _ = _conversations(config.watch.held_out, "watch.held_out")
    examples, _ = encode_all(entries, tokenizer, config.data.template, config.data.max_tokens)
    return HeldOut(examples, tokenizer, config.watch.every, config.watch.samples)


def _conversations(source: str, key: str = "data.train") -> tuple[list[Conversation], dict[str, Any]]:
    """The conversations of a source, and its entry in the provenance.  Raises ValueError if there is no such file."""
    if source == DOCUMENTS:
        entries = make_documents(100, seed=DOCUMENTS_SEED, split="train")
        return [entry.conversation for entry in entries], {"made_by": "lowrank", "seed": DOCUMENTS_SEED}
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"{key}: {path}: no such file")
    return read_conversations(path), {"file": path.name, "sha256": sha256_of(path)}
