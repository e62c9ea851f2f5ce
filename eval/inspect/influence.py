"""The influence of training documents on test documents, as figures: `lowrank inspect data`.

    effect[z, i] = nats that test document z would have had more, to first order, without training document i

How it is computed: `train.influence`, which takes the gradients.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..metrics.metric import Array


@dataclass(frozen=True)
class Document:
    """A document: its id, its supervised tokens, and their text."""

    id: str
    tokens: int
    text: str


@dataclass(frozen=True)
class Effect:
    """Training document `place`, and the nats that a test document would have had more without it."""

    place: int
    nats: float


@dataclass(frozen=True)
class DataXray:
    """Every effect of a run's training documents, M test documents and N training documents.

    run          the folder;  base: its path;  method: "adam" or "sgd" (`train.influence.effects`)
    steps        that the run took;  checkpoints: the steps of each at which gradients were taken
    train, test  the documents;  losses: nats of each test document with the hat
    effect       [M, N];  own [N]: self-influence, the nats that a document taught of itself
    top          how many documents of each side are shown
    """

    run: str
    base: str
    method: str
    steps: int
    checkpoints: tuple[int, ...]
    train: tuple[Document, ...]
    test: tuple[Document, ...]
    losses: tuple[float, ...]
    effect: Array
    own: Array
    top: int

    def helped(self, test: int) -> list[Effect]:
        """The documents without which a test document's loss would have been higher, the most first; at most `top`."""
        order = np.argsort(-self.effect[test], kind="stable")[: self.top]
        return [Effect(int(place), float(self.effect[test, place])) for place in order if self.effect[test, place] > 0]

    def hurt(self, test: int) -> list[Effect]:
        """Those without which it would have been lower."""
        order = np.argsort(self.effect[test], kind="stable")[: self.top]
        return [Effect(int(place), float(self.effect[test, place])) for place in order if self.effect[test, place] < 0]

    def strongest(self) -> list[Effect]:
        """The training documents with the largest self-influence, at most `top`."""
        order = np.argsort(-self.own, kind="stable")[: self.top]
        return [Effect(int(place), float(self.own[place])) for place in order]

    def to_json(self) -> dict[str, Any]:
        """Every figure, without the texts."""
        return {
            "run": self.run,
            "base": self.base,
            "method": self.method,
            "steps": self.steps,
            "checkpoints": list(self.checkpoints),
            "train": [
                {"id": document.id, "tokens": document.tokens, "self_influence": own}
                for document, own in zip(self.train, self.own.tolist(), strict=True)
            ],
            "test": [
                {"id": document.id, "tokens": document.tokens, "nats": nats, "effect": row}
                for document, nats, row in zip(self.test, self.losses, self.effect.tolist(), strict=True)
            ],
        }
