"""A task of the grid: what is asked, how long an answer may get, and how answers are scored.

`documents`, `sentiment`, `entities` and `questions` are the four there are. Whatever a task measures is a function of
sums over its items (`metrics.metric`), so that differences have intervals; a few measures of all answers have none.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Self

from lowrank.data.encoding.template import Conversation, Turn

from ..metrics.metric import Measure
from .generate import Output

LOSS = Measure("loss", "loss", "lower", "nats per token", primary=True)
BITS = Measure("bits_per_byte", "loss", "lower", "bits per byte")
ENDED = Measure("ended", "ended by itself")
LENGTH = Measure("length", "length, of the reference's", "", "times")


@dataclass(frozen=True)
class Item:
    """One thing that is asked, and an answer that would do."""

    id: str
    instruction: str
    input: str
    reference: str

    @property
    def conversation(self) -> Conversation:
        """Question and reference, as training has them."""
        return Conversation(self.id, (Turn(self.instruction, self.input, self.reference),))


class Task(ABC):
    """Items in a fixed order, and the measures of what was answered.

    name      in the command line and in JSON
    measures  in the order of reports; LOSS and BITS, on the references, come before them in every task
    notes     what a reader of the scores has to know
    """

    name: str
    items: Sequence[Item]
    measures: tuple[Measure, ...]
    notes: tuple[str, ...] = ()

    @abstractmethod
    def per_item_counts(self, outputs: Sequence[Output]) -> list[Mapping[str, tuple[float, ...]]]:
        """For each item, the summands of every measure but the loss (`metrics.metric`)."""

    def corpus_metrics(self, outputs: Sequence[Output]) -> dict[str, float]:
        """Metrics of all answers together, which have no interval; {} by default."""
        return {}

    def without(self, places: Collection[int]) -> Self:
        """The task without the items at some places: those that do not fit into a model's context."""
        smaller = copy(self)
        smaller.items = [item for place, item in enumerate(self.items) if place not in places]
        return smaller

    def most_tokens(self, longest_reference: int) -> int:
        """Tokens after which an answer is cut: twice those of the longest reference."""
        return 2 * longest_reference

    @property
    def all_measures(self) -> tuple[Measure, ...]:
        """The measures of the loss, and the task's own."""
        return (LOSS, BITS, *self.measures)

    @property
    def sha256(self) -> str:
        """SHA-256 of every question and reference."""
        asked = [[item.id, item.instruction, item.input, item.reference] for item in self.items]
        return hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode()).hexdigest()


def length(output: Output, reference: str) -> tuple[float, float]:
    """The parts of LENGTH: characters of the answer, of the reference."""
    return len(output.text), len(reference)
