"""The resources of a run, before any of it is done: parameters, bytes, tokens, steps, multiplications, time.

Neither the weights nor the data need be there: the shape is then that of `base.shape`, and the tokens are those that
the recipe states, in rows of its mean length.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lowrank.adapters.accounting import Item, adapter_parameters, base_items, model_parameters
from lowrank.checkpoints.embedded import base_folder
from lowrank.checkpoints.open_base import no_tokenizer_reason, open_base
from lowrank.data.encoding.batching import Example
from lowrank.data.encoding.packing import Row, computed_rows
from lowrank.kernels.weights.quantized_weight import DENSE_DTYPES
from lowrank.model.config import PRESETS, ModelConfig

from ..batch_schedule import BatchSchedule, run_steps, steps_of_rows
from ..config import TrainConfig
from .flops import training_flops
from .memory import BatchShape, compute_dtype, host_bytes, parts, stored_weights

DOCUMENTS = "documents"  # as data.train: those that are made here
RANKS = (2, 8, 64, 512)


@dataclass(frozen=True)
class ShardCost:
    """One of several processes that share a model in parts: its memory, and what it receives in a step, and sends.

    batch: `run.batch`, or as many rows as there are processes, which a run needs at least.
    """

    processes: int
    batch: int
    bytes: int
    traffic: int


@dataclass(frozen=True)
class RunPlan:
    """Counts are of the whole run; bytes are at the peak."""

    parameters: int
    trainable: int
    counted: bool  # the tokens, on the data; or else they are what the recipe states
    entries: int
    tokens: int
    supervised: int
    positions: int
    steps: int
    flops: float
    parts: list[Item]
    host_bytes: int
    ranks: list[ShardCost]

    @property
    def peak_bytes(self) -> int:
        """The predicted peak of the run in bytes: the sum of its parts."""
        return sum(part.bytes for part in self.parts)

    def seconds(self, tflops: float) -> float:
        """At a limit of so many 10^12 multiplications and additions a second."""
        return self.flops / (tflops * 1e12)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "peak_bytes": self.peak_bytes}


def make_plan(config: TrainConfig, examples: Sequence[Example] | None) -> RunPlan:
    """The plan of a config.

    examples: the entries, encoded; None where data or tokenizer are not there.
    Raises ValueError if then the config states no tokens, or if neither folder nor shape is known.
    """
    model = shape_of(config)
    if examples is None:
        counts, batch = _stated(config)
    else:
        counts, batch = _counted(config, examples)
    entries, tokens, supervised, positions, pairs, steps = counts
    return RunPlan(
        parameters=model_parameters(model),
        trainable=adapter_parameters(model, config.adapter.rank, config.adapter.targets, dora=config.adapter.dora),
        counted=examples is not None,
        entries=entries,
        tokens=tokens,
        supervised=supervised,
        positions=positions,
        steps=steps,
        flops=training_flops(model, config, positions, pairs, supervised),
        parts=parts(model, config, batch),
        host_bytes=host_bytes(model, config),
        ranks=[_rank(model, config, batch, processes) for processes in RANKS],
    )


def shape_of(config: TrainConfig) -> ModelConfig:
    """That of the folder if it is there, or else `base.shape`.  Raises ValueError if they differ, or for neither."""
    folder, shape = base_folder(config.base.path), PRESETS.get(config.base.shape)
    if not folder.exists():
        if shape is None:
            raise ValueError(f"base.path: {folder}: no such folder, and base.shape says nothing of its shape")
        return shape
    model = open_base(folder).config
    if shape is not None and model.linear_shapes() != shape.linear_shapes():
        raise ValueError(
            f"base.path: {folder}: is not of base.shape {config.base.shape}: dim {model.dim}, not {shape.dim}"
        )
    return model


Counts = tuple[int, int, int, int, int, int]


def _counted(config: TrainConfig, examples: Sequence[Example]) -> tuple[Counts, BatchShape]:
    """Counts of exactly the batches that the run will take, and the largest of them."""
    schedule = BatchSchedule.of(examples, config)
    positions = pairs = tokens = supervised = 0
    largest = BatchShape(0, 0, 0)
    for _, batches in schedule.from_step(0):
        for batch in batches:
            shape = _shape(batch)
            positions += shape.tokens
            pairs += shape.rows * shape.positions**2
            tokens += sum(map(len, batch))
            supervised += shape.supervised
            largest = max(largest, shape, key=lambda one: (one.tokens, one.supervised))
    return (len(examples), tokens, supervised, positions, pairs, schedule.steps), largest


def _shape(batch: Sequence[Row]) -> BatchShape:
    rows = computed_rows(batch)
    return BatchShape(len(rows), max(map(len, rows)), sum(row.supervised for row in rows))


def _stated(config: TrainConfig) -> tuple[Counts, BatchShape]:
    data, run = config.data, config.run
    if not (data.entries and data.tokens and data.supervised):
        raise ValueError(
            f"{missing_reason(config)}, and the recipe does not state data.entries, data.tokens and "
            "data.supervised, so there is nothing to plan with"
        )
    rows = math.ceil(data.tokens / data.pack) if data.pack else data.entries
    steps_per_epoch = steps_of_rows(rows, run)
    steps = run_steps(steps_per_epoch, run)
    positions, supervised = (round(steps / steps_per_epoch * count) for count in (data.tokens, data.supervised))
    mean = data.tokens / rows
    longest = data.pack or data.max_tokens
    learned = math.ceil(run.batch * longest * data.supervised / data.tokens)
    counts = (data.entries, positions, supervised, positions, int(positions * mean), steps)
    return counts, BatchShape(run.batch, longest, learned)


def missing_reason(config: TrainConfig) -> str:
    """The reason for which the entries of a config cannot be counted; "" if they can."""
    missing = [source for source in config.data.sources if source != DOCUMENTS and not Path(source).is_file()]
    if missing:
        return f"data.train: {missing[0]}: not there"
    folder = base_folder(config.base.path)
    if not folder.exists():
        return f"base.path: {folder}: not there"
    reason = no_tokenizer_reason(folder)
    return f"base.path: {reason}" if reason else ""


def _rank(model: ModelConfig, config: TrainConfig, batch: BatchShape, processes: int) -> ShardCost:
    """Every rank has one row at least; what it gathers are the 4-bit weights and its hat, forward and backward.

    received in a step, and as much sent: accumulate (2 (layers + hat) + embedding, head, norms + hat) (R - 1) / R.
    Layers are gathered twice, what is around them once, and the hat's gradient is scattered once.
    """
    mine = BatchShape(math.ceil(batch.rows / processes), batch.positions, math.ceil(batch.supervised / processes))
    resident = sum(part.bytes for part in parts(model, config, mine, shards=processes))
    adapter = 4 * adapter_parameters(model, config.adapter.rank, config.adapter.targets, dora=config.adapter.dora)
    short = next(name for name, dtype in DENSE_DTYPES.items() if dtype == compute_dtype(config))
    base = base_items(model, stored_weights(config), short)
    layers = sum(item.bytes for item in base if item.what.startswith("linears"))
    rest = sum(item.bytes for item in base) - layers
    passed = config.run.accumulate * (2 * (layers + adapter) + rest + adapter)
    return ShardCost(processes, max(batch.rows, processes), resident, int(passed * (processes - 1) / processes))
