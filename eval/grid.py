"""The grid: every hat, and none, on every precision of one base, over the same unseen documents.

It keeps two questions apart: what does the hat gain, and what does 4 bit cost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from tqdm import tqdm

from lowrank.adapter_files import load_adapter
from lowrank.adapters import use_adapter
from lowrank.data.batching import encode_all
from lowrank.data.documents import Entry
from lowrank.data.template import render, template_for
from lowrank.loader import load, load_tokenizer
from lowrank.model.generate import generate
from lowrank.model.llama import Llama
from lowrank.model.tokenizer import Tokenizer

from .faithfulness import check
from .perplexity import completion_loss

GENERATION_BATCH = 25


@dataclass(frozen=True)
class Cell:
    """One hat (or None) on one precision, over n documents; the mean of each figure.

    loss is in nats a completion token, on the reference texts; the shares (0 to 1) are of greedy, free generation and
    are defined in `faithfulness`.
    """

    adapter: str | None
    weights: str
    n: int
    loss: float
    sections: float
    figure_precision: float
    figure_recall: float
    binding: float


@dataclass(frozen=True)
class Evaluated:
    """A cell and the texts it was measured on, in the order of the entries."""

    cell: Cell
    texts: list[str]

    def to_json(self) -> dict[str, Any]:
        """The row of eval.json."""
        return asdict(self.cell)


def evaluate(
    model: Llama, tokenizer: Tokenizer, entries: Sequence[Entry], *, adapter: str | None, weights: str, template: str
) -> Evaluated:
    """Measures one cell. A document may grow to twice the longest reference before it is cut.

    Raises ValueError for an unknown adapter, or an entry that does not fit into the model's context.
    """
    use_adapter(model, adapter)
    examples, too_long = encode_all(
        [entry.conversation for entry in entries], tokenizer, template, model.config.max_seq_len
    )
    if too_long:
        raise ValueError(f"entry {too_long[0].id}: {len(too_long[0].tokens)} tokens, room {model.config.max_seq_len}")
    prompts = [render(template, entry.instruction, entry.input) for entry in entries]
    longest = max(example.supervised for example in examples)
    texts: list[str] = []
    for start in range(0, len(prompts), GENERATION_BATCH):
        batch = prompts[start : start + GENERATION_BATCH]
        texts += generate(model, tokenizer, batch, max_new_tokens=2 * longest)
    checks = [check(entry, text) for entry, text in zip(entries, texts, strict=True)]
    cell = Cell(
        adapter=adapter,
        weights=weights,
        n=len(entries),
        loss=completion_loss(model, examples),
        sections=fmean(result.sections for result in checks),
        figure_precision=fmean(result.precision for result in checks),
        figure_recall=fmean(result.recall for result in checks),
        binding=fmean(result.binding for result in checks),
    )
    return Evaluated(cell, texts)


def evaluate_grid(
    base: Path,
    adapters: Mapping[str, Path],
    weights: Sequence[str],
    entries: Sequence[Entry],
    *,
    template: str | None = None,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    force: bool = False,
    progress: bool = True,
) -> list[Evaluated]:
    """Every cell of {no hat, each adapter} x weights. Each precision of the base is loaded once.

    template  left out, the one that the hats were trained with
    Raises ValueError for a hat made for another base (unless `force`), or trained with another template than asked
    for, or than another hat: a grid compares hats on the same prompts.
    """
    tokenizer = load_tokenizer(base)
    cells = []
    with tqdm(total=len(weights) * (1 + len(adapters)), desc="evaluate", unit="cell", disable=not progress) as bar:
        for precision in weights:
            model = load(base, precision, dtype, device)
            hats = {str(path): load_adapter(model, name, path, force=force) for name, path in adapters.items()}
            shared = template_for(hats, template)
            for adapter in (None, *adapters):
                bar.set_postfix(weights=precision, adapter=adapter or "none")
                cells.append(evaluate(model, tokenizer, entries, adapter=adapter, weights=precision, template=shared))
                bar.update()
    return cells
