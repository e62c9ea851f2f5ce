"""The cost of an output head in fewer bits: nats a token on documents that the embedded base has not seen, paired.

    python -m lowrank.workflows.head_loss [HAT]

The base in 4 bits, with a hat on it if one is named, reads DOCUMENTS documents with its head as it is and in each
format; a line of JSON a format.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ..adapters import use_adapter
from ..adapters.files import load_adapter
from ..bench.rows import Row
from ..checkpoints.embedded import EMBEDDED, base_folder
from ..checkpoints.head import HEADS
from ..checkpoints.load import load, load_tokenizer
from ..data.documents.document import make_documents
from ..data.encoding.batching import encode_all
from ..eval.metrics.bootstrap import paired_interval
from ..eval.metrics.metric import Measure
from ..eval.metrics.perplexity import completion_losses
from ..kernels.weights.quantized_weight import expected_bytes

DOCUMENTS, SEED = 100, 1007  # unseen ones, and the seed that they are made of
NATS = Measure("nats", "nats a token", better="lower", unit="nats")


def compare(adapter: Path | None = None, documents: int = DOCUMENTS) -> Iterator[Row]:
    """A row a format: bytes of the head, nats a token with it, and the difference from float32's with its interval.

    hat  a folder of one for the embedded base, or None
    """
    tokenizer = load_tokenizer(base_folder(EMBEDDED))
    entries = make_documents(documents, seed=SEED, split="test")
    examples, _ = encode_all([entry.conversation for entry in entries], tokenizer, "alpaca", 512)
    tokens = [example.supervised for example in examples]
    before = None
    for head in (None, *HEADS):
        model = load(EMBEDDED, "nf4-dq", torch.float32, head=head)
        if adapter is not None:
            load_adapter(model, "hat", adapter)
            use_adapter(model, "hat")
        nats = np.column_stack([completion_losses(model, examples), tokens])
        before = nats if before is None else before
        found = paired_interval(NATS, before, nats)
        yield {
            "head": head or "fp32",
            "bytes": expected_bytes((model.config.vocab_size, model.config.dim), head or "fp32"),
            "nats": round(NATS.value(nats), 5),
            "difference": round(found.difference, 5),
            "low": round(found.low, 5),
            "high": round(found.high, 5),
            "documents": documents,
        }


if __name__ == "__main__":
    for row in compare(Path(sys.argv[1]) if sys.argv[1:] else None):
        print(json.dumps(row))
