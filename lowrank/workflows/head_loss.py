"""The cost of an output head in fewer bits: nats a token on documents that the embedded base has not seen, paired.

    python -m lowrank.workflows.head_loss [HAT]

The base in 4 bits, with a hat on it if one is named, reads DOCUMENTS documents with its head as it is and in each
format; a line of JSON a format.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from ..bench.rows import Row
from ..checkpoints.head import HEADS
from ..eval.metrics.perplexity import completion_losses
from ..kernels.weights.quantized_weight import expected_bytes
from .unseen_loss import DOCUMENTS, PairedCost, embedded_base, unseen_examples


def compare(adapter: Path | None = None, documents: int = DOCUMENTS) -> Iterator[Row]:
    """A row a format: bytes of the head, nats a token with it, and the difference from float32's with its interval.

    adapter  the folder of a hat for the embedded base, or None
    """
    examples = unseen_examples(documents)
    cost = PairedCost(examples)
    for head in (None, *HEADS):
        model = embedded_base(adapter, head)
        size = expected_bytes((model.config.vocab_size, model.config.dim), head or "fp32")
        yield {"head": head or "fp32", "bytes": size, **cost.figures(completion_losses(model, examples))}


if __name__ == "__main__":
    for row in compare(Path(sys.argv[1]) if sys.argv[1:] else None):
        print(json.dumps(row))
