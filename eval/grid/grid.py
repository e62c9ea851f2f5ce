"""The grid: every hat, and none, on every precision of one base, over the same items of every task.

It keeps two questions apart: what does the hat gain, and what does 4 bit cost (`comparison`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import lowrank
from lowrank.adapters import use_adapter
from lowrank.checkpoints.fingerprint import read_record
from lowrank.checkpoints.load import find_device, load_tokenizer
from lowrank.data.encoding.batching import Example, encode
from lowrank.data.encoding.template import find, render, template_for
from lowrank.grounding.decoding import Grounding, Vocabulary
from lowrank.model.checkpoint import open_checkpoint
from lowrank.model.llama import Llama
from lowrank.model.tokenizer import Tokenizer
from lowrank.progress import ProgressBar

from ..metrics.metric import Parts, stack
from ..metrics.perplexity import completion_losses
from ..tasks.documents import Documents
from ..tasks.generate import Output, write
from ..tasks.task import BITS, LOSS, Item, Task
from .cache import CellState, adapter_sha256, base_sha256
from .columns import Column, load_with_adapters

BATCH = 25


@dataclass(frozen=True)
class Cell:
    """A column on a task: what was written behind each item, and how well the reference was predicted.

    nats        of each reference, end of text included; NaN for what is not finite
    supervised  tokens of each reference, end of text included
    left_out    ids of items that do not fit into the model's context
    """

    task: Task
    column: Column
    outputs: tuple[Output, ...]
    nats: tuple[float, ...]
    supervised: tuple[int, ...]
    left_out: tuple[str, ...] = ()

    @property
    def texts(self) -> list[str]:
        """What was written, in the order of the items."""
        return [output.text for output in self.outputs]

    @cached_property
    def parts(self) -> Parts:
        """Measure -> [items, parts]: see `measure`."""
        rows = [dict(row) for row in self.task.parts(self.outputs)]
        for row, item, nats, tokens in zip(rows, self.task.items, self.nats, self.supervised, strict=True):
            row[LOSS.key] = (nats, tokens)
            row[BITS.key] = (nats / math.log(2), len(item.reference.encode()))
        return stack(rows, [measure.key for measure in self.task.all_measures])

    @cached_property
    def scores(self) -> dict[str, float]:
        """Every measure over all items, and those of the cell as a whole; NaN for what has no value."""
        scores = {measure.key: measure.value(self.parts[measure.key]) for measure in self.task.all_measures}
        return scores | self.task.whole(self.outputs)

    def to_json(self) -> dict[str, Any]:
        """A row of eval.json and grid.json; None for what has no value."""
        scores = {key: None if math.isnan(value) else value for key, value in self.scores.items()}
        return {"task": self.task.name, **asdict(self.column), "n": len(self.outputs), **scores}


def evaluate_grid(
    base: Path,
    adapters: Mapping[str, Path],
    weights: Sequence[str],
    tasks: Sequence[Task],
    *,
    template: str | None = None,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    force: bool = False,
    batch: int = BATCH,
    grounded: bool = False,
    state: Path | None = None,
    progress: bool = True,
) -> list[Cell]:
    """Every cell of {no hat, each adapter} x weights x tasks. Each precision of the base is loaded once, if at all.

    template  left out, the one that the hats were trained with
    batch     items that are written at a time
    grounded  documents are written a second time, with figures that the facts allow only (`lowrank.Grounding`)
    state     a folder where finished batches are kept, and looked for first; without it nothing is kept
    Raises ValueError for a hat made for another base (unless `force`), or trained with another template than asked
    for, or than another hat: a grid compares hats on the same prompts; for an entry of ours that does not fit into the
    model's context, and a precision or name that occurs twice.
    """
    for what, names in (("--weights", weights), ("--tasks", [task.name for task in tasks])):
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{what}: {doubled[0]} is named twice")
    if batch < 1:
        raise ValueError(f"--batch must be at least 1, got {batch}")
    shared = template_for({str(path): read_record(path) for path in adapters.values()}, template)
    tokenizer = load_tokenizer(base)
    room = open_checkpoint(base).config.max_seq_len
    plans = [_Plan.of(task, tokenizer, shared, room, batch) for task in tasks]
    if grounded:
        vocabulary = Vocabulary(tokenizer)
        plans += [replace(plan, vocabulary=vocabulary) for plan in plans if isinstance(plan.task, Documents)]
    dtype = dtype or (torch.float32 if find_device(device).type == "cpu" else torch.bfloat16)
    common = {
        "lowrank": lowrank.__version__,
        "torch": torch.__version__,
        "base": base_sha256(base),
        "force": force,  # or a hat of another base, once let pass, would be let pass for ever
        "dtype": str(dtype).removeprefix("torch."),
        "device": find_device(device).type,
    }
    hats = {None: None} | {name: adapter_sha256(path) for name, path in adapters.items()}
    cells = []
    count = len(weights) * len(hats) * sum(len(plan.batches) for plan in plans)
    with ProgressBar(total=count, desc="evaluate", unit="batch", disable=not progress) as bar:
        for precision in weights:
            model: Llama | None = None
            for plan in plans:
                for adapter, sha256 in hats.items():
                    bar.set_postfix(task=plan.task.name, weights=precision, adapter=adapter or "none")
                    kept = CellState(state, {**common, "weights": precision, "hat": sha256, **plan.identity})
                    rows: list[dict[str, Any]] = []
                    for number, items in enumerate(plan.batches):
                        found = kept.read(number)
                        if found is None:
                            if model is None:
                                model = load_with_adapters(base, adapters, precision, dtype, device, force)
                            use_adapter(model, adapter)
                            found = plan.run(model, tokenizer, items)
                            kept.write(number, found)
                        rows += found
                        bar.update()
                    cells.append(plan.cell(Column(adapter, precision, plan.vocabulary is not None), rows))
    names = [task.name for task in tasks]
    return sorted(cells, key=lambda cell: names.index(cell.task.name))


@dataclass(frozen=True)
class _Asked:
    """An item with its place in the task, its prompt, and its reference behind that as tokens."""

    place: int
    item: Item
    prompt: str
    example: Example


@dataclass(frozen=True)
class _Plan:
    """How a task is run: its items in batches, longest first so that rows of a batch are much of a length."""

    task: Task
    template: str
    batches: tuple[tuple[_Asked, ...], ...]
    most_tokens: int
    left_out: tuple[str, ...]
    vocabulary: Vocabulary | None = None  # with which documents are grounded

    @classmethod
    def of(cls, task: Task, tokenizer: Tokenizer, template: str, room: int, batch: int) -> "_Plan":
        examples = [encode(item.conversation, tokenizer, template) for item in task.items]
        too_long = [place for place, example in enumerate(examples) if len(example) > room]
        left_out = tuple(task.items[place].id for place in too_long)
        if left_out and isinstance(task, Documents):
            raise ValueError(f"entry {left_out[0]}: {len(examples[too_long[0]])} tokens, room {room}")
        if len(left_out) == len(examples):
            raise ValueError(f"task {task.name}: no item of {len(examples)} fits into {room} tokens")
        task = task.without(too_long)
        examples = [example for example in examples if len(example) <= room]
        asked = [
            _Asked(place, item, render(template, item.instruction, item.input), example)
            for place, (item, example) in enumerate(zip(task.items, examples, strict=True))
        ]
        asked.sort(key=lambda one: one.example.supervised - len(one.example))  # the longest prompts first
        batches = tuple(tuple(asked[start : start + batch]) for start in range(0, len(asked), batch))
        most = task.most_tokens(max(example.supervised for example in examples))
        return cls(task, template, batches, most, left_out)

    @property
    def identity(self) -> dict[str, Any]:
        """What else than base, hat and machine decides what is written."""
        return {
            "task": self.task.name,
            "items": self.task.sha256,
            "template": find(self.template).to_json(),
            "most_tokens": self.most_tokens,
            "batch": len(self.batches[0]),
            "grounded": self.vocabulary is not None,
        }

    def run(self, model: Llama, tokenizer: Tokenizer, asked: Sequence[_Asked]) -> list[dict[str, Any]]:
        """One batch, as it is kept."""
        constraints = None
        if self.vocabulary is not None:
            assert isinstance(self.task, Documents)
            constraints = [Grounding(self.task.entries[one.place].facts, self.vocabulary) for one in asked]
        outputs = write(model, tokenizer, [one.prompt for one in asked], self.most_tokens, constraints)
        losses = completion_losses(model, [one.example for one in asked])
        return [
            {
                "id": one.item.id,
                **asdict(output),
                "nats": nats if math.isfinite(nats) else None,  # JSON has no NaN
                "supervised": one.example.supervised,
            }
            for one, output, nats in zip(asked, outputs, losses, strict=True)
        ]

    def cell(self, column: Column, rows: Sequence[Mapping[str, Any]]) -> Cell:
        """The rows of all batches, put in the order of the task's items.  Raises ValueError for rows of others."""
        asked = [one for batch in self.batches for one in batch]
        if [row["id"] for row in rows] != [one.item.id for one in asked]:
            raise ValueError(f"task {self.task.name}: the kept batches are not of these items: name a new --out")
        pairs = sorted(zip(asked, rows, strict=True), key=lambda pair: pair[0].place)
        kept = [row for _, row in pairs]
        return Cell(
            self.task,
            column,
            tuple(Output(row["text"], row["tokens"], row["ended"]) for row in kept),
            tuple(math.nan if row["nats"] is None else row["nats"] for row in kept),
            tuple(row["supervised"] for row in kept),
            self.left_out,
        )
