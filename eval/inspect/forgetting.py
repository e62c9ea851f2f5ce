"""The gain of a hat on its task, and the loss of its base on what it knew, with intervals over documents.

    learned   = nats a token on documents of the task with the hat - without it: below 0
    forgotten = the same on what the base knew before: above 0 where it is forgotten
    lost, recovered = both with a hat that was made of the first one - with the first one itself

Both sides of a difference see the same documents: `paired_interval`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from lowrank.adapters import drop_adapter, use_adapter
from lowrank.adapters.files import load_adapter
from lowrank.checkpoints.embedded import base_folder
from lowrank.checkpoints.fingerprint import read_record
from lowrank.checkpoints.load import load, load_tokenizer
from lowrank.checkpoints.open_base import open_base
from lowrank.data import corpus
from lowrank.data.encoding.batching import Example
from lowrank.data.encoding.template import template_for
from lowrank.model.loss import IGNORED
from lowrank.model.tokenizer import Tokenizer
from lowrank.text_table import table

from ..html.page import Rows
from ..metrics.bootstrap import Interval, paired_interval
from ..metrics.metric import Array, Measure
from ..metrics.perplexity import completion_losses
from .documents import documents

LOSS = Measure("loss", "loss", better="lower", unit="nats a token")
DOCUMENTS = 50


@dataclass(frozen=True)
class Changes:
    """Nats a token of one side, and its difference from the base, on the task and on what is to be kept.

    lost, recovered  the same from the first hat; None of the first itself
    """

    name: str
    task: float
    kept: float
    learned: Interval
    forgotten: Interval
    lost: Interval | None = None
    recovered: Interval | None = None


@dataclass(frozen=True)
class Forgetting:
    """The base alone, then every hat."""

    base_task: float
    base_kept: float
    documents: tuple[int, int]  # of the task, and of what is to be kept
    adapters: tuple[Changes, ...]

    def tables(self) -> list[Rows]:
        """(head, rows): a row a side, and one a hat that is not the first; intervals of 95 %."""
        rows = [["the base alone", f"{self.base_task:.4f}", "", f"{self.base_kept:.4f}", ""]]
        for one in self.adapters:
            rows.append([one.name, f"{one.task:.4f}", shown(one.learned), f"{one.kept:.4f}", shown(one.forgotten)])
        tables: list[Rows] = [(("nats a token", "task", "less the base", "kept", "less the base"), rows)]
        others = [[one.name, shown(one.lost), shown(one.recovered)] for one in self.adapters if one.lost]
        if others:
            first = self.adapters[0].name
            tables.append((("nats a token", f"task, less {first}", f"kept, less {first}"), others))
        return tables

    def table(self) -> str:
        """In plain text."""
        return "\n\n".join(table(rows, head) for head, rows in self.tables())

    def to_json(self) -> dict[str, Any]:
        """Every figure."""
        return asdict(self)


def forgetting_of(
    base: str | Path,
    adapters: Mapping[str, str | Path],
    *,
    data: Path | None = None,
    kept: Path | None = None,
    n: int = DOCUMENTS,
    force: bool = False,
) -> Forgetting:
    """`measure_forgetting` on documents from files, by the template of the hats and in the format of the first

    data  documents of the task; None: n of our own
    kept  documents that the base knows; None, of the embedded base alone: n samples of what it was taught
    n     of each, at most
    Raises ValueError for no hat, hats of two templates, n below 1, a base whose documents nobody names, and as
    `measure_forgetting` does.
    """
    check_kept(base, kept, n)
    if not adapters:
        raise ValueError("forgetting is of one hat or more, got none")
    folder, records = base_folder(base), {str(hat): read_record(Path(hat)) for hat in adapters.values()}
    tokenizer, context = load_tokenizer(folder), open_base(folder).config.max_seq_len
    template = template_for(records, tokenizer=tokenizer)
    task, known = documents(folder, data, n, template), documents(folder, kept, n, template) if kept else []
    if not kept:
        known = [example for example in taught_examples(tokenizer, n) if len(example) <= context]
    weights = next(iter(records.values())).get("base", {}).get("weights")
    return measure_forgetting(folder, adapters, task, known, weights=weights, force=force)


def check_kept(base: str | Path, kept: Path | None, n: int) -> None:
    """Raises ValueError unless there is something to be forgotten."""
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if kept is None and str(base) != "embedded":
        raise ValueError("kept must name documents that the base knows: only embedded says what it was taught")


def measure_forgetting(
    base: str | Path,
    adapters: Mapping[str, str | Path],
    task: Sequence[Example],
    kept: Sequence[Example],
    *,
    weights: str | None = None,
    force: bool = False,
) -> Forgetting:
    """The losses of a base, and of the base with each hat, on two sets of examples, in float32

    adapters  folders by the name under which they are told
    weights   the format of the base, as `load` takes it
    Raises ValueError for a hat of another base, unless `force`.
    """
    model = load(base, weights)

    def losses() -> tuple[Array, Array]:
        return _parts(completion_losses(model, task), task), _parts(completion_losses(model, kept), kept)

    before, first = losses(), None
    changes = []
    for name, folder in adapters.items():
        load_adapter(model, "hat", folder, force=force)
        use_adapter(model, "hat")
        after = losses()
        drop_adapter(model, "hat")
        from_first = _differences(first, after) if first else (None, None)
        changes.append(Changes(name, _mean(after[0]), _mean(after[1]), *_differences(before, after), *from_first))
        first = first or after
    return Forgetting(_mean(before[0]), _mean(before[1]), (len(task), len(kept)), tuple(changes))


def _differences(before: tuple[Array, Array], after: tuple[Array, Array]) -> tuple[Interval, Interval]:
    """The changes on the task, and on what is to be kept."""
    return paired_interval(LOSS, before[0], after[0]), paired_interval(LOSS, before[1], after[1])


def shown(interval: Interval | None) -> str:
    """ "+0.0255 [+0.0185, +0.0333]" """
    return f"{interval.difference:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]" if interval else ""


def taught_examples(tokenizer: Tokenizer, count: int, seed: str = "forgetting") -> list[Example]:
    """Samples of what the embedded base was taught, which it has not seen: a token counts where it could be learned."""
    examples = []
    for index in range(count):
        tokens, labels = tokenizer.encode("", bos=True), [IGNORED]
        for passage in corpus.mixed(Random(f"{seed}|{index}")):
            ids = tokenizer.encode(passage.text)
            tokens += ids
            labels += ids if passage.weight == 1 else [IGNORED] * len(ids)
        tokens, labels = [*tokens, tokenizer.eos_id], [*labels, tokenizer.eos_id]
        examples.append(Example(f"{seed}-{index}", tuple(tokens), tuple(labels)))
    return examples


def _parts(nats: Sequence[float], examples: Sequence[Example]) -> Array:
    """[documents, 2]: nats and tokens"""
    return np.array([[loss, example.supervised] for loss, example in zip(nats, examples, strict=True)])


def _mean(parts: Array) -> float:
    return float(LOSS.value(parts))
