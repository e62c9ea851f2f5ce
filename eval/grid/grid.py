"""The grid: every hat, and none, on every precision of one base, over the same items of every task.

It keeps two questions apart: what does the hat gain, and what does 4 bit cost (`comparison`).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import lowrank
from lowrank.adapters import use_adapter
from lowrank.checkpoints.fingerprint import read_record
from lowrank.checkpoints.load import find_device, load_tokenizer
from lowrank.checkpoints.open_base import open_base
from lowrank.data.encoding.batching import Example, encode, prompt_for
from lowrank.data.encoding.template import template_entry, template_for
from lowrank.grounding.decoding import Grounding
from lowrank.grounding.names import phrases_of
from lowrank.grounding.vocabulary import Vocabulary
from lowrank.model.generate import Prompt
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
        """The outputs' texts, in the order of the items."""
        return [output.text for output in self.outputs]

    @cached_property
    def parts(self) -> Parts:
        """Measure -> [items, parts]: see `measure`."""
        rows = [dict(row) for row in self.task.per_item_counts(self.outputs)]
        for row, item, nats, tokens in zip(rows, self.task.items, self.nats, self.supervised, strict=True):
            row[LOSS.key] = (nats, tokens)
            row[BITS.key] = (nats / math.log(2), len(item.reference.encode()))
        return stack(rows, [measure.key for measure in self.task.all_measures])

    @cached_property
    def scores(self) -> dict[str, float]:
        """Every measure over all items, and those of the cell as a whole; NaN for what has no value."""
        scores = {measure.key: measure.value(self.parts[measure.key]) for measure in self.task.all_measures}
        return scores | self.task.corpus_metrics(self.outputs)

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
    temperatures: Sequence[float] = (0.0,),
    state: Path | None = None,
    progress: bool = True,
) -> list[Cell]:
    """Every cell of {no hat, each adapter} x weights x tasks. Each precision of the base is loaded once, if at all.

    template  left out, the one that the hats were trained with
    batch     items that are written at a time
    grounded  documents are written a second time, each figure one of the facts under its own name (`lowrank.Grounding`)
    temperatures  documents are written at each; an item draws the same numbers in every cell
    state     a folder where finished batches are kept, and looked for first; without it nothing is kept
    Raises ValueError for a hat made for another base (unless `force`), or trained with another template than asked
    for, or than another hat: a grid compares hats on the same prompts; for an entry of ours that does not fit into the
    model's context, and a precision or name that occurs twice.
    """
    _check_named_once("weights", weights)
    _check_named_once("tasks", [task.name for task in tasks])
    _check_temperatures(temperatures)
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    tokenizer = load_tokenizer(base)
    records = {str(path): read_record(path) for path in adapters.values()}
    trained_with = template_for(records, template, tokenizer=tokenizer)
    context = open_base(base).config.max_seq_len
    plans = [
        replace(plan, temperature=temperature)
        for plan in (_Plan.of(task, tokenizer, trained_with, context, batch) for task in tasks)
        for temperature in (temperatures if isinstance(plan.task, Documents) else (0.0,))
    ]
    if grounded:
        vocabulary = Vocabulary(tokenizer)
        plans += [replace(plan, vocabulary=vocabulary) for plan in plans if isinstance(plan.task, Documents)]
    dtype = dtype or (torch.float32 if find_device(device).type == "cpu" else torch.bfloat16)
    runner = _Runner(base, adapters, dtype, device, force, state, tokenizer)
    count = len(weights) * (1 + len(adapters)) * sum(len(plan.batches) for plan in plans)
    with ProgressBar(total=count, desc="evaluate", unit="batch", disable=not progress) as bar:
        cells = [cell for precision in weights for cell in runner.cells(precision, plans, bar)]
    names = [task.name for task in tasks]
    return sorted(cells, key=lambda cell: names.index(cell.task.name))


def _check_named_once(parameter: str, names: Sequence[str]) -> None:
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{parameter}: {doubled[0]} is named twice")


def _check_temperatures(temperatures: Sequence[float]) -> None:
    if odd := [value for value in temperatures if not 0 <= value < math.inf]:
        raise ValueError(f"temperature must be 0 or more, got {odd[0]:g}")
    if len(set(temperatures)) < len(temperatures) or not temperatures:
        raise ValueError(f"temperatures must be different ones, at least one, got {[*temperatures]}")


@dataclass(frozen=True)
class _Runner:
    """Runs plans on one base, batch by batch; a finished batch is read back from `state`."""

    base: Path
    adapters: Mapping[str, Path]
    dtype: torch.dtype
    device: str
    force: bool
    state: Path | None
    tokenizer: Tokenizer
    nats: dict[tuple[str, str, str | None, int], list[float | None]] = field(default_factory=dict)

    def cells(self, precision: str, plans: Sequence["_Plan"], bar: ProgressBar) -> Iterator[Cell]:
        """The cells of one precision, plan by plan. It is loaded at the first batch that is not finished."""
        model = _LazyModel(
            lambda: load_with_adapters(self.base, self.adapters, precision, self.dtype, self.device, self.force)
        )
        for plan in plans:
            for adapter in (None, *self.adapters):
                bar.set_postfix(task=plan.task.name, weights=precision, adapter=adapter or "none")
                column = Column(adapter, precision, plan.vocabulary is not None, plan.temperature)
                yield plan.cell(column, list(self._rows(column, plan, model, bar)))

    def _rows(self, column: Column, plan: "_Plan", model: "_LazyModel", bar: ProgressBar) -> Iterator[dict[str, Any]]:
        """The rows of every batch of a cell, read back or run and written."""
        cell = CellState(
            self.state,
            {**self._identity, "weights": column.weights, "hat": self._sha256[column.adapter], **plan.identity},
        )
        for number, items in enumerate(plan.batches):
            rows = cell.read(number)
            # A reference's loss depends neither on the temperature nor on grounding: it is measured in one cell.
            known = plan.task.name, column.weights, column.adapter, number
            if rows is None:
                rows = plan.run(model.with_adapter(column.adapter), self.tokenizer, items, self.nats.get(known))
                cell.write(number, rows)
            self.nats[known] = [row["nats"] for row in rows]
            yield from rows
            bar.update()

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """The part of a cell's identity that all cells share."""
        return {
            "lowrank": lowrank.__version__,
            "torch": torch.__version__,
            "base": base_sha256(self.base),
            "force": self.force,  # without it, an adapter of another base that was once forced would always pass
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": find_device(self.device).type,
        }

    @cached_property
    def _sha256(self) -> dict[str | None, str | None]:
        return {None: None} | {name: adapter_sha256(path) for name, path in self.adapters.items()}


class _LazyModel:
    """A base with its adapters, loaded when it is first needed."""

    def __init__(self, load: Callable[[], Llama]) -> None:
        self._load = load
        self._model: Llama | None = None

    def with_adapter(self, adapter: str | None) -> Llama:
        """The model with this adapter active, or none."""
        if self._model is None:
            self._model = self._load()
        use_adapter(self._model, adapter)
        return self._model


@dataclass(frozen=True)
class _Prompt:
    """An item with its index in the task, its prompt, and its reference behind that as tokens.

    answer  the value of `answer` that `generate` takes the prompt with
    """

    index: int
    item: Item
    prompt: Prompt
    answer: bool
    example: Example


@dataclass(frozen=True)
class _Plan:
    """The items of a task in batches, longest first so that the rows of a batch are of similar length."""

    task: Task
    template: Mapping[str, Any]
    batches: tuple[tuple[_Prompt, ...], ...]
    most_tokens: int
    left_out: tuple[str, ...]
    vocabulary: Vocabulary | None = None  # with which documents are grounded
    temperature: float = 0.0

    @classmethod
    def of(cls, task: Task, tokenizer: Tokenizer, template: str, context: int, batch: int) -> "_Plan":
        examples = [encode(item.conversation, tokenizer, template) for item in task.items]
        too_long = [index for index, example in enumerate(examples) if len(example) > context]
        left_out = tuple(task.items[index].id for index in too_long)
        if left_out and isinstance(task, Documents):
            raise ValueError(f"entry {left_out[0]}: {len(examples[too_long[0]])} tokens, room {context}")
        if len(left_out) == len(examples):
            raise ValueError(f"task {task.name}: no item of {len(examples)} fits into {context} tokens")
        task = task.without(too_long)
        examples = [example for example in examples if len(example) <= context]
        prompts = [
            _Prompt(index, item, *prompt_for(template, tokenizer, item.instruction, item.input), example)
            for index, (item, example) in enumerate(zip(task.items, examples, strict=True))
        ]
        prompts.sort(key=lambda prompt: prompt.example.supervised - len(prompt.example))  # the longest prompts first
        batches = tuple(tuple(prompts[start : start + batch]) for start in range(0, len(prompts), batch))
        most = task.most_tokens(max(example.supervised for example in examples))
        return cls(task, template_entry(template, tokenizer), batches, most, left_out)

    @property
    def identity(self) -> dict[str, Any]:
        """The part of a cell's identity that comes from its task."""
        return {
            "task": self.task.name,
            "items": self.task.sha256,
            "template": self.template,
            "most_tokens": self.most_tokens,
            "batch": len(self.batches[0]),
            "grounded": self.vocabulary is not None,
            "temperature": self.temperature,
        }

    def run(
        self,
        model: Llama,
        tokenizer: Tokenizer,
        prompts: Sequence[_Prompt],
        nats: Sequence[float | None] | None,
    ) -> list[dict[str, Any]]:
        """The rows of one batch, as they are cached. `nats` of the references, where another cell has them."""
        constraints = None
        if self.vocabulary is not None:
            assert isinstance(self.task, Documents)
            entries = [self.task.entries[prompt.index] for prompt in prompts]
            constraints = [Grounding(entry.facts, self.vocabulary, phrases_of(entry.kind)) for entry in entries]
        outputs = write(
            model,
            tokenizer,
            [prompt.prompt for prompt in prompts],
            self.most_tokens,
            constraints,
            answer=all(prompt.answer for prompt in prompts),
            temperature=self.temperature,
            seeds=[prompt.index for prompt in prompts],
        )
        if nats is None:
            losses = completion_losses(model, [prompt.example for prompt in prompts])
            nats = [loss if math.isfinite(loss) else None for loss in losses]  # JSON has no NaN
        return [
            {
                "id": prompt.item.id,
                **asdict(output),
                "nats": loss,
                "supervised": prompt.example.supervised,
            }
            for prompt, output, loss in zip(prompts, outputs, nats, strict=True)
        ]

    def cell(self, column: Column, rows: Sequence[Mapping[str, Any]]) -> Cell:
        """The rows of all batches, put in the order of the task's items.  Raises ValueError for rows of others."""
        prompts = [prompt for batch in self.batches for prompt in batch]
        if [row["id"] for row in rows] != [prompt.item.id for prompt in prompts]:
            raise ValueError(
                f"task {self.task.name}: the kept batches are not of these items: name another state folder"
            )
        pairs = sorted(zip(prompts, rows, strict=True), key=lambda pair: pair[0].index)
        ordered = [row for _, row in pairs]
        return Cell(
            self.task,
            column,
            tuple(Output(row["text"], row["tokens"], row["ended"]) for row in ordered),
            tuple(math.nan if row["nats"] is None else row["nats"] for row in ordered),
            tuple(row["supervised"] for row in ordered),
            self.left_out,
        )
