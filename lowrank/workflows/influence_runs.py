"""The quickstart's hat, trained again without single documents and on halves of them: what influence is held against.

    FOLDER/reference/       the run on all documents, with a checkpoint after every step
    FOLDER/retrains.jsonl   a row a run: what was left out of it, and the nats of every test document

A document that is left out keeps its place with a loss of weight 0 (`data.exclude`). Until the first step that it is
in, a run without it is the reference bit for bit, and goes on from its checkpoint there. Rows that the file has already
are not made again.
"""

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..adapters import drop_adapter
from ..bench import machine
from ..bench.rows import Row, append, read
from ..checkpoints.embedded import EMBEDDED, base_folder
from ..checkpoints.load import load, load_tokenizer
from ..data.documents.document import make_documents
from ..data.encoding.batching import Example, encode_all
from ..eval.metrics.perplexity import completion_losses
from ..model.llama import Llama
from ..train.batch_schedule import BatchSchedule
from ..train.checkpoint import Checkpoints, Cursor, read_state
from ..train.config import TrainConfig
from ..train.data import read_run_data
from ..train.monitor import NullMonitor
from ..train.resume.signals import StopSignals
from ..train.trainer import Trainer
from .quickstart import FOUR_BIT, RECIPE, TEST_DOCUMENTS, TEST_SEED

REFERENCE, RETRAINS = "reference", "retrains.jsonl"
HALVES = 50
EPOCHS = 1  # of the quickstart's 4: 150 runs are then half an hour of one core


@dataclass(frozen=True)
class Task:
    """The quickstart's hat and its test documents.

    epochs  of training
    train   its documents, a file or the quickstart's;  tests: how many of its test documents
    halves  how many runs on halves
    """

    folder: Path
    epochs: float = EPOCHS
    train: str = RECIPE["data"]["train"]
    tests: int = TEST_DOCUMENTS
    halves: int = HALVES

    @cached_property
    def config(self) -> TrainConfig:
        """The quickstart's, of other epochs, and with a checkpoint after every step."""
        tables = {table: dict(values) for table, values in RECIPE.items()}
        tables["data"]["train"] = self.train
        tables["run"] |= {
            "epochs": self.epochs,
            "out": str(self.folder / REFERENCE),
            "checkpoint_every": 1,
            "keep": 1_000_000,
        }
        return TrainConfig.from_dict(tables)

    @cached_property
    def examples(self) -> list[Example]:
        """The training documents, in the order in which the run has them."""
        return read_run_data(self.config, load_tokenizer(base_folder(EMBEDDED))).examples

    @cached_property
    def test(self) -> list[Example]:
        """The quickstart's test documents."""
        entries = make_documents(self.tests, seed=TEST_SEED, split="test")
        tokenizer, data = load_tokenizer(base_folder(EMBEDDED)), self.config.data
        return encode_all([entry.conversation for entry in entries], tokenizer, data.template, data.max_tokens)[0]

    @property
    def steps(self) -> int:
        """Steps of a run."""
        return BatchSchedule.of(self.examples, self.config).steps

    def first_steps(self) -> dict[str, int]:
        """The first step that each document is in, by its id, from 0."""
        found: dict[str, int] = {}
        for number, batches in BatchSchedule.of(self.examples, self.config).from_step(0):
            for example in (one for batch in batches for row in batch for one in row.examples):
                found.setdefault(example.id, number)
        return found

    def subsets(self) -> Iterator[tuple[str, ...]]:
        """The documents that each run leaves out: single ones in a random order, and after every two of them a half."""
        ids = [example.id for example in self.examples]
        singles = random.Random("single").sample(ids, len(ids))
        halves = [tuple(sorted(random.Random(f"half {n}").sample(ids, len(ids) // 2))) for n in range(self.halves)]
        for number, single in enumerate(singles):
            yield (single,)
            if number % 2 and halves:
                yield halves.pop(0)
        yield from halves


def retrain(task: Task, *, at_most: int | None = None) -> Path:
    """Trains what is not in FOLDER/retrains.jsonl yet, and returns its path; at_most: runs of this call."""
    path = task.folder / RETRAINS
    model = load(EMBEDDED, FOUR_BIT, torch.float32)
    done = [tuple(row["excluded"]) for row in (read(path) if path.exists() else [])]
    if () not in done:
        append(path, [_row(task, model, ())])
    left = [excluded for excluded in task.subsets() if excluded not in done]
    for excluded in left[:at_most]:
        append(path, [_row(task, model, excluded)])
    return path


def losses_without(task: Task, model: Llama, excluded: Sequence[str], first_step: int) -> list[float]:
    """The nats of each test document after a run that leaves documents out.

    first_step  where it begins: until there it is the reference
    model       the base, without a hat, as it is afterwards
    """
    tables = task.config.to_dict()
    tables["data"]["exclude"] = list(excluded)
    if excluded:
        tables["run"] |= {"out": str(task.folder / "retrain"), "checkpoint_every": 1_000_000}
    config = TrainConfig.from_dict(tables)
    examples = [example.unlearned if example.id in excluded else example for example in task.examples]
    run = Trainer(model, examples, config)
    run.begin()
    if first_step:
        _go_on(run, Checkpoints(task.folder / REFERENCE, 1).path(Cursor(first_step)))
    with run.prepared():
        run.run(NullMonitor(), StopSignals())
    losses = completion_losses(model, task.test)
    drop_adapter(model, config.adapter.name)
    return losses


@torch.no_grad()
def _go_on(run: Trainer, checkpoint: Path) -> None:
    """Puts a run of other entries, which is the reference so far, where the reference was."""
    state = read_state(checkpoint)
    tensors = state["tensors"]
    for name, parameter in run.parameters.items():
        parameter.copy_(tensors[f"adapter.{name}"])
    run.optimizer.load_state_dict({"steps": state["optimizer_steps"], **tensors})
    run.cursor = Cursor(state["cursor"][0])


def _row(task: Task, model: Llama, excluded: tuple[str, ...]) -> Row:
    first_step = min((step for id, step in task.first_steps().items() if id in excluded), default=0)
    started = time.process_time()
    losses = losses_without(task, model, excluded, first_step)
    return {
        "bench": "influence",
        "excluded": list(excluded),
        "first_step": first_step,
        "losses": [round(loss, 6) for loss in losses],
        "cpu_seconds": round(time.process_time() - started, 1),
        **({} if excluded else _about(task)),
    }


def _about(task: Task) -> Mapping[str, Any]:
    return {
        "epochs": task.epochs,
        "train": [[example.id, example.supervised] for example in task.examples],
        "test": [[example.id, example.supervised] for example in task.test],
        "machine": machine.name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "versions": machine.versions(["torch"]),
        "commit": machine.commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
