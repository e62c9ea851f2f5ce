"""Documents that the embedded base has not seen, and what a change of the base costs on them, paired."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..adapters import use_adapter
from ..adapters.files import load_adapter
from ..bench.rows import Row
from ..checkpoints.embedded import EMBEDDED, base_folder
from ..checkpoints.load import load, load_tokenizer
from ..data.documents.document import make_documents
from ..data.encoding.batching import Example, encode_all
from ..eval.metrics.bootstrap import paired_interval
from ..eval.metrics.metric import Array, Measure
from ..model.llama import Llama

DOCUMENTS, SEED = 100, 1007  # unseen ones, and the seed that they are made of
NATS = Measure("nats", "nats a token", better="lower", unit="nats")


def unseen_examples(documents: int = DOCUMENTS) -> list[Example]:
    """The documents as the embedded base reads them."""
    conversations = [entry.conversation for entry in make_documents(documents, seed=SEED, split="test")]
    examples, _ = encode_all(conversations, load_tokenizer(base_folder(EMBEDDED)), "alpaca", 512)
    return examples


def embedded_base(adapter: Path | None, head: str | None = None) -> Llama:
    """The embedded base in 4 bits, computing in float32, with a hat if one is named and its head in `head`."""
    model = load(EMBEDDED, "nf4-dq", torch.float32, head=head)
    if adapter is not None:
        load_adapter(model, "hat", adapter)
        use_adapter(model, "hat")
    return model


class PairedCost:
    """Nats a token of a setting, and the difference from the first setting's with its interval."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._tokens = [example.supervised for example in examples]
        self._before: Array | None = None

    def figures(self, nats: Sequence[float]) -> Row:
        """The figures of a row; nats: of each example's completion."""
        table = np.column_stack([nats, self._tokens])
        self._before = table if self._before is None else self._before
        interval = paired_interval(NATS, self._before, table)
        return {
            "nats": round(NATS.value(table), 5),
            "difference": round(interval.difference, 5),
            "low": round(interval.low, 5),
            "high": round(interval.high, 5),
            "documents": len(self._tokens),
        }
