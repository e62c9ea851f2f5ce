"""The gain of a hat on its task, and the loss of its base on what it knew, with intervals over documents.

    learned  = nats a token on documents of the task with the hat - without it: below 0
    forgotten = the same on what the base knew before: above 0 where it is forgotten

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
from lowrank.checkpoints.load import load
from lowrank.data import corpus
from lowrank.data.encoding.batching import Example
from lowrank.model.loss import IGNORED
from lowrank.model.tokenizer import Tokenizer
from lowrank.text_table import table

from ..metrics.bootstrap import Interval, paired_interval
from ..metrics.metric import Array, Measure
from ..metrics.perplexity import completion_losses

LOSS = Measure("loss", "loss", better="lower", unit="nats a token")


@dataclass(frozen=True)
class Changes:
    """Nats a token of one side, and its difference from the base, on the task and on what is to be kept."""

    name: str
    task: float
    kept: float
    learned: Interval
    forgotten: Interval


@dataclass(frozen=True)
class Forgetting:
    """The base alone, then every hat."""

    base_task: float
    base_kept: float
    documents: tuple[int, int]  # of the task, and of what is to be kept
    adapters: tuple[Changes, ...]

    def table(self) -> str:
        """In plain text; intervals of 95 %."""
        rows = [("the base alone", f"{self.base_task:.4f}", "", f"{self.base_kept:.4f}", "")]
        for adapter in self.adapters:
            intervals = [
                f"{one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"
                for one in (adapter.learned, adapter.forgotten)
            ]
            rows.append((adapter.name, f"{adapter.task:.4f}", intervals[0], f"{adapter.kept:.4f}", intervals[1]))
        return table(rows, ("nats a token", "task", "less the base", "kept", "less the base"))

    def to_json(self) -> dict[str, Any]:
        """Every figure."""
        return asdict(self)


def measure_forgetting(
    base: str | Path,
    adapters: Mapping[str, str | Path],
    task: Sequence[Example],
    kept: Sequence[Example],
    *,
    weights: str | None = None,
) -> Forgetting:
    """The losses of a base, and of the base with each hat, on two sets of examples, in float32

    adapters  folders by the name under which they are told
    weights  the format of the base, as `load` takes it
    Raises ValueError for a hat of another base.
    """
    model = load(base, weights)

    def losses() -> tuple[Array, Array]:
        return _parts(completion_losses(model, task), task), _parts(completion_losses(model, kept), kept)

    before = losses()
    changes = []
    for name, folder in adapters.items():
        load_adapter(model, "hat", folder)
        use_adapter(model, "hat")
        after = losses()
        drop_adapter(model, "hat")
        learned, forgotten = (paired_interval(LOSS, *sides) for sides in zip(before, after, strict=True))
        changes.append(Changes(name, _mean(after[0]), _mean(after[1]), learned, forgotten))
    return Forgetting(_mean(before[0]), _mean(before[1]), (len(task), len(kept)), tuple(changes))


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
