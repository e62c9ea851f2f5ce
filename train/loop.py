"""One training run: a base, a new hat, entries to learn, and a folder with the hat, the log and a checkpoint.

A step: loss = sum of -log p over its batches / supervised tokens of all of them together; gradient, clip, AdamW.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from tqdm import tqdm

from lowrank.adapter_files import save_adapter
from lowrank.adapters import adapter_parameters, add_adapter, use_adapter
from lowrank.data.batching import Example, epoch_batches
from lowrank.data.packing import Row, collate_rows, pack, rows_of_one
from lowrank.files import write_json
from lowrank.kernels.linear_cross_entropy import linear_cross_entropy
from lowrank.model.llama import Llama
from lowrank.model.loss import next_token_loss

from .checkpoint import FILENAME, load_checkpoint, save_checkpoint
from .config import TrainConfig
from .optim import AdamW, clip_gradients, learning_rate

LOG = "train.jsonl"
HAT = "hat"

Step = list[list[Row]]  # the batches of one step


@dataclass(frozen=True)
class Schedule:
    """Which batches belong to which step, for the whole run."""

    rows: Sequence[Row]
    config: TrainConfig

    @classmethod
    def of(cls, examples: Sequence[Example], config: TrainConfig) -> Self:
        """Every example in a row of its own, or packed into rows of `data.pack` tokens."""
        return cls(pack(examples, config.data.pack) if config.data.pack else rows_of_one(examples), config)

    @property
    def steps_per_epoch(self) -> int:
        """The last step of an epoch may be short."""
        batches = -(-len(self.rows) // self.config.run.batch)
        return -(-batches // self.config.run.accumulate)

    @property
    def steps(self) -> int:
        """Steps of all epochs."""
        return self.steps_per_epoch * self.config.run.epochs

    def from_step(self, first: int) -> Iterator[tuple[int, Step]]:
        """(number, batches) of every step from `first` on."""
        run = self.config.run
        for epoch in range(first // self.steps_per_epoch, run.epochs):
            batches = epoch_batches(
                self.rows, run.batch, run.seed, epoch, group_by_length=self.config.data.group_by_length
            )
            for index in range(self.steps_per_epoch):
                number = epoch * self.steps_per_epoch + index
                if number >= first:
                    yield number, batches[index * run.accumulate : (index + 1) * run.accumulate]


def train(
    model: Llama,
    examples: Sequence[Example],
    config: TrainConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    notes: dict[str, Any] | None = None,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Trains the hat that `config` describes on a frozen base, and leaves it in use; returns the rows of the log.

    Writes OUT/train.jsonl, OUT/checkpoint.pt every `checkpoint_every` steps and at the end, OUT/config.json and the
    hat in OUT/hat, with `notes` in its provenance. `resume` goes on from OUT/checkpoint.pt: losses and weights are bit
    for bit those of a run that was not stopped.
    Raises ValueError for nothing to resume, or a run in OUT that is neither to be resumed nor overwritten;
    FloatingPointError if loss or gradient is not finite.
    """
    out, name = Path(config.run.out), config.adapter.name
    if (out / FILENAME).exists() and not (resume or overwrite):
        raise ValueError(f"{out}: holds a run already: resume it, overwrite it, or name another run.out")
    schedule = Schedule.of(examples, config)
    add_adapter(
        model,
        name,
        rank=config.adapter.rank,
        alpha=config.adapter.alpha,
        targets=config.adapter.targets,
        dropout=config.adapter.dropout,
        rslora=config.adapter.rslora,
        seed=config.run.seed,
    )
    use_adapter(model, name)
    parameters = adapter_parameters(model, name)
    b1, b2 = config.optimizer.betas
    optimizer = AdamW(parameters, (b1, b2), weight_decay=config.optimizer.weight_decay)
    rows: list[dict[str, float]] = []
    identity = _identity(model, examples, config)
    torch.manual_seed(config.run.seed)
    if resume:
        state = load_checkpoint(out, identity)
        rows = state["log"]
        optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            for key, parameter in parameters.items():
                parameter.copy_(state["adapter"][key])
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "config.json", config.to_dict())
    model.gradient_checkpointing = config.run.gradient_checkpointing
    model.train()
    bar = tqdm(total=schedule.steps, initial=len(rows), desc=f"train {name}", unit="step", disable=not progress)
    with (out / LOG).open("w", encoding="utf-8") as log, bar:
        log.writelines(json.dumps(row) + "\n" for row in rows)
        for number, batches in schedule.from_step(len(rows)):
            rate = learning_rate(
                number, schedule.steps, config.optimizer.lr, config.optimizer.warmup, config.optimizer.schedule
            )
            row = {"step": number + 1, "lr": rate, **_step(model, batches, optimizer, rate, config.optimizer.clip)}
            rows.append(row)
            log.write(json.dumps(row) + "\n")
            log.flush()
            bar.update()
            bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
            if (number + 1) % config.run.checkpoint_every == 0 or number + 1 == schedule.steps:
                save_checkpoint(
                    out,
                    {
                        "identity": identity,
                        "adapter": {key: parameter.detach() for key, parameter in parameters.items()},
                        "optimizer": optimizer.state_dict(),
                        "log": rows,
                    },
                )
    model.eval()
    model.gradient_checkpointing = False
    save_adapter(model, name, out / HAT, notes={**(notes or {}), "training": config.to_dict()})
    return rows


def _identity(model: Llama, examples: Sequence[Example], config: TrainConfig) -> dict[str, Any]:
    """What makes this run this run: every key of the config but where it writes, the base, and the data."""
    keys = {f"{table}.{key}": value for table, values in config.to_dict().items() for key, value in values.items()}
    del keys["run.out"], keys["run.checkpoint_every"], keys["base.path"]
    data = hashlib.sha256(json.dumps([[example.tokens, example.labels] for example in examples]).encode())
    return {**keys, "base.fingerprint": model.source.get("fingerprint"), "data.sha256": data.hexdigest()}


def _step(model: Llama, batches: Step, optimizer: AdamW, rate: float, clip: float) -> dict[str, float]:
    """One update; what it measured: nats a supervised token, gradient norm before clipping, tokens, seconds.

    `positions` are those computed, filling among them: the share of filling is 1 - tokens / positions.
    """
    started = time.perf_counter()
    device = model.tok_embeddings.weight.device
    supervised = sum(row.supervised for batch in batches for row in batch)
    loss, positions = 0.0, 0
    for batch in batches:
        tokens, labels, segments = collate_rows(batch)
        positions += tokens.numel()
        segments = None if segments is None else segments.to(device)
        nats, _ = next_token_loss(model, tokens.to(device), labels.to(device), segments, linear_cross_entropy)
        (nats / supervised).backward()
        loss += nats.item() / supervised
    norm = clip_gradients(optimizer.parameters.values(), clip).item()
    if not (loss < float("inf") and norm < float("inf")):
        raise FloatingPointError(f"loss {loss} and gradient norm {norm} must be finite: the last checkpoint is whole")
    optimizer.step(rate)
    return {
        "loss": loss,
        "grad_norm": norm,
        "supervised_tokens": supervised,
        "tokens": sum(len(row) for batch in batches for row in batch),
        "positions": positions,
        "seconds": time.perf_counter() - started,
    }
